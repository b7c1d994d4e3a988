// ops.cu: one plain kernel for each operation of a program that is not a product
// of matrices. Rows are tokens; a value of width n holds token t at [t*n, t*n+n).
#include "cudalite.h"

// y = a + b, n elements
KERNEL(add, 256, const float *a, const float *b, float *y, int n) {
	pdl_wait();
	int i = blockIdx.x * 256 + threadIdx.x;
	if (i < n) y[i] = a[i] + b[i];
}

// y = factor * x
KERNEL(scale, 256, const float *x, float *y, float factor, int n) {
	pdl_wait();
	int i = blockIdx.x * 256 + threadIdx.x;
	if (i < n) y[i] = factor * x[i];
}
