// gemm_stage.h: gemm_quant.h for 9 to 32 tokens with the weights, too, in stages of shared
// memory: all rows of a stage are asked for at once, a stage or two ahead and before
// pdl_wait, and no registers wait for them. For formats of blocks of 256 weights.
#pragma once
#include "gemm_quant.h"

// Shelf is where a stage of 64 rows times 512 weights of a format lies. copy asks for it,
// as far as the rows and the sums go; at is its first weight. raw takes out a lane's group
// 4u + lane%4 of row r. Lanes that read together find their rows in different banks.
template <class D> struct Shelf;

template <> struct Shelf<DotQ4_K> {
	typedef DotQ4_K D;
	static const int HEAD = 64 * 256, BYTES = HEAD + 64 * 32;

	DEV void copy(u32 to, const u8 *w, int n, int N, int k, int at) {
		size_t stride = D::Format::row_bytes(k);
		int p = threadIdx.x & 15, r = threadIdx.x >> 4;
		const u8 *from = w + (n + r) * stride + (u32)(at / 2 + p * 16);
		if (at + p * 32 < k)
#pragma unroll
			for (int i = 0; i < 4; i++)
				if (n + r + 16 * i < N) cp_async16(to + (r + 16 * i) * 256 + ((p * 16) ^ ((r & 1) << 6)), from + 16 * i * stride);
		int j = threadIdx.x & 1;
		r = threadIdx.x >> 1;
		if (r < 64 && n + r < N && at + j * 256 < k) cp_async16(to + HEAD + r * 32 + j * 16, w + (n + r) * stride + (u32)(k / 2 + at / 16 + j * 16));
	}
	DEV void raw(D::Raw &v, const u8 *shelf, int r, int u) {
		v.q = *(const uint4 *)(shelf + r * 256 + ((u * 64 + (threadIdx.x & 3) * 16) ^ ((r & 1) << 6)));
		v.h = *(const uint4 *)(shelf + HEAD + r * 32 + (u >> 1) * 16);
	}
};

template <> struct Shelf<DotQ6_K> {
	typedef DotQ6_K D;
	static const int TWO = 64 * 256, SCALES = TWO + 64 * 128, HEAD = SCALES + 64 * 32, BYTES = HEAD + 64 * 4;

	DEV void copy(u32 to, const u8 *w, int n, int N, int k, int at) {
		size_t stride = D::Format::row_bytes(k);
		int p = threadIdx.x & 15, r = threadIdx.x >> 4;
		const u8 *row = w + (n + r) * stride;
		if (at + p * 32 < k)
#pragma unroll
			for (int i = 0; i < 4; i++)
				if (n + r + 16 * i < N) {
					cp_async16(to + (r + 16 * i) * 256 + ((p * 16) ^ ((r & 1) << 6)), row + 16 * i * stride + (u32)(at / 2 + p * 16));
					cp_async8(to + TWO + (r + 16 * i) * 128 + ((p * 8) ^ ((r & 3) << 5)), row + 16 * i * stride + (u32)(k / 2 + at / 4 + p * 8));
				}
		int j = threadIdx.x & 1;
		r = threadIdx.x >> 1 & 63;
		if (n + r >= N || at + j * 256 >= k) return;
		row = w + (n + r) * stride + (u32)(k / 2 + k / 4);
		if (threadIdx.x < 128) cp_async16(to + SCALES + r * 32 + j * 16, row + (u32)(at / 16 + j * 16));
		else if (j == 0) cp_async4(to + HEAD + r * 4, row + (u32)(k / 16 + at / 128));
	}
	DEV void raw(D::Raw &v, const u8 *shelf, int r, int u) {
		int t4 = threadIdx.x & 3;
		v.q = *(const uint4 *)(shelf + r * 256 + ((u * 64 + t4 * 16) ^ ((r & 1) << 6)));
		v.t = *(const uint2 *)(shelf + TWO + r * 128 + ((u * 32 + t4 * 8) ^ ((r & 3) << 5)));
		v.s = *(const u16 *)(shelf + SCALES + r * 32 + u * 8 + t4 * 2);
		v.d = *(const u16 *)(shelf + HEAD + r * 4 + (u >> 1) * 2);
	}
};

