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

	// What the columns n … n+3 get, whatever the row.
	struct Columns { float4 sw, bias; };
	__device__ __forceinline__ Columns columns(int n, int N) const {
		Columns c = {float4{1.f, 1.f, 1.f, 1.f}, float4{0.f, 0.f, 0.f, 0.f}};
		if (sw) c.sw = get(sw + n, n, N);
		if (bias) c.bias = get(bias + n, n, N);
		return c;
	}

	// the finished output of four columns from n on, of row t
	__device__ __forceinline__ void finish(int t, int n, float4 a, const Columns &c, int N) const {
		float s = sx ? sx[t] : 1.f;
		size_t at = (size_t)t * N + n;
		a = float4{a.x * s * c.sw.x + c.bias.x, a.y * s * c.sw.y + c.bias.y, a.z * s * c.sw.z + c.bias.z, a.w * s * c.sw.w + c.bias.w};
		if (residual) {
			float4 r = get(residual + at, n, N);
			a.x += r.x, a.y += r.y, a.z += r.z, a.w += r.w;
		}
		put(y + at, n, a, N);
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

	// The block's BM × BN sums, in shared memory with BN+PITCH numbers a row. A thread has
	// the same columns of every row that it takes.
	template <int BM, int BN, int NT> __device__ __forceinline__ void store(const float *sums, int bm, int bn, int T, int N) const {
		static_assert(NT * 4 % BN == 0 && BM % (NT * 4 / BN) == 0, "whole rows at a time");
		int n = bn + threadIdx.x * 4 % BN;
		if (n >= N) return;
		sums += threadIdx.x * 4 % BN;
		if (gridDim.z > 1) {
#pragma unroll 4
			for (int r = threadIdx.x * 4 / BN; r < BM; r += NT * 4 / BN)
				if (bm + r < T) put(part + ((size_t)blockIdx.z * T + bm + r) * N + n, n, *(const float4 *)(sums + r * (BN + PITCH)), N);
			return;
		}
		Columns c = columns(n, N);
#pragma unroll 4
		for (int r = threadIdx.x * 4 / BN; r < BM; r += NT * 4 / BN)
			if (bm + r < T) finish(bm + r, n, *(const float4 *)(sums + r * (BN + PITCH)), c, N);
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
