// tamper.cu: graph.Tamper, which spoils rows on purpose so that the parity gate can
// be watched rejecting them. Real programs never hold it. The definition is
// backend.Spoil.
// targets: sm_80 sm_90
#include "cudalite.h"

enum { REPLACE, MULTIPLY, DRIFT, HALF, INT8, HEADS };

DEV void spoil_int8(const float *x, float *y, int n) {
	float top = 0;
	for (int i = 0; i < n; i++) top = cl_fmax(top, cl_fabs(x[i]));
	float s = top / 127.f;
	for (int i = 0; i < n; i++) y[i] = top == 0 ? x[i] : s * cl_rint(x[i] / s);
}

// Rows of positions below from are copied; with active 0 all are. x and y are
// different memory. Grid: one block a token.
KERNEL(tamper, 256, const float *x, const float *alt, float *y, const int *pos, const int *order, int width, int how, float amount, int group, int from, int active) {
	pdl_launch();
	pdl_wait();
	int t = blockIdx.x, p = pos[t];
	x += (size_t)t * width, alt += (size_t)t * width, y += (size_t)t * width;
	if (!active || p < from) how = MULTIPLY, amount = 1.f;
	if (how == INT8) {
		for (int g = threadIdx.x * group; g < width; g += blockDim.x * group) spoil_int8(x + g, y + g, width - g < group ? width - g : group);
		return;
	}
	for (int i = threadIdx.x; i < width; i += blockDim.x) {
		float v = x[i];
		switch (how) {
		case REPLACE: v = alt[i]; break;
		case MULTIPLY: v = amount * v; break;
		case DRIFT: v = (1.f + amount * (float)p) * v; break;
		case HALF: v = h2f(f2h(amount * v)) / amount; break;
		case HEADS: v = x[order[i / group] * group + i % group]; break;
		}
		y[i] = v;
	}
}
