// gemm_sm90a.cu: the product of gemm.cu with Hopper's wgmma, which mma.sync reaches 62 % of.
// targets: sm_90a
#include "gemm.h"
#include "wgmma.h"

template <int BN> DEV void wgmma_m64k16(float *d, u64 a, u64 b) {
	if constexpr (BN == 256)
		wgmma_m64n256k16(d, a, b);
	else
		wgmma_m64n128k16(d, a, b);
}

// 128 tokens × BN rows, two groups of four warps with 64 tokens each; ST stages of cp.async.
template <int BN, int ST> DEV void gemm_wgmma(const u16 *__restrict__ A, const u16 *__restrict__ B, const Epilogue &ep, int T, int N, int K) {
	constexpr int BM = 128, NT = 256, STAGE = (BM + BN) * 128, CA = BM / 32, CB = BN / 32;
	SHARED_DYN(smem);
	u32 s0 = smem_u32(smem);
	int tid = threadIdx.x, lane = tid & 31, wid = tid >> 5, wg = tid >> 7;
	int bm, bn, k0, nk;
	tile_of(blockIdx.x, (T + BM - 1) / BM, (N + BN - 1) / BN, bm, bn);
	bm *= BM, bn *= BN;
	k_range(K / 64, k0, nk);

	// Thread tid copies piece tid&7 of every 32nd row from tid/8 on, of A and then of B.
	// Rows past the end are not copied: what lies there comes into no sum that is stored.
	u32 src[CA + CB], rows = 0, dst = s0 + (tid >> 3) * 128 + (((tid ^ (tid >> 3)) & 7) << 4);
#pragma unroll
	for (int i = 0; i < CA + CB; i++) {
		bool a = i < CA;
		int row = (tid >> 3) + (a ? bm + i * 32 : bn + (i - CA) * 32);
		src[i] = (u32)row * (u32)K + k0 * 64 + (tid & 7) * 8;
		if (row < (a ? T : N)) rows |= 1u << i;
	}
	auto load = [&](int kt) INLINE_LAMBDA {
#pragma unroll
		for (int i = 0; i < CA + CB; i++)
			if (rows >> i & 1) cp_async16(dst + kt % ST * STAGE + i * 32 * 128, (i < CA ? A : B) + src[i] + kt * 64);
	};

	float d[BN / 2];
#pragma unroll
	for (int i = 0; i < BN / 2; i++) d[i] = 0.f;
	pdl_launch();
	pdl_wait(); // both operands may be the work of the kernels before
#pragma unroll
	for (int s = 0; s < ST - 2; s++) {
		if (s < nk) load(s);
		cp_async_commit();
	}
	for (int kt = 0; kt < nk; kt++) {
		cp_async_wait<ST - 3>(); // stage kt has landed (this thread's share)
		fence_async_smem();      // … and is visible to the tensor cores
		__syncthreads();         // everybody's share; also: the product of kt-2 is done in both groups
		if (kt + ST - 2 < nk) load(kt + ST - 2);
		cp_async_commit();
		u32 at = s0 + kt % ST * STAGE;
		u64 a = wgmma_operand(at + wg * 64 * 128), b = wgmma_operand(at + BM * 128);
		wgmma_fence();
#pragma unroll
		for (int k = 0; k < 4; k++) wgmma_m64k16<BN>(d, a + k * 2, b + k * 2);
		wgmma_commit();
		wgmma_wait<1>();
	}
	wgmma_wait<0>();
	cp_async_wait<0>();

	__syncthreads(); // the stages are read: their memory takes the sums
	constexpr int LD = BN + Epilogue::PITCH;
	float *sums = (float *)smem, *p = sums + (wid * 16 + (lane >> 2)) * LD + (lane & 3) * 2;
#pragma unroll
	for (int n = 0; n < BN / 8; n++) {
		*(float2 *)(p + n * 8) = float2{d[n * 4], d[n * 4 + 1]};
		*(float2 *)(p + 8 * LD + n * 8) = float2{d[n * 4 + 2], d[n * 4 + 3]};
	}
	__syncthreads();
	ep.store<BM, BN, NT>(sums, bm, bn, T, N);
}

KERNEL_MIN(gemm_wgmma_128x256, 256, 1, GEMM_ARGS) { // 192 KiB of shared memory
	gemm_wgmma<256, 4>(x, w, GEMM_EPILOGUE, T, N, K);
}
KERNEL_MIN(gemm_wgmma_128x128, 256, 2, GEMM_ARGS) { // 96 KiB, two blocks an SM
	gemm_wgmma<128, 3>(x, w, GEMM_EPILOGUE, T, N, K);
}
