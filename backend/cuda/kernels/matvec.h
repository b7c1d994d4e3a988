// matvec.h: products of weight matrices with the rows of one to eight tokens, with
// what surrounds them in a decode step: RMSNorm and rounding before, bias, gated
// activation and residual after. The matvec_*.cu files instantiate it, one a format.
//
// How the work lies. A block owns a run of rows of one matrix and keeps the
// activations in shared memory. A lane's piece is 32 weights (Dot*::UNIT). lanes
// (8, 16 or 32) lanes of a warp work on R rows side by side, so a warp has R·32/lanes
// rows, a group, at a time, and needs steps = ceil(pieces/lanes) steps for it. The
// steps of all groups of the block, in one sequence, are cut into equal runs, one a
// warp: no warp waits for another, however few or long the rows. Where a run ends or a
// group is complete, the sums go to shared memory; at the end they are added, in the
// order of the warps, so the same bits come out each time.
//
// Loads. A warp has P steps of R rows in flight. The first P are issued before
// pdl_wait: weights do not depend on the kernel before. The loop is bound by instructions
// as much as by memory (docs/performance.md), so it has no branches for the end of a run,
// and what a lane reads lies at fixed distances.
#pragma once
#include "piece.h"

// Flags of a launch.
enum {
	MV_ROUNDED = 1, // x is what round_rows wrote, not float32
	MV_PAIR = 2,    // matrices 0 and 1 are gate and up: y0 = act(gate)·up
	MV_GELU = 4,    // act is GELU (tanh), else SiLU
	MV_ROUND = 8,   // y0 becomes what round_rows writes: n and rows are multiples of 32
};

// MatVec is one block's part of a launch; see the comment above MATVEC.
struct MatVec {
	const void *x;
	const float *norm;
	float eps;
	int flags, tokens, k, lanes;
	const u8 *w0, *w1;     // of the block's matrix; w1 is up's in a pair
	const float *bias;     // of the block's matrix, or null
	const float *residual; // added to the result, or null
	float *y;              // (tokens, n)
	int n, row0, rows;     // rows of the matrix, the block's first, and how many
	float cap;             // > 0: y = cap·tanh(y/cap)
	int ahead;             // bytes of rows that a warp asks the L2 cache for before it waits
	const u8 *then0, *then1; // what the L2 cache is asked for at the end, see MATVEC
	int thenStride, thenRows, thenN, thenBytes;
	u8 *smem;
};

DEV float sigmoid_mul(float g) { return g / (1.f + cl_exp(-g)); }
DEV float gelu_tanh(float g) { return 0.5f * g * (1.f + cl_tanh(0.7978845608028654f * (g + 0.044715f * g * g * g))); }

// Activations have 16-byte parts. Integers: a piece has four, bytes 0-15 and 16-31 of hi,
// then of lo, and {scale, sum}. Float: UNIT/4 times four float32. Pieces are padded with
// zeros. They lie in one of two orders:
//	Planes  all tokens' integers as [token][4][pieces] parts, then [token][pieces] {scale,
//	        sum}; matvec_mma.h and, in global memory, round_rows
//	Eights  [token][pieces/8]: the parts of eight pieces as [parts][8], then [8] {scale,
//	        sum}: the way from one step's piece to the next is the same for all of it
template <class D> DEV int act_bytes(int padded, int tokens) { return tokens * padded * (D::FLOAT ? D::UNIT * 4 : 72); }

// Planes says where part p of a token's piece b and its {scale, sum} are.
struct Planes {
	DEV u8 *part(u8 *base, int padded, int, int t, int b, int p) { return base + ((size_t)(t * 4 + p) * padded + b) * 16; }
	DEV float2 *scale(u8 *base, int padded, int tokens, int t, int b) { return (float2 *)(base + (size_t)tokens * padded * 64) + t * padded + b; }
};
template <class D> struct Eights {
	static const int BYTES = D::FLOAT ? D::UNIT * 32 : 576; // of eight pieces
	DEV u8 *part(u8 *base, int padded, int, int t, int b, int p) { return base + (t * (padded >> 3) + (b >> 3)) * BYTES + p * 128 + (b & 7) * 16; }
	DEV float2 *scale(u8 *base, int padded, int tokens, int t, int b) { return (float2 *)part(base, padded, tokens, t, b, 4) - (b & 7); }
};

