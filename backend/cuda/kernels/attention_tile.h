// attention_tile.h: attention kernels on tensor cores (mma.sync m16n8k16, sm_80) for
// one head size D, a multiple of 16. attention_<D>.cu gives D and makes them kernels.
#pragma once
#include "attention.h"
#include "rope.h"

// ---------------------------------------------------------------- decode
// One block: 8 query heads of one key/value head, one token, one split of the positions.
// Each warp streams its own groups of 16 positions through its own ring in shared memory,
// so that no barrier stands between a load and the next; warps merge at the end. The block
// that is the last of its splits to end combines them all: no second kernel.
//
// The 16 rows of an MMA hold 8 heads twice: rows 0-7 the high f16 halves of q, rows 8-15
// what the rounding lost. Row g+8 of the product is the same thread's as row g, so adding
// them gives q·k with q to 22 bits at no extra cost; the softmax weights likewise.
struct Decode {
	const float *q;  // (T, H, D)
	float *out;      // (T, H, D)
	float *po;       // (T, H, S, D) sums of splits
	float2 *ml;      // (T, H, S) their maxima and weights
	u32 *count;      // (T, gridDim.y) zeros; the last block leaves zeros
	const int *pos, *caps;
	const u64 *kvs;
	int H, T, least;
};

constexpr int MAX_SPLITS = 256;

// Rotate is what decode of one token rotates and stores itself, for heads of whole 64
// elements: queries are then as the products gave them, and so are k and v (KV heads, D).
struct Rotate {
	const float *k, *v;
	const u64 *freq; // (n), see rope.h
	int n, interleaved; // pairs (i, i+n), or (2i, 2i+1)
	float magnitude;
};

// Turns are a lane's pairs of a head: where their elements are, and their angles.
template <int D> struct Turns {
	static constexpr int N = D / 64;
	int first[N], second[N];
	float c[N], s[N];

	__device__ __forceinline__ void aim(const Rotate &r, int pos) {
#pragma unroll
		for (int j = 0; j < N; j++) {
			int i = (threadIdx.x & 31) + 32 * j;
			bool half = i < r.n && !r.interleaved;
			first[j] = half ? i : 2 * i, second[j] = half ? i + r.n : 2 * i + 1;
			c[j] = 1.f, s[j] = 0.f;
			if (i < r.n) {
				rope_angle(r.freq[i], pos, &c[j], &s[j]);
				c[j] *= r.magnitude, s[j] *= r.magnitude;
			}
		}
	}
};

// rotate_heads writes the block's rotated queries to shared memory, a row D + 8 numbers,
// and where it has the token's own position the key and the value to the cache, and to
// their row of a stage (the value 16 rows behind the key) if one is given. A warp takes every NW-th of them and loads all before it uses the first.
template <int D> DEV void rotate_heads(const Rotate &r, const Turns<D> &turns, const float *q, int nh, int kvh, float *to, u16 *key, u16 *value, u16 *row) {
	constexpr int BEHIND = 16 * (D + 8);
	constexpr int N = Turns<D>::N, JOBS = 3;
	int NW = blockDim.x >> 5, wid = threadIdx.x >> 5, jobs = key ? nh + 2 : nh;
	float a[JOBS][N], b[JOBS][N];
#pragma unroll
	for (int j = 0; j < JOBS; j++) {
		int h = wid + j * NW;
		if (h >= jobs) break;
		const float *x = h < nh ? q + h * D : (h == nh ? r.k : r.v) + kvh * D;
#pragma unroll
		for (int i = 0; i < N; i++) a[j][i] = x[turns.first[i]], b[j][i] = x[turns.second[i]];
	}
#pragma unroll
	for (int j = 0; j < JOBS; j++) {
		int h = wid + j * NW;
		if (h >= jobs) break;
#pragma unroll
		for (int i = 0; i < N; i++) {
			int first = turns.first[i], second = turns.second[i];
			float x = a[j][i], y = b[j][i], u = x * turns.c[i] - y * turns.s[i], v = x * turns.s[i] + y * turns.c[i];
			if (h < nh) to[h * (D + 8) + first] = u, to[h * (D + 8) + second] = v;
			else {
				u16 one = h == nh ? f2h(u) : f2h(x), two = h == nh ? f2h(v) : f2h(y), *out = h == nh ? key : value;
				out[first] = one, out[second] = two;
				if (row) row[(h == nh ? 0 : BEHIND) + first] = one, row[(h == nh ? 0 : BEHIND) + second] = two;
			}
		}
	}
}

