// gemm.h: what the GEMM kernels share: how blocks are dealt out and what happens to a sum.
#pragma once
#include "cudalite.h"

// The power of two that brings a maximum into [2^14, 2^15), below f16's 65504 and as far
// from its subnormals as can be; and its exact inverse. 1 for 0, NaN, infinity and
// magnitudes whose factor would not be a normal float.
DEV float pow2_to_f16(float amax, float &inverse) {
	int e = (int)(f2u_bits(amax) >> 23 & 255);
	if (e < 20 || e > 250) {
		inverse = 1.f;
		return 1.f;
	}
	inverse = u2f_bits((u32)(e - 14) << 23);
	return u2f_bits((u32)(268 - e) << 23);
}

// What becomes of a sum over K: with splits it is stored as it is; else scaled by the
// factors of its token and (if any) weight row, plus bias, plus the residual.
struct Epilogue {
	float *y, *part;       // (T, N); (gridDim.z, T, N)
	const float *sx, *sw;  // (T), (N); or null
	const float *bias;     // (N) or null
	const float *residual; // (T, N) or null; may be y

	// the finished output of four columns from n on, of row t
	__device__ __forceinline__ void finish(int t, int n, float4 a, int N) const {
		float s = sx ? sx[t] : 1.f, v[4] = {a.x * s, a.y * s, a.z * s, a.w * s};
		size_t at = (size_t)t * N + n;
		if (sw) apply(v, sw + n, n, N, true);
		if (bias) apply(v, bias + n, n, N, false);
		if (residual) apply(v, residual + at, n, N, false);
		put(y + at, n, float4{v[0], v[1], v[2], v[3]}, N);
	}

	// v = v + p or v * p
	__device__ __forceinline__ static void apply(float *v, const float *p, int n, int N, bool times) {
		float4 f = get(p, n, N);
		float x[4] = {f.x, f.y, f.z, f.w};
#pragma unroll
		for (int i = 0; i < 4; i++) v[i] = times ? v[i] * x[i] : v[i] + x[i];
	}

	// Rows of N numbers begin at a 16-byte boundary only if N is a multiple of 4.
	__device__ __forceinline__ static float4 get(const float *p, int n, int N) {
		if (N % 4 == 0) return *(const float4 *)p;
		return float4{p[0], n + 1 < N ? p[1] : 0.f, n + 2 < N ? p[2] : 0.f, n + 3 < N ? p[3] : 0.f};
	}
	__device__ __forceinline__ static void put(float *p, int n, float4 v, int N) {
		if (N % 4 == 0) {
			*(float4 *)p = v;
			return;
		}
		p[0] = v.x;
		if (n + 1 < N) p[1] = v.y;
		if (n + 2 < N) p[2] = v.z;
		if (n + 3 < N) p[3] = v.w;
	}

	// The block's BM × BN sums, in shared memory with BN+PITCH numbers a row.
	template <int BM, int BN, int NT> __device__ __forceinline__ void store(const float *sums, int bm, int bn, int T, int N) const {
		for (int e = threadIdx.x * 4; e < BM * BN; e += NT * 4) {
			int r = e / BN, t = bm + r, n = bn + e % BN;
			if (t >= T || n >= N) continue;
			float4 v = *(const float4 *)(sums + r * (BN + PITCH) + e % BN);
			if (gridDim.z > 1)
				put(part + ((size_t)blockIdx.z * T + t) * N + n, n, v, N);
			else
				finish(t, n, v, N);
		}
	}
	static const int PITCH = 8; // the rows of a fragment then lie in different banks
};

#define GEMM_ARGS const u16 *x, const u16 *w, float *y, float *part, const float *sx, const float *sw, const float *bias, const float *residual, int T, int N, int K
#define GEMM_EPILOGUE Epilogue{y, part, sx, sw, bias, residual}

// Block b of tm × tn tiles: down groups of 8 tiles of tokens, so that blocks that run
// together share rows of both operands in the L2 cache.
DEV void tile_of(int b, int tm, int tn, int &m, int &n) {
	int g = b / (8 * tn), rows = tm - g * 8 < 8 ? tm - g * 8 : 8, in = b - g * 8 * tn;
	m = g * 8 + in % rows;
	n = in / rows;
}

// The steps [k0, k0+n) of this block's split of steps.
DEV void k_range(int steps, int &k0, int &n) {
	k0 = (int)((long long)steps * blockIdx.z / gridDim.z);
	n = (int)((long long)steps * (blockIdx.z + 1) / gridDim.z) - k0;
}
