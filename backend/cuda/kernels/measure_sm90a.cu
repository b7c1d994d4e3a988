// measure_sm90a.cu: what Hopper's tensor cores give, to compare the products with.
// targets: sm_90a
#include "wgmma.h"

// wgmma_peak multiplies the same 128×64 and 256×64 halves n times: 4·128·256·16·n
// multiply-adds a block, no memory traffic. The numbers are not zeros, on which the
// chip runs faster. Two groups of four warps; out (blocks) keeps the work.
KERNEL_MIN(wgmma_peak, 256, 1, float *out, int n) {
	SHARED_DYN(smem);
	int tid = threadIdx.x;
	u16 *halves = (u16 *)smem;
	u32 seed = blockIdx.x * 256 + tid + 1;
	for (int i = tid; i < (128 + 256) * 64; i += 256) {
		seed = seed * 1664525 + 1013904223;
		halves[i] = (u16)(0x2000 | (seed >> 16 & 0x9fff)); // ±0.008 to ±1.99
	}
	float d[128];
#pragma unroll
	for (int i = 0; i < 128; i++) d[i] = 0.f;
	fence_async_smem();
	__syncthreads();
	u64 a = wgmma_operand(smem_u32(smem) + tid / 128 * 64 * 128), b = wgmma_operand(smem_u32(smem) + 128 * 128);
	for (int i = 0; i < n; i++) {
		wgmma_fence();
#pragma unroll
		for (int k = 0; k < 4; k++) wgmma_m64n256k16(d, a + k * 2, b + k * 2);
		wgmma_commit();
	}
	wgmma_wait<0>();
	wgmma_sums(d);
	float sum = 0.f;
#pragma unroll
	for (int i = 0; i < 128; i++) sum += d[i];
	if (tid == 0) out[blockIdx.x] = sum;
}