// Adds up the splits of nh heads whose sums begin at po and ml (heads S apart): first each
// head's weights by one warp, then threads share elements and, if they are many, splits.
template <int D> DEV void combine_splits(const float *po, const float2 *ml, float *out, int nh, int S, int active, u8 *smem) {
	int NT = blockDim.x, tid = threadIdx.x, lane = tid & 31;
	float *w = (float *)smem, *total = w + 8 * MAX_SPLITS; // (8, MAX_SPLITS), (8)
	float4 *part = (float4 *)(total + 8);                  // a thread's sum
	for (int h = tid >> 5; h < nh; h += NT >> 5) {
		float2 v[MAX_SPLITS / 32];
		float top = NEG_INF, sum = 0.f;
#pragma unroll
		for (int j = 0; j < MAX_SPLITS / 32; j++) {
			v[j] = float2{NEG_INF, 0.f};
			if (lane + j * 32 < active) v[j] = ld_cg_f2(ml + h * S + lane + j * 32);
			top = cl_fmax(top, v[j].x);
		}
		top = warp_max(top);
#pragma unroll
		for (int j = 0; j < MAX_SPLITS / 32; j++)
			if (lane + j * 32 < active) {
				float f = cl_exp2(v[j].x - top);
				w[h * MAX_SPLITS + lane + j * 32] = f;
				sum += f * v[j].y;
			}
		sum = warp_sum(sum);
		if (lane == 0) total[h] = sum;
	}
	__syncthreads();
	int items = nh * (D / 4), shares = NT / items > 1 ? NT / items : 1, share = shares > 1 ? tid / items : 0;
	for (int e = shares > 1 ? tid % items : tid; e < items; e += NT) {
		int h = e / (D / 4), d = e % (D / 4) * 4;
		const float *src = po + (size_t)h * S * D + d;
		float4 a = {0.f, 0.f, 0.f, 0.f};
		// loads in flight; the compiler does not unroll loops with assembly by itself
		constexpr int FLIGHT = 17;
		for (int s0 = share < shares ? share : active; s0 < active; s0 += FLIGHT * shares) {
			float4 v[FLIGHT];
#pragma unroll
			for (int j = 0; j < FLIGHT; j++)
				if (s0 + j * shares < active) v[j] = ld_cg_f4(src + (size_t)(s0 + j * shares) * D);
#pragma unroll
			for (int j = 0; j < FLIGHT; j++)
				if (s0 + j * shares < active) {
					float f = w[h * MAX_SPLITS + s0 + j * shares];
					a.x += f * v[j].x, a.y += f * v[j].y, a.z += f * v[j].z, a.w += f * v[j].w;
				}
		}
		if (shares > 1) {
			part[tid] = a;
			__syncthreads(); // all threads come here, once
			if (share > 0) return;
			for (int i = 1; i < shares; i++) {
				float4 v = part[i * items + e];
				a.x += v.x, a.y += v.y, a.z += v.z, a.w += v.w;
			}
		}
		float f = 1.f / total[h];
		*(float4 *)(out + h * D + d) = float4{a.x * f, a.y * f, a.z * f, a.w * f};
	}
}

