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
// pdl_wait: weights do not depend on the kernel before.
#pragma once
#include "dot.h"

// Flags of a launch.
enum {
	MV_ROUNDED = 1, // x is what round_rows wrote, not float32
	MV_PAIR = 2,    // matrices 0 and 1 are gate and up: y0 = act(gate)·up
	MV_GELU = 4,    // act is GELU (tanh), else SiLU
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
	u8 *smem;
};

DEV float sigmoid_mul(float g) { return g / (1.f + cl_exp(-g)); }
DEV float gelu_tanh(float g) { return 0.5f * g * (1.f + cl_tanh(0.7978845608028654f * (g + 0.044715f * g * g * g))); }

// Activations in shared memory. Integers: [token][4][pieces] 16-byte parts, the four
// being bytes 0-15 and 16-31 of hi, then of lo; then [token][pieces] {scale, sum}.
// Float: [token][UNIT/4][pieces] float4. Pieces are padded to whole steps with zeros.
template <class D> DEV int act_bytes(int padded, int tokens) { return tokens * padded * (D::FLOAT ? D::UNIT * 4 : 72); }

DEV Act act_at(const u8 *base, int padded, int tokens, int t, int b) {
	const uint4 *q = (const uint4 *)base + (size_t)t * 4 * padded + b;
	float2 s = ((const float2 *)(base + (size_t)tokens * padded * 64))[t * padded + b];
	Act a;
	a.h0 = q[0], a.h1 = q[padded], a.l0 = q[2 * padded], a.l1 = q[3 * padded], a.d = s.x, a.sum = s.y;
	return a;
}

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

// four_at reads x, normalised if norm is not null; at is a multiple of 4, below k.
DEV float4 four_at(const float *x, const float *norm, float scale, int at) {
	float4 v = *(const float4 *)(x + at);
	if (norm) {
		float4 w = ldgf4(norm + at);
		v.x = v.x * scale * w.x, v.y = v.y * scale * w.y, v.z = v.z * scale * w.z, v.w = v.w * scale * w.w;
	}
	return v;
}

// norm_scales sets scale[t] (shared memory) to rsqrt(mean x[t]² + eps); red is shared
// memory for 8·32 floats. All threads of the block take part.
DEV void norm_scales(const float *x, int k, int tokens, float eps, float *scale, float *red) {
	int lane = threadIdx.x & 31, wid = threadIdx.x >> 5, warps = blockDim.x >> 5;
#pragma unroll 1
	for (int t = 0; t < tokens; t++) {
		float s = 0.f;
#pragma unroll 1
		for (int i = threadIdx.x * 4; i < k; i += blockDim.x * 4) {
			float4 v = *(const float4 *)(x + (size_t)t * k + i);
			s += (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w);
		}
		s = warp_sum(s);
		if (lane == 0) red[t * 32 + wid] = s;
	}
	__syncthreads();
	for (int t = wid; t < tokens; t += warps) {
		float s = warp_sum(lane < warps ? red[t * 32 + lane] : 0.f);
		if (lane == 0) scale[t] = cl_rsqrt(s / (float)k + eps);
	}
	__syncthreads();
}

// fill_ints writes the activations as integers; padded is in pieces of 32.
DEV void fill_ints(const MatVec &a, u8 *base, int padded, int slots, const float *scale) {
	int lane8 = threadIdx.x & 7, nb = a.k / 32;
	float2 *ds = (float2 *)(base + (size_t)slots * padded * 64);
#pragma unroll 1
	for (int t = 0; t < slots; t++)
		// whole warps, for the exchange between lanes
#pragma unroll 1
		for (int i = (int)threadIdx.x; i < ((padded * 8 + 31) & ~31); i += blockDim.x) {
			int b = i >> 3;
			float4 v = b < nb && t < a.tokens ? four_at((const float *)a.x + (size_t)t * a.k, a.norm, a.norm ? scale[t] : 1.f, i * 4) : zero4();
			u32 hi, lo;
			float d, sum;
			round_four(v, hi, lo, d, sum);
			if (b >= padded) continue;
			u32 *q = (u32 *)(base + ((size_t)t * 4 * padded + (lane8 >> 2) * padded + b) * 16) + (lane8 & 3);
			q[0] = hi, q[padded * 8] = lo;
			if (lane8 == 0) {
				float2 s;
				s.x = d, s.y = sum;
				ds[t * padded + b] = s;
			}
		}
}

