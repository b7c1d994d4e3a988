// Products of weight rows with int16 activations, for one token and for four.
//
// The integer product of 32 columns is formed in one of two ways. With NEON alone
// weights are widened to words, K-quants times their sub-scale, and multiplied by
// words (SMLAL). With dot products (SDOT) weights stay bytes, and an activation is
// 256 times one signed byte plus another.
//
// A chunk's sums are float32 only from where 32 bits might overflow. Every row and
// token goes through the same operations whatever ROWS and TOKENS are, so the bits
// do not depend on them.
#include "neon.h"


// i16_dot.h has the two ways.
#include "i16_dot.h"
#include "i16_weights.h"

// The formats with one scale for a chunk. FLUSH is how many columns a lane of int32
// may sum, as in kernel/i16_format.go.
enum { Q4K, Q5K, Q6K };
enum { Q4K_BYTES = 144, Q5K_BYTES = 176, Q6K_BYTES = 210 };

#define FLUSH(format) ((format) == Q4K ? 64 : (format) == Q5K ? 32 : 16)
#define BYTES(format) ((format) == Q4K ? Q4K_BYTES : (format) == Q5K ? Q5K_BYTES : Q6K_BYTES)

// The products of ROWS rows, at w and rowBytes apart, with TOKENS tokens.
INLINE void rows_k(const int format, const int ROWS, const int TOKENS, float *out, int64_t stride, const uint8_t *w, int64_t chunks,
                   const int16_t *q, const float *scale, const float *sum, int64_t batch) {
	const int64_t rowBytes = chunks * BYTES(format);
	float32x4_t f[4][4];
	UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int t = 0; t < TOKENS; t++) f[r][t] = vdupq_n_f32(0);
	for (; chunks > 0; chunks--) {
		scales s[4];
		float d[4];
		if (format != Q6K) {
			UNROLL for (int r = 0; r < ROWS; r++) {
				const uint8_t *b = w + r * rowBytes;
				float32x4_t min[2];
				s[r] = scales_k4(b + 4, min);
				d[r] = half(b);
				UNROLL for (int t = 0; t < TOKENS; t++) {
					// Sums of 16 columns, by pairs.
					const float *x = sum + 16 * t;
					float32x4_t m = vmulq_f32(min[0], vpaddq_f32(vld1q_f32(x), vld1q_f32(x + 4)));
					m = vfmaq_f32(m, min[1], vpaddq_f32(vld1q_f32(x + 8), vld1q_f32(x + 12)));
					f[r][t] = vfmsq_n_f32(f[r][t], m, half(b + 2));
				}
			}
		} else {
			UNROLL for (int r = 0; r < ROWS; r++) {
				const uint8_t *b = w + r * rowBytes;
				s[r] = scales_from(vld1q_s8((const int8_t *)b + 192));
				d[r] = half(b + 208);
			}
		}
		sums a[4][4];
		UNROLL for (int i = 0; i < 8; i++) {
			// Two groups share bytes; those of Q6_K are not neighbours, and its upper
			// bits, which four share, are loaded twice.
			const int g = format == Q6K && i % 4 % 3 != 0 ? i / 4 * 4 + 3 - i % 4 : i;
			if (format == Q6K && i % 2 == 0) BARRIER;
			int8x16_t v[4][2];
			UNROLL for (int r = 0; r < ROWS; r++) {
				const uint8_t *b = w + r * rowBytes;
				if (format == Q4K) weights_q4k(b, g, v[r]);
				if (format == Q5K) weights_q5k(b, g, v[r]);
				if (format == Q6K) weights_q6k(b, g, v[r]);
			}
			const int first = 32 * i % (LANES * FLUSH(format)) == 0, last = (32 * i + 32) % (LANES * FLUSH(format)) == 0 || i == 7;
			UNROLL for (int t = 0; t < TOKENS; t++) {
				x32 x = load_x32(q + CHUNK * t + 32 * g);
				UNROLL for (int r = 0; r < ROWS; r++) {
					if (first) a[r][t] = no_sums();
					if (format == Q6K) add_16(&a[r][t], v[r], x, s[r], 2 * g);
					else add_32(&a[r][t], v[r], x, s[r], g);
					if (last) f[r][t] = flushed(f[r][t], a[r][t], d[r] * scale[t]);
				}
			}
		}
		w += BYTES(format);
		q += CHUNK * batch;
		scale += batch;
		sum += 16 * batch;
	}
	UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int t = 0; t < TOKENS; t++) out[t * stride + r] = vaddvq_f32(f[r][t]);
}

// The formats with a scale for each block of 32 columns.
enum { Q4_0, Q5_0, Q8_0 };

