// matvec_mma.h: products of quantised matrices with the rows of three to eight tokens, as
// matvec.h has them, but multiplied on tensor cores (mma.sync m16n8k32 of bytes, exact).
//
// Why. matvec.h reads every token's activations from shared memory for each 32 weights of
// a lane. Here they are read once for 16 rows, and a token costs only its own MMAs
// and scales. For one and two tokens dp4a is faster: the loads in flight do not fit into
// the registers that 512 threads leave (docs/performance.md).
//
// How the work lies. A tile is 16 rows of the block (in a pair: 8 of gate, 8 of up); a
// step is a tile times 256 weights. The steps of all tiles, in one sequence, are cut into
// equal runs, one a warp; the sums are added at the end in the order of the warps. A warp
// has the loads of two steps in flight, the first two before pdl_wait.
//
// How it multiplies. Lane 4g+i of a warp holds pieces (32 weights) 4u+i of rows g and g+8.
// In an MMA it gives two quartets of each row as A. B has zeros but where column n is
// of piece n/2, so the sums of the four pieces, which have different scales, come out
// in different columns: column 2i+t is piece i times token t, the sum that this same lane
// scales. Both planes of the activations are multiplied, each by its own MMAs.
#pragma once
#include "matvec.h"

// Stage is what a lane has of a step: rows r, pieces 4u + lane%4. load fills it from step
// of two rows, those that are live.
template <class D> struct Stage;

template <> struct Stage<DotQ4_K> {
	uint4 q[2][2], h[2];

	__device__ __forceinline__ void load(const u8 *const (&rows)[2], const bool (&live)[2], int k, int step) {
		int at = step * 128 + (threadIdx.x & 3) * 16, head = k / 2 + step * 16;
#pragma unroll
		for (int r = 0; r < 2; r++) {
			const u8 *from = rows[r] + at;
			ld_stream128_if(q[0][r], from, live[r]);
			ld_stream128_if(q[1][r], from + 64, live[r]);
			ld_keep128_if(h[r], rows[r] + head, live[r]);
		}
	}
	__device__ __forceinline__ void raw(DotQ4_K::Raw &to, int u, int r) const { to.q = q[u][r], to.h = h[r]; }
};

template <> struct Stage<DotQ6_K> {
	uint4 q[2][2];
	uint2 t[2][2];
	u32 s[2][2], d[2];

	__device__ __forceinline__ void load(const u8 *const (&rows)[2], const bool (&live)[2], int k, int step) {
		int i = threadIdx.x & 3, at = step * 128 + i * 16, two = k / 2 + step * 64 + i * 8;
		int scale = k / 2 + k / 4 + step * 16 + i * 2, head = k / 2 + k / 4 + k / 16 + step * 2;
#pragma unroll
		for (int r = 0; r < 2; r++) {
			const u8 *fours = rows[r] + at, *twos = rows[r] + two, *scales = rows[r] + scale;
#pragma unroll
			for (int u = 0; u < 2; u++) {
				ld_stream128_if(q[u][r], fours + u * 64, live[r]);
				ld_stream64_if(t[u][r], twos + u * 32, live[r]);
				ld_keep16_if(s[u][r], scales + u * 8, live[r]);
			}
			ld_keep16_if(d[r], rows[r] + head, live[r]);
		}
	}
	__device__ __forceinline__ void raw(DotQ6_K::Raw &to, int u, int r) const { to.q = q[u][r], to.t = t[u][r], to.s = s[u][r], to.d = d[r]; }
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
	int group, step, left;
	const u8 *rows[2];
	bool live[2];

	__device__ __forceinline__ Loader(const MatVec &a, const Course &c) : a(a), c(c), left(c.last - c.first) {
		group = c.first / c.steps, step = c.first - group * c.steps;
		aim();
	}
	__device__ __forceinline__ void aim() {
		bool pair = a.flags & MV_PAIR;
#pragma unroll
		for (int r = 0; r < 2; r++) {
			int j = group * c.per_group + ((threadIdx.x & 31) >> 2) + (pair ? 0 : 8 * r);
			live[r] = j < a.rows && left > 0;
			rows[r] = (pair && r ? a.w1 : a.w0) + (size_t)(a.row0 + (live[r] ? j : 0)) * D::Format::row_bytes(a.k);
		}
	}
	__device__ __forceinline__ void load(Stage<D> &to) {
		to.load(rows, live, a.k, step);
		left--, step++;
		if (step < c.steps && left > 0) return;
		step = 0, group++;
		aim();
	}
};

template <bool SIGNED> DEV void mma_planes(int *hi, int *lo, const u32 *a, const u32 *h, const u32 *l) {
	if constexpr (SIGNED) mma_16832_ss(hi, a, h), mma_16832_su(lo, a, l);
	else mma_16832_us(hi, a, h), mma_16832_uu(lo, a, l);
}

// Columns are a lane's activations as B: those of its piece for token column%2 of
// a pair of tokens, or zeros, which lie behind the activations.
struct Columns {
	const u8 *at;
	int plane, of_piece;