template <int D, int ST, bool ROTATES> DEV void attention_decode(const Decode &a, const Cache &c, const Rotate &rot) {
	constexpr int ROW = D * 2 + 16;     // bytes of a row in shared memory: 16 more, against bank conflicts
	constexpr int STAGE = 2 * 16 * ROW; // 16 keys, 16 values
	constexpr int PIECES = D / 8;       // of 16 bytes in a row
	SHARED_DYN(smem);
	__shared__ int last;
	int NW = blockDim.x >> 5, lane = threadIdx.x & 31, wid = threadIdx.x >> 5, g = lane >> 2, t4 = lane & 3;
	int S = gridDim.x, split = blockIdx.x, t = blockIdx.z;
	int group = a.H / c.heads, parts = (group + 7) / 8;
	int kvh = blockIdx.y / parts, h0 = (blockIdx.y % parts) * 8;
	int nh = group - h0 < 8 ? group - h0 : 8;
	int head = kvh * group + h0; // of row 0
	size_t row = (size_t)t * a.H + head;
	int cap = a.caps[t], len = a.pos[t] + 1;
	len = len < cap ? len : cap;
	int first = c.window && len > c.window ? len - c.window : 0, from, to;
	// Two groups of positions a warp, asked for before the wait, cost less than combining.
	int least = ROTATES && len - first <= 2 * a.least ? 2 * a.least : a.least;
	int active = split_range(first, len, S, least, split, from, to);
	pdl_launch();
	if (from >= to) {
		// Blocks with nothing to do make room for the next kernel's at once: step data is
		// there before any kernel, and split 0 waits for all of them.
		if (split > 0) return;
		pdl_wait();
		for (int i = threadIdx.x; i < nh * D; i += blockDim.x) a.out[row * D + i] = 0.f; // no position at all: only a misplaced token
		return;
	}
	const u16 *K = cache_keys<u16>(c, a.kvs[t], cap, kvh, D), *V = cache_values<u16>(c, a.kvs[t], cap, kvh, D);
	u32 ring = smem_u32(smem) + wid * (ST * STAGE);
	int groups = (to - from + 15) / 16, mine = (groups - wid + NW - 1) / NW; // groups of this warp: wid, wid+NW, …

	// own is a position that is not there yet: its row stays as it is, those behind it are zeros
	auto load = [&](int i, int own) INLINE_LAMBDA {
		u32 at = ring + (i % ST) * STAGE;
		int p0 = from + (wid + i * NW) * 16;
#pragma unroll
		for (int j = 0; j < 16 * PIECES / 32; j++) {
			int e = lane + j * 32, r = e / PIECES, p = e % PIECES;
			int at_row = p0 + r < to ? p0 + r : to - 1; // a row that exists; its score is masked
			if (ROTATES && p0 + r >= own) {
				u8 *row = smem + (at - smem_u32(smem)) + r * ROW + p * 16;
				if (p0 + r > own) *(uint4 *)row = uint4{0, 0, 0, 0}, *(uint4 *)(row + 16 * ROW) = uint4{0, 0, 0, 0};
				continue;
			}
			cp_async16(at + r * ROW + p * 16, K + (size_t)at_row * D + p * 8);
			cp_async16(at + (16 + r) * ROW + p * 16, V + (size_t)at_row * D + p * 8);
		}
	};
	constexpr int NONE = 0x7fffffff;
	auto fill = [&](int own) INLINE_LAMBDA {
#pragma unroll
		for (int i = 0; i < ST; i++) {
			if (i < mine) load(i, own);
			cp_async_commit();
		}
	};
	float *turned = (float *)(smem + NW * (ST * STAGE)); // (8, D+8) queries
	if constexpr (ROTATES) {
		// One token: only its own position is missing, and this kernel makes it.
		bool stores = to == len && a.pos[t] < cap;
		fill(stores ? len - 1 : NONE);
		Turns<D> turns;
		turns.aim(rot, a.pos[t]);
		int g0 = (len - 1 - from) / 16, stage = g0 / NW;
		u16 *own = stores && stage < ST ? (u16 *)(smem + (g0 % NW * ST + stage) * STAGE + (len - 1 - from) % 16 * ROW) : (u16 *)0;
		pdl_wait();
		rotate_heads<D>(rot, turns, a.q + row * D, nh, kvh, turned, stores ? (u16 *)K + (size_t)(len - 1) * D : (u16 *)0, (u16 *)V + (size_t)(len - 1) * D, own);
		__syncthreads();
	} else {
		// Only the last T positions can be the work of the kernel before this one.
		bool early = to <= len - a.T;
		if (early) fill(NONE);
		pdl_wait();
		if (!early) fill(NONE);
	}

	u32 qa[D / 16][4];
	float unscale;
	{
		const float *src = a.q + (row + (g < nh ? g : 0)) * D + t4 * 2;
		if constexpr (ROTATES) src = turned + (g < nh ? g : 0) * (D + 8) + t4 * 2;
		float amax = 0.f;
#pragma unroll
		for (int k = 0; k < D / 8; k++) {
			float2 v = *(const float2 *)(src + k * 8);
			amax = cl_fmax(amax, cl_fmax(cl_fabs(v.x), cl_fabs(v.y)));
		}
		amax = cl_fmax(amax, shfl_xor(amax, 1));
		amax = cl_fmax(amax, shfl_xor(amax, 2));
		float up = pow2_for(amax, unscale);
#pragma unroll
		for (int k = 0; k < D / 8; k++) {
			float2 v = *(const float2 *)(src + k * 8);
			split_h2(v.x * up, v.y * up, qa[k >> 1][(k & 1) * 2], qa[k >> 1][(k & 1) * 2 + 1]);
		}
	}

	float o[D / 8][4], m = NEG_INF, l = 0.f;
#pragma unroll
	for (int n = 0; n < D / 8; n++) o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.f;
	u32 koff = ((lane & 7) + ((lane >> 4) << 3)) * ROW + ((lane >> 3) & 1) * 16; // 8 keys × two halves of 16 elements, then 8 more keys
	u32 voff = (16 + (lane & 15)) * ROW + (lane >> 4) * 16;                      // 16 values × two pieces of 8 elements
	for (int i = 0; i < mine; i++) {
		cp_async_wait<ST - 1>();
		syncwarp();
		u32 at = ring + (i % ST) * STAGE;
		float s[2][4] = {}, s2[2][4] = {}; // even and odd steps: shorter chains
#pragma unroll
		for (int k = 0; k < D / 16; k++) {
			u32 b[4];
			ldmatrix_x4(b[0], b[1], b[2], b[3], at + koff + k * 32);
			mma_16816(k & 1 ? s2[0] : s[0], qa[k], b);
			mma_16816(k & 1 ? s2[1] : s[1], qa[k], b + 2);
		}
		int p0 = from + (wid + i * NW) * 16 + t4 * 2;
		float x[4], mx = m;
#pragma unroll
		for (int e = 0; e < 4; e++) {
			int n = e >> 1, r = e & 1;
			x[e] = score(c, ((s[n][r] + s2[n][r]) + (s[n][r + 2] + s2[n][r + 2])) * unscale);
			if (p0 + n * 8 + r >= to) x[e] = NEG_INF;
			mx = cl_fmax(mx, x[e]);
		}
		mx = cl_fmax(mx, shfl_xor(mx, 1));
		mx = cl_fmax(mx, shfl_xor(mx, 2)); // finite: the group has a position
		float fade = cl_exp2(m - mx);
		m = mx;
#pragma unroll
		for (int e = 0; e < 4; e++) x[e] = cl_exp2(x[e] - mx + P_SHIFT);
		l = l * fade + ((x[0] + x[1]) + (x[2] + x[3]));
		u32 pa[4];
		split_h2(x[0], x[1], pa[0], pa[1]);
		split_h2(x[2], x[3], pa[2], pa[3]);
#pragma unroll
		for (int n = 0; n < D / 8; n += 2) {
			u32 b[4];
			ldmatrix_x4_trans(b[0], b[1], b[2], b[3], at + voff + n * 16);
#pragma unroll
			for (int e = 0; e < 4; e++) o[n][e] *= fade, o[n + 1][e] *= fade;
			mma_16816(o[n], pa, b);
			mma_16816(o[n + 1], pa, b + 2);
		}
		if (i + ST < mine) {
			syncwarp(); // the whole warp has read the stage
			load(i + ST, NONE);
		}
		cp_async_commit();
	}
	cp_async_wait<0>();
	l += shfl_xor(l, 1);
	l += shfl_xor(l, 2);

	// merge the warps: weights first, then sums, each in the order of the warps
	__syncthreads(); // all rings are read
	float *so = (float *)smem;                      // (NW, 8, D+4)
	float2 *sm = (float2 *)(so + NW * 8 * (D + 4)); // (NW, 8)
	if (t4 == 0) sm[wid * 8 + g] = float2{m, l};
#pragma unroll
	for (int n = 0; n < D / 8; n++)
		*(float2 *)(so + (wid * 8 + g) * (D + 4) + n * 8 + t4 * 2) = float2{o[n][0] + o[n][2], o[n][1] + o[n][3]};
	__syncthreads();
	for (int e = threadIdx.x; e < nh * (D / 4); e += blockDim.x) {
		int h = e / (D / 4), d = e % (D / 4) * 4;
		float top = NEG_INF, sum = 0.f;
		for (int w = 0; w < NW; w++) top = cl_fmax(top, sm[w * 8 + h].x);
		float4 v = {0.f, 0.f, 0.f, 0.f};
		for (int w = 0; w < NW; w++) {
			float f = cl_exp2(sm[w * 8 + h].x - top);
			float4 u = *(const float4 *)(so + (w * 8 + h) * (D + 4) + d);
			sum += f * sm[w * 8 + h].y;
			v.x += f * u.x, v.y += f * u.y, v.z += f * u.z, v.w += f * u.w;
		}
		if (active == 1) {
			float f = 1.f / sum;
			*(float4 *)(a.out + (row + h) * D + d) = float4{v.x * f, v.y * f, v.z * f, v.w * f};
		} else {
			size_t at = (row + h) * S + split;
			*(float4 *)(a.po + at * D + d) = v;
			if (d == 0) a.ml[at] = float2{top, sum};
		}
	}
	if (active == 1) return;
	__threadfence(); // what this block wrote comes before its count
	__syncthreads();
	if (threadIdx.x == 0) {
		u32 *count = a.count + t * gridDim.y + blockIdx.y;
		last = atomic_add_u32(count, 1) == (u32)active - 1;
		if (last) *count = 0;
	}
	__syncthreads();
	if (!last) return;
	__threadfence();
	combine_splits<D>(a.po + row * S * D, a.ml + row * S, a.out + row * D, nh, S, active, smem);
}

