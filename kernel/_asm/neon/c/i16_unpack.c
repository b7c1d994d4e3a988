// Weight rows to a panel, four rows at a time: pairs of columns of four rows are a
// register, which a transposition of 32-bit elements makes.
#include "neon.h"
#include "i16_panel.h"

// scales are the sub-scales of a chunk, one for 16 or for 32 columns.
typedef struct { int8x16_t v; } scales;

INLINE scales scales_from(int8x16_t s) { return (scales){s}; }

#include "i16_weights.h"

enum { Q4K, Q5K, Q6K, Q4_0, Q5_0, Q8_0 };

// store_8 stores 8 columns of four rows, whose first pair is at p.
INLINE void store_8(int16_t *p, const int16x8_t w[4]) {
	int32x4_t v[4];
	UNROLL for (int r = 0; r < 4; r++) v[r] = vreinterpretq_s32_s16(w[r]);
	int64x2_t a = vreinterpretq_s64_s32(vtrn1q_s32(v[0], v[1])), b = vreinterpretq_s64_s32(vtrn2q_s32(v[0], v[1]));
	int64x2_t c = vreinterpretq_s64_s32(vtrn1q_s32(v[2], v[3])), d = vreinterpretq_s64_s32(vtrn2q_s32(v[2], v[3]));
	vst1q_s16(p, vreinterpretq_s16_s64(vtrn1q_s64(a, c)));
	vst1q_s16(p + PAIR, vreinterpretq_s16_s64(vtrn1q_s64(b, d)));
	vst1q_s16(p + 2 * PAIR, vreinterpretq_s16_s64(vtrn2q_s64(a, c)));
	vst1q_s16(p + 3 * PAIR, vreinterpretq_s16_s64(vtrn2q_s64(b, d)));
}

// unpack_k unpacks rows row to row+3, which begin at b, of a format with super-blocks.
INLINE void unpack_k(const int format, int16_t *p, int64_t row, const uint8_t *const b[4]) {
	float *d = panel_d(p) + row, *m = panel_min(p) + row;
	OPAQUE(d);
	OPAQUE(m);
	scales s[4];
	UNROLL for (int r = 0; r < 4; r++) {
		d[r] = half(b[r] + (format == Q6K ? 208 : 0));
		if (format == Q6K) {
			s[r] = scales_from(vld1q_s8((const int8_t *)b[r] + 192));
			continue;
		}
		float32x4_t min[2];
		s[r] = scales_k4(b[r] + 4, min);
		UNROLL for (int g = 0; g < 8; g++) m[PANEL_ROWS * g + r] = half(b[r] + 2) * min[g / 4][g % 4];
	}
	UNROLL for (int g = 0; g < 8; g++) {
		BARRIER;
		int8x16_t w[4][2];
		UNROLL for (int r = 0; r < 4; r++) {
			if (format == Q4K) weights_q4k(b[r], g, w[r]);
			if (format == Q5K) weights_q5k(b[r], g, w[r]);
			if (format == Q6K) weights_q6k(b[r], g, w[r]);
		}
		UNROLL for (int i = 0; i < 2; i++) {
			int16x8_t low[4], high[4];
			UNROLL for (int r = 0; r < 4; r++) {
				const int8_t scale = format == Q6K ? s[r].v[2 * g + i] : s[r].v[g];
				low[r] = vmull_s8(vget_low_s8(w[r][i]), vdup_n_s8(scale));
				high[r] = vmull_high_s8(w[r][i], vdupq_n_s8(scale));
			}
			store_8(p + 2 * row + PAIR * (16 * g + 8 * i), low);
			store_8(p + 2 * row + PAIR * (16 * g + 8 * i + 4), high);
		}
	}
}

