// gemm_quant.h: products of quantised weights with the rows of 9 to 64 tokens on tensor
// cores, the weights read once and made f16 in registers. The gemm_<format>.cu files
// instantiate it.
//
// A lane's 32 weights of a row (a group of quant.h) feed eight MMAs, four weights each:
// the columns of an MMA's B belong to lane/4, and which 16 numbers of the sum it takes
// is free as long as A takes the same. So step s of a unit of 128 numbers takes numbers
// 4s … 4s+3 of each of the unit's four groups, group t from the lanes with lane%4 = t,
// and weights never cross lanes. Of the activations, lane%4 = t then needs eight in a
// row of group t for two steps: a piece of 16 bytes.
//
// Weights become halves by byte permutation (0x64xx is 1024 + xx) and one fma with the
// group's scale and offset, divided by the row's scale (pow2_to_f16) and 8.
#pragma once
#include "dot.h"
#include "gemm.h"

// two halves 1024 + byte of bytes 0, 1 or 2, 3 of w, minus 1024 and c
DEV u32 byte_halves(u32 w, int pair, int c) { return hadd2(prmt(w, 0x64646464, pair ? 0x4342 : 0x4140), (0xe400u + c) * 0x10001u); }

DEV u32 both(float f) { return f2h2(f, f); }

// h[2i], h[2i+1] = bytes 4i … 4i+3 of w, less c, times s plus o, for words [from, to)
DEV void scaled_halves(u32 *h, const u32 *w, u32 flip, int c, u32 s, u32 o, int from, int to) {
#pragma unroll
	for (int i = from; i < to; i++) {
		h[2 * i] = hfma2(byte_halves(w[i] ^ flip, 0, c), s, o);
		h[2 * i + 1] = hfma2(byte_halves(w[i] ^ flip, 1, c), s, o);
	}
}

// The middle of the range of unsigned weights that have an offset.
template <class D> constexpr int middle_of() { return D::Format::TYPE == Q5_1::TYPE || D::Format::TYPE == Q5_K::TYPE ? 16 : 8; }

// The 32 weights of a lane as 16 pairs of halves, times up. Signed bytes lose their sign
// by the flip of the top bit. An offset is taken about the middle of the range, where
// it is small: it and the scale are rounded to f16.
template <class D> DEV void group_halves(u32 *h, const typename D::Weights &w, float up) {
	if constexpr (D::Format::TYPE == Q2_K::TYPE) {
		u32 s = both(w.d * up);
		float m = -w.dmin * up;
		scaled_halves(h, w.w, 0, 0, s, both(m * (float)(w.m0 & 15)), 0, 4);
		scaled_halves(h, w.w, 0, 0, s, both(m * (float)(w.m1 & 15)), 4, 8);
	} else if constexpr (__is_base_of(DotHalves, D)) {
		scaled_halves(h, w.w, 0x80808080, 128, both(w.s0 * up), 0, 0, 4);
		scaled_halves(h, w.w, 0x80808080, 128, both(w.s1 * up), 0, 4, 8);
	} else if constexpr (__is_base_of(DotNib1, D)) {
		constexpr int c = middle_of<D>();
		scaled_halves(h, w.w, 0, c, both(w.s * up), both((w.s * (float)c - w.m) * up), 0, 8);
	} else {
		scaled_halves(h, w.w, 0x80808080, 128, both(w.s * up), 0, 0, 8);
	}
}