// ---------------------------------------------------------------- prefill
// One block: up to 64 query tokens of one sequence, one query head, one split of the
// positions; 4 warps of 16 rows (Dao 2023, FlashAttention-2). q in two halves of f16 as
// above but in two products, the softmax weights in one. BN positions a round.
//
// tiles: {t0, n} for blockIdx.y counted from the last, whose context is the longest.
// With gridDim.z = 1 it writes out; otherwise po and ml, to be combined.
template <int D, int BN, class E> DEV void attention_prefill(const float *q, float *out, float *po, float2 *ml, const int *tiles, const int *pos, const u64 *kvs, const int *caps, const Cache &c, int H) {
	constexpr int ROW = D * 2 + 16, TILE = BN * ROW, STAGE = 2 * TILE, PIECES = D / 8;
	constexpr bool SPILL = D > 128; // q in shared memory: the registers hold the sums
	constexpr int NT = 128;
	SHARED_DYN(smem);
	u32 s0 = smem_u32(smem);
	int tid = threadIdx.x, lane = tid & 31, wid = tid >> 5, g = lane >> 2, t4 = lane & 3;
	int head = blockIdx.x, kvh = head / (H / c.heads), tile = gridDim.y - 1 - blockIdx.y;
	pdl_launch();
	pdl_wait();
	int t0 = tiles[tile * 2], n = tiles[tile * 2 + 1], cap = caps[t0];
	const E *K = cache_keys<E>(c, kvs[t0], cap, kvh, D), *V = cache_values<E>(c, kvs[t0], cap, kvh, D);

	// this thread's two rows, and the positions that any row of the block sees
	int r0 = wid * 16 + g, p[2], lowest, highest;
	for (int i = 0; i < 2; i++) {
		int r = r0 + i * 8;
		p[i] = pos[t0 + (r < n ? r : n - 1)];
	}
	{
		int a = pos[t0 + (lane < n ? lane : n - 1)], b = pos[t0 + (lane + 32 < n ? lane + 32 : n - 1)];
		lowest = a < b ? a : b, highest = a < b ? b : a;
		for (int m = 16; m; m >>= 1) {
			int x = shfl_xor_i(lowest, m), y = shfl_xor_i(highest, m);
			lowest = x < lowest ? x : lowest, highest = y > highest ? y : highest;
		}
	}
	int to = highest + 1 < cap ? highest + 1 : cap;
	int from = c.window && lowest + 1 > c.window ? lowest + 1 - c.window : 0;
	if (gridDim.z > 1) {
		int first = from, last = to;
		split_range(first, last, gridDim.z, BN, blockIdx.z, from, to);
	}

	auto load = [&](int p0, int stage) INLINE_LAMBDA {
		u32 at = s0 + stage * STAGE;
#pragma unroll
		for (int j = 0; j < BN * PIECES / NT; j++) {
			int e = tid + j * NT, r = e / PIECES, x = e % PIECES;
			int row = p0 + r < to ? p0 + r : to - 1; // a row that exists; its score is masked
			size_t src = (size_t)row * D + x * 8;
			u32 dst = at + r * ROW + x * 16;
			if constexpr (sizeof(E) == 2) {
				cp_async16(dst, K + src);
				cp_async16(dst + TILE, V + src);
			} else {
				*(uint4 *)(smem + (dst - s0)) = halves8((const float *)K + src);
				*(uint4 *)(smem + (dst - s0) + TILE) = halves8((const float *)V + src);
			}
		}
	};
	int rounds = to > from ? (to - from + BN - 1) / BN : 0;
	if (rounds) load(from, 0);
	cp_async_commit();

	constexpr int QR = SPILL ? 1 : D / 16;
	u32 qh[QR][4], ql[QR][4];
	uint4 *qs = (uint4 *)(smem + 2 * STAGE) + wid * (D / 16) * 64 + lane; // (k, high or low, lane)
	// Scores are s·factor, or factor·tanh(s·capped), in base 2; a negative scale goes into q.
	float factor[2], capped[2];
	{
		const float *src[2];
		float up[2];
#pragma unroll
		for (int i = 0; i < 2; i++) {
			int r = r0 + i * 8;
			src[i] = q + ((size_t)(t0 + (r < n ? r : n - 1)) * H + head) * D + t4 * 2;
			float amax = 0.f;
#pragma unroll
			for (int k = 0; k < D / 8; k++) {
				float2 v = *(const float2 *)(src[i] + k * 8);
				amax = cl_fmax(amax, cl_fmax(cl_fabs(v.x), cl_fabs(v.y)));
			}
			amax = cl_fmax(amax, shfl_xor(amax, 1));
			amax = cl_fmax(amax, shfl_xor(amax, 2));
			float unscale;
			up[i] = pow2_for(amax, unscale);
			if (c.scale < 0.f) up[i] = -up[i];
			float scale = cl_fabs(c.scale) * unscale;
			factor[i] = (c.cap != 0.f ? c.cap : scale) * LOG2E;
			capped[i] = c.cap != 0.f ? scale / c.cap : 0.f;
		}
#pragma unroll
		for (int k = 0; k < D / 16; k++) {
			u32 hi[4], lo[4];
#pragma unroll
			for (int e = 0; e < 4; e++) { // element halves e>>1, rows e&1
				float2 v = *(const float2 *)(src[e & 1] + k * 16 + (e >> 1) * 8);
				split_h2(v.x * up[e & 1], v.y * up[e & 1], hi[e], lo[e]);
			}
			if constexpr (SPILL) {
				qs[k * 64] = uint4{hi[0], hi[1], hi[2], hi[3]};
				qs[k * 64 + 32] = uint4{lo[0], lo[1], lo[2], lo[3]};
			} else {
#pragma unroll
				for (int e = 0; e < 4; e++) qh[k][e] = hi[e], ql[k][e] = lo[e];
			}
		}
	}

	float o[D / 8][4], m[2] = {NEG_INF, NEG_INF}, l[2] = {0.f, 0.f};
#pragma unroll
	for (int i = 0; i < D / 8; i++) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0.f;
	u32 koff = ((lane & 7) + ((lane >> 4) << 3)) * ROW + ((lane >> 3) & 1) * 16;
	u32 voff = TILE + (lane & 15) * ROW + (lane >> 4) * 16;
	for (int i = 0; i < rounds; i++) {
		int p0 = from + i * BN;
		if (i + 1 < rounds) load(p0 + BN, (i + 1) & 1);
		cp_async_commit();
		cp_async_wait<1>();
		__syncthreads();
		u32 at = s0 + (i & 1) * STAGE;
		float s[BN / 8][4];
#pragma unroll
		for (int j = 0; j < BN / 8; j++) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.f;
#pragma unroll
		for (int k = 0; k < D / 16; k++) {
			u32 hi[4], lo[4];
			if constexpr (SPILL) {
				uint4 a = qs[k * 64], b = qs[k * 64 + 32];
				hi[0] = a.x, hi[1] = a.y, hi[2] = a.z, hi[3] = a.w;
				lo[0] = b.x, lo[1] = b.y, lo[2] = b.z, lo[3] = b.w;
			} else {
#pragma unroll
				for (int e = 0; e < 4; e++) hi[e] = qh[k][e], lo[e] = ql[k][e];
			}
#pragma unroll
			for (int j = 0; j < BN / 8; j += 2) {
				u32 b[4];
				ldmatrix_x4(b[0], b[1], b[2], b[3], at + koff + j * 8 * ROW + k * 32);
				mma_16816(s[j], hi, b);
				mma_16816(s[j + 1], hi, b + 2);
				mma_16816(s[j], lo, b);
				mma_16816(s[j + 1], lo, b + 2);
			}
		}
		// every row of the block sees all of [p0, p0+BN): no masks in most rounds
		bool whole = p0 + BN <= to && p0 + BN - 1 <= lowest && (!c.window || p0 + c.window > highest);
		if (c.cap != 0.f)
#pragma unroll
			for (int j = 0; j < BN / 8; j++)
#pragma unroll
				for (int e = 0; e < 4; e++) s[j][e] = cl_tanh(s[j][e] * capped[e >> 1]);
		if (!whole)
#pragma unroll
			for (int j = 0; j < BN / 8; j++)
#pragma unroll
				for (int e = 0; e < 4; e++) {
					int at = p0 + j * 8 + t4 * 2 + (e & 1), row = p[e >> 1];
					if (at > row || at >= to || (c.window && at + c.window <= row)) s[j][e] = NEG_INF;
				}
		float fade[2], base[2];
#pragma unroll
		for (int r = 0; r < 2; r++) {
			float mx = NEG_INF;
#pragma unroll
			for (int j = 0; j < BN / 8; j++) mx = cl_fmax(mx, cl_fmax(s[j][r * 2], s[j][r * 2 + 1]));
			mx = cl_fmax(mx, shfl_xor(mx, 1));
			mx = cl_fmax(mx, shfl_xor(mx, 2));
			mx = cl_fmax(m[r], mx * factor[r]);
			base[r] = mx == NEG_INF ? 0.f : mx - P_SHIFT; // a row that has seen nothing yet: all weights 0
			fade[r] = mx == NEG_INF ? 1.f : cl_exp2(m[r] - mx);
			m[r] = mx;
			l[r] *= fade[r];
		}
#pragma unroll
		for (int j = 0; j < BN / 8; j++)
#pragma unroll
			for (int e = 0; e < 4; e++) {
				s[j][e] = cl_exp2(cl_fma(s[j][e], factor[e >> 1], -base[e >> 1]));
				l[e >> 1] += s[j][e];
			}
		// After the first rounds the maxima hardly change.
		if (!warp_all(fade[0] == 1.f && fade[1] == 1.f))
#pragma unroll
			for (int d = 0; d < D / 8; d++)
#pragma unroll
				for (int e = 0; e < 4; e++) o[d][e] *= fade[e >> 1];
#pragma unroll
		for (int k = 0; k < BN / 16; k++) {
			u32 pa[4] = {f2h2(s[k * 2][0], s[k * 2][1]), f2h2(s[k * 2][2], s[k * 2][3]), f2h2(s[k * 2 + 1][0], s[k * 2 + 1][1]), f2h2(s[k * 2 + 1][2], s[k * 2 + 1][3])};
#pragma unroll
			for (int d = 0; d < D / 8; d += 2) {
				u32 b[4];
				ldmatrix_x4_trans(b[0], b[1], b[2], b[3], at + voff + k * 16 * ROW + d * 16);
				mma_16816(o[d], pa, b);
				mma_16816(o[d + 1], pa, b + 2);
			}
		}
		__syncthreads(); // the stage is free
	}
	cp_async_wait<0>();

#pragma unroll
	for (int i = 0; i < 2; i++) {
		l[i] += shfl_xor(l[i], 1);
		l[i] += shfl_xor(l[i], 2);
		int r = r0 + i * 8;
		if (r >= n) continue;
		size_t row = (size_t)(t0 + r) * H + head;
		float f = l[i] > 0.f ? 1.f / l[i] : 0.f;
		float *dst = out + row * D + t4 * 2;
		if (gridDim.z > 1) {
			size_t at = row * gridDim.z + blockIdx.z;
			if (t4 == 0) ml[at] = float2{m[i], l[i]};
			dst = po + at * D + t4 * 2;
			f = 1.f;
		}
#pragma unroll
		for (int d = 0; d < D / 8; d++) *(float2 *)(dst + d * 8) = float2{o[d][i * 2] * f, o[d][i * 2 + 1] * f};
	}
}