// round_four makes the integers of four of 32 numbers that eight lanes share, and the
// scale and sum of all 32. The integer is in the low half of f + 1.5·2^23.
DEV void round_four(float4 v, u32 &hi, u32 &lo, float &d, float &sum) {
	float m = cl_fmax_nan(cl_fmax_nan(cl_fabs(v.x), cl_fabs(v.y)), cl_fmax_nan(cl_fabs(v.z), cl_fabs(v.w)));
#pragma unroll
	for (int i = 1; i < 8; i <<= 1) m = cl_fmax_nan(m, shfl_xor(m, i));
	float inverse = m > 1e-30f ? 32767.f / m : 0.f; // below: zeros
	d = m * (1.f / 32767.f);
	const float magic = 12582912.f;
	u32 a = f2u_bits(cl_fma(v.x, inverse, magic)), b = f2u_bits(cl_fma(v.y, inverse, magic));
	u32 c = f2u_bits(cl_fma(v.z, inverse, magic)), e = f2u_bits(cl_fma(v.w, inverse, magic));
	u32 ab = prmt(a, b, 0x5140), ce = prmt(c, e, 0x5140); // lo lo hi hi
	lo = prmt(ab, ce, 0x5410), hi = prmt(ab, ce, 0x7632);
	int s = dp4a(0x01010101, hi, 0) * 256 + dp4a_uu(0x01010101, lo, 0);
#pragma unroll
	for (int i = 1; i < 8; i <<= 1) s += shfl_xor_i(s, i);
	sum = d * (float)s;
}

DEV float4 zero4() { float4 z; z.x = 0.f, z.y = 0.f, z.z = 0.f, z.w = 0.f; return z; }

// Fill makes x ready in shared memory. A thread has BATCH times four numbers at a
// time, all loaded before the first is used: what lies before the products is mostly
// waiting for the L2 cache. ORDER is Planes or Eights.
template <class D, class ORDER> struct Fill {
	static const int BATCH = 5;
	const MatVec &a;
	int padded; // pieces
	float4 w[BATCH];

	// The norm's weights do not depend on the kernel before, so this may stand before
	// pdl_wait.
	__device__ __forceinline__ Fill(const MatVec &a, int padded) : a(a), padded(padded) { weights(0); }

	__device__ __forceinline__ void weights(int from) {
#pragma unroll
		for (int n = 0; n < BATCH; n++) {
			int at = (from + (int)threadIdx.x + n * (int)blockDim.x) * 4;
			w[n].x = 1.f, w[n].y = 1.f, w[n].z = 1.f, w[n].w = 1.f;
			if (a.norm && at < a.k) w[n] = ldgf4(a.norm + at);
		}
	}
	__device__ __forceinline__ void load(float4 (&v)[BATCH], int t, int from) {
#pragma unroll
		for (int n = 0; n < BATCH; n++) {
			int at = (from + (int)threadIdx.x + n * (int)blockDim.x) * 4;
			v[n] = zero4();
			if (at < a.k && t < a.tokens) v[n] = *(const float4 *)((const float *)a.x + (size_t)t * a.k + at);
		}
	}
	// square sums of what load gave
	__device__ __forceinline__ float squares(const float4 (&v)[BATCH]) {
		float s = 0.f;
#pragma unroll
		for (int n = 0; n < BATCH; n++) s += (v[n].x * v[n].x + v[n].y * v[n].y) + (v[n].z * v[n].z + v[n].w * v[n].w);
		return s;
	}
	// norm_scale: rsqrt(mean x² + eps) of token t, whose first numbers are in v; red is
	// shared memory for 32 floats.
	__device__ __forceinline__ float norm_scale(const float4 (&v)[BATCH], int t, float *red) {
		int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
		float s = squares(v);
#pragma unroll 1
		for (int from = BATCH * blockDim.x; from * 4 < a.k; from += BATCH * blockDim.x) {
			float4 u[BATCH];
			load(u, t, from);
			s += squares(u);
		}
		s = warp_sum(s);
		if (lane == 0) red[threadIdx.x >> 5] = s;
		__syncthreads();
		s = warp_sum(lane < warps ? red[lane] : 0.f);
		if (t + 1 < a.tokens) __syncthreads();
		return cl_rsqrt(s / (float)a.k + a.eps);
	}
	__device__ __forceinline__ void store(const float4 (&v)[BATCH], u8 *base, int t, int slots, int from, float scale) {
		const int four = D::UNIT / 4; // of a piece
#pragma unroll
		for (int n = 0; n < BATCH; n++) {
			int i = from + (int)threadIdx.x + n * (int)blockDim.x, b = i / four;
			if ((i & ~31) >= padded * four) break; // whole warps stay, for the exchange between lanes
			float4 f = v[n];
			f.x *= scale * w[n].x, f.y *= scale * w[n].y, f.z *= scale * w[n].z, f.w *= scale * w[n].w;
			if constexpr (D::FLOAT) {
				if (b < padded) *(float4 *)ORDER::part(base, padded, slots, t, b, i % four) = f;
			} else {
				u32 hi, lo;
				float2 s;
				round_four(f, hi, lo, s.x, s.y);
				if (b >= padded) break;
				int half = (i & 7) >> 2;
				((u32 *)ORDER::part(base, padded, slots, t, b, half))[i & 3] = hi;
				((u32 *)ORDER::part(base, padded, slots, t, b, half + 2))[i & 3] = lo;
				if ((i & 7) == 0) *ORDER::scale(base, padded, slots, t, b) = s;
			}
		}
	}
	// tokens writes slots tokens to base; those that there are not are zeros.
	__device__ __forceinline__ void tokens(u8 *base, int slots, float *red) {
#pragma unroll 1
		for (int t = 0; t < slots; t++) {
			float4 v[BATCH];
			load(v, t, 0);
			float scale = a.norm && t < a.tokens ? norm_scale(v, t, red) : 1.f;
			int from = 0, next = BATCH * (int)blockDim.x;
#pragma unroll 1
			while (true) {
				store(v, base, t, slots, from, scale);
				from += next;
				if (from >= padded * (D::UNIT / 4)) break;
				load(v, t, from);
				if (a.norm) weights(from);
			}
			if (a.norm && from > next && t + 1 < slots) weights(0);
		}
	}
};

