// stream.h: products of quantised matrices with the rows of one to eight tokens, as
// matvec.h has them, but with the weights on their way through shared memory and the
// multiplications on tensor cores (mma.sync m16n8k32 of bytes, exact).
//
// Why. A product of one token is short: 2 to 15 µs, of which the memory works for the
// half. What matvec.h keeps in registers until it is used leaves no room for a second
// kernel on a multiprocessor, so the next one's loads begin when this one has ended.
// Here a block takes half of the registers and less than half of the shared memory: the
// next kernel's block starts beside this one, fills its rings before pdl_wait, and has
// its first 70 KB a multiprocessor when its input is there.
//
// How the work lies. A tile is 16 rows of the block (in a pair: 8 of gate, 8 of up); a
// step is a tile times 256 weights. The steps of all tiles, in one sequence, are cut into
// equal runs, one a warp. Each warp has a ring of stages of its own, so no warp waits for
// another before the end, where the sums are added in the order of the warps.
//
// How it multiplies. Lane 4g+i of a warp holds pieces (32 weights) i of rows g and g+8. In
// an MMA it gives two quartets of each row as A. B has zeros but where column n is
// of piece n/2, so the sums of the four pieces, which have different scales, come out
// in different columns: column 2i+t is piece i times token t, the sum that this same lane
// scales. Both planes of the activations are multiplied, each by its own MMAs.
#pragma once
#include "matvec.h"

// Stage is a warp's step in shared memory: 16 rows times 8 pieces. copy asks for it,
// row r of a lane if live[r]; get reads what the lane uses: rows r, pieces 4u + lane%4.
template <class D> struct Stage;

template <> struct Stage<DotQ4_K> {
	static const int BYTES = 2304;
	DEV void copy(u32 to, const u8 *const (&rows)[2], const bool (&live)[2], int k, int step) {
		int lane = threadIdx.x & 31, i = lane & 3, g = lane >> 2;
#pragma unroll
		for (int r = 0; r < 2; r++)
#pragma unroll
			for (int u = 0; u < 2; u++)
				if (live[r]) cp_async16(to + (u * 2 + r) * 512 + lane * 16, rows[r] + step * 128 + u * 64 + i * 16);
		if (i == 0 && live[0]) cp_async16(to + 2048 + g * 16, rows[0] + k / 2 + step * 16);
		if (i == 1 && live[1]) cp_async16(to + 2176 + g * 16, rows[1] + k / 2 + step * 16);
	}
	DEV void get(DotQ4_K::Raw (&raw)[2][2], const u8 *from, int) {
		int lane = threadIdx.x & 31, g = lane >> 2;
#pragma unroll
		for (int u = 0; u < 2; u++)
#pragma unroll
			for (int r = 0; r < 2; r++) {
				raw[u][r].q = *(const uint4 *)(from + (u * 2 + r) * 512 + lane * 16);
				raw[u][r].h = *(const uint4 *)(from + 2048 + r * 128 + g * 16);
			}
	}
};

template <> struct Stage<DotQ6_K> {
	static const int BYTES = 3392;
	DEV void copy(u32 to, const u8 *const (&rows)[2], const bool (&live)[2], int k, int step) {
		int lane = threadIdx.x & 31, i = lane & 3, g = lane >> 2;
#pragma unroll
		for (int r = 0; r < 2; r++)
#pragma unroll
			for (int u = 0; u < 2; u++)
				if (live[r]) {
					cp_async16(to + (u * 2 + r) * 512 + lane * 16, rows[r] + step * 128 + u * 64 + i * 16);
					cp_async_small<8>(to + 2048 + (u * 2 + r) * 256 + lane * 8, rows[r] + k / 2 + step * 64 + u * 32 + i * 8);
				}
		const u8 *row = i & 1 ? rows[1] : rows[0];
		if (!(i & 1 ? live[1] : live[0])) return;
		if (i < 2) cp_async16(to + 3072 + i * 128 + g * 16, row + k / 2 + k / 4 + step * 16);
		else cp_async_small<4>(to + 3328 + (i & 1) * 32 + g * 4, row + k / 2 + k / 4 + k / 16 + (step >> 1) * 4);
	}
	DEV void get(DotQ6_K::Raw (&raw)[2][2], const u8 *from, int step) {
		int lane = threadIdx.x & 31, i = lane & 3, g = lane >> 2;
#pragma unroll
		for (int u = 0; u < 2; u++)
#pragma unroll
			for (int r = 0; r < 2; r++) {
				raw[u][r].q = *(const uint4 *)(from + (u * 2 + r) * 512 + lane * 16);
				raw[u][r].t = *(const uint2 *)(from + 2048 + (u * 2 + r) * 256 + lane * 8);
				raw[u][r].s = *(const u16 *)(from + 3072 + r * 128 + g * 16 + u * 8 + i * 2);
				raw[u][r].d = *(const u16 *)(from + 3328 + r * 32 + g * 4 + (step & 1) * 2);
			}
	}
};

