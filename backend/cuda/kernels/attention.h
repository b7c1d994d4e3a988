// attention.h: what every attention kernel shares. Scores are kept in the base-2
// logarithm: exp(s) = 2^(s·log2 e), and ex2 is the hardware's own instruction.
#pragma once
#include "cudalite.h"

constexpr float LOG2E = 1.4426950408889634f;
constexpr float NEG_INF = -__builtin_inff();
// Softmax weights are multiplied by 2^P_SHIFT before they are rounded to f16, so that a
// weight of 2^-30 of the largest is still a number there; the sum carries the same factor.
constexpr float P_SHIFT = 14.f;

// What a launch says about one layer's cache; per token come kv[t] and cap[t].
struct Cache {
	u64 unit;     // bytes per position of all earlier layers' keys and values
	int heads;    // key/value heads
	float scale;  // of q·k
	float cap;    // soft-cap c·tanh(s/c); 0 for none
	int window;   // positions a token sees, itself included; 0 for all
};

// Keys of one head: cap rows of D elements. The values follow all heads' keys.
template <class E> DEV const E *cache_keys(const Cache &c, u64 kv, int cap, int head, int D) {
	return (const E *)(kv + c.unit * (u64)cap) + (u64)head * cap * D;
}
template <class E> DEV const E *cache_values(const Cache &c, u64 kv, int cap, int head, int D) {
	return cache_keys<E>(c, kv, cap, c.heads + head, D);
}

// q·k (already times unscale) to a base-2 score
DEV float score(const Cache &c, float qk) {
	if (c.cap != 0.f) return c.cap * LOG2E * cl_tanh(qk * (c.scale / c.cap));
	return qk * (c.scale * LOG2E);
}

// The power of two that brings a maximum into [64, 128), clear of f16's overflow and of
// its subnormals for the low halves; and its inverse, exact. 1 for 0 and for NaN.
DEV float pow2_for(float amax, float &inverse) {
	u32 e = f2u_bits(amax) >> 23 & 255;
	if (e < 20 || e > 240) {
		inverse = 1.f;
		return 1.f;
	}
	inverse = u2f_bits((e - 6) << 23);
	return u2f_bits((260 - e) << 23);
}

// 8 floats at a 16-byte boundary as packed halves
DEV uint4 halves8(const float *p) {
	float4 a = *(const float4 *)p, b = *(const float4 *)(p + 4);
	return uint4{f2h2(a.x, a.y), f2h2(a.z, a.w), f2h2(b.x, b.y), f2h2(b.z, b.w)};
}

// whether it holds for all lanes of the warp
DEV bool warp_all(bool holds) {
	int v = holds;
#pragma unroll
	for (int m = 16; m; m >>= 1) v &= shfl_xor_i(v, m);
	return v;
}

// a, b as packed halves and what their rounding lost
DEV void split_h2(float a, float b, u32 &hi, u32 &lo) {
	hi = f2h2(a, b);
	lo = f2h2(a - h2f((u16)hi), b - h2f((u16)(hi >> 16)));
}

// Split i of the positions [first, len): whole multiples of 16, at least least. Returns the
// number of splits that have positions.
DEV int split_range(int first, int len, int splits, int least, int i, int &from, int &to) {
	int n = len - first, chunk = (n + splits - 1) / splits;
	if (chunk < least) chunk = least;
	chunk = (chunk + 15) & ~15;
	from = first + i * chunk;
	to = from + chunk < len ? from + chunk : len;
	return (n + chunk - 1) / chunk;
}