#define BLOCK(format) ((format) == Q4_0 ? 18 : (format) == Q5_0 ? 22 : 34)

INLINE void rows_32(const int format, const int ROWS, const int TOKENS, float *out, int64_t stride, const uint8_t *w, int64_t blocks,
                    const int16_t *q, const float *scale, int64_t batch, block_constants k) {
	const int64_t rowBytes = blocks * BLOCK(format);
	float32x4_t f[4][4];
	UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int t = 0; t < TOKENS; t++) f[r][t] = vdupq_n_f32(0);
	for (; blocks > 0; blocks -= 8) {
		const int16_t *x = q;
		for (int64_t n = blocks < 8 ? blocks : 8; n > 0; n--) {
			int8x16_t v[4][2];
			UNROLL for (int r = 0; r < ROWS; r++) {
				const uint8_t *b = w + r * rowBytes;
				if (format == Q4_0) weights_q4_0(b + 2, v[r]);
				if (format == Q5_0) weights_q5_0(b + 2, k, v[r]);
				if (format == Q8_0) weights_q8_0(b + 2, v[r]);
			}
			UNROLL for (int t = 0; t < TOKENS; t++) {
				x32 xs = load_x32(x + CHUNK * t);
				UNROLL for (int r = 0; r < ROWS; r++)
					f[r][t] = vfmaq_n_f32(f[r][t], vcvtq_f32_s32(dot_32(v[r], xs)), half(w + r * rowBytes) * scale[t]);
			}
			w += BLOCK(format);
			x += 32;
		}
		q += CHUNK * batch;
		scale += batch;
	}
	UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int t = 0; t < TOKENS; t++) out[t * stride + r] = vaddvq_f32(f[r][t]);
}

#define MATVEC_K(name, format, ROWS, TOKENS) \
	KERNEL(name) { rows_k(format, ROWS, TOKENS, a->out, a->stride, a->w, a->chunks, a->q, a->scale, a->sum, a->batch); }
#define MATVEC_32(name, format, ROWS, TOKENS) \
	KERNEL(name) { rows_32(format, ROWS, TOKENS, a->out, a->stride, a->w, a->blocks, a->q, a->scale, a->batch, constants()); }

/// multiplies 1 row of chunks contiguous blocks of Q4_K with 1 token:
/// out[t*stride+i]. q, scale and sum, 16 a chunk, point to the first token; chunks of
/// activations are batch tokens apart. chunks is at least 1.
//stub matVecQ4KI16r1x1(out *float32, stride int, w *byte, chunks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_K(matVecQ4KI16r1x1, Q4K, 1, 1)

/// multiplies 2 rows of chunks contiguous blocks of Q4_K with 1 token:
/// out[t*stride+i]. q, scale and sum, 16 a chunk, point to the first token; chunks of
/// activations are batch tokens apart. chunks is at least 1.
//stub matVecQ4KI16r2x1(out *float32, stride int, w *byte, chunks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_K(matVecQ4KI16r2x1, Q4K, 2, 1)

/// multiplies 1 row of chunks contiguous blocks of Q4_K with 4 tokens:
/// out[t*stride+i]. q, scale and sum, 16 a chunk, point to the first token; chunks of
/// activations are batch tokens apart. chunks is at least 1.
//stub matVecQ4KI16r1x4(out *float32, stride int, w *byte, chunks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_K(matVecQ4KI16r1x4, Q4K, 1, 4)

/// multiplies 1 row of chunks contiguous blocks of Q5_K with 1 token:
/// out[t*stride+i]. q, scale and sum, 16 a chunk, point to the first token; chunks of
/// activations are batch tokens apart. chunks is at least 1.
//stub matVecQ5KI16r1x1(out *float32, stride int, w *byte, chunks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_K(matVecQ5KI16r1x1, Q5K, 1, 1)

/// multiplies 2 rows of chunks contiguous blocks of Q5_K with 1 token:
/// out[t*stride+i]. q, scale and sum, 16 a chunk, point to the first token; chunks of
/// activations are batch tokens apart. chunks is at least 1.
//stub matVecQ5KI16r2x1(out *float32, stride int, w *byte, chunks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_K(matVecQ5KI16r2x1, Q5K, 2, 1)

/// multiplies 1 row of chunks contiguous blocks of Q5_K with 4 tokens:
/// out[t*stride+i]. q, scale and sum, 16 a chunk, point to the first token; chunks of
/// activations are batch tokens apart. chunks is at least 1.
//stub matVecQ5KI16r1x4(out *float32, stride int, w *byte, chunks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_K(matVecQ5KI16r1x4, Q5K, 1, 4)

