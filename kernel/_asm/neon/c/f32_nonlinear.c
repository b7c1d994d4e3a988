// Norms, gates, softmax and rotation.
#include "f32.h"

// exp4 is exp: 2^n times a polynomial of what is left of x after n times ln 2, which
// is taken off in two parts. Half of 2^n at a time, so that the last product rounds
// once, to subnormals too. Beyond the limits it is 0 or infinite.
INLINE float32x4_t exp4(float32x4_t x) {
	x = vmaxq_f32(vminq_f32(x, vdupq_n_f32(89)), vdupq_n_f32(-104.5f));
	const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 0x1.715476p+0f));
	const float32x4_t r = vfmsq_n_f32(vfmsq_n_f32(x, n, 0x1.62e4p-1f), n, 0x1.7f7d1cp-20f);
	float32x4_t p = vdupq_n_f32(1.0f / 5040);
	p = vfmaq_f32(vdupq_n_f32(1.0f / 720), p, r);
	p = vfmaq_f32(vdupq_n_f32(1.0f / 120), p, r);
	p = vfmaq_f32(vdupq_n_f32(1.0f / 24), p, r);
	p = vfmaq_f32(vdupq_n_f32(1.0f / 6), p, r);
	p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
	p = vfmaq_f32(vdupq_n_f32(1), p, r);
	p = vfmaq_f32(vdupq_n_f32(1), p, r);
	const int32x4_t k = vcvtq_s32_f32(n), half = vshrq_n_s32(k, 1), one = vreinterpretq_s32_f32(vdupq_n_f32(1));
	p = vmulq_f32(p, vreinterpretq_f32_s32(vaddq_s32(one, vshlq_n_s32(half, 23))));
	return vmulq_f32(p, vreinterpretq_f32_s32(vaddq_s32(one, vshlq_n_s32(vsubq_s32(k, half), 23))));
}

// exp_sub replaces n numbers at x by exp(x-m) and returns the sum, formed in float64.
INLINE float exp_sub(float *x, int64_t n, float max) {
	float64x2_t low = vdupq_n_f64(0), high = low;
	EACH4(n, {
		float32x4_t y = exp4(vsubq_f32(load_n(x + i, m), vdupq_n_f32(max)));
		store_n(x + i, y, m);
		if (m < 4) y = load_n(x + i, m); // without what lies beyond the end
		low = vaddq_f64(low, vcvt_f64_f32(vget_low_f32(y)));
		high = vaddq_f64(high, vcvt_high_f64_f32(y));
	});
	return vaddvq_f64(vaddq_f64(low, high));
}

// max_of returns the largest of n numbers, ignoring NaN, or -Inf.
INLINE float max_of(const float *x, int64_t n) {
	float32x4_t v = vdupq_n_f32(-__builtin_inff());
	int64_t i = 0;
	for (; i + 4 <= n; i += 4) v = vmaxnmq_f32(v, vld1q_f32(x + i));
	for (; i < n; i++) v = vmaxnmq_f32(v, vld1q_dup_f32(x + i));
	return vmaxnmvq_f32(v);
}

/// returns the largest element, ignoring NaN, or -Inf if there is none.
//stub max(x []float32) float32
KERNEL(max) { a->ret = max_of(a->x, a->x_len); }

/// does x[i] = exp(x[i]-m) and returns the sum of the results, summed in float64.
//stub expSub(x []float32, m float32) float32
KERNEL(expSub) { a->ret = exp_sub(a->x, a->x_len, a->m); }

/// makes weights of scores as slotSoftmaxRows says, for rows of n at distances of 64.
//stub softmaxRows(x *float32, rows int, n int, scale float32, top *float32, sum *float32)
KERNEL(softmaxRows) {
	for (int64_t r = 0; r < a->rows; r++) {
		float *x = a->x + 64 * r;
		EACH4(a->n, store_n(x + i, vmulq_n_f32(load_n(x + i, m), a->scale), m););
		const float largest = max_of(x, a->n);
		const float top = largest > a->top[r] ? largest : a->top[r];
		a->top[r] = top;
		a->sum[r] = exp_sub(x, a->n, top == -__builtin_inff() ? 0 : top);
	}
}