// copy_ints takes them from what round_rows wrote: Planes with pieces k/32 and
// one token after the other, 72 bytes a piece. All is asked for before any is awaited.
template <class ORDER> DEV void copy_ints(const MatVec &a, u8 *base, int padded, int slots) {
	int nb = a.k / 32;
	uint4 zero;
	zero.x = 0, zero.y = 0, zero.z = 0, zero.w = 0;
#pragma unroll 1
	for (int t = 0; t < slots; t++) {
		const u8 *from = (const u8 *)a.x + (size_t)t * nb * 72;
		bool live = t < a.tokens;
#pragma unroll 1
		for (int b = threadIdx.x; b < padded; b += blockDim.x) {
			float2 v;
			v.x = 0.f, v.y = 0.f;
			bool there = live && b < nb;
#pragma unroll
			for (int p = 0; p < 4; p++) {
				u8 *to = ORDER::part(base, padded, slots, t, b, p);
				if (there) cp_async16(smem_u32(to), (const uint4 *)from + p * nb + b);
				else *(uint4 *)to = zero;
			}
			if (there) v = ((const float2 *)(from + (size_t)nb * 64))[b];
			*ORDER::scale(base, padded, slots, t, b) = v;
		}
	}
	cp_async_commit();
	cp_async_wait<0>();
}