/// multiplies 1 row of chunks contiguous blocks of Q6_K with 1 token:
/// out[t*stride+i]. q, scale and sum, 16 a chunk, point to the first token; chunks of
/// activations are batch tokens apart. chunks is at least 1.
//stub matVecQ6KI16r1x1(out *float32, stride int, w *byte, chunks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_K(matVecQ6KI16r1x1, Q6K, 1, 1)

/// multiplies 2 rows of chunks contiguous blocks of Q6_K with 1 token:
/// out[t*stride+i]. q, scale and sum, 16 a chunk, point to the first token; chunks of
/// activations are batch tokens apart. chunks is at least 1.
//stub matVecQ6KI16r2x1(out *float32, stride int, w *byte, chunks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_K(matVecQ6KI16r2x1, Q6K, 2, 1)

/// multiplies 1 row of chunks contiguous blocks of Q6_K with 4 tokens:
/// out[t*stride+i]. q, scale and sum, 16 a chunk, point to the first token; chunks of
/// activations are batch tokens apart. chunks is at least 1.
//stub matVecQ6KI16r1x4(out *float32, stride int, w *byte, chunks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_K(matVecQ6KI16r1x4, Q6K, 1, 4)

/// multiplies 1 row of contiguous blocks of 32 with 1 token: out[t*stride+i].
/// q and scale point to the first token; chunks of activations are batch tokens
/// apart. sum is not read. blocks is at least 1.
//stub matVecQ4_0I16r1x1(out *float32, stride int, w *byte, blocks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_32(matVecQ4_0I16r1x1, Q4_0, 1, 1)

/// multiplies 2 rows of contiguous blocks of 32 with 1 token: out[t*stride+i].
/// q and scale point to the first token; chunks of activations are batch tokens
/// apart. sum is not read. blocks is at least 1.
//stub matVecQ4_0I16r2x1(out *float32, stride int, w *byte, blocks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_32(matVecQ4_0I16r2x1, Q4_0, 2, 1)

/// multiplies 1 row of contiguous blocks of 32 with 4 tokens: out[t*stride+i].
/// q and scale point to the first token; chunks of activations are batch tokens
/// apart. sum is not read. blocks is at least 1.
//stub matVecQ4_0I16r1x4(out *float32, stride int, w *byte, blocks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_32(matVecQ4_0I16r1x4, Q4_0, 1, 4)

/// multiplies 1 row of contiguous blocks of 32 with 1 token: out[t*stride+i].
/// q and scale point to the first token; chunks of activations are batch tokens
/// apart. sum is not read. blocks is at least 1.
//stub matVecQ5_0I16r1x1(out *float32, stride int, w *byte, blocks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_32(matVecQ5_0I16r1x1, Q5_0, 1, 1)

/// multiplies 2 rows of contiguous blocks of 32 with 1 token: out[t*stride+i].
/// q and scale point to the first token; chunks of activations are batch tokens
/// apart. sum is not read. blocks is at least 1.
//stub matVecQ5_0I16r2x1(out *float32, stride int, w *byte, blocks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_32(matVecQ5_0I16r2x1, Q5_0, 2, 1)

/// multiplies 1 row of contiguous blocks of 32 with 4 tokens: out[t*stride+i].
/// q and scale point to the first token; chunks of activations are batch tokens
/// apart. sum is not read. blocks is at least 1.
//stub matVecQ5_0I16r1x4(out *float32, stride int, w *byte, blocks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_32(matVecQ5_0I16r1x4, Q5_0, 1, 4)

/// multiplies 1 row of contiguous blocks of 32 with 1 token: out[t*stride+i].
/// q and scale point to the first token; chunks of activations are batch tokens
/// apart. sum is not read. blocks is at least 1.
//stub matVecQ8_0I16r1x1(out *float32, stride int, w *byte, blocks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_32(matVecQ8_0I16r1x1, Q8_0, 1, 1)

/// multiplies 2 rows of contiguous blocks of 32 with 1 token: out[t*stride+i].
/// q and scale point to the first token; chunks of activations are batch tokens
/// apart. sum is not read. blocks is at least 1.
//stub matVecQ8_0I16r2x1(out *float32, stride int, w *byte, blocks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_32(matVecQ8_0I16r2x1, Q8_0, 2, 1)

/// multiplies 1 row of contiguous blocks of 32 with 4 tokens: out[t*stride+i].
/// q and scale point to the first token; chunks of activations are batch tokens
/// apart. sum is not read. blocks is at least 1.
//stub matVecQ8_0I16r1x4(out *float32, stride int, w *byte, blocks int, q *int16, scale *float32, sum *float32, batch int)
MATVEC_32(matVecQ8_0I16r1x4, Q8_0, 1, 4)
