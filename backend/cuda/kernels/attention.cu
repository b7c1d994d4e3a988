// attention.cu: attention for any head size that is a multiple of 8 up to 256, without
// tensor cores; and the kernel that combines splits, which all attention kernels share.
// targets: sm_80 sm_90
#include "attention.h"

// 8 consecutive elements as float
DEV void load8(const u16 *p, float *v) {
	uint4 u = *(const uint4 *)p;
	u32 w[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
	for (int i = 0; i < 4; i++) v[i * 2] = h2f((u16)w[i]), v[i * 2 + 1] = h2f((u16)(w[i] >> 16));
}
DEV void load8(const float *p, float *v) {
	float4 a = *(const float4 *)p, b = *(const float4 *)(p + 4);
	v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

// One block: HG query heads of one key/value head, one token, one split of the positions.
// L lanes share a position, 8 elements each (L: the power of two that covers D/8).
// All in float32. grid (splits, key/value heads × parts, tokens).
template <class E> DEV void attention_vector(const float *q, float *po, float2 *ml, const int *pos, const u64 *kvs, const int *caps, const Cache &c, int H, int D, int least) {
	constexpr int HG = 4, NT = 128;
	__shared__ __attribute__((aligned(16))) float so[NT / 32][HG][256];
	__shared__ float2 sm[NT / 32][HG];
	int tid = threadIdx.x, lane = tid & 31, wid = tid >> 5;
	int S = gridDim.x, split = blockIdx.x, t = blockIdx.z;
	int group = H / c.heads, parts = (group + HG - 1) / HG;
	int kvh = blockIdx.y / parts, h0 = (blockIdx.y % parts) * HG;
	int nh = group - h0 < HG ? group - h0 : HG, head = kvh * group + h0;
	pdl_launch();
	pdl_wait();
	int cap = caps[t], len = pos[t] + 1, from, to;
	len = len < cap ? len : cap;
	split_range(c.window && len > c.window ? len - c.window : 0, len, S, least, split, from, to);
	if (from >= to) {
		if (tid < nh) ml[((size_t)t * H + head + tid) * S + split] = float2{NEG_INF, 0.f};
		return;
	}
	const E *K = cache_keys<E>(c, kvs[t], cap, kvh, D), *V = cache_values<E>(c, kvs[t], cap, kvh, D);
	int L = D <= 64 ? 8 : D <= 128 ? 16 : 32, d = (lane & (L - 1)) * 8;
	int per = NT / L; // positions at a time
	bool used = d < D;

	float qv[HG][8], o[HG][8], m[HG], l[HG];
#pragma unroll
	for (int h = 0; h < HG; h++) {
		m[h] = NEG_INF, l[h] = 0.f;
#pragma unroll
		for (int e = 0; e < 8; e++) qv[h][e] = o[h][e] = 0.f;
		if (used && h < nh) load8(q + ((size_t)t * H + head + h) * D + d, qv[h]);
	}
	for (int p0 = from; p0 < to; p0 += per) {
		int p = p0 + tid / L;
		bool seen = p < to;
		size_t at = (size_t)(seen ? p : to - 1) * D + d;
		float k[8] = {}, v[8] = {};
		if (used) load8(K + at, k), load8(V + at, v);
#pragma unroll
		for (int h = 0; h < HG; h++) {
			float a = 0.f;
#pragma unroll
			for (int e = 0; e < 8; e++) a = cl_fma(qv[h][e], k[e], a);
			for (int x = L >> 1; x; x >>= 1) a += shfl_xor(a, x);
			if (seen) {
				a = score(c, a);
				float mx = cl_fmax(m[h], a), fade = cl_exp2(m[h] - mx), w = cl_exp2(a - mx);
				m[h] = mx;
				l[h] = l[h] * fade + w;
#pragma unroll
				for (int e = 0; e < 8; e++) o[h][e] = cl_fma(w, v[e], o[h][e] * fade);
			}
		}
	}
	// merge the positions of a warp into its first L lanes, then the warps, in a fixed order
#pragma unroll
	for (int h = 0; h < HG; h++) {
		for (int x = L; x < 32; x <<= 1) {
			float m2 = shfl_xor(m[h], x), l2 = shfl_xor(l[h], x), mx = cl_fmax(m[h], m2);
			float a = mx == NEG_INF ? 0.f : cl_exp2(m[h] - mx), b = mx == NEG_INF ? 0.f : cl_exp2(m2 - mx);
			m[h] = mx;
			l[h] = l[h] * a + l2 * b;
#pragma unroll
			for (int e = 0; e < 8; e++) {
				float o2 = shfl_xor(o[h][e], x);
				o[h][e] = o[h][e] * a + o2 * b;
			}
		}
		if (lane < L && used) {
			float *dst = &so[wid][h][d];
#pragma unroll
			for (int e = 0; e < 8; e++) dst[e] = o[h][e];
		}
		if (lane == 0) sm[wid][h] = float2{m[h], l[h]};
	}
	__syncthreads();
	for (int e = tid; e < nh * D; e += NT) {
		int h = e / D, i = e % D;
		float top = NEG_INF, sum = 0.f, a = 0.f;
		for (int w = 0; w < NT / 32; w++) top = cl_fmax(top, sm[w][h].x);
		for (int w = 0; w < NT / 32; w++) {
			float f = cl_exp2(sm[w][h].x - top);
			sum += f * sm[w][h].y;
			a += f * so[w][h][i];
		}
		size_t at = ((size_t)t * H + head + h) * S + split;
		po[at * D + i] = a;
		if (i == 0) ml[at] = float2{top, sum};
	}
}

#define VECTOR_ARGS const float *q, float *po, float2 *ml, const int *pos, const u64 *kvs, const int *caps, u64 unit, int heads, float scale, float cap, int window, int H, int D, int least
KERNEL(attention_vector_f16, 128, VECTOR_ARGS) {
	attention_vector<u16>(q, po, ml, pos, kvs, caps, Cache{unit, heads, scale, cap, window}, H, D, least);
}
KERNEL(attention_vector_f32, 128, VECTOR_ARGS) {
	attention_vector<float>(q, po, ml, pos, kvs, caps, Cache{unit, heads, scale, cap, window}, H, D, least);
}

// out (T, H, D) = the splits po (T, H, S, D), weighted by their maxima and divided by their
// sums ml (T, H, S). One block a head of a token; D/4 threads across, the rest over the splits.
KERNEL(attention_combine, 256, const float *po, const float2 *ml, float *out, int S, int D) {
	__shared__ float w[256];
	__shared__ __attribute__((aligned(16))) float4 part[256];
	int tid = threadIdx.x, lane = tid & 31;
	size_t row = (size_t)blockIdx.y * gridDim.x + blockIdx.x;
	pdl_launch();
	pdl_wait();
	ml += row * S;
	float top = NEG_INF, sum = 0.f;
	for (int s = lane; s < S; s += 32) top = cl_fmax(top, ml[s].x);
	for (int x = 16; x; x >>= 1) top = cl_fmax(top, shfl_xor(top, x));
	for (int s = lane; s < S; s += 32) {
		float2 v = ml[s];
		float f = v.x == NEG_INF ? 0.f : cl_exp2(v.x - top);
		sum += f * v.y;
		if (tid < 32) w[s] = f;
	}
	sum = warp_sum(sum);
	__syncthreads();
	int across = D / 4, rows = 256 / across, r = tid / across, d = tid % across;
	float4 a = {0.f, 0.f, 0.f, 0.f};
	if (r < rows) {
		const float4 *src = (const float4 *)(po + row * S * D) + d;
#pragma unroll 4
		for (int s = r; s < S; s += rows) {
			float f = w[s];
			if (f == 0.f) continue; // nobody wrote an empty split
			float4 v = src[(size_t)s * across];
			a.x += f * v.x, a.y += f * v.y, a.z += f * v.z, a.w += f * v.w;
		}
	}
	part[tid] = a;
	__syncthreads();
	if (r > 0) return;
	for (int i = 1; i < rows; i++) {
		float4 v = part[i * across + d];
		a.x += v.x, a.y += v.y, a.z += v.z, a.w += v.w;
	}
	float f = sum > 0.f ? 1.f / sum : 0.f;
	*((float4 *)(out + row * D) + d) = float4{a.x * f, a.y * f, a.z * f, a.w * f};
}
