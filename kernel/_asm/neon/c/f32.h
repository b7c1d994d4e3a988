// Vectors of float32 whose length is no multiple of four.
#include "neon.h"

// load_n reads the first n numbers at p, at most four; the others are 0.
INLINE float32x4_t load_n(const float *p, int64_t n) {
	if (n >= 4) return vld1q_f32(p);
	float32x4_t v = vdupq_n_f32(0);
	if (n > 0) v = vld1q_lane_f32(p, v, 0);
	if (n > 1) v = vld1q_lane_f32(p + 1, v, 1);
	if (n > 2) v = vld1q_lane_f32(p + 2, v, 2);
	return v;
}

INLINE void store_n(float *p, float32x4_t v, int64_t n) {
	if (n >= 4) {
		vst1q_f32(p, v);
		return;
	}
	if (n > 0) vst1q_lane_f32(p, v, 0);
	if (n > 1) vst1q_lane_f32(p + 1, v, 1);
	if (n > 2) vst1q_lane_f32(p + 2, v, 2);
}

// load_half_n is load_n of binary16.
INLINE float32x4_t load_half_n(const uint16_t *p, int64_t n) {
	uint16x4_t v = vdup_n_u16(0);
	if (n >= 4) {
		v = vld1_u16(p);
	} else {
		if (n > 0) v = vld1_lane_u16(p, v, 0);
		if (n > 1) v = vld1_lane_u16(p + 1, v, 1);
		if (n > 2) v = vld1_lane_u16(p + 2, v, 2);
	}
	return vcvt_f32_f16(vreinterpret_f16_u16(v));
}

// EACH4 does STEP for i = 0, 4, 8, … with m, how many of the elements from i on there
// are: 4, a constant, but at the end.
#define EACH4(n, ...)                         \
	do {                                      \
		int64_t i = 0;                        \
		for (; i + 4 <= (n); i += 4) {        \
			const int64_t m = 4;              \
			__VA_ARGS__                       \
		}                                     \
		if (i < (n)) {                        \
			const int64_t m = (n) - i;        \
			__VA_ARGS__                       \
		}                                     \
	} while (0)