// Feed is a block's sequence of steps and a warp's place in it, as far as loading goes.
template <class D, int R> struct Feed {
	const MatVec &a;
	int lanes, pieces, steps, per_group, groups, run, first, last; // see the top of the file
	int at, sub, step_of_sub, step_of_r;                           // row of a group: sub·step_of_sub + r·step_of_r
	int piece, until, row; // of the next load: the lane's piece, the steps until other rows, the first row
	u32 stride;
	const u8 *rows[R];
	typename Piece<D>::Index index;

	// In a pair r chooses the matrix; else the rows of a lane are interval apart, those
	// of neighbouring subs near.
	__device__ __forceinline__ Feed(const MatVec &a, int lanes, int near, int interval) : a(a), lanes(lanes) {
		int lane = threadIdx.x & 31, wid = threadIdx.x >> 5, warps = blockDim.x >> 5, side = 32 / lanes;
		bool pair = a.flags & MV_PAIR;
		sub = lane / lanes, at = lane & (lanes - 1);
		step_of_sub = pair ? 1 : near, step_of_r = pair ? 0 : interval;
		pieces = a.k / D::UNIT, steps = (pieces + lanes - 1) / lanes;
		per_group = pair ? side : R * side;
		groups = (a.rows + per_group - 1) / per_group;
		run = (groups * steps + warps - 1) / warps;
		first = wid * run, last = first + run < groups * steps ? first + run : groups * steps;
		int group = first / steps, step = first - group * steps;
		piece = step * lanes + at, until = steps - step, row = a.row0 + group * per_group + sub * step_of_sub;
		stride = (u32)D::Format::row_bytes(a.k);
		aim();
	}
	// aim at the rows of the group; past the end at the last row, which is there.
	__device__ __forceinline__ void aim() {
#pragma unroll
		for (int r = 0; r < R; r++) {
			int i = row + r * step_of_r;
			i = i < a.n ? i : a.n - 1;
			rows[r] = ((a.flags & MV_PAIR) && r ? a.w1 : a.w0) + (u64)(u32)i * stride;
		}
	}
	// place finds out where load reads: past the row's end its last piece, as the activations
	// there are zeros, and unless wanted some piece that nobody looks at.
	__device__ __forceinline__ void place(bool wanted) {
		int b = piece < pieces - 1 ? piece : pieces - 1;
		Piece<D>::index(index, a.k, wanted ? b : 0);
	}
	__device__ __forceinline__ void load(typename D::Raw (&to)[R]) {
#pragma unroll
		for (int r = 0; r < R; r++) Piece<D>::load(to[r], rows[r], index);
	}
	__device__ __forceinline__ void advance() {
		piece += lanes;
		if (--until) return;
		piece = at, until = steps, row += per_group;
		aim();
	}
	// prefetch asks the L2 cache for the warp's next rows: the kernel before may still
	// run, and leave the memory idle at its end.
	__device__ __forceinline__ void prefetch() {
		if ((threadIdx.x & 31) || first >= last) return;
		int row = a.row0 + first / steps * per_group;
		size_t bytes = (size_t)(a.n - row) * stride;
		u32 n = bytes < (size_t)a.ahead ? (u32)bytes : (u32)a.ahead;
		bulk_prefetch_l2(a.w0 + (size_t)row * stride, n);
		if (a.flags & MV_PAIR) bulk_prefetch_l2(a.w1 + (size_t)row * stride, n);
	}
};

// Tail adds the pieces of one row's sum, in order, and finishes. A group's piece is
// size floats, in which the tokens of row j of y lie side by side at j·of_row, those of
// the pair's other row at up. What does not depend on the sums is found out early.
struct Tail {
	int i, at, count, row;
	size_t out;
	float bias, residual;

	template <class F> __device__ __forceinline__ void aim(const MatVec &a, const F &f, int index, int size, int of_row) {
		i = index;
		if (i >= a.rows * a.tokens) return;
		int t = a.tokens == 1 ? 0 : i / a.rows, j = i - t * a.rows, g = j / f.per_group;
		int w0 = g * f.steps / f.run;
		count = ((g + 1) * f.steps - 1) / f.run - w0 + 1;
		at = (g + w0) * size + (j - g * f.per_group) * of_row + t;
		row = a.row0 + j, out = (size_t)t * a.n + row;
		bias = a.bias ? a.bias[row] : 0.f;
	}
	// after pdl_wait
	__device__ __forceinline__ void wait(const MatVec &a) {
		residual = 0.f;
		if (a.residual && i < a.rows * a.tokens) residual = a.residual[out];
	}
	__device__ __forceinline__ float value(const MatVec &a, const float *part, int size, int up) {
		bool pair = a.flags & MV_PAIR;
		float v = 0.f, u = 0.f;
		const float *from = part + at;
#pragma unroll 1
		for (int w = 0; w < count; w++, from += size) {
			v += from[0];
			if (pair) u += from[up];
		}
		if (pair) v = (a.flags & MV_GELU ? gelu_tanh(v) : sigmoid_mul(v)) * u;
		v += bias;
		if (a.cap > 0.f) v = a.cap * cl_tanh(v / a.cap);
		return v + residual;
	}
};

