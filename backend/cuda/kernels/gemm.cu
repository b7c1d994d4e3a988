// gemm.cu: y (T, N) = x (T, K) · W (N, K)ᵀ on tensor cores (mma.sync m16n8k16, sm_80),
// f16 in, float32 sums, float32 out. K is padded to a multiple of 64 with zeros on both
// sides; T and N are arbitrary.
// targets: sm_80 sm_90
#include "gemm.h"

// Shared rows are 64 halves = 128 bytes = 8 pieces of 16; piece p of row r lies at p^(r&7),
// which keeps both the copies and ldmatrix free of bank conflicts.
// A warp computes WM × WN of the block's BM × BN; ST stages of cp.async.
template <int BM, int BN, int WM, int WN, int ST> DEV void gemm_tile(const u16 *__restrict__ A, const u16 *__restrict__ B, const Epilogue &ep, int T, int N, int K) {
	constexpr int NT = (BM / WM) * (BN / WN) * 32; // threads
	constexpr int MI = WM / 16, NI = WN / 8;
	constexpr int STAGE = (BM + BN) * 128;
	constexpr int CA = BM * 8 / NT, CB = BN * 8 / NT; // copies a thread
	static_assert(BM * 8 % NT == 0 && NT % 64 == 0, "every thread copies the same piece of its rows");
	SHARED_DYN(smem);
	u32 s0 = smem_u32(smem);
	int tid = threadIdx.x, lane = tid & 31, wid = tid >> 5;
	int wm = (wid % (BM / WM)) * WM, wn = (wid / (BM / WM)) * WN;
	int bm, bn;
	tile_of(blockIdx.x, (T + BM - 1) / BM, (N + BN - 1) / BN, bm, bn);
	bm *= BM, bn *= BN;
	int k0, nk;
	k_range(K / 64, k0, nk);

	// Thread tid copies piece tid&7 of every (NT/8)th row from tid/8 on, of A and then of B.
	// Rows past the end are not copied: what lies there comes into no sum that is stored.
	u32 src[CA + CB], rows = 0, dst = s0 + (tid >> 3) * 128 + (((tid ^ (tid >> 3)) & 7) << 4);
#pragma unroll
	for (int i = 0; i < CA + CB; i++) {
		bool a = i < CA;
		int row = (tid >> 3) + (a ? bm + i * (NT / 8) : bn + (i - CA) * (NT / 8));
		src[i] = (u32)row * (u32)K + k0 * 64 + (tid & 7) * 8;
		if (row < (a ? T : N)) rows |= 1u << i;
	}
	auto load = [&](int kt, int st) INLINE_LAMBDA {
#pragma unroll
		for (int i = 0; i < CA + CB; i++)
			if (rows >> i & 1) cp_async16(dst + st * STAGE + i * (NT / 8) * 128, (i < CA ? A : B) + src[i] + kt * 64);
	};

	float acc[MI][NI][4];
#pragma unroll
	for (int i = 0; i < MI; i++)
#pragma unroll
		for (int k = 0; k < NI; k++)
#pragma unroll
			for (int e = 0; e < 4; e++) acc[i][k][e] = 0.f;

	pdl_launch();
	pdl_wait(); // both operands may be the work of the kernels before
#pragma unroll
	for (int s = 0; s < ST - 1; s++) {
		if (s < nk) load(s, s);
		cp_async_commit();
	}
	int ar = wm + (lane & 15), ap = lane >> 4;                           // A: 16 rows, then the second 8 of k
	int br = wn + (lane & 7) + ((lane >> 4) << 3), bp = (lane >> 3) & 1; // B: 8 rows × two halves of k, then 8 more rows
	int st = 0;
	for (int kt = 0; kt < nk; kt++) {
		cp_async_wait<ST - 2>();
		__syncthreads();
		int next = kt + ST - 1;
		if (next < nk) load(next, st == 0 ? ST - 1 : st - 1);
		cp_async_commit();
		u32 sa = s0 + st * STAGE, sb = sa + BM * 128;
#pragma unroll
		for (int k = 0; k < 4; k++) {
			u32 a[MI][4], b[NI][2];
#pragma unroll
			for (int i = 0; i < MI; i++) {
				int r = ar + i * 16;
				ldmatrix_x4(a[i][0], a[i][1], a[i][2], a[i][3], sa + r * 128 + (((k * 2 + ap) ^ (r & 7)) << 4));
			}
#pragma unroll
			for (int i = 0; i < NI; i += 2) {
				int r = br + i * 8;
				ldmatrix_x4(b[i][0], b[i][1], b[i + 1][0], b[i + 1][1], sb + r * 128 + (((k * 2 + bp) ^ (r & 7)) << 4));
			}
#pragma unroll
			for (int i = 0; i < MI; i++)
#pragma unroll
				for (int n = 0; n < NI; n++) mma_16816(acc[i][n], a[i], b[n]);
		}
		st = st + 1 == ST ? 0 : st + 1;
	}
	cp_async_wait<0>();

	__syncthreads(); // the stages are read: their memory takes the sums
	constexpr int LD = BN + Epilogue::PITCH;
	float *sums = (float *)smem;
#pragma unroll
	for (int i = 0; i < MI; i++)
#pragma unroll
		for (int n = 0; n < NI; n++) {
			float *p = sums + (wm + i * 16 + (lane >> 2)) * LD + wn + n * 8 + (lane & 3) * 2;
			*(float2 *)p = float2{acc[i][n][0], acc[i][n][1]};
			*(float2 *)(p + 8 * LD) = float2{acc[i][n][2], acc[i][n][3]};
		}
	__syncthreads();
	ep.store<BM, BN, NT>(sums, bm, bn, T, N);
}

#define GEMM(BM, BN, WM, WN, ST)                                                                                       \
	KERNEL(gemm_##BM##x##BN, (BM / WM) * (BN / WN) * 32, GEMM_ARGS) {                                                  \
		gemm_tile<BM, BN, WM, WN, ST>(x, w, GEMM_EPILOGUE, T, N, K);                                                   \
	}
GEMM(128, 128, 64, 64, 3) // 96 KiB of shared memory, two blocks an SM
GEMM(64, 128, 32, 64, 3)  // 72 KiB
GEMM(32, 128, 32, 32, 4)  // 80 KiB
GEMM(16, 128, 16, 32, 4)  // 72 KiB

// y = the partial sums of S splits of K, added in the order of the splits, and the epilogue.
// grid (⌈N/1024⌉, T), 256 threads of four columns.
KERNEL(gemm_reduce, 256, GEMM_ARGS, int S) {
	int t = blockIdx.y, n = (blockIdx.x * 256 + threadIdx.x) * 4;
	pdl_launch();
	pdl_wait();
	if (n >= N) return;
	float4 a = {0.f, 0.f, 0.f, 0.f};
	const float *p = part + (size_t)t * N + n;
	for (int s = 0; s < S; s++, p += (size_t)T * N) {
		float4 v = Epilogue::get(p, n, N);
		a.x += v.x, a.y += v.y, a.z += v.z, a.w += v.w;
	}
	GEMM_EPILOGUE.finish(t, n, a, (GEMM_EPILOGUE.columns(n, N)), N);
}