// Course is a block's sequence of steps and a warp's run of it.
struct Course {
	int per_group, groups, steps, run, first, last;

	__device__ __forceinline__ Course(const MatVec &a) {
		int wid = threadIdx.x >> 5, warps = blockDim.x >> 5;
		per_group = a.flags & MV_PAIR ? 8 : 16, groups = (a.rows + per_group - 1) / per_group, steps = a.k / 256;
		run = (groups * steps + warps - 1) / warps;
		first = wid * run, last = first + run < groups * steps ? first + run : groups * steps;
	}
};

// Loader asks for the steps of a warp's run, one after the other.
template <class D> struct Loader {
	const MatVec &a;
	const Course &c;
	int group, step, slot;
	u32 ring;
	size_t stride;
	const u8 *rows[2];
	bool live[2];

	__device__ __forceinline__ Loader(const MatVec &a, const Course &c, u32 ring) : a(a), c(c), slot(0), ring(ring) {
		group = c.first / c.steps, step = c.first - group * c.steps;
		stride = D::Format::row_bytes(a.k);
		aim();
	}
	__device__ __forceinline__ void aim() {
		bool pair = a.flags & MV_PAIR;
#pragma unroll
		for (int r = 0; r < 2; r++) {
			int j = group * c.per_group + ((threadIdx.x & 31) >> 2) + (pair ? 0 : 8 * r);
			live[r] = j < a.rows;
			rows[r] = (pair && r ? a.w1 : a.w0) + (size_t)(a.row0 + (live[r] ? j : 0)) * stride;
		}
	}
	__device__ __forceinline__ void next(bool more) {
		if (more) {
			Stage<D>::copy(ring + slot * Stage<D>::BYTES, rows, live, a.k, step);
			if (++step == c.steps) {
				step = 0, group++;
				aim();
			}
		}
		cp_async_commit();
		if (++slot == a.lanes) slot = 0;
	}
};

// until all but the last stages-1 groups of copies are there
DEV void wait_stage(int stages) {
	switch (stages) {
	case 2: cp_async_wait<1>(); break;
	case 3: cp_async_wait<2>(); break;
	case 4: cp_async_wait<3>(); break;
	case 5: cp_async_wait<4>(); break;
	default: cp_async_wait<5>(); break;
	}
}

template <bool SIGNED> DEV void mma_planes(int *hi, int *lo, const u32 *a, const u32 *h, const u32 *l) {
	if constexpr (SIGNED) mma_16832_ss(hi, a, h), mma_16832_su(lo, a, l);
	else mma_16832_us(hi, a, h), mma_16832_uu(lo, a, l);
}

// Columns are a lane's activations as B: those of its piece for token column%2 of
// a pair of tokens, or zeros, which lie at the end of the activations.
struct Columns {
	const u8 *at;
	int plane, of_piece;

	__device__ __forceinline__ void aim(const u8 *base, const u8 *zeros, int padded, int token, int tokens) {
		int lane = threadIdx.x & 31, g = lane >> 2, i = lane & 3;
		bool mine = g >> 1 == i && token + (g & 1) < tokens;
		at = mine ? base + ((size_t)(token + (g & 1)) * 4 * padded + i) * 16 : zeros;
		plane = mine ? padded * 16 : 0, of_piece = mine ? 16 : 0;
	}
	__device__ __forceinline__ void get(u32 *h, u32 *l, int piece) const {
		const u8 *from = at + piece * of_piece;
#pragma unroll
		for (int p = 0; p < 2; p++) {
			uint4 u = *(const uint4 *)(from + p * plane), v = *(const uint4 *)(from + (p + 2) * plane);
#pragma unroll
			for (int w = 0; w < 4; w++) h[4 * p + w] = word_of(u, w), l[4 * p + w] = word_of(v, w);
		}
	}
};

// The products of 16 rows with a lane's piece of two tokens: sums[half][row·2 + token].
// Formats with one scale a piece have both halves in the first.
template <class D> DEV void pair_products(int (&sums)[2][4], const u32 (&w)[2][8], const u32 *h, const u32 *l) {
	constexpr bool HALF = D::KIND == HALVES, SIGNED = D::KIND != MINIMUM;
	int hi[2][4] = {}, lo[2][4] = {};
#pragma unroll
	for (int m = 0; m < 4; m++) {
		// The quartets may pair in any way; where halves have scales, within a half.
		int p = HALF ? 2 * m : m, q = HALF ? p + 1 : m + 4, s = HALF ? m >> 1 : m & 1;
		u32 a[4] = {w[0][p], w[1][p], w[0][q], w[1][q]}, bh[2] = {h[p], h[q]}, bl[2] = {l[p], l[q]};
		mma_planes<SIGNED>(hi[s], lo[s], a, bh, bl);
	}
#pragma unroll
	for (int e = 0; e < 4; e++) {
		sums[0][e] = hi[0][e] * 256 + lo[0][e], sums[1][e] = hi[1][e] * 256 + lo[1][e];
		if (!HALF) sums[0][e] += sums[1][e];
	}
}

