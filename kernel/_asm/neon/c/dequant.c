// Blocks of a file to float32, bit for bit as package quant.
#include "neon.h"

// scales are the sub-scales of a chunk, one for 16 or for 32 columns.
typedef struct { int8x16_t v; } scales;

INLINE scales scales_from(int8x16_t s) { return (scales){s}; }

#include "i16_weights.h"

// store_16 stores scale*w - min. Both operations round, as in package quant.
INLINE void store_16(float *y, int8x16_t w, float scale, const int mins, float min) {
	const int16x8_t half[2] = {vmovl_s8(vget_low_s8(w)), vmovl_high_s8(w)};
	UNROLL for (int i = 0; i < 4; i++) {
		int32x4_t v = i % 2 == 0 ? vmovl_s16(vget_low_s16(half[i / 2])) : vmovl_high_s16(half[i / 2]);
		float32x4_t f = vmulq_n_f32(vcvtq_f32_s32(v), scale);
		vst1q_f32(y + 4 * i, mins ? vsubq_f32(f, vdupq_n_f32(min)) : f);
	}
}

#define BLOCKS(size, bytes, ...)                                             \
	float *y = a->dst;                                                       \
	const uint8_t *b = a->src;                                               \
	for (int64_t n = a->dst_len; n > 0; n -= (size), y += (size), b += (bytes)) __VA_ARGS__

/// expands len(dst) halves.
//stub dequantF16(dst []float32, src []byte)
KERNEL(dequantF16) {
	const uint8_t *b = a->src;
	float *y = a->dst;
	int64_t n = a->dst_len;
	for (; n >= 4; n -= 4, y += 4, b += 8) vst1q_f32(y, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(b))));
	for (; n > 0; n--, y++, b += 2) *y = half(b);
}

#define BLOCKS_32(bytes, WEIGHTS)                                            \
	BLOCKS(32, bytes, {                                                      \
		int8x16_t w[2];                                                      \
		WEIGHTS;                                                             \
		store_16(y, w[0], half(b), 0, 0);                                    \
		store_16(y + 16, w[1], half(b), 0, 0);                               \
	})

/// expands len(dst)/32 blocks of Q8_0.
//stub dequantQ8_0(dst []float32, src []byte)
KERNEL(dequantQ8_0) { BLOCKS_32(34, weights_q8_0(b + 2, w)); }

/// expands len(dst)/32 blocks of Q4_0.
//stub dequantQ4_0(dst []float32, src []byte)
KERNEL(dequantQ4_0) { BLOCKS_32(18, weights_q4_0(b + 2, w)); }

/// expands len(dst)/32 blocks of Q5_0.
//stub dequantQ5_0(dst []float32, src []byte)
KERNEL(dequantQ5_0) {
	const block_constants k = constants();
	BLOCKS_32(22, weights_q5_0(b + 2, k, w));
}

// A group has its scale and minimum.
#define BLOCKS_K4(bytes, WEIGHTS)                                                                  \
	BLOCKS(256, bytes, {                                                                           \
		float32x4_t min[2];                                                                        \
		const scales s = scales_k4(b + 4, min);                                                    \
		UNROLL for (int g = 0; g < 8; g++) {                                                       \
			int8x16_t w[2];                                                                        \
			WEIGHTS(b, g, w);                                                                      \
			const float scale = half(b) * (float)s.v[g], least = half(b + 2) * min[g / 4][g % 4];  \
			store_16(y + 32 * g, w[0], scale, 1, least);                                           \
			store_16(y + 32 * g + 16, w[1], scale, 1, least);                                      \
		}                                                                                          \
	})

/// expands len(dst)/256 blocks of Q4_K.
//stub dequantQ4K(dst []float32, src []byte)
KERNEL(dequantQ4K) { BLOCKS_K4(144, weights_q4k); }

/// expands len(dst)/256 blocks of Q5_K.
//stub dequantQ5K(dst []float32, src []byte)
KERNEL(dequantQ5K) { BLOCKS_K4(176, weights_q5k); }

/// expands len(dst)/256 blocks of Q6_K.
//stub dequantQ6K(dst []float32, src []byte)
KERNEL(dequantQ6K) {
	BLOCKS(256, 210, {
		UNROLL for (int g = 0; g < 8; g++) {
			int8x16_t w[2];
			weights_q6k(b, g, w);
			UNROLL for (int i = 0; i < 2; i++) store_16(y + 32 * g + 16 * i, w[i], half(b + 208) * (float)(int8_t)b[192 + 2 * g + i], 0, 0);
		}
	})
}