// copy_ints takes them from what round_rows wrote: the same with pieces k/32 and
// one token after the other, 72 bytes a piece.
DEV void copy_ints(const MatVec &a, u8 *base, int padded, int slots) {
	int nb = a.k / 32;
	uint4 zero;
	zero.x = 0, zero.y = 0, zero.z = 0, zero.w = 0;
	float2 *ds = (float2 *)(base + (size_t)slots * padded * 64);
#pragma unroll 1
	for (int t = 0; t < slots; t++) {
		const u8 *from = (const u8 *)a.x + (size_t)t * nb * 72;
		bool live = t < a.tokens;
#pragma unroll 1
		for (int p = 0; p < 4; p++)
#pragma unroll 1
			for (int b = threadIdx.x; b < padded; b += blockDim.x) {
				uint4 v = zero;
				if (live && b < nb) v = ((const uint4 *)from)[p * nb + b];
				((uint4 *)base)[(t * 4 + p) * padded + b] = v;
			}
#pragma unroll 1
		for (int b = threadIdx.x; b < padded; b += blockDim.x) {
			float2 v;
			v.x = 0.f, v.y = 0.f;
			if (live && b < nb) v = ((const float2 *)(from + (size_t)nb * 64))[b];
			ds[t * padded + b] = v;
		}
	}
}

// fill_floats writes them as they are, for weights that are floats.
template <int UNIT> DEV void fill_floats(const MatVec &a, u8 *base, int padded, int slots, const float *scale) {
	const int N = UNIT / 4;
#pragma unroll 1
	for (int t = 0; t < slots; t++)
#pragma unroll 1
		for (int i = threadIdx.x; i < padded * N; i += blockDim.x) {
			float4 v = i * 4 < a.k && t < a.tokens ? four_at((const float *)a.x + (size_t)t * a.k, a.norm, a.norm ? scale[t] : 1.f, i * 4) : zero4();
			((float4 *)base)[((size_t)t * N + i % N) * padded + i / N] = v;
		}
}

// One piece of R rows with the activations of T tokens, added to acc.
template <class D, int R, int T> DEV void piece_products(float (&acc)[R][T], const typename D::Weights (&w)[R], const u8 *base, int padded, int b) {
#pragma unroll
	for (int t = 0; t < T; t++) {
		if constexpr (D::FLOAT) {
			FloatAct<D::UNIT / 4> x;
#pragma unroll
			for (int i = 0; i < D::UNIT / 4; i++) x.v[i] = ((const float4 *)base)[(t * (D::UNIT / 4) + i) * padded + b];
#pragma unroll
			for (int r = 0; r < R; r++) acc[r][t] += D::dot(w[r], x);
		} else {
			Act x = act_at(base, padded, T, t, b);
#pragma unroll
			for (int r = 0; r < R; r++) acc[r][t] += D::dot(w[r], x);
		}
	}
}

// The place of a warp in the sequence of steps.
struct Place { int group, step; };