// what a lane's piece adds to the sum of a row
DEV float scaled(const DotNib1::Weights &w, int all, int, float2 x) { return w.s * x.x * (float)all - w.m * x.y; }
DEV float scaled(const DotHalves::Weights &w, int first, int second, float2 x) { return x.x * (w.s0 * (float)first + w.s1 * (float)second); }

template <class D, int T> DEV void stream(const MatVec &a) {
	constexpr int PAIRS = (T + 1) / 2;
	int wid = threadIdx.x >> 5, lane = threadIdx.x & 31, i4 = lane & 3, padded = a.k / 32, size = 16 * T;
	Course c(a);
	u8 *base = a.smem, *zeros = base + act_bytes<D>(padded, T), *ring = zeros + 16 + wid * a.lanes * Stage<D>::BYTES;
	float *part = (float *)(zeros + 16 + (blockDim.x >> 5) * a.lanes * Stage<D>::BYTES);
	Loader<D> loader(a, c, smem_u32(ring));
	for (int p = 0; p < a.lanes; p++) loader.next(c.first + p < c.last);
	Fill<D> fill(a, padded);
	Tail tail;
	tail.aim(a, c, threadIdx.x, size, T);
	if (threadIdx.x < 4) ((u32 *)zeros)[threadIdx.x] = 0;

	pdl_wait();
	tail.wait(a);
	if (a.flags & MV_ROUNDED) copy_ints(a, base, padded, T);
	else fill.tokens(base, T, part);
	__syncthreads();

	Columns columns[PAIRS];
#pragma unroll
	for (int p = 0; p < PAIRS; p++) columns[p].aim(base, zeros, padded, 2 * p, T);
	const float2 *scales = (const float2 *)(base + (size_t)T * padded * 64) + i4;
	float acc[2][T];
#pragma unroll
	for (int r = 0; r < 2; r++)
#pragma unroll
		for (int t = 0; t < T; t++) acc[r][t] = 0.f;
	int group = c.first / c.steps, step = c.first - group * c.steps, slot = 0;
#pragma unroll 1
	for (int n = c.first; n < c.last; n++) {
		wait_stage(a.lanes);
		syncwarp(); // heads are read by other lanes than those that copied them
		typename D::Raw raw[2][2];
		Stage<D>::get(raw, ring + slot * Stage<D>::BYTES, step);
		if (++slot == a.lanes) slot = 0;
		syncwarp();
		loader.next(n + a.lanes < c.last);
#pragma unroll
		for (int u = 0; u < 2; u++) {
			int piece = 8 * step + 4 * u;
			typename D::Weights w[2];
			D::decode(w[0], raw[u][0], 4 * u + i4);
			D::decode(w[1], raw[u][1], 4 * u + i4);
			u32 words[2][8];
#pragma unroll
			for (int r = 0; r < 2; r++)
#pragma unroll
				for (int q = 0; q < 8; q++) words[r][q] = w[r].w[q];
#pragma unroll
			for (int p = 0; p < PAIRS; p++) {
				u32 h[8], l[8];
				columns[p].get(h, l, piece);
				int sums[2][4];
				pair_products<D>(sums, words, h, l);
#pragma unroll
				for (int t = 2 * p; t < 2 * p + 2 && t < T; t++) {
					float2 x = scales[t * padded + piece];
#pragma unroll
					for (int r = 0; r < 2; r++) acc[r][t] += scaled(w[r], sums[0][2 * r + (t & 1)], sums[1][2 * r + (t & 1)], x);
				}
			}
		}
		if (++step < c.steps && n + 1 < c.last) continue;
		// Pieces of the sequence are numbered group + warp, as in matvec.h.
		float *to = part + (size_t)(group + wid) * size + (lane >> 2) * T;
#pragma unroll
		for (int r = 0; r < 2; r++)
#pragma unroll
			for (int t = 0; t < T; t++) {
				float v = acc[r][t];
				v += shfl_xor(v, 1);
				v += shfl_xor(v, 2);
				if (i4 == (t & 3)) to[8 * r * T + t] = v;
				acc[r][t] = 0.f;
			}
		step = 0, group++;
	}
	prefetch_next(a);
	__syncthreads();
	finish_rows(a, c, tail, part, size, T, 8 * T);
}

template <class D, class ALT, int T> DEV void run_stream(const MatVec &a, int alt) {
	if constexpr (D::Format::TYPE != ALT::Format::TYPE) {
		if (alt) {
			stream<ALT, T>(a);
			return;
		}
	}
	stream<D, T>(a);
}

// STREAM(name, blocks, D, ALT, T) is a kernel with the arguments of MATVEC, in which
// lanes is the number of stages of a ring, 2 … 6; k is a multiple of 256. Block: whole
// warps up to 256. Shared memory, in order: activations, 16 zeros, rings, partial
// sums (tiles + warps)·16·T float32 (backend/cuda/stream.go).
#define STREAM(name, blocks, D, ALT, T) MATVEC_KERNEL(name, 256, blocks, (run_stream<D, ALT, T>(a, (alt >> s) & 1)))