// BT tokens × 64 rows by 8 warps: 4 × 16 rows, 2 over alternate units of 128 numbers.
// The activations of SK numbers lie in a stage of shared memory, two stages.
template <class D, int BT> DEV void gemm_quant(const u16 *__restrict__ x, const u8 *__restrict__ w, const Epilogue &ep, int T, int N, int k, int K) {
	constexpr int NT = 256, BN = 64, R = 2, MT = BT / 16, SK = BT <= 32 ? 512 : 256, UNITS = SK / 256;
	constexpr int ROW = SK * 2 + 64, STAGE = BT * ROW, PIECES = BT * SK / 8 / NT;
	SHARED_DYN(smem);
	u32 s0 = smem_u32(smem);
	int tid = threadIdx.x, lane = tid & 31, wid = tid >> 5, g = lane >> 2, t4 = lane & 3, part = wid >> 2;
	int bn = blockIdx.x * BN, row0 = bn + (wid & 3) * 16 + g, groups = k / 32, stage0, stages;
	k_range((K + SK - 1) / SK, stage0, stages);
	int unit = stage0 * (SK / 128) + part, last = (stage0 + stages) * (SK / 128);

	const u8 *row[R];
	float up[R];
#pragma unroll
	for (int r = 0; r < R; r++) {
		int n = row0 + r * 8 < N ? row0 + r * 8 : N - 1;
		row[r] = w + (size_t)n * D::Format::row_bytes(k);
		up[r] = ep.sw ? 0.125f / ep.sw[n] : 0.125f; // exact
	}
	typename D::Raw raw[R];
	auto fetch = [&](int u) INLINE_LAMBDA {
		int b = u * 4 + t4 < groups ? u * 4 + t4 : groups - 1;
#pragma unroll
		for (int r = 0; r < R; r++) D::load(raw[r], row[r], k, b);
	};
	fetch(unit);

	// Piece p of a row goes to (p%4)·4 + p/4 of its unit: four lanes then read 64 bytes in a row.
	auto load = [&](int s) INLINE_LAMBDA {
#pragma unroll
		for (int i = 0; i < PIECES; i++) {
			int e = tid + i * NT, t = e / (SK / 8), p = e % (SK / 8), at = (stage0 + s) * SK + p * 8;
			u32 dst = (s & 1) * STAGE + t * ROW + (p >> 4) * 256 + ((p & 3) << 6) + ((p >> 2 & 3) << 4);
			t = t < T ? t : T - 1;
			if (at < K)
				cp_async16(s0 + dst, x + (size_t)t * K + at);
			else
				*(uint4 *)(smem + dst) = uint4{0, 0, 0, 0};
		}
	};
	pdl_launch();
	pdl_wait();
	load(0);
	cp_async_commit();

	float acc[MT][R][4];
#pragma unroll
	for (int m = 0; m < MT; m++)
#pragma unroll
		for (int r = 0; r < R; r++)
#pragma unroll
			for (int e = 0; e < 4; e++) acc[m][r][e] = 0.f;
	for (int s = 0; s < stages; s++) {
		if (s + 1 < stages) load(s + 1);
		cp_async_commit();
		cp_async_wait<1>();
		__syncthreads();
		const u8 *at = smem + (s & 1) * STAGE + part * 256 + g * ROW + t4 * 16;
#pragma unroll
		for (int v = 0; v < UNITS; v++, unit += 2, at += 512) {
			u32 h[R][16];
			bool live = unit * 4 + t4 < groups;
#pragma unroll
			for (int r = 0; r < R; r++) {
				typename D::Weights q;
				D::decode(q, raw[r], unit * 4 + t4 < groups ? unit * 4 + t4 : groups - 1);
				group_halves<D>(h[r], q, up[r]);
				if (!live)
#pragma unroll
					for (int i = 0; i < 16; i++) h[r][i] = 0;
			}
			if (unit + 2 < last) fetch(unit + 2);
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
		__syncthreads(); // the stage is free
	}
	cp_async_wait<0>();

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

// Grid (⌈N/64⌉, 1, splits), 256 threads; T at most BT; k: numbers of a row, K: of a row of x.
// Shared memory: 2 · BT · (2 · min(512, 16384/BT) + 64) bytes. w: packed rows; sw: their
// scales, or null. Two blocks an SM up to 32 tokens, which costs a few spilled registers
// there; with 64 tokens it would cost many.
#define GEMM_QUANT(name, D, BT)                                                                                                          \
	KERNEL_MIN(name, 256, BT <= 32 ? 2 : 1, const u16 *x, const u8 *w, float *y, float *part, const float *sx, const float *sw, const float *bias, const float *residual, int T, int N, int k, int K) { \
		gemm_quant<D, BT>(x, w, GEMM_EPILOGUE, T, N, k, K);                                                                              \
	}
#define GEMM_QUANTS(format, D)           \
	GEMM_QUANT(gemm_##format##_16, D, 16) \
	GEMM_QUANT(gemm_##format##_32, D, 32) \
	GEMM_QUANT(gemm_##format##_64, D, 64)
