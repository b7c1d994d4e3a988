// ops.cu: one plain kernel for each operation of a program that is not a product
// of matrices or attention. Rows are tokens; a value of width n holds token t at
// [t*n, t*n+n). Kernels that could be launched on any number of elements have
// 64-bit indices: 512 tokens of a vocabulary pass 2^26, not 2^31, but nothing here
// depends on that.
// targets: sm_80 sm_90
#include "rope.h"

// blocks of 256 cover n elements
#define INDEX ((size_t)blockIdx.x * 256 + threadIdx.x)

// the sum over the block of at most 32 warps; every thread gets it
DEV float block_sum(float v, float *shared) {
	v = warp_sum(v);
	if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
	__syncthreads();
	float s = 0;
	for (int i = 0; i < (int)blockDim.x / 32; i++) s += shared[i];
	__syncthreads();
	return s;
}

// y = a + b, n elements
KERNEL(add, 256, const float *a, const float *b, float *y, u64 n) {
	pdl_launch();
	pdl_wait();
	if (INDEX < n) y[INDEX] = a[INDEX] + b[INDEX];
}

// y = factor * x
KERNEL(scale, 256, const float *x, float *y, float factor, u64 n) {
	pdl_launch();
	pdl_wait();
	if (INDEX < n) y[INDEX] = factor * x[INDEX];
}

// y = act(gate) * up; act 0 is x*sigmoid(x), 1 the tanh form of GELU
KERNEL(gated_act, 256, const float *gate, const float *up, float *y, int act, u64 n) {
	pdl_launch();
	pdl_wait();
	if (INDEX >= n) return;
	float x = gate[INDEX];
	if (act == 0) x = x / (1.f + cl_exp(-x));
	else x = 0.5f * x * (1.f + cl_tanh(0.7978845608028654f * (x + 0.044715f * x * x * x)));
	y[INDEX] = x * up[INDEX];
}

// y = c*tanh(x/c), in place
KERNEL(soft_cap, 256, float *x, float c, u64 n) {
	pdl_launch();
	pdl_wait();
	if (INDEX < n) x[INDEX] = c * cl_tanh(x[INDEX] / c);
}

// y[t, :] += bias
KERNEL(add_bias, 256, float *y, const float *bias, int width, u64 n) {
	pdl_launch();
	pdl_wait();
	if (INDEX < n) y[INDEX] += bias[INDEX % width];
}

// Segments of the given length are brought to unit root mean square and multiplied
// by weight. Grid: one block a segment.
KERNEL(rms_norm, 256, const float *x, const float *weight, float *y, int segment, float eps) {
	__shared__ float shared[32];
	pdl_launch();
	pdl_wait();
	x += (size_t)blockIdx.x * segment, y += (size_t)blockIdx.x * segment;
	float s = 0;
	for (int i = threadIdx.x; i < segment; i += blockDim.x) s += x[i] * x[i];
	float f = 1.f / cl_sqrt(block_sum(s, shared) / (float)segment + eps);
	for (int i = threadIdx.x; i < segment; i += blockDim.x) y[i] = x[i] * f * weight[i];
}

// The first 2n elements of each head are rotated by pos*freq, the rest copied.
// interleaved: pairs (2i, 2i+1), else (i, i+n). Grid: (heads, tokens).
KERNEL(rope, 256, const float *x, float *y, const int *pos, const u64 *freq, int n, int head, int interleaved, float magnitude) {
	pdl_launch();
	pdl_wait();
	size_t at = ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * head;
	x += at, y += at;
	int p = pos[blockIdx.y];
	for (int i = threadIdx.x; i < n; i += blockDim.x) {
		int first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + n;
		float a = x[first], b = x[second];
		rope_pair(freq[i], p, magnitude, &a, &b);
		y[first] = a, y[second] = b;
	}
	for (int i = 2 * n + threadIdx.x; i < head; i += blockDim.x) y[i] = x[i];
}

DEV void kv_put(u16 *to, float x) { *to = f2h(x); }
DEV void kv_put(float *to, float x) { *to = x; }

// Keys and values of each token go to its sequence's cache, laid out (key heads, cap,
// head) and then the values, layer being the bytes that one position takes in all
// earlier layers. A position
// outside the cache stores nothing. Grid: (kv heads, tokens).
template <class T> DEV void store_kv(const float *k, const float *v, const int *pos, const u64 *kv, const int *cap, u64 layer, int head) {
	pdl_launch();
	pdl_wait();
	int t = blockIdx.y, p = pos[t], c = cap[t], heads = gridDim.x;
	if (p < 0 || p >= c) return;
	size_t from = ((size_t)t * heads + blockIdx.x) * head;
	T *keys = (T *)(kv[t] + layer * c) + ((size_t)blockIdx.x * c + p) * head, *values = keys + (size_t)heads * c * head;
	for (int i = threadIdx.x; i < head; i += blockDim.x) {
		kv_put(keys + i, k[from + i]);
		kv_put(values + i, v[from + i]);
	}
}
KERNEL(kv_store_f16, 256, const float *k, const float *v, const int *pos, const u64 *kv, const int *cap, u64 layer, int head) { store_kv<u16>(k, v, pos, kv, cap, layer, head); }
KERNEL(kv_store_f32, 256, const float *k, const float *v, const int *pos, const u64 *kv, const int *cap, u64 layer, int head) { store_kv<float>(k, v, pos, kv, cap, layer, head); }

// y[r, :] = x[rows[r], :]. Grid: one block a row.
KERNEL(gather_rows, 256, const float *x, const int *rows, float *y, int width) {
	pdl_launch();
	pdl_wait();
	x += (size_t)rows[blockIdx.x] * width, y += (size_t)blockIdx.x * width;
	for (int i = threadIdx.x; i < width; i += blockDim.x) y[i] = x[i];
}
