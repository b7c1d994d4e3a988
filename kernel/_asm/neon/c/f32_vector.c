// Kernels on plain vectors of float32.
#include "f32.h"

// Four sums of four lanes, the fourth part of the numbers each.
#define DOT(LOAD)                                                                                                        \
	const float *x = a->a;                                                                                               \
	const int64_t n = a->a_len;                                                                                          \
	float32x4_t s[4];                                                                                                    \
	UNROLL for (int j = 0; j < 4; j++) s[j] = vdupq_n_f32(0);                                                            \
	int64_t i = 0;                                                                                                       \
	for (; i + 16 <= n; i += 16)                                                                                         \
		UNROLL for (int j = 0; j < 4; j++) s[j] = vfmaq_f32(s[j], vld1q_f32(x + i + 4 * j), LOAD(a->b + i + 4 * j, 4));  \
	for (; i < n; i += 4) s[0] = vfmaq_f32(s[0], load_n(x + i, n - i), LOAD(a->b + i, n - i));                           \
	a->ret = vaddvq_f32(vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3])));

/// returns the sum of a[i]*b[i] for i in [0,len(a)).
//stub dotF32(a []float32, b []float32) float32
KERNEL(dotF32) { DOT(load_n) }

/// is the same with b in half precision.
//stub dotF16(a []float32, b []uint16) float32
KERNEL(dotF16) { DOT(load_half_n) }

/// does y[i] += a*x[i] for i in [0,len(y)), with one rounding.
//stub axpyF32(y []float32, a float32, x []float32)
KERNEL(axpyF32) { EACH4(a->y_len, store_n(a->y + i, vfmaq_n_f32(load_n(a->y + i, m), load_n(a->x + i, m), a->a), m);); }

/// is the same with x in half precision.
//stub axpyF16(y []float32, a float32, x []uint16)
KERNEL(axpyF16) { EACH4(a->y_len, store_n(a->y + i, vfmaq_n_f32(load_n(a->y + i, m), load_half_n(a->x + i, m), a->a), m);); }

/// does dst[i] = a[i]+b[i] for i in [0,len(dst)). dst may be a or b.
//stub add(dst []float32, a []float32, b []float32)
KERNEL(add) { EACH4(a->dst_len, store_n(a->dst + i, vaddq_f32(load_n(a->a + i, m), load_n(a->b + i, m)), m);); }

/// does dst[i] = a[i]*b[i] for i in [0,len(dst)). dst may be a or b.
//stub mul(dst []float32, a []float32, b []float32)
KERNEL(mul) { EACH4(a->dst_len, store_n(a->dst + i, vmulq_f32(load_n(a->a + i, m), load_n(a->b + i, m)), m);); }

/// does dst[i] = s*x[i] for i in [0,len(dst)). dst may be x.
//stub scale(dst []float32, x []float32, s float32)
KERNEL(scale) { EACH4(a->dst_len, store_n(a->dst + i, vmulq_n_f32(load_n(a->x + i, m), a->s), m);); }

/// converts len(src) numbers to half precision, to nearest, ties to even.
//stub f32ToF16(dst []uint16, src []float32)
KERNEL(f32ToF16) {
	EACH4(a->src_len, {
		uint16x4_t v = vreinterpret_u16_f16(vcvt_f16_f32(load_n(a->src + i, m)));
		if (m >= 4) {
			vst1_u16(a->dst + i, v);
		} else {
			vst1_lane_u16(a->dst + i, v, 0);
			if (m > 1) vst1_lane_u16(a->dst + i + 1, v, 1);
			if (m > 2) vst1_lane_u16(a->dst + i + 2, v, 2);
		}
	});
}

/// converts len(src) halves to float32.
//stub f16ToF32(dst []float32, src []uint16)
KERNEL(f16ToF32) { EACH4(a->src_len, store_n(a->dst + i, load_half_n(a->src + i, m), m);); }