template <class D, int T, int R, int P> DEV void matvec(const MatVec &a) {
	int lane = threadIdx.x & 31, wid = threadIdx.x >> 5, warps = blockDim.x >> 5;
	int pieces = a.k / D::UNIT, lanes = a.lanes, sub = lane / lanes, at = lane & (lanes - 1);
	int steps = (pieces + lanes - 1) / lanes, padded = steps * lanes;
	bool pair = a.flags & MV_PAIR;
	int side = 32 / lanes, per_group = pair ? side : R * side; // rows of y
	int groups = (a.rows + per_group - 1) / per_group;
	int run = (groups * steps + warps - 1) / warps;
	int first = wid * run, last = first + run < groups * steps ? first + run : groups * steps;
	size_t stride = D::Format::row_bytes(a.k);

	typename D::Raw raw[P][R];
	const u8 *rows[R];
	Place next;
	next.group = first / steps, next.step = first - next.group * steps;
	auto aim = [&]() INLINE_LAMBDA { // at the rows of next.group; past the end at the last row, which is there
#pragma unroll
		for (int r = 0; r < R; r++) {
			int row = a.row0 + next.group * per_group + (pair ? sub : sub * R + r);
			row = row < a.n ? row : a.n - 1;
			rows[r] = (pair && r ? a.w1 : a.w0) + (size_t)row * stride;
		}
	};
	auto load = [&](typename D::Raw(&to)[R]) INLINE_LAMBDA {
		int b = next.step * lanes + at;
		b = b < pieces ? b : pieces - 1; // the activations there are zeros
#pragma unroll
		for (int r = 0; r < R; r++) D::load(to[r], rows[r], a.k, b);
		if (++next.step == steps) {
			next.step = 0, next.group++;
			aim();
		}
	};
	aim();
#pragma unroll
	for (int p = 0; p < P; p++)
		if (first + p < last) load(raw[p]);

	pdl_wait();
	u8 *base = a.smem;
	float *part = (float *)(a.smem + act_bytes<D>(padded, T));
	{
		float *scale = part, *red = part + 8;
		if (a.norm) norm_scales((const float *)a.x, a.k, a.tokens, a.eps, scale, red);
		if constexpr (D::FLOAT) fill_floats<D::UNIT>(a, base, padded, T, scale);
		else if (a.flags & MV_ROUNDED) copy_ints(a, base, padded, T);
		else fill_ints(a, base, padded, T, scale);
		__syncthreads();
	}

	float acc[R][T];
#pragma unroll
	for (int r = 0; r < R; r++)
#pragma unroll
		for (int t = 0; t < T; t++) acc[r][t] = 0.f;
	int group = first / steps, step = first - group * steps;
	for (int i = first; i < last; i += P) {
#pragma unroll
		for (int p = 0; p < P; p++) {
			if (i + p >= last) break;
			int b = step * lanes + at;
			typename D::Weights w[R];
#pragma unroll
			for (int r = 0; r < R; r++) D::decode(w[r], raw[p][r], b);
			if (i + p + P < last) load(raw[p]);
			piece_products<D, R, T>(acc, w, base, padded, b);
			if (++step == steps || i + p + 1 == last) {
				// Pieces of the sequence are numbered group + warp: each border between
				// groups or warps raises the number.
				float *to = part + (size_t)(group + wid) * (R * T) * side + sub * (R * T);
#pragma unroll
				for (int r = 0; r < R; r++)
#pragma unroll
					for (int t = 0; t < T; t++) {
						float v = acc[r][t];
#pragma unroll 1
						for (int m = lanes >> 1; m; m >>= 1) v += shfl_xor(v, m);
						if (at == 0) to[r * T + t] = v;
						acc[r][t] = 0.f;
					}
				step = 0, group++;
			}
		}
	}
	__syncthreads();

	// Add the pieces and finish.
#pragma unroll 1
	for (int i = threadIdx.x; i < a.rows * a.tokens; i += blockDim.x) {
		int t = i / a.rows, j = i - t * a.rows, g = j / per_group, in = j - g * per_group;
		int w0 = g * steps / run, w1 = ((g + 1) * steps - 1) / run;
		const float *from = part + (size_t)(g + w0) * (R * T) * side + (pair ? in * R : in) * T + t;
		float v = 0.f, up = 0.f;
#pragma unroll 1
		for (int w = w0; w <= w1; w++, from += R * T * side) {
			v += from[0];
			if (pair) up += from[T];
		}
		int row = a.row0 + j;
		if (pair) v = (a.flags & MV_GELU ? gelu_tanh(v) : sigmoid_mul(v)) * up;
		if (a.bias) v += a.bias[row];
		if (a.cap > 0.f) v = a.cap * cl_tanh(v / a.cap);
		size_t o = (size_t)t * a.n + row;
		if (a.residual) v += a.residual[o];
		a.y[o] = v;
	}
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
//
// With MV_PAIR: w0 is gate, w1 up, both of n0 rows and of D; y0 = act(gate)·up.
#define MATVEC(name, threads, blocks, D, ALT, T, R, P)                                                                          \
	KERNEL_MIN(name, threads, blocks, const void *x, const float *norm, float eps, int flags, int tokens, int k, int lanes,     \
	           const u8 *w0, const u8 *w1, const u8 *w2, const float *b0, const float *b1, const float *b2, float *y0,         \
	           float *y1, float *y2, int n0, int n1, int n2, int rows, int first1, int first2, int alt, const float *residual, \
	           float cap) {                                                                                                     \
		pdl_launch();                                                                                                           \
		SHARED_DYN(smem);                                                                                                       \
		int block = blockIdx.x, s = block >= first2 ? 2 : block >= first1 ? 1 : 0;                                             \
		MatVec a;                                                                                                               \
		a.x = x, a.norm = norm, a.eps = eps, a.flags = flags, a.tokens = tokens, a.k = k, a.lanes = lanes;                      \
		a.w0 = s == 2 ? w2 : s == 1 ? w1 : w0, a.w1 = w1;                                                                       \
		a.bias = s == 2 ? b2 : s == 1 ? b1 : b0, a.y = s == 2 ? y2 : s == 1 ? y1 : y0;                                          \
		a.n = s == 2 ? n2 : s == 1 ? n1 : n0, a.residual = residual, a.cap = cap, a.smem = smem;                                \
		a.row0 = (block - (s == 2 ? first2 : s == 1 ? first1 : 0)) * rows;                                                      \
		a.rows = a.n - a.row0 < rows ? a.n - a.row0 : rows;                                                                     \
		if (a.rows <= 0) return;                                                                                                \
		run_matvec<D, ALT, T, R, P>(a, (alt >> s) & 1);                                                                         \
	}
