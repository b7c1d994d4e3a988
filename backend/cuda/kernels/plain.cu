// plain.cu: a product of matrices and attention for every format and shape, written
// to be read. Faster kernels stand beside them; these run where none applies.
#include "quant.h"

static const int TOKENS = 4; // that share one decoding of a weight

// One warp a row of w, TOKENS tokens at a time.
template <class F> DEV void row_product(const u8 *w, int k, const float *x, const float *bias, float *y, int n, int tokens) {
	int lane = threadIdx.x % 32, row = blockIdx.x * 4 + threadIdx.x / 32;
	if (row >= n) return; // the whole warp
	const u8 *from = w + (size_t)row * F::row_bytes(k);
	for (int t0 = 0; t0 < tokens; t0 += TOKENS) {
		float sum[TOKENS];
#pragma unroll
		for (int t = 0; t < TOKENS; t++) sum[t] = 0;
		for (int b = lane; b < k / 32; b += 32) {
			float v[32];
			F::dequant32(from, k, b, v);
#pragma unroll
			for (int t = 0; t < TOKENS; t++) {
				if (t0 + t >= tokens) break;
				const float *in = x + (size_t)(t0 + t) * k + b * 32;
#pragma unroll
				for (int i = 0; i < 32; i++) sum[t] += v[i] * in[i];
			}
		}
#pragma unroll
		for (int t = 0; t < TOKENS; t++) {
			if (t0 + t >= tokens) break;
			float s = warp_sum(sum[t]);
			if (lane == 0) y[(size_t)(t0 + t) * n + row] = s + (bias ? bias[row] : 0.f);
		}
	}
}

// y (tokens, n) = x (tokens, k) times w, n packed rows of k weights of the type,
// plus bias if there is one. Grid: four rows a block of 128.
KERNEL(matmul_plain, 128, const u8 *w, int type, int n, int k, const float *x, const float *bias, float *y, int tokens) {
	pdl_launch();
	pdl_wait();
	switch (type) {
	case F32::TYPE: row_product<F32>(w, k, x, bias, y, n, tokens); break;
	case F16::TYPE: row_product<F16>(w, k, x, bias, y, n, tokens); break;
	case BF16::TYPE: row_product<BF16>(w, k, x, bias, y, n, tokens); break;
	case Q4_0::TYPE: row_product<Q4_0>(w, k, x, bias, y, n, tokens); break;
	case Q4_1::TYPE: row_product<Q4_1>(w, k, x, bias, y, n, tokens); break;
	case Q5_0::TYPE: row_product<Q5_0>(w, k, x, bias, y, n, tokens); break;
	case Q5_1::TYPE: row_product<Q5_1>(w, k, x, bias, y, n, tokens); break;
	case Q8_0::TYPE: row_product<Q8_0>(w, k, x, bias, y, n, tokens); break;
	case Q2_K::TYPE: row_product<Q2_K>(w, k, x, bias, y, n, tokens); break;
	case Q3_K::TYPE: row_product<Q3_K>(w, k, x, bias, y, n, tokens); break;
	case Q4_K::TYPE: row_product<Q4_K>(w, k, x, bias, y, n, tokens); break;
	case Q5_K::TYPE: row_product<Q5_K>(w, k, x, bias, y, n, tokens); break;
	case Q6_K::TYPE: row_product<Q6_K>(w, k, x, bias, y, n, tokens); break;
	case IQ4_NL::TYPE: row_product<IQ4_NL>(w, k, x, bias, y, n, tokens); break;
	case IQ4_XS::TYPE: row_product<IQ4_XS>(w, k, x, bias, y, n, tokens); break;
	}
}

DEV float kv_float(u16 h) { return h2f(h); }
DEV float kv_float(float f) { return f; }

static const int BLOCK = 128;    // threads, and positions in one turn
static const int MAX_HEAD = 512; // of which each thread sums MAX_HEAD / BLOCK elements

// Attention of one head of one token over the cache: scores of BLOCK positions at a
// time, one a thread, and a running softmax in float32.
template <class T> DEV void attend(const float *q, float *out, const int *pos, const u64 *kv, const int *cap, u64 layer, int kvHeads, int head, int window, float scale, float softCap) {
	__shared__ float query[MAX_HEAD], weight[BLOCK], part[BLOCK / 32];
	pdl_launch();
	pdl_wait();
	int h = blockIdx.x, heads = gridDim.x, t = blockIdx.y, tid = threadIdx.x, c = cap[t];
	// Positions are right but for faults, where attention sees what there is.
	int end = pos[t] + 1;
	end = end < 1 ? 1 : end > c ? c : end;
	int start = window > 0 && end > window ? end - window : 0;
	size_t at = ((size_t)t * heads + h) * head;
	int kvHead = h / (heads / kvHeads);
	const T *keys = (const T *)(kv[t] + layer * c) + (size_t)kvHead * c * head, *values = keys + (size_t)kvHeads * c * head;
	for (int i = tid; i < head; i += BLOCK) query[i] = q[at + i];
	float sum[MAX_HEAD / BLOCK], top = -3.4e38f, total = 0;
#pragma unroll
	for (int i = 0; i < MAX_HEAD / BLOCK; i++) sum[i] = 0;
	for (int p0 = start; p0 < end; p0 += BLOCK) {
		__syncthreads();
		float s = -3.4e38f;
		if (p0 + tid < end) {
			const T *key = keys + (size_t)(p0 + tid) * head;
			s = 0;
			for (int i = 0; i < head; i++) s += query[i] * kv_float(key[i]);
			s *= scale;
			if (softCap > 0) s = softCap * cl_tanh(s / softCap);
		}
		float m = warp_max(s);
		if (tid % 32 == 0) part[tid / 32] = m;
		__syncthreads();
		float newTop = top;
#pragma unroll
		for (int i = 0; i < BLOCK / 32; i++) newTop = cl_fmax(newTop, part[i]);
		float shrink = cl_exp(top - newTop);
		top = newTop;
		weight[tid] = p0 + tid < end ? cl_exp(s - top) : 0.f;
		__syncthreads();
		int n = end - p0 < BLOCK ? end - p0 : BLOCK;
		total *= shrink;
		for (int j = 0; j < n; j++) total += weight[j];
#pragma unroll
		for (int i = 0; i < MAX_HEAD / BLOCK; i++) {
			int d = i * BLOCK + tid;
			if (d >= head) break;
			float a = sum[i] * shrink;
			for (int j = 0; j < n; j++) a += weight[j] * kv_float(values[(size_t)(p0 + j) * head + d]);
			sum[i] = a;
		}
	}
#pragma unroll
	for (int i = 0; i < MAX_HEAD / BLOCK; i++) {
		int d = i * BLOCK + tid;
		if (d < head) out[at + d] = sum[i] / total;
	}
}

// Grid: (heads, tokens). head is at most 512, layer the bytes that one position
// takes in all earlier layers, window 0 for none, softCap 0 for none.
KERNEL(attention_plain_f16, 128, const float *q, float *out, const int *pos, const u64 *kv, const int *cap, u64 layer, int kvHeads, int head, int window, float scale, float softCap) {
	attend<u16>(q, out, pos, kv, cap, layer, kvHeads, head, window, scale, softCap);
}
KERNEL(attention_plain_f32, 128, const float *q, float *out, const int *pos, const u64 *kv, const int *cap, u64 layer, int kvHeads, int head, int window, float scale, float softCap) {
	attend<float>(q, out, pos, kv, cap, layer, kvHeads, head, window, scale, softCap);
}