// store_rounded writes a warp's 32 values, a group, as round_rows does; out is a lane's
// place among the numbers of all tokens, row in its own.
DEV void store_rounded(const MatVec &a, float v, size_t out, int row) {
	float m = cl_fabs(v);
#pragma unroll
	for (int i = 1; i < 32; i <<= 1) m = cl_fmax_nan(m, shfl_xor(m, i));
	float inverse = m > 1e-30f ? 32767.f / m : 0.f, d = m * (1.f / 32767.f);
	u32 q = f2u_bits(cl_fma(v, inverse, 12582912.f)); // the integer is in the lower half
	int sum = (short)q;
#pragma unroll
	for (int i = 1; i < 32; i <<= 1) sum += shfl_xor_i(sum, i);
	int nb = a.n / 32, lane = row & 31;
	u8 *to = (u8 *)a.y + (out - row) / 32 * 72;
	u8 *at = to + ((size_t)(lane >> 4) * nb + row / 32) * 16 + (lane & 15);
	at[0] = (u8)(q >> 8), at[(size_t)nb * 32] = (u8)q;
	if (lane == 0) {
		float2 s;
		s.x = d, s.y = d * (float)sum;
		((float2 *)(to + (size_t)nb * 64))[row / 32] = s;
	}
}

// finish_rows does so for all rows of the block, first the one that tail is at.
template <class F> DEV void finish_rows(const MatVec &a, const F &f, Tail &tail, const float *part, int size, int of_row, int up) {
	while (tail.i < a.rows * a.tokens) {
		float v = tail.value(a, part, size, up);
		if (a.flags & MV_ROUND) store_rounded(a, v, tail.out, tail.row);
		else a.y[tail.out] = v;
		tail.aim(a, f, tail.i + blockDim.x, size, of_row);
		tail.wait(a);
	}
}

// prefetch_next asks the L2 cache for the beginning of each warp's rows in the kernel
// after this one, when this warp has loaded all of its own.
DEV void prefetch_next(const MatVec &a) {
	if (!a.then0 || (threadIdx.x & 31)) return;
	int row = blockIdx.x * a.thenRows + (threadIdx.x >> 5) * a.thenRows / (blockDim.x >> 5);
	if (row >= a.thenN) return;
	size_t at = (size_t)row * a.thenStride, left = (size_t)a.thenN * a.thenStride - at;
	u32 n = left < (size_t)a.thenBytes ? (u32)left : (u32)a.thenBytes;
	bulk_prefetch_l2(a.then0 + at, n);
	if (a.then1) bulk_prefetch_l2(a.then1 + at, n);
}

