// convert.cu: activations as f16 for the tensor-core products of prefill, with what
// comes before a product: RMSNorm, or the gated activation.
// targets: sm_80 sm_90
#include "gemm.h"

DEV float silu(float x) { return x / (1.f + cl_exp(-x)); }
DEV float gelu(float x) { return 0.5f * x * (1.f + cl_tanh(0.7978845608028654f * (x + 0.044715f * x * x * x))); }

// The most of a number over a block of 256 threads, for all of them; NaN is passed over.
DEV float block_most(float v, float *red) {
	v = warp_max(v);
	if ((threadIdx.x & 31) == 0) red[threadIdx.x >> 5] = v;
	__syncthreads();
	for (int i = 0; i < 8; i++) v = cl_fmax(v, red[i]);
	return v;
}

DEV float most4(float m, float4 v) { return cl_fmax(cl_fmax(m, cl_fmax(cl_fabs(v.x), cl_fabs(v.y))), cl_fmax(cl_fabs(v.z), cl_fabs(v.w))); }

// One row: out (Kp) f16 = v (K) times the power of two that brings their maximum, most,
// into [2^14, 2^15); *scale undoes it. Zeros from K to Kp. A row with NaN or infinity
// keeps them. v(i) gives numbers i … i+3; K is a multiple of 4.
template <class V> DEV void put_row(V v, float most, u16 *out, float *scale, int K, int Kp) {
	float inverse, up = pow2_to_f16(most, inverse);
	if (threadIdx.x == 0) *scale = inverse;
	for (int i = threadIdx.x * 4; i < Kp; i += 1024) {
		float4 x = {0.f, 0.f, 0.f, 0.f};
		if (i < K) x = v(i);
		*(uint2 *)(out + i) = uint2{f2h2(x.x * up, x.y * up), f2h2(x.z * up, x.w * up)};
	}
}

// All kernels: one block of 256 threads a row; rows of K float32 → x16 (T, Kp), sx (T).

KERNEL(convert_f16, 256, const float *x, u16 *x16, float *sx, int K, int Kp) {
	__shared__ float red[8];
	pdl_launch();
	pdl_wait();
	size_t t = blockIdx.x;
	x += t * K;
	float most = 0.f;
	for (int i = threadIdx.x * 4; i < K; i += 1024) most = most4(most, *(const float4 *)(x + i));
	most = block_most(most, red);
	put_row([&](int i) INLINE_LAMBDA { return *(const float4 *)(x + i); }, most, x16 + t * Kp, sx + t, K, Kp);
}

// of x / sqrt(mean x² + eps) · weight
KERNEL(convert_norm_f16, 256, const float *x, const float *weight, u16 *x16, float *sx, int K, int Kp, float eps) {
	__shared__ float red[8], sums[8];
	pdl_launch();
	pdl_wait();
	size_t t = blockIdx.x;
	x += t * K;
	float most = 0.f, sum = 0.f;
	auto weighted = [&](int i, float4 v) INLINE_LAMBDA {
		float4 w = *(const float4 *)(weight + i);
		return float4{v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w};
	};
	for (int i = threadIdx.x * 4; i < K; i += 1024) {
		float4 v = *(const float4 *)(x + i);
		sum += (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w);
		most = most4(most, weighted(i, v));
	}
	sum = warp_sum(sum);
	if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = sum;
	most = block_most(most, red);
	sum = 0.f;
	for (int i = 0; i < 8; i++) sum += sums[i];
	float f = cl_rsqrt(sum / (float)K + eps);
	put_row([&](int i) INLINE_LAMBDA {
		float4 v = weighted(i, *(const float4 *)(x + i));
		return float4{v.x * f, v.y * f, v.z * f, v.w * f};
	}, most * f, x16 + t * Kp, sx + t, K, Kp);
}

// of act(gate) · up; act 0 is SiLU, 1 GELU by tanh. Dynamic shared memory: K floats.
KERNEL(convert_gated_f16, 256, const float *gate, const float *up, u16 *x16, float *sx, int K, int Kp, int act) {
	__shared__ float red[8];
	SHARED_DYN(smem);
	float *row = (float *)smem;
	pdl_launch();
	pdl_wait();
	size_t t = blockIdx.x;
	gate += t * K, up += t * K;
	float most = 0.f;
	for (int i = threadIdx.x * 4; i < K; i += 1024) {
		float4 g = *(const float4 *)(gate + i), u = *(const float4 *)(up + i), v;
		if (act == 0) v = float4{silu(g.x) * u.x, silu(g.y) * u.y, silu(g.z) * u.z, silu(g.w) * u.w};
		else v = float4{gelu(g.x) * u.x, gelu(g.y) * u.y, gelu(g.z) * u.z, gelu(g.w) * u.w};
		most = most4(most, v);
		*(float4 *)(row + i) = v; // read again by the same thread
	}
	most = block_most(most, red);
	put_row([&](int i) INLINE_LAMBDA { return *(const float4 *)(row + i); }, most, x16 + t * Kp, sx + t, K, Kp);
}
