// Activations to int16.
#include "neon.h"

// quantize_chunk rounds 256 numbers, the largest to top, and returns their scale, bit for bit as plain Go.
INLINE float quantize_chunk(int16_t *q, const float *x, const float top) {
	const uint32x4_t magnitude = vdupq_n_u32(0x7fffffff);
	uint32x4_t m[4];
	UNROLL for (int i = 0; i < 4; i++) m[i] = vdupq_n_u32(0);
	for (int k = 0; k < CHUNK; k += 16)
		UNROLL for (int i = 0; i < 4; i++) m[i] = vmaxq_u32(m[i], vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + k + 4 * i)), magnitude));
	// The bits without sign: NaN and infinity compare highest.
	const uint32_t largest = vmaxvq_u32(vmaxq_u32(vmaxq_u32(m[0], m[1]), vmaxq_u32(m[2], m[3])));
	const float max = vget_lane_f32(vcreate_f32(largest), 0);
	const int finite = largest < 0x7f800000, counts = finite && largest >= 0x0d800000; // 2^-100
	if (!counts) {
		for (int k = 0; k < CHUNK; k += 8) vst1q_s16(q + k, vdupq_n_s16(0));
		return finite ? 0 : vget_lane_f32(vcreate_f32(0x7fc00000), 0);
	}
	const float inverse = top / max;
	for (int k = 0; k < CHUNK; k += 8) {
		int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + k), inverse)), high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + k + 4), inverse));
		vst1q_s16(q + k, vmovn_high_s32(vmovn_s32(low), high));
	}
	return max / top;
}

// sum_16 leaves the sum of 16 elements in four lanes.
INLINE int32x4_t sum_16(const int16_t *q) { return vpadalq_s16(vpaddlq_s16(vld1q_s16(q)), vld1q_s16(q + 8)); }

/// quantises chunks of 256 numbers at x as one token; the token's chunks are batch apart in q,
/// scale, sum and sum32. chunks is at least 1; top is the largest magnitude. The result is that of plain Go.
//stub quantizeI16(q *int16, scale *float32, sum *float32, sum32 *float32, x *float32, chunks int, batch int, top float32)
KERNEL(quantizeI16) {
	int16_t *q = a->q;
	float *scale = a->scale, *sum = a->sum, *sum32 = a->sum32;
	const float *x = a->x;
	const int64_t batch = a->batch;
	for (int64_t c = a->chunks; c > 0; c--) {
		const float s = quantize_chunk(q, x, a->top);
		*scale = s;
		for (int half = 0; half < 2; half++) {
			int32x4_t v[2];
			UNROLL for (int i = 0; i < 2; i++) {
				const int16_t *p = q + 128 * half + 64 * i;
				v[i] = vpaddq_s32(vpaddq_s32(sum_16(p), sum_16(p + 16)), vpaddq_s32(sum_16(p + 32), sum_16(p + 48)));
				vst1q_f32(sum + 8 * half + 4 * i, vmulq_n_f32(vcvtq_f32_s32(v[i]), s));
			}
			vst1q_f32(sum32 + 4 * half, vmulq_n_f32(vcvtq_f32_s32(vpaddq_s32(v[0], v[1])), s));
		}
		x += CHUNK;
		q += CHUNK * batch;
		scale += batch;
		sum += 16 * batch;
		sum32 += 8 * batch;
	}
}
