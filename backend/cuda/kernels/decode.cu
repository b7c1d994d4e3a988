// decode.cu: what lies between the products of a decode step, in as few kernels as
// its dependences allow.
// targets: sm_80 sm_90
#include "rope.h"

DEV void put(u16 *to, float v) { *to = f2h(v); }
DEV void put(float *to, float v) { *to = v; }

// One warp a head: normalised if norm is given, rotated if n is not 0, written to out.
template <class T> DEV void head_out(const float *x, const float *norm, float eps, int pos, const u64 *freq, int n, int head, int interleaved, float magnitude, T *out) {
	int lane = threadIdx.x & 31;
	float scale = 1.f;
	if (norm) {
		float s = 0.f;
		for (int i = lane; i < head; i += 32) s += x[i] * x[i];
		scale = cl_rsqrt(warp_sum(s) / (float)head + eps);
	}
	for (int i = lane; i < n; i += 32) {
		int first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + n;
		float a = x[first], b = x[second];
		if (norm) a *= scale * norm[first], b *= scale * norm[second];
		rope_pair(freq[i], pos, magnitude, &a, &b);
		put(out + first, a);
		put(out + second, b);
	}
	for (int i = 2 * n + lane; i < head; i += 32) put(out + i, norm ? x[i] * (scale * norm[i]) : x[i]);
}

// rope_store: queries, keys and values of a layer from the products to where attention
// reads them, one warp a head. Grid: (ceil((heads + 2 kvHeads) / 4), tokens); block: 128.
//
//	q k v       (tokens, heads·head), (tokens, kvHeads·head) twice, float32
//	qOut        (tokens, heads·head) float32: queries, rotated; may be q
//	qNorm kNorm (head) weights of an RMSNorm of each head before the rotation, or null
//	eps         of the norms
//	ropePos     (tokens) position that decides the angle
//	freq        (n) round(inverse frequency / 2π · 2^64), see rope.h
//	n           pairs that are rotated: 0 … head/2; the other elements stay
//	interleaved pairs are (2i, 2i+1), else (i, i+n)
//	magnitude   of the rotation
//	pos kv cap  (tokens) position, address of the cache, its capacity in positions
//	layer       bytes that one position takes in all earlier layers
//
// The cache of a layer is (kvHeads, cap, head) keys, then as many values, of T. A
// position outside the cache stores nothing.
template <class T>
DEV void rope_store(const float *q, const float *k, const float *v, float *qOut, const float *qNorm, const float *kNorm, float eps, const int *ropePos, const u64 *freq, int n, int interleaved, float magnitude,
                    const int *pos, const u64 *kv, const int *cap, u64 layer, int heads, int kvHeads, int head) {
	pdl_launch();
	pdl_wait();
	int h = blockIdx.x * 4 + threadIdx.x / 32, t = blockIdx.y;
	if (h < heads) {
		size_t at = ((size_t)t * heads + h) * head;
		head_out(q + at, qNorm, eps, ropePos[t], freq, n, head, interleaved, magnitude, qOut + at);
		return;
	}
	h -= heads;
	int value = h >= kvHeads, p = pos[t], c = cap[t];
	if (value) h -= kvHeads;
	if (h >= kvHeads || p < 0 || p >= c) return; // the whole warp
	size_t at = ((size_t)t * kvHeads + h) * head;
	T *to = (T *)(kv[t] + layer * c) + ((size_t)(value ? kvHeads + h : h) * c + p) * head;
	if (value) head_out(v + at, (const float *)0, eps, 0, freq, 0, head, 0, 1.f, to);
	else head_out(k + at, kNorm, eps, ropePos[t], freq, n, head, interleaved, magnitude, to);
}

#define ROPE_STORE(name, T)                                                                                                                                                                     \
	KERNEL(name, 128, const float *q, const float *k, const float *v, float *qOut, const float *qNorm, const float *kNorm, float eps, const int *ropePos, const u64 *freq, int n, int interleaved, float magnitude, \
	       const int *pos, const u64 *kv, const int *cap, u64 layer, int heads, int kvHeads, int head) {                                                                                          \
		rope_store<T>(q, k, v, qOut, qNorm, kNorm, eps, ropePos, freq, n, interleaved, magnitude, pos, kv, cap, layer, heads, kvHeads, head);                                                      \
	}
ROPE_STORE(rope_store_f16, u16)
ROPE_STORE(rope_store_f32, float)

// norm_add: y = residual + x·rsqrt(mean x² + eps)·weight for each row: a norm after a
// sub-layer, as gemma has them. Grid: rows; block: 256.
//
//	x residual y (rows, width) float32, y may be residual or x; weight (width)
KERNEL(norm_add, 256, const float *x, const float *weight, float eps, const float *residual, float *y, int width) {
	__shared__ float part[8];
	pdl_launch();
	pdl_wait();
	size_t at = (size_t)blockIdx.x * width;
	float s = 0.f;
	for (int i = threadIdx.x; i < width; i += 256) s += x[at + i] * x[at + i];
	s = warp_sum(s);
	if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
	__syncthreads();
	s = 0.f;
	for (int i = 0; i < 8; i++) s += part[i];
	float scale = cl_rsqrt(s / (float)width + eps);
	for (int i = threadIdx.x; i < width; i += 256) y[at + i] = residual[at + i] + x[at + i] * (scale * weight[i]);
}
