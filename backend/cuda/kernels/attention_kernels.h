// attention_kernels.h: the kernels of one head size. The including .cu defines HEAD_DIM,
// WARPS and STAGES of the decode kernel, and ROUND, the positions a round of prefill.
#include "attention_tile.h"

// KERNEL wants a name, not a macro that becomes one.
#define KERNEL_(name, threads, ...) KERNEL(name, threads, __VA_ARGS__)
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define CACHE_ARGS const int *pos, const u64 *kvs, const int *caps, u64 unit, int heads, float scale, float cap, int window

// grid (splits, heads × ⌈group/8⌉, tokens)
KERNEL_(CAT(attention_decode_f16_d, HEAD_DIM), WARPS * 32, const float *q, float *po, float2 *ml, CACHE_ARGS, int H, int T, int least) {
	attention_decode<HEAD_DIM, WARPS, STAGES>(q, po, ml, pos, kvs, caps, Cache{unit, heads, scale, cap, window}, H, T, least);
}
// grid (query heads, tiles, splits)
KERNEL_(CAT(attention_prefill_f16_d, HEAD_DIM), 128, const float *q, float *out, float *po, float2 *ml, const int *tiles, CACHE_ARGS, int H) {
	attention_prefill<HEAD_DIM, ROUND, u16>(q, out, po, ml, tiles, pos, kvs, caps, Cache{unit, heads, scale, cap, window}, H);
}
KERNEL_(CAT(attention_prefill_f32_d, HEAD_DIM), 128, const float *q, float *out, float *po, float2 *ml, const int *tiles, CACHE_ARGS, int H) {
	attention_prefill<HEAD_DIM, ROUND, float>(q, out, po, ml, tiles, pos, kvs, caps, Cache{unit, heads, scale, cap, window}, H);
}
#undef HEAD_DIM
#undef WARPS
#undef STAGES
#undef ROUND
#undef CACHE_ARGS
