// The integer product of 32 columns, from bytes and from words.
#include "neon.h"

#ifdef LEVEL_DOTPROD

enum { LANES = 4 }; // that share the columns of a row

// x32 are 32 activations of a token: upper and lower bytes.
typedef struct { int8x16_t upper[2], lower[2]; } x32;

INLINE x32 load_x32(const int16_t *q) {
	x32 x;
	UNROLL for (int i = 0; i < 2; i++) {
		int8x16x2_t b = vld2q_s8((const int8_t *)(q + 16 * i));
		x.lower[i] = b.val[0];
		// A lower byte is signed; where it is negative the upper is one more.
		x.upper[i] = vreinterpretq_s8_u8(vsraq_n_u8(vreinterpretq_u8_s8(b.val[1]), vreinterpretq_u8_s8(b.val[0]), 7));
	}
	return x;
}

INLINE int32x4_t dot_16(int8x16_t w, x32 x, int i) {
	int32x4_t s = vdotq_s32(vdupq_n_s32(0), w, x.upper[i]);
	return vdotq_s32(vshlq_n_s32(s, 8), w, x.lower[i]);
}

INLINE int32x4_t dot_32(const int8x16_t w[2], x32 x) {
	int32x4_t s = vdotq_s32(vdupq_n_s32(0), w[0], x.upper[0]);
	s = vshlq_n_s32(vdotq_s32(s, w[1], x.upper[1]), 8);
	return vdotq_s32(vdotq_s32(s, w[0], x.lower[0]), w[1], x.lower[1]);
}

// scales are the sub-scales of a chunk, one for 16 or for 32 columns.
typedef struct { int32x4_t v[4]; } scales;

INLINE scales scales_from(int8x16_t s) {
	int16x8_t low = vmovl_s8(vget_low_s8(s)), high = vmovl_high_s8(s);
	return (scales){{vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)}};
}

// sums are those of a row and a token, each lane of a quarter of the columns.
typedef struct { int32x4_t v; } sums;

INLINE sums no_sums(void) { return (sums){vdupq_n_s32(0)}; }

// add_32 adds 32 columns with scale g, add_16 with scales g and g+1 for 16 each.
INLINE void add_32(sums *a, const int8x16_t w[2], x32 x, scales s, int g) {
	a->v = vmlaq_n_s32(a->v, dot_32(w, x), s.v[g / 4][g % 4]);
}

INLINE void add_16(sums *a, const int8x16_t w[2], x32 x, scales s, int g) {
	a->v = vmlaq_n_s32(a->v, dot_16(w[0], x, 0), s.v[g / 4][g % 4]);
	a->v = vmlaq_n_s32(a->v, dot_16(w[1], x, 1), s.v[g / 4][g % 4 + 1]);
}

INLINE float32x4_t flushed(float32x4_t f, sums a, float d) { return vfmaq_n_f32(f, vcvtq_f32_s32(a.v), d); }

#else

enum { LANES = 8 };

typedef struct { int16x8_t q[4]; } x32;

INLINE x32 load_x32(const int16_t *q) {
	x32 x;
	UNROLL for (int i = 0; i < 4; i++) x.q[i] = vld1q_s16(q + 8 * i);
	return x;
}

INLINE int32x4_t dot_32(const int8x16_t w[2], x32 x) {
	int32x4_t s = vdupq_n_s32(0);
	UNROLL for (int i = 0; i < 4; i++) {
		int16x8_t v = i % 2 == 0 ? vmovl_s8(vget_low_s8(w[i / 2])) : vmovl_high_s8(w[i / 2]);
		s = vmlal_s16(s, vget_low_s16(v), vget_low_s16(x.q[i]));
		s = vmlal_high_s16(s, v, x.q[i]);
	}
	return s;
}

typedef struct { int8x16_t v; } scales;

INLINE scales scales_from(int8x16_t s) { return (scales){s}; }

// Each lane has an eighth of the columns.
typedef struct { int32x4_t v[2]; } sums;

INLINE sums no_sums(void) { return (sums){{vdupq_n_s32(0), vdupq_n_s32(0)}}; }

// add_scaled multiplies weights with their sub-scale first, which takes no more
// instructions than to widen them.
INLINE void add_scaled(sums *a, int8x16_t w, int8_t scale, const int16x8_t q[2]) {
	int16x8_t low = vmull_s8(vget_low_s8(w), vdup_n_s8(scale)), high = vmull_high_s8(w, vdupq_n_s8(scale));
	a->v[0] = vmlal_s16(a->v[0], vget_low_s16(low), vget_low_s16(q[0]));
	a->v[1] = vmlal_high_s16(a->v[1], low, q[0]);
	a->v[0] = vmlal_s16(a->v[0], vget_low_s16(high), vget_low_s16(q[1]));
	a->v[1] = vmlal_high_s16(a->v[1], high, q[1]);
}

INLINE void add_32(sums *a, const int8x16_t w[2], x32 x, scales s, int g) {
	add_scaled(a, w[0], s.v[g], x.q);
	add_scaled(a, w[1], s.v[g], x.q + 2);
}

INLINE void add_16(sums *a, const int8x16_t w[2], x32 x, scales s, int g) {
	add_scaled(a, w[0], s.v[g], x.q);
	add_scaled(a, w[1], s.v[g + 1], x.q + 2);
}

INLINE float32x4_t flushed(float32x4_t f, sums a, float d) {
	f = vfmaq_n_f32(f, vcvtq_f32_s32(a.v[0]), d);
	return vfmaq_n_f32(f, vcvtq_f32_s32(a.v[1]), d);
}

#endif