/// does dst[i] = gate[i]/(1+exp(-gate[i]))*up[i] for i in [0,len(dst)). dst may be gate or up.
//stub siluMul(dst []float32, gate []float32, up []float32)
KERNEL(siluMul) {
	EACH4(a->dst_len, {
		const float32x4_t g = load_n(a->gate + i, m);
		const float32x4_t y = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1), exp4(vnegq_f32(g))));
		store_n(a->dst + i, vmulq_f32(y, load_n(a->up + i, m)), m);
	});
}

/// does dst[i] = x/(1+exp(-2u))*up[i], x = gate[i], u = sqrt(2/pi)*(x+0.044715*x*x*x), for i in
/// [0,len(dst)). dst may be gate or up.
//stub geluMul(dst []float32, gate []float32, up []float32)
KERNEL(geluMul) {
	const float linear = -2 * 0.79788456080286535587989211986876, cubic = linear * 0.044715;
	EACH4(a->dst_len, {
		const float32x4_t g = load_n(a->gate + i, m);
		const float32x4_t u = vmulq_f32(g, vaddq_f32(vdupq_n_f32(linear), vmulq_n_f32(vmulq_f32(g, g), cubic)));
		const float32x4_t y = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1), exp4(u)));
		store_n(a->dst + i, vmulq_f32(y, load_n(a->up + i, m)), m);
	});
}

/// returns the sum of the squares of x, summed in float64.
//stub sumSquares(x []float32) float64
KERNEL(sumSquares) {
	float64x2_t low = vdupq_n_f64(0), high = low;
	EACH4(a->x_len, {
		const float32x4_t v = load_n(a->x + i, m);
		const float64x2_t l = vcvt_f64_f32(vget_low_f32(v)), h = vcvt_high_f64_f32(v);
		low = vfmaq_f64(low, l, l);
		high = vfmaq_f64(high, h, h);
	});
	a->ret = vaddvq_f64(vaddq_f64(low, high));
}

/// does dst[i] = x[i]*s*weight[i] for i in [0,len(dst)). dst may be x.
//stub normScale(dst []float32, x []float32, weight []float32, s float32)
KERNEL(normScale) { EACH4(a->dst_len, store_n(a->dst + i, vmulq_f32(vmulq_n_f32(load_n(a->x + i, m), a->s), load_n(a->weight + i, m)), m);); }

/// rotates pairs i and i+len(cos) of x. len(sin) is len(cos) at least, len(x) twice that.
//stub ropeNeoX(x []float32, cos []float32, sin []float32)
KERNEL(ropeNeoX) {
	float *low = a->x, *high = a->x + a->cos_len;
	EACH4(a->cos_len, {
		const float32x4_t x = load_n(low + i, m), y = load_n(high + i, m), c = load_n(a->cos + i, m), s = load_n(a->sin + i, m);
		store_n(low + i, vsubq_f32(vmulq_f32(x, c), vmulq_f32(y, s)), m);
		store_n(high + i, vaddq_f32(vmulq_f32(x, s), vmulq_f32(y, c)), m);
	});
}

/// rotates pairs 2i and 2i+1 of x. len(cos) is a multiple of 4, len(sin) that at least, len(x)
/// twice that.
//stub ropeNorm(x []float32, cos []float32, sin []float32)
KERNEL(ropeNorm) {
	for (int64_t i = 0; i < a->cos_len; i += 4) {
		const float32x4x2_t v = vld2q_f32(a->x + 2 * i);
		const float32x4_t c = vld1q_f32(a->cos + i), s = vld1q_f32(a->sin + i);
		float32x4x2_t y;
		y.val[0] = vsubq_f32(vmulq_f32(v.val[0], c), vmulq_f32(v.val[1], s));
		y.val[1] = vaddq_f32(vmulq_f32(v.val[0], s), vmulq_f32(v.val[1], c));
		vst2q_f32(a->x + 2 * i, y);
	}
}