// unpack_32 is the same for some blocks of 32 columns.
INLINE void unpack_32(const int format, int16_t *p, int64_t row, const uint8_t *const b[4], int64_t blocks, block_constants k) {
	const int64_t size = format == Q4_0 ? 18 : format == Q5_0 ? 22 : 34;
	for (int64_t g = 0; g < blocks; g++) {
		int8x16_t w[4][2];
		UNROLL for (int r = 0; r < 4; r++) {
			const uint8_t *q = b[r] + g * size;
			panel_d(p)[PANEL_ROWS * g + row + r] = half(q);
			if (format == Q4_0) weights_q4_0(q + 2, w[r]);
			if (format == Q5_0) weights_q5_0(q + 2, k, w[r]);
			if (format == Q8_0) weights_q8_0(q + 2, w[r]);
		}
		UNROLL for (int i = 0; i < 2; i++) {
			int16x8_t low[4], high[4];
			UNROLL for (int r = 0; r < 4; r++) {
				low[r] = vmovl_s8(vget_low_s8(w[r][i]));
				high[r] = vmovl_high_s8(w[r][i]);
			}
			store_8(p + 2 * row + PAIR * (16 * g + 8 * i), low);
			store_8(p + 2 * row + PAIR * (16 * g + 8 * i + 4), high);
		}
	}
}

// UNPACK unpacks 32 rows; those that are missing become copies of the last one.
#define UNPACK(name, unpack)                                                            \
	KERNEL(name) {                                                                      \
		const int64_t last = a->rows - 1;                                               \
		int16_t *p = a->p;                                                              \
		const block_constants k = constants();                                          \
		(void)k;                                                                        \
		for (int64_t row = 0; row < PANEL_ROWS; row += 4) {                             \
			const uint8_t *b[4];                                                        \
			UNROLL for (int r = 0; r < 4; r++)                                          \
				b[r] = a->w + a->rowBytes * (row + r < last ? row + r : last);          \
			unpack;                                                                     \
		}                                                                               \
	}

/// unpacks one chunk of 1 ≤ rows ≤ 32 rows, rowBytes apart, into p. The rest of the 32 rows
/// become copies of the last one.
//stub unpackQ4KI16(p *int16, w *byte, rowBytes int, rows int)
UNPACK(unpackQ4KI16, unpack_k(Q4K, p, row, b))

/// unpacks one chunk of 1 ≤ rows ≤ 32 rows, rowBytes apart, into p. The rest of the 32 rows
/// become copies of the last one.
//stub unpackQ5KI16(p *int16, w *byte, rowBytes int, rows int)
UNPACK(unpackQ5KI16, unpack_k(Q5K, p, row, b))

/// unpacks one chunk of 1 ≤ rows ≤ 32 rows, rowBytes apart, into p. The rest of the 32 rows
/// become copies of the last one.
//stub unpackQ6KI16(p *int16, w *byte, rowBytes int, rows int)
UNPACK(unpackQ6KI16, unpack_k(Q6K, p, row, b))

/// unpacks one chunk of up to eight blocks of 1 ≤ rows ≤ 32 rows, rowBytes apart, into p. The
/// rest of the 32 rows become copies of the last one.
//stub unpackQ4_0I16(p *int16, w *byte, rowBytes int, rows int, blocks int)
UNPACK(unpackQ4_0I16, unpack_32(Q4_0, p, row, b, a->blocks, k))

/// unpacks one chunk of up to eight blocks of 1 ≤ rows ≤ 32 rows, rowBytes apart, into p. The
/// rest of the 32 rows become copies of the last one.
//stub unpackQ5_0I16(p *int16, w *byte, rowBytes int, rows int, blocks int)
UNPACK(unpackQ5_0I16, unpack_32(Q5_0, p, row, b, a->blocks, k))

/// unpacks one chunk of up to eight blocks of 1 ≤ rows ≤ 32 rows, rowBytes apart, into p. The
/// rest of the 32 rows become copies of the last one.
//stub unpackQ8_0I16(p *int16, w *byte, rowBytes int, rows int, blocks int)
UNPACK(unpackQ8_0I16, unpack_32(Q8_0, p, row, b, a->blocks, k))