// Sums is a warp's place in the sequence of steps, as far as multiplying goes.
template <class D, int T, int R> struct Sums {
	typedef Eights<D> ORDER;
	const Feed<D, R> &f;
	float acc[R][T];
	int left, todo; // steps of the run, and until the group's end
	u8 *first, *x;  // the lane's activations of the first and of the next step
	int step_bytes, token_bytes;
	float *to;

	// part takes the pieces of sums, numbered group + warp: each border between groups or
	// warps raises the number; each has size floats.
	__device__ __forceinline__ Sums(const Feed<D, R> &f, u8 *base, float *part, int size) : f(f) {
		int wid = threadIdx.x >> 5, group = f.first / f.steps, padded = f.steps * f.lanes;
		left = f.last - f.first, todo = (group + 1) * f.steps - f.first;
		step_bytes = f.lanes / 8 * ORDER::BYTES, token_bytes = padded / 8 * ORDER::BYTES;
		first = ORDER::part(base, padded, T, 0, f.at, 0), x = first + (f.steps - todo) * step_bytes;
		to = part + (size_t)(group + wid) * size + f.sub * (R * T);
		clear();
	}
	__device__ __forceinline__ void clear() {
#pragma unroll
		for (int r = 0; r < R; r++)
#pragma unroll
			for (int t = 0; t < T; t++) acc[r][t] = 0.f;
	}
	// add multiplies one step.
	__device__ __forceinline__ void add(const typename D::Weights (&w)[R]) {
#pragma unroll
		for (int t = 0; t < T; t++) {
			const u8 *at = x + t * token_bytes;
			if constexpr (D::FLOAT) {
				FloatAct<D::UNIT / 4> v;
#pragma unroll
				for (int i = 0; i < D::UNIT / 4; i++) v.v[i] = *(const float4 *)(at + i * 128);
#pragma unroll
				for (int r = 0; r < R; r++) Piece<D>::add(acc[r][t], w[r], v);
			} else {
				Act v;
				const uint4 *q = (const uint4 *)at;
				float2 s = *(const float2 *)(at + (512 - (f.at & 7) * 8));
				v.h0 = q[0], v.h1 = q[8], v.l0 = q[16], v.l1 = q[24], v.d = s.x, v.sum = s.y;
#pragma unroll
				for (int r = 0; r < R; r++) Piece<D>::add(acc[r][t], w[r], v);
			}
		}
		x += step_bytes, left--, todo--;
	}
	// put adds what the lanes of a row have and writes it.
	__device__ __forceinline__ void put(int size) {
#pragma unroll 1
		for (int m = f.lanes >> 1; m; m >>= 1)
#pragma unroll
			for (int r = 0; r < R; r++)
#pragma unroll
				for (int t = 0; t < T; t++) acc[r][t] += shfl_xor(acc[r][t], m);
		if (f.at == 0)
#pragma unroll
			for (int r = 0; r < R; r++)
#pragma unroll
				for (int t = 0; t < T; t++) to[r * T + t] = acc[r][t];
		clear();
		to += size, todo = f.steps, x = first;
	}
};

template <class D, int T, int R, int P> DEV void matvec(const MatVec &a) {
	Feed<D, R> feed(a, a.lanes, R, 1);
	typename D::Raw raw[P][R];
#pragma unroll
	for (int p = 0; p < P; p++)
		if (feed.first + p < feed.last) {
			feed.place(true);
			feed.load(raw[p]);
			feed.advance();
		}
	if (a.ahead) feed.prefetch();
	int padded = feed.steps * feed.lanes, size = R * T * (32 / feed.lanes), of_row = a.flags & MV_PAIR ? R * T : T;
	Fill<D, Eights<D>> fill(a, padded);
	Tail tail;
	tail.aim(a, feed, threadIdx.x, size, of_row);
	u8 *base = a.smem;
	float *part = (float *)(a.smem + act_bytes<D>(padded, T));

	pdl_wait();
	tail.wait(a);
	if constexpr (D::FLOAT) fill.tokens(base, T, part);
	else if (a.flags & MV_ROUNDED) copy_ints<Eights<D>>(a, base, padded, T);
	else fill.tokens(base, T, part);
	__syncthreads();

	// Branches end at each step: the compiler mixes decoding, loads and products between.
	Sums<D, T, R> sums(feed, base, part, size);
	auto step = [&](typename D::Raw (&from)[R]) INLINE_LAMBDA {
		typename D::Weights w[R];
		feed.place(sums.left > P);
#pragma unroll
		for (int r = 0; r < R; r++) Piece<D>::decode(w[r], from[r], feed.at);
		feed.load(from);
		sums.add(w);
		feed.advance();
	};
	while (sums.left > 0) {
#pragma unroll
		for (int p = 0; p < P; p++) {
			if (p && sums.left <= 0) continue;
			step(raw[p]);
			if (!sums.todo || !sums.left) sums.put(size);
		}
	}
	prefetch_next(a);
	__syncthreads();
	finish_rows(a, feed, tail, part, size, of_row, T);
}

// run_matvec chooses between two formats, the second of which may be the same.
template <class D, class ALT, int T, int R, int P> DEV void run_matvec(const MatVec &a, int alt) {
	if constexpr (D::Format::TYPE != ALT::Format::TYPE) {
		if (alt) {
			matvec<ALT, T, R, P>(a);
			return;
		}
	}
	matvec<D, T, R, P>(a);
}

