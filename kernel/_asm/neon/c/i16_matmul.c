// Products of an unpacked panel with some tokens. A step multiplies a pair of columns
// of eight rows with each token's two activations, by element: the rows of a column
// are in a register, and a register has eight activations of a token.
#include "neon.h"
#include "i16_panel.h"

// tile_8 sets rows row to row+7 of to, for TOKENS tokens, to those of from and the product. Where the scale of
// weights is folded into them int32 sums are taken over pairs pairs of columns, flushes
// times; otherwise over groups of 32 columns, each with a scale.
INLINE void tile_8(const int folded, const int TOKENS, float *to, int64_t toStep, const float *from, int64_t fromStep, int16_t *p, const int row, const int16_t *q, const float *scale, const float *sum,
                   int64_t pairs, int64_t flushes, int64_t mins) {
	const int16_t *w = p + 2 * row;
	const float *d = panel_d(p) + row, *min = panel_min(p) + row;
	const int16_t *x = q;
	float32x4_t f[4][2];
	UNROLL for (int t = 0; t < TOKENS; t++) UNROLL for (int h = 0; h < 2; h++) f[t][h] = vdupq_n_f32(0);
	do {
		int32x4_t s[4][2];
		UNROLL for (int t = 0; t < TOKENS; t++) UNROLL for (int h = 0; h < 2; h++) s[t][h] = vdupq_n_s32(0);
		int64_t k = folded ? pairs : 16;
		do {
			int16x8_t v[4];
			UNROLL for (int t = 0; t < TOKENS; t++) v[t] = vld1q_s16(x + CHUNK * t);
			UNROLL for (int i = 0; i < 4; i++) {
				int16x8_t low = vld1q_s16(w + PAIR * i), high = vld1q_s16(w + PAIR * i + 8);
				int16x8_t first = vuzp1q_s16(low, high), second = vuzp2q_s16(low, high);
				UNROLL for (int t = 0; t < TOKENS; t++) {
					s[t][0] = vmlal_n_s16(s[t][0], vget_low_s16(first), v[t][2 * i]);
					s[t][1] = vmlal_high_n_s16(s[t][1], first, v[t][2 * i]);
					s[t][0] = vmlal_n_s16(s[t][0], vget_low_s16(second), v[t][2 * i + 1]);
					s[t][1] = vmlal_high_n_s16(s[t][1], second, v[t][2 * i + 1]);
				}
			}
			x += 8;
			w += 4 * PAIR;
			k -= 4;
		} while (k > 0);
		UNROLL for (int t = 0; t < TOKENS; t++) UNROLL for (int h = 0; h < 2; h++) {
			float32x4_t v = vcvtq_f32_s32(s[t][h]);
			f[t][h] = folded ? vaddq_f32(f[t][h], v) : vfmaq_f32(f[t][h], v, vld1q_f32(d + 4 * h));
		}
		if (!folded) d += PANEL_ROWS;
	} while (--flushes > 0);
	UNROLL for (int t = 0; t < TOKENS; t++) UNROLL for (int h = 0; h < 2; h++) {
		float32x4_t v = folded ? vmulq_f32(f[t][h], vld1q_f32(d + 4 * h)) : f[t][h];
		f[t][h] = vfmaq_n_f32(vld1q_f32(from + fromStep * t + row + 4 * h), v, scale[t]);
	}
	for (int64_t g = 0; g < mins; g++) {
		UNROLL for (int t = 0; t < TOKENS; t++) UNROLL for (int h = 0; h < 2; h++)
			f[t][h] = vfmsq_n_f32(f[t][h], vld1q_f32(min + PANEL_ROWS * g + 4 * h), sum[mins * t + g]);
	}
	UNROLL for (int t = 0; t < TOKENS; t++) UNROLL for (int h = 0; h < 2; h++) vst1q_f32(to + toStep * t + row + 4 * h, f[t][h]);
}

#define MATMUL(name, folded, TOKENS)                                                                                          \
	KERNEL(name) {                                                                                                            \
		for (int row = 0; row < PANEL_ROWS; row += 8)                                                                         \
			tile_8(folded, TOKENS, a->to, a->toStep, a->from, a->fromStep, a->p, row, a->q, a->scale, a->sum, a->pairs, a->flushes, a->mins);                \
	}

/// sets 32 numbers of to, every toStep for a token, to those of from, every fromStep, plus the
/// product of p with one chunk of 1 token: q (tokens, 256), scale (tokens), sum (tokens,
/// mins). int32 sums are flushed after pairs pairs of columns, flushes times; pairs is a
/// multiple of 4, flushes at least 1.
//stub matMulFoldedI16x1(to *float32, from *float32, toStep int, fromStep int, p *int16, q *int16, scale *float32, sum *float32, pairs int, flushes int, mins int)
MATMUL(matMulFoldedI16x1, 1, 1)

/// is the same for 4 tokens.
//stub matMulFoldedI16x4(to *float32, from *float32, toStep int, fromStep int, p *int16, q *int16, scale *float32, sum *float32, pairs int, flushes int, mins int)
MATMUL(matMulFoldedI16x4, 1, 4)

/// is the same for a p with a scale for every 32 columns; flushes is how many groups of 32
/// there are. pairs is not read.
//stub matMulGroupedI16x1(to *float32, from *float32, toStep int, fromStep int, p *int16, q *int16, scale *float32, sum *float32, pairs int, flushes int, mins int)
MATMUL(matMulGroupedI16x1, 0, 1)

/// is the same for 4 tokens.
//stub matMulGroupedI16x4(to *float32, from *float32, toStep int, fromStep int, p *int16, q *int16, scale *float32, sum *float32, pairs int, flushes int, mins int)
MATMUL(matMulGroupedI16x4, 0, 4)
