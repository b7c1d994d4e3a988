// Blocks of a file to signed bytes, 32 columns at a time. The layouts are those of
// package quant; kernel/i16_decode.go says the same in Go.
#include "neon.h"

INLINE void store_bytes(int8x16_t v[2], uint8x16_t low, uint8x16_t high) {
	v[0] = vreinterpretq_s8_u8(low);
	v[1] = vreinterpretq_s8_u8(high);
}

// scales_k4 unpacks the 6-bit scales and minimums of Q4_K and Q5_K.
INLINE scales scales_k4(const uint8_t *b, float32x4_t min[2]) {
	uint32_t w0 = word(b), w1 = word(b + 4), w2 = word(b + 8);
	uint64_t s = (w0 & 0x3f3f3f3f) | (uint64_t)((w2 & 0x0f0f0f0f) | (w0 >> 2 & 0x30303030)) << 32;
	uint64_t m = (w1 & 0x3f3f3f3f) | (uint64_t)((w2 >> 4 & 0x0f0f0f0f) | (w1 >> 2 & 0x30303030)) << 32;
	uint16x8_t m16 = vmovl_u8(vcreate_u8(m));
	min[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(m16)));
	min[1] = vcvtq_f32_u32(vmovl_high_u16(m16));
	return scales_from(vcombine_s8(vcreate_s8(s), vcreate_s8(0)));
}

// The lower halves of 32 bytes are columns of one group, the upper ones of the next.
INLINE uint8x16_t nibble(const uint8_t *b, int upper) {
	uint8x16_t v = vld1q_u8(b);
	return upper ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15));
}

INLINE void weights_q4k(const uint8_t *b, int g, int8x16_t v[2]) {
	const uint8_t *q = b + 16 + g / 2 * 32;
	store_bytes(v, nibble(q, g % 2), nibble(q + 16, g % 2));
}

// above puts the lower bits of high above the four of low.
INLINE uint8x16_t above(uint8x16_t low, uint8x16_t high, int shift, int bits) {
	if (shift == 1) high = vshrq_n_u8(high, 1);
	if (shift == 2) high = vshrq_n_u8(high, 2);
	if (shift == 3) high = vshrq_n_u8(high, 3);
	if (shift == 4) high = vshrq_n_u8(high, 4);
	if (shift == 5) high = vshrq_n_u8(high, 5);
	if (shift == 6) high = vshrq_n_u8(high, 6);
	if (shift == 7) high = vshrq_n_u8(high, 7);
	return vandq_u8(vsliq_n_u8(low, high, 4), vdupq_n_u8((16 << bits) - 1));
}

INLINE uint8x16_t raw_nibble(const uint8_t *b, int upper) {
	uint8x16_t v = vld1q_u8(b);
	return upper ? vshrq_n_u8(v, 4) : v; // whose upper half is replaced
}

INLINE void weights_q5k(const uint8_t *b, int g, int8x16_t v[2]) {
	const uint8_t *q = b + 48 + g / 2 * 32;
	store_bytes(v, above(raw_nibble(q, g % 2), vld1q_u8(b + 16), g, 1), above(raw_nibble(q + 16, g % 2), vld1q_u8(b + 32), g, 1));
}

// 128 columns share 64 bytes of lower halves and 32 of upper quarters.
INLINE void weights_q6k(const uint8_t *b, int g, int8x16_t v[2]) {
	const uint8_t *q = b + g / 4 * 64 + g % 2 * 32, *h = b + 128 + g / 4 * 32;
	UNROLL for (int i = 0; i < 2; i++) {
		uint8x16_t u = above(raw_nibble(q + 16 * i, g % 4 / 2), vld1q_u8(h + 16 * i), g % 4 * 2, 2);
		v[i] = vsubq_s8(vreinterpretq_s8_u8(u), vdupq_n_s8(32));
	}
}

// block_constants are what weights_q5_0 needs in registers.
typedef struct { uint8x16_t bits, first, second; } block_constants;

// hidden keeps the compiler from knowing a constant, which it would load from memory
// outside the function.
INLINE uint64_t hidden(uint64_t v) {
	__asm__("" : "+r"(v));
	return v;
}

INLINE block_constants constants(void) {
	uint64x2_t ones = vreinterpretq_u64_u8(vdupq_n_u8(1));
	uint64x2_t first = vcombine_u64(vcreate_u64(hidden(0)), vget_low_u64(ones));
	return (block_constants){vreinterpretq_u8_u64(vdupq_n_u64(hidden(0x8040201008040201))), vreinterpretq_u8_u64(first),
	                         vaddq_u8(vreinterpretq_u8_u64(first), vdupq_n_u8(2))};
}

INLINE void weights_q4_0(const uint8_t *q, int8x16_t v[2]) {
	UNROLL for (int i = 0; i < 2; i++) v[i] = vsubq_s8(vreinterpretq_s8_u8(nibble(q, i)), vdupq_n_s8(8));
}

// A weight of Q5_0 is its half byte if its upper bit is set, that minus 16 if not.
INLINE void weights_q5_0(const uint8_t *q, block_constants k, int8x16_t v[2]) {
	uint8x16_t unset = vreinterpretq_u8_u32(vdupq_n_u32(~word(q)));
	uint8x16_t low = vtstq_u8(vqtbl1q_u8(unset, k.first), k.bits), high = vtstq_u8(vqtbl1q_u8(unset, k.second), k.bits);
	store_bytes(v, vsliq_n_u8(raw_nibble(q + 4, 0), low, 4), vsliq_n_u8(raw_nibble(q + 4, 1), high, 4));
}

INLINE void weights_q8_0(const uint8_t *q, int8x16_t v[2]) {
	v[0] = vld1q_s8((const int8_t *)q);
	v[1] = vld1q_s8((const int8_t *)q + 16);
}