// MATVEC(name, threads, blocks, D, ALT, T, R, P) is a kernel for up to T tokens and
// three matrices that share x; blocks is how many must fit on a multiprocessor.
// It computes, for each matrix s and token t,
//
//	y_s[t, row] = [cap] (W_s[row, :]·x'[t, :] + bias_s[row]) + residual[t, row]
//
// where x' is x, normalised if norm is given. The formats are D and, where bit s of
// alt is set, ALT. Grid: blocks; block: whole warps, at most threads; dynamic shared
// memory: backend/cuda/matvec.go computes all three.
//
//	x         (tokens, k) float32, 16-byte aligned; with MV_ROUNDED the output of round_rows
//	norm      (k) float32, the RMSNorm's weights, or null
//	eps       of the norm
//	flags     MV_*
//	tokens    1 … T
//	k         width of x and of the rows, a multiple of 32
//	lanes     8, 16 or 32: lanes that share a row
//	w0 w1 w2  packed rows, see quant.h; unused ones null
//	b0 b1 b2  biases (n_s) or null
//	y0 y1 y2  (tokens, n_s) float32
//	n0 n1 n2  rows of each matrix
//	rows      rows of a block
//	first1    the first block of matrix 1, first2 of matrix 2; not below the grid if there is none
//	alt       bits: matrix s is of format ALT
//	residual  (tokens, n0) float32 or null; may be y0. For one matrix only
//	cap       soft cap, 0 for none
//	ahead     bytes that each warp prefetches into L2 before pdl_wait: 0 or a multiple of 32
//	then0 …   the weights of a later kernel, or null: at the end warp w of block b
//	          prefetches thenBytes (a multiple of 32) from row thenRows·(b + w/warps) on,
//	          of thenN rows of thenStride bytes; of then1 too unless it is null
//
// With MV_PAIR: w0 is gate, w1 up, both of n0 rows and of D; y0 = act(gate)·up.
#define MATVEC(name, threads, blocks, D, ALT, T, R, P) MATVEC_KERNEL(name, threads, blocks, (run_matvec<D, ALT, T, R, P>(a, (alt >> s) & 1)))
#define MATVEC_KERNEL(name, threads, blocks, body)                                                                              \
	KERNEL_MIN(name, threads, blocks, const void *x, const float *norm, float eps, int flags, int tokens, int k, int lanes,     \
	           const u8 *w0, const u8 *w1, const u8 *w2, const float *b0, const float *b1, const float *b2, float *y0,         \
	           float *y1, float *y2, int n0, int n1, int n2, int rows, int first1, int first2, int alt, const float *residual, \
	           float cap, int ahead, const u8 *then0, const u8 *then1, int thenStride, int thenRows, int thenN, int thenBytes) { \
		pdl_launch();                                                                                                           \
		SHARED_DYN(smem);                                                                                                       \
		int block = blockIdx.x, s = block >= first2 ? 2 : block >= first1 ? 1 : 0;                                             \
		MatVec a;                                                                                                               \
		a.x = x, a.norm = norm, a.eps = eps, a.flags = flags, a.tokens = tokens, a.k = k, a.lanes = lanes;                      \
		a.w0 = s == 2 ? w2 : s == 1 ? w1 : w0, a.w1 = w1;                                                                       \
		a.bias = s == 2 ? b2 : s == 1 ? b1 : b0, a.y = s == 2 ? y2 : s == 1 ? y1 : y0;                                          \
		a.n = s == 2 ? n2 : s == 1 ? n1 : n0, a.residual = residual, a.cap = cap, a.smem = smem, a.ahead = ahead;               \
		a.then0 = then0, a.then1 = then1, a.thenStride = thenStride, a.thenRows = thenRows, a.thenN = thenN;                    \
		a.thenBytes = thenBytes;                                                                                                \
		a.row0 = (block - (s == 2 ? first2 : s == 1 ? first1 : 0)) * rows;                                                      \
		a.rows = a.n - a.row0 < rows ? a.n - a.row0 : rows;                                                                     \
		if (a.rows <= 0) return;                                                                                                \
		body;                                                                                                                   \
	}