	__device__ __forceinline__ void aim(const u8 *base, const u8 *zeros, int pieces, int token, int tokens) {
		int lane = threadIdx.x & 31, g = lane >> 2, i = lane & 3;
		bool mine = g >> 1 == i && token + (g & 1) < tokens;
		at = mine ? base + ((size_t)(token + (g & 1)) * 4 * pieces + i) * 16 : zeros;
		plane = mine ? pieces * 16 : 0, of_piece = mine ? 16 : 0;
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
template <class D> DEV void pair_products(int (&sums)[2][4], const typename D::Weights (&w)[2], const u32 *h, const u32 *l) {
	constexpr bool HALF = D::KIND == HALVES, SIGNED = D::KIND != MINIMUM;
	int hi[2][4] = {}, lo[2][4] = {};
#pragma unroll
	for (int m = 0; m < 4; m++) {
		// The quartets may pair in any way; where halves have scales, within a half.
		int p = HALF ? 2 * m : m, q = HALF ? p + 1 : m + 4, s = HALF ? m >> 1 : 0;
		u32 a[4] = {w[0].w[p], w[1].w[p], w[0].w[q], w[1].w[q]}, bh[2] = {h[p], h[q]}, bl[2] = {l[p], l[q]};
		mma_planes<SIGNED>(hi[s], lo[s], a, bh, bl);
	}
#pragma unroll
	for (int e = 0; e < 4; e++) sums[0][e] = hi[0][e] * 256 + lo[0][e], sums[1][e] = hi[1][e] * 256 + lo[1][e];
}

// adds what a lane's piece gives to the sum of a row
DEV float add_scaled(float acc, const DotNib1::Weights &w, int all, int, float2 x) { return cl_fma(-w.m, x.y, cl_fma(w.s * x.x, (float)all, acc)); }
DEV float add_scaled(float acc, const DotHalves::Weights &w, int first, int second, float2 x) { return cl_fma(x.x, cl_fma(w.s0, (float)first, w.s1 * (float)second), acc); }

template <class D, int T> DEV void matvec_mma(const MatVec &a) {
	constexpr int PAIRS = (T + 1) / 2, P = 2;
	int wid = threadIdx.x >> 5, lane = threadIdx.x & 31, i4 = lane & 3, pieces = a.k / 32, size = 16 * T;
	Course c(a);
	Loader<D> loader(a, c);
	Stage<D> stage[P] = {};
#pragma unroll
	for (int p = 0; p < P; p++) loader.load(stage[p]);
	u8 *base = a.smem, *zeros = base + act_bytes<D>(pieces, T);
	float *part = (float *)(zeros + 16);
	Fill<D, Planes> fill(a, pieces);
	Tail tail;
	tail.aim(a, c, threadIdx.x, size, T);
	if (threadIdx.x < 4) ((u32 *)zeros)[threadIdx.x] = 0;

	pdl_wait();
	tail.wait(a);
	if (a.flags & MV_ROUNDED) copy_ints<Planes>(a, base, pieces, T);
	else fill.tokens(base, T, part);
	__syncthreads();

	Columns columns[PAIRS];
#pragma unroll
	for (int p = 0; p < PAIRS; p++) columns[p].aim(base, zeros, pieces, 2 * p, T);
	const float2 *scales = (const float2 *)(base + (size_t)T * pieces * 64) + i4;
	float acc[2][T];
#pragma unroll
	for (int r = 0; r < 2; r++)
#pragma unroll
		for (int t = 0; t < T; t++) acc[r][t] = 0.f;
	int group = c.first / c.steps, step = c.first - group * c.steps;
#pragma unroll 1
	for (int n = c.first; n < c.last; n += P) {
#pragma unroll
		for (int p = 0; p < P; p++) {
			if (n + p >= c.last) break;
#pragma unroll
			for (int u = 0; u < 2; u++) {
				typename D::Weights w[2];
#pragma unroll
				for (int r = 0; r < 2; r++) {
					typename D::Raw raw;
					stage[p].raw(raw, u, r);
					D::decode(w[r], raw, 4 * u + i4);
				}
				if (u == 1) loader.load(stage[p]);
				int piece = 8 * step + 4 * u;
#pragma unroll
				for (int q = 0; q < PAIRS; q++) {
					u32 h[8], l[8];
					columns[q].get(h, l, piece);
					int sums[2][4];
					pair_products<D>(sums, w, h, l);
#pragma unroll
					for (int t = 2 * q; t < 2 * q + 2 && t < T; t++) {
						float2 x = scales[t * pieces + piece];
#pragma unroll
						for (int r = 0; r < 2; r++) acc[r][t] = add_scaled(acc[r][t], w[r], sums[0][2 * r + (t & 1)], sums[1][2 * r + (t & 1)], x);
					}
				}
			}
			if (++step < c.steps && n + p + 1 < c.last) continue;
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
	}
	prefetch_next(a);
	__syncthreads();
	finish_rows(a, c, tail, part, size, T, 8 * T);
}

template <class D, class ALT, int T> DEV void run_matvec_mma(const MatVec &a, int alt) {
	if constexpr (D::Format::TYPE != ALT::Format::TYPE) {
		if (alt) {
			matvec_mma<ALT, T>(a);
			return;
		}
	}
	matvec_mma<D, T>(a);
}

// MATVEC_MMA(name, threads, D, ALT, T) is a kernel with the arguments of MATVEC, of which
// lanes and ahead mean nothing; k is a multiple of 256. Block: whole warps up to
// threads. Shared memory: activations, 16 zeros, partial sums (tiles + warps)·16·T
// float32 (backend/cuda/matvec_mma.go).
#define MATVEC_MMA(name, threads, D, ALT, T) MATVEC_KERNEL(name, threads, 1, (run_matvec_mma<D, ALT, T>(a, (alt >> s) & 1)))
