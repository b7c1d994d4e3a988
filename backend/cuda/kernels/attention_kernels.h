// attention_kernels.h: the kernels of one head size. The including .cu defines HEAD_DIM,
// STAGES of the decode kernel and ROUND, the positions a round of prefill.
#include "attention_tile.h"

// KERNEL wants a name, not a macro that becomes one.
#define KERNEL_(name, threads, ...) KERNEL(name, threads, __VA_ARGS__)
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define CACHE_ARGS const int *pos, const u64 *kvs, const int *caps, u64 unit, int heads, float scale, float cap, int window

// grid (splits ≤ 256, heads × ⌈group/8⌉, tokens); whole warps, at most 8
KERNEL_(CAT(attention_decode_f16_d, HEAD_DIM), 256, const float *q, float *out, float *po, float2 *ml, u32 *count, CACHE_ARGS, int H, int T, int least) {
	attention_decode<HEAD_DIM, STAGES, false>(Decode{q, out, po, ml, count, pos, caps, kvs, H, T, least}, Cache{unit, heads, scale, cap, window}, Rotate{});
}
#if HEAD_DIM % 64 == 0 && HEAD_DIM <= 128
// the same for one token, with what comes before: see Rotate; (8, D+8) float32 more shared memory
KERNEL_(CAT(attention_decode_rotate_f16_d, HEAD_DIM), 256, const float *q, float *out, float *po, float2 *ml, u32 *count, CACHE_ARGS, int H, int T, int least, const float *k, const float *v,
        const u64 *freq, int n, int interleaved, float magnitude) {
	attention_decode<HEAD_DIM, STAGES, true>(Decode{q, out, po, ml, count, pos, caps, kvs, H, T, least}, Cache{unit, heads, scale, cap, window}, Rotate{k, v, freq, n, interleaved, magnitude});
}
#endif
// grid (query heads, tiles, splits)
KERNEL_(CAT(attention_prefill_f16_d, HEAD_DIM), 128, const float *q, float *out, float *po, float2 *ml, const int *tiles, CACHE_ARGS, int H) {
	attention_prefill<HEAD_DIM, ROUND, u16>(q, out, po, ml, tiles, pos, kvs, caps, Cache{unit, heads, scale, cap, window}, H);
}
KERNEL_(CAT(attention_prefill_f32_d, HEAD_DIM), 128, const float *q, float *out, float *po, float2 *ml, const int *tiles, CACHE_ARGS, int H) {
	attention_prefill<HEAD_DIM, ROUND, float>(q, out, po, ml, tiles, pos, kvs, caps, Cache{unit, heads, scale, cap, window}, H);
}
#undef HEAD_DIM
#undef STAGES
#undef ROUND
#undef CACHE_ARGS
