// dequant.cu: weights of any format as f16 for the tensor-core products of prefill.
// targets: sm_80 sm_90
#include "quant.h"
#include "gemm.h"

// f(F{}) for the format with the number type in GGUF; the branch is the same for all threads.
template <class Fn> DEV void with_format(int type, Fn f) {
	switch (type) {
	case F32::TYPE: f(F32{}); break;
	case F16::TYPE: f(F16{}); break;
	case BF16::TYPE: f(BF16{}); break;
	case Q4_0::TYPE: f(Q4_0{}); break;
	case Q4_1::TYPE: f(Q4_1{}); break;
	case Q5_0::TYPE: f(Q5_0{}); break;
	case Q5_1::TYPE: f(Q5_1{}); break;
	case Q8_0::TYPE: f(Q8_0{}); break;
	case Q2_K::TYPE: f(Q2_K{}); break;
	case Q3_K::TYPE: f(Q3_K{}); break;
	case Q4_K::TYPE: f(Q4_K{}); break;
	case Q5_K::TYPE: f(Q5_K{}); break;
	case Q6_K::TYPE: f(Q6_K{}); break;
	case IQ4_NL::TYPE: f(IQ4_NL{}); break;
	case IQ4_XS::TYPE: f(IQ4_XS{}); break;
	}
}

// dequant_scales: scale[r] = a power of two such that row r divided by it has its maximum in
// [2^14, 2^15) (see pow2_to_f16); once for a matrix, when it is loaded.
// Grid: one block a row. w: packed rows of k weights.
KERNEL(dequant_scales, 128, const u8 *w, int type, int k, float *scale) {
	__shared__ float red[4];
	float amax = 0.f;
	with_format(type, [&](auto f) INLINE_LAMBDA {
		const u8 *row = w + (size_t)blockIdx.x * f.row_bytes(k);
		for (int b = threadIdx.x; b < k / 32; b += 128) {
			float v[32];
			f.dequant32(row, k, b, v);
#pragma unroll
			for (int i = 0; i < 32; i++) amax = cl_fmax(amax, cl_fabs(v[i]));
		}
	});
	amax = warp_max(amax);
	if ((threadIdx.x & 31) == 0) red[threadIdx.x >> 5] = amax;
	__syncthreads();
	if (threadIdx.x) return;
	for (int i = 0; i < 4; i++) amax = cl_fmax(amax, red[i]);
	float inverse;
	pow2_to_f16(amax, inverse);
	scale[blockIdx.x] = inverse;
}

// dequant_f16: out (rows, kp) f16 = rows row0 … of w, divided by their scales; zeros from k to kp.
// One thread a group of 32 weights; a warp's 2 KiB go through shared memory so that every
// store covers 512 bytes in order. Grid ⌈rows·kp/32/128⌉. scale: (rows of w) or null.
KERNEL(dequant_f16, 128, const u8 *w, int type, const float *scale, u16 *out, int row0, int rows, int k, int kp) {
	__shared__ __attribute__((aligned(16))) uint4 stage[4][128];
	int lane = threadIdx.x & 31, wid = threadIdx.x >> 5;
	u32 groups = kp / 32, first = blockIdx.x * 128u + wid * 32, total = (u32)rows * groups;
	u32 i = first + lane < total ? first + lane : total - 1, r = i / groups, b = i - r * groups;
	pdl_launch();
	float v[32];
#pragma unroll
	for (int e = 0; e < 32; e++) v[e] = 0.f;
	if ((int)b < k / 32)
		with_format(type, [&](auto f) INLINE_LAMBDA { f.dequant32(w + (size_t)(row0 + (int)r) * f.row_bytes(k), k, b, v); });
	float up = scale ? 1.f / scale[row0 + (int)r] : 1.f; // exact
#pragma unroll
	for (int p = 0; p < 4; p++) {
		const float *x = v + p * 8;
		stage[wid][lane * 4 + (p ^ ((lane >> 1) & 3))] =
			uint4{f2h2(x[0] * up, x[1] * up), f2h2(x[2] * up, x[3] * up), f2h2(x[4] * up, x[5] * up), f2h2(x[6] * up, x[7] * up)};
	}
	syncwarp();
	pdl_wait(); // out may still be read by the product before this one
#pragma unroll
	for (int p = 0; p < 4; p++) {
		int u = p * 32 + lane, from = u >> 2;
		if (first + from < total) *((uint4 *)out + (size_t)first * 4 + u) = stage[wid][from * 4 + ((u & 3) ^ ((from >> 1) & 3))];
	}
}
