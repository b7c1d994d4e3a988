// round.cu: activations as 16-bit integers in global memory, for products that would
// each round the same numbers.
// targets: sm_80 sm_90
#include "matvec.h"

// round_rows writes x (tokens, k), normalised if norm is not null, for MV_ROUNDED: a
// token takes k/32·72 bytes, four planes of 16 bytes a group of 32, then {scale, sum}
// of each group as two float32 (Fill, with padded = k/32).
// Grid: one block a token; block: whole warps up to 256; dynamic shared memory:
// 128 bytes. k is a multiple of 32, x and out are 16-byte aligned.
KERNEL(round_rows, 256, const float *x, const float *norm, float eps, int k, u8 *out) {
	pdl_launch();
	SHARED_DYN(smem);
	MatVec a;
	a.x = x + (size_t)blockIdx.x * k, a.norm = norm, a.eps = eps, a.k = k, a.tokens = 1;
	Fill<DotQ4_K, Planes> fill(a, k / 32);
	pdl_wait();
	fill.tokens(out + (size_t)blockIdx.x * (k / 32) * 72, 1, (float *)smem);
}