// BT tokens × 64 rows by 8 warps as gemm_quant, S stages; k is a multiple of 256.
template <class D, int BT, int S> DEV void gemm_stage(const u16 *__restrict__ x, const u8 *__restrict__ w, const Epilogue &ep, int T, int N, int k, int K) {
	constexpr int NT = 256, BN = 64, R = 2, MT = BT / 16, SK = 512;
	constexpr int ROW = SK * 2 + 64, STAGE = BT * ROW + Shelf<D>::BYTES, PIECES = BT * SK / 8 / NT;
	SHARED_DYN(smem);
	u32 s0 = smem_u32(smem);
	int tid = threadIdx.x, lane = tid & 31, wid = tid >> 5, g = lane >> 2, t4 = lane & 3, part = wid >> 2;
	int bn = blockIdx.x * BN, row0 = (wid & 3) * 16 + g, groups = k / 32, stage0, stages;
	k_range((K + SK - 1) / SK, stage0, stages);
	pdl_launch();
#pragma unroll
	for (int s = 0; s < S - 1; s++)
		if (s < stages) Shelf<D>::copy(s0 + s * STAGE + BT * ROW, w, bn, N, k, (stage0 + s) * SK);
	float up[R];
#pragma unroll
	for (int r = 0; r < R; r++) {
		int n = bn + row0 + r * 8 < N ? bn + row0 + r * 8 : N - 1;
		up[r] = ep.sw ? 0.125f / ep.sw[n] : 0.125f; // exact
	}
	// Piece p of a row goes to (p%4)·4 + p/4 of its unit: four lanes then read 64 bytes in a row.
	auto load = [&](int s, u32 to) INLINE_LAMBDA {
#pragma unroll
		for (int i = 0; i < PIECES; i++) {
			int e = tid + i * NT, t = e / (SK / 8), p = e % (SK / 8), at = (stage0 + s) * SK + p * 8;
			u32 dst = to + t * ROW + (p >> 4) * 256 + ((p & 3) << 6) + ((p >> 2 & 3) << 4);
			t = t < T ? t : T - 1;
			if (at < K) cp_async16(s0 + dst, x + (size_t)t * K + at);
			else *(uint4 *)(smem + dst) = uint4{0, 0, 0, 0};
		}
	};
	pdl_wait();
#pragma unroll
	for (int s = 0; s < S - 1; s++) {
		if (s < stages) load(s, s * STAGE);
		cp_async_commit();
	}

	float acc[MT][R][4];
#pragma unroll
	for (int m = 0; m < MT; m++)
#pragma unroll
		for (int r = 0; r < R; r++)
#pragma unroll
			for (int e = 0; e < 4; e++) acc[m][r][e] = 0.f;
	u32 from = 0, into = (S - 1) * STAGE;
#pragma unroll 1
	for (int s = 0; s < stages; s++) {
		cp_async_wait<S - 2>();
		__syncthreads(); // the stage is there, and the one before is free
		if (s + S - 1 < stages) {
			Shelf<D>::copy(s0 + into + BT * ROW, w, bn, N, k, (stage0 + s + S - 1) * SK);
			load(s + S - 1, into);
		}
		cp_async_commit();
		const u8 *shelf = smem + from + BT * ROW, *at = smem + from + part * 256 + g * ROW + t4 * 16;
#pragma unroll
		for (int v = 0; v < 2; v++, at += 512) {
			u32 h[R][16];
			int u = 2 * v + part;
			bool live = (stage0 + s) * (SK / 32) + u * 4 + t4 < groups;
#pragma unroll
			for (int r = 0; r < R; r++) {
				typename D::Raw raw;
				typename D::Weights q;
				Shelf<D>::raw(raw, shelf, row0 + r * 8, u);
				D::decode(q, raw, (u & 1) * 4 + t4);
				group_halves<D>(h[r], q, up[r]);
				if (!live)
#pragma unroll
					for (int i = 0; i < 16; i++) h[r][i] = 0;
			}
#pragma unroll
			for (int j = 0; j < 4; j++)
#pragma unroll
				for (int m = 0; m < MT; m++) {
					uint4 lo = *(const uint4 *)(at + m * 16 * ROW + j * 64), hi = *(const uint4 *)(at + (m * 16 + 8) * ROW + j * 64);
					u32 a0[4] = {lo.x, hi.x, lo.y, hi.y}, a1[4] = {lo.z, hi.z, lo.w, hi.w};
#pragma unroll
					for (int r = 0; r < R; r++) {
						mma_16816(acc[m][r], a0, h[r] + j * 4);
						mma_16816(acc[m][r], a1, h[r] + j * 4 + 2);
					}
				}
		}
		from = from == (S - 1) * STAGE ? 0 : from + STAGE;
		into = into == (S - 1) * STAGE ? 0 : into + STAGE;
	}
	cp_async_wait<0>();
	__syncthreads();

	// the sums of the second half of the warps, then the first half's added
	constexpr int LD = BN + Epilogue::PITCH;
	float *sums = (float *)smem;
#pragma unroll
	for (int half = 1; half >= 0; half--) {
		if (part == half)
#pragma unroll
			for (int m = 0; m < MT; m++)
#pragma unroll
				for (int r = 0; r < R; r++)
#pragma unroll
					for (int e = 0; e < 2; e++) {
						float2 *p = (float2 *)(sums + (m * 16 + g + e * 8) * LD + (wid & 3) * 16 + r * 8 + t4 * 2);
						float2 v = {acc[m][r][e * 2], acc[m][r][e * 2 + 1]};
						if (half == 0) v.x = (v.x + p->x) * 8.f, v.y = (v.y + p->y) * 8.f;
						*p = v;
					}
		__syncthreads();
	}
	ep.store<BT, BN, NT>(sums, 0, bn, T, N);
}

// Grid, block and arguments are those of GEMM_QUANT; k is a multiple of 256. Shared memory:
// S times a stage, BT · 1088 bytes of activations and Shelf's bytes of weights. BLOCKS fit
// on a multiprocessor.
#define GEMM_STAGE(name, D, BT, S, BLOCKS)                                                                                             \
	KERNEL_MIN(name, 256, BLOCKS, const u16 *x, const u8 *w, float *y, float *part, const float *sx, const float *sw, const float *bias, const float *residual, int T, int N, int k, int K) { \
		gemm_stage<D, BT, S>(x, w, GEMM_EPILOGUE, T, N, k, K);                                                                          \
	}
