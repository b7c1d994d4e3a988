// Products of rows with vectors of float32: matrix products, attention's scores and
// its weighted values. The rows are float32, binary16 or blocks of Q8_0; for the same
// numbers all three give the same bits.
#include "f32.h"

enum { F32, F16, Q8 };
enum { Q8_BYTES = 34 };

// load_16 reads 16 numbers from number i of a row on, i a multiple of 16.
INLINE void load_16(const int kind, const uint8_t *row, int64_t i, float32x4_t v[4]) {
	if (kind == F32) UNROLL for (int j = 0; j < 4; j++) v[j] = vld1q_f32((const float *)row + i + 4 * j);
	if (kind == F16) UNROLL for (int j = 0; j < 4; j++) v[j] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)row + i + 4 * j)));
	if (kind == Q8) {
		const uint8_t *b = row + i / 32 * Q8_BYTES;
		const int8x16_t q = vld1q_s8((const int8_t *)b + 2 + i % 32);
		const int16x8_t low = vmovl_s8(vget_low_s8(q)), high = vmovl_high_s8(q);
		const float d = half(b);
		v[0] = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), d);
		v[1] = vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(low)), d);
		v[2] = vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), d);
		v[3] = vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(high)), d);
	}
}

// load_1 reads number i of a row; the other lanes are 0.
INLINE float32x4_t load_1(const int kind, const uint8_t *row, int64_t i) {
	return vsetq_lane_f32(kind == F16 ? half(row + 2 * i) : ((const float *)row)[i], vdupq_n_f32(0), 0);
}

// tile_4 adds to acc the products of four rows with TOKENS vectors of n numbers. A
// product is two sums of four lanes; n is a multiple of 16 where rows are blocks.
INLINE void tile_4(const int kind, const int TOKENS, float *acc, int64_t accStride, const uint8_t *w, int64_t rowBytes, const float *x, int64_t xStride, int64_t n) {
	float32x4_t s[4][2][2];
	UNROLL for (int r = 0; r < 4; r++) UNROLL for (int t = 0; t < TOKENS; t++) UNROLL for (int h = 0; h < 2; h++) s[r][t][h] = vdupq_n_f32(0);
	int64_t i = 0;
	for (; i + 16 <= n; i += 16) {
		UNROLL for (int r = 0; r < 4; r++) {
			float32x4_t v[4];
			load_16(kind, w + r * rowBytes, i, v);
			UNROLL for (int t = 0; t < TOKENS; t++) UNROLL for (int h = 0; h < 4; h++)
				s[r][t][h % 2] = vfmaq_f32(s[r][t][h % 2], v[h], vld1q_f32(x + t * xStride + i + 4 * h));
		}
	}
	if (kind != Q8) {
		for (; i < n; i++) {
			float32x4_t v[2];
			UNROLL for (int t = 0; t < TOKENS; t++) v[t] = load_1(F32, (const uint8_t *)(x + t * xStride), i);
			UNROLL for (int r = 0; r < 4; r++) {
				const float32x4_t l = load_1(kind, w + r * rowBytes, i);
				UNROLL for (int t = 0; t < TOKENS; t++) s[r][t][0] = vfmaq_f32(s[r][t][0], l, v[t]);
			}
		}
	}
	UNROLL for (int t = 0; t < TOKENS; t++) UNROLL for (int r = 0; r < 4; r++)
		acc[t * accStride + r] += vaddvq_f32(vaddq_f32(s[r][t][0], s[r][t][1]));
}

#define TILE(name, TOKENS)                                                                                       \
	KERNEL(name) {                                                                                               \
		for (int64_t j = 0; j < a->quads; j++)                                                                   \
			tile_4(F32, TOKENS, a->acc + 4 * j, a->accStride, (const uint8_t *)(a->w + 4 * j * a->wStride), 4 * a->wStride, a->x, a->xStride, a->n); \
	}

/// adds to acc[t*accStride+r] the product of row r of w with vector t of x, n numbers each, for 4*quads
/// rows wStride apart and 1 vector.
//stub tile1(acc *float32, accStride int, w *float32, wStride int, quads int, x *float32, xStride int, n int)
TILE(tile1, 1)

/// is the same for 2 vectors, xStride apart.
//stub tile2(acc *float32, accStride int, w *float32, wStride int, quads int, x *float32, xStride int, n int)
TILE(tile2, 2)

#define SCORES(name, kind, rowBytes, QUERIES)                                                                            \
	KERNEL(name) {                                                                                                       \
		for (int64_t j = 0; j < a->quads; j++) {                                                                         \
			UNROLL for (int t = 0; t < QUERIES; t++) vst1q_f32(a->scores + 64 * t + 4 * j, vdupq_n_f32(0));              \
			tile_4(kind, QUERIES, a->scores + 4 * j, 64, (const uint8_t *)a->k + 4 * j * (rowBytes), rowBytes, a->q, a->dim, a->dim); \
		}                                                                                                                \
	}

/// sets scores[t*64+p] to the product of row p of k with query t, for 4*quads rows and 1 query of
/// dim numbers, a multiple of 16. ahead is not read.
//stub scores1F16(scores *float32, k *uint16, quads int, q *float32, dim int, ahead *uint16)
SCORES(scores1F16, F16, 2 * a->dim, 1)

/// is the same for 2 queries.
//stub scores2F16(scores *float32, k *uint16, quads int, q *float32, dim int, ahead *uint16)
SCORES(scores2F16, F16, 2 * a->dim, 2)

/// is the same for rows of Q8_0 and 1 query; dim is a multiple of 32.
//stub scores1Q8(scores *float32, k *byte, quads int, q *float32, dim int, ahead *byte)
SCORES(scores1Q8, Q8, a->dim / 32 * Q8_BYTES, 1)

/// is the same for 2 queries.
//stub scores2Q8(scores *float32, k *byte, quads int, q *float32, dim int, ahead *byte)
SCORES(scores2Q8, Q8, a->dim / 32 * Q8_BYTES, 2)

// part is how many numbers of a row are summed before the sum is added to others:
// matmulK of package kernel.
enum { PART = 1024 };

#define FUSED(name, kind, bytes)                                                                               \
	KERNEL(name) {                                                                                             \
		vst1q_f32(a->out, vdupq_n_f32(0));                                                                     \
		for (int64_t k = 0; k < a->n; k += PART)                                                               \
			tile_4(kind, 1, a->out, 0, a->w + (bytes), a->rowBytes, a->x + k, 0, a->n - k < PART ? a->n - k : PART); \
	}

/// sets out[r] to the product of row r of w with x, n numbers each, for 4 rows of float32 that are
/// rowBytes apart.
//stub dot4F32(out *float32, x *float32, w *byte, rowBytes int, n int)
FUSED(dot4F32, F32, 4 * k)

/// is the same for rows of half precision.
//stub dot4F16(out *float32, x *float32, w *byte, rowBytes int, n int)
FUSED(dot4F16, F16, 2 * k)

/// is the same for rows of Q8_0.
//stub dot4Q8_0(out *float32, x *float32, w *byte, rowBytes int, n int)
FUSED(dot4Q8_0, Q8, k / 32 * Q8_BYTES)

// weigh adds n rows of dim numbers at v, times the weights, to the sums of QUERIES
// queries, or adds the sum of all to them.
INLINE void weigh(const int kind, const int mix, const int QUERIES, float *acc, const float *weight, const uint8_t *v, int64_t rowBytes, int64_t n, int64_t dim) {
	int64_t i = 0;
	for (; i + 16 <= dim; i += 16) {
		float32x4_t s[4][4];
		UNROLL for (int q = 0; q < QUERIES; q++) UNROLL for (int h = 0; h < 4; h++) s[q][h] = mix ? vdupq_n_f32(0) : vld1q_f32(acc + q * dim + i + 4 * h);
		for (int64_t p = 0; p < n; p++) {
			float32x4_t x[4];
			load_16(kind, v + p * rowBytes, i, x);
			UNROLL for (int q = 0; q < QUERIES; q++) UNROLL for (int h = 0; h < 4; h++) s[q][h] = vfmaq_n_f32(s[q][h], x[h], weight[64 * q + p]);
		}
		UNROLL for (int q = 0; q < QUERIES; q++) UNROLL for (int h = 0; h < 4; h++) {
			float *y = acc + q * dim + i + 4 * h;
			vst1q_f32(y, mix ? vaddq_f32(vld1q_f32(y), s[q][h]) : s[q][h]);
		}
	}
	if (mix) return; // dim is a multiple of 16
	for (; i < dim; i += 4) {
		UNROLL for (int q = 0; q < QUERIES; q++) {
			float *y = acc + q * dim + i;
			float32x4_t s = load_n(y, dim - i);
			for (int64_t p = 0; p < n; p++) s = vfmaq_n_f32(s, load_n((const float *)(v + p * rowBytes) + i, dim - i), weight[64 * q + p]);
			store_n(y, s, dim - i);
		}
	}
}

/// adds weight[q*64+p]*v[p*dim+i] to acc[q*dim+i], p ascending from 0 to n-1, for i in [0,dim) and 1
/// query q.
//stub weighted1(acc *float32, weight *float32, v *float32, n int, dim int)
KERNEL(weighted1) { weigh(F32, 0, 1, a->acc, a->weight, (const uint8_t *)a->v, 4 * a->dim, a->n, a->dim); }

/// is the same for 2 queries.
//stub weighted2(acc *float32, weight *float32, v *float32, n int, dim int)
KERNEL(weighted2) { weigh(F32, 0, 2, a->acc, a->weight, (const uint8_t *)a->v, 4 * a->dim, a->n, a->dim); }

/// is the same for 3 queries.
//stub weighted3(acc *float32, weight *float32, v *float32, n int, dim int)
KERNEL(weighted3) { weigh(F32, 0, 3, a->acc, a->weight, (const uint8_t *)a->v, 4 * a->dim, a->n, a->dim); }

/// is the same for 4 queries.
//stub weighted4(acc *float32, weight *float32, v *float32, n int, dim int)
KERNEL(weighted4) { weigh(F32, 0, 4, a->acc, a->weight, (const uint8_t *)a->v, 4 * a->dim, a->n, a->dim); }

/// is the same for rows of half precision; dim is a multiple of 16. The rows are summed first, and the sum is then
/// added to acc. ahead is not read.
//stub mix1F16(acc *float32, weight *float32, v *uint16, n int, dim int, ahead *uint16)
KERNEL(mix1F16) { weigh(F16, 1, 1, a->acc, a->weight, (const uint8_t *)a->v, 2 * a->dim, a->n, a->dim); }

/// is the same for 2 queries.
//stub mix2F16(acc *float32, weight *float32, v *uint16, n int, dim int, ahead *uint16)
KERNEL(mix2F16) { weigh(F16, 1, 2, a->acc, a->weight, (const uint8_t *)a->v, 2 * a->dim, a->n, a->dim); }

/// is the same for 3 queries.
//stub mix3F16(acc *float32, weight *float32, v *uint16, n int, dim int, ahead *uint16)
KERNEL(mix3F16) { weigh(F16, 1, 3, a->acc, a->weight, (const uint8_t *)a->v, 2 * a->dim, a->n, a->dim); }

/// is the same for 4 queries.
//stub mix4F16(acc *float32, weight *float32, v *uint16, n int, dim int, ahead *uint16)
KERNEL(mix4F16) { weigh(F16, 1, 4, a->acc, a->weight, (const uint8_t *)a->v, 2 * a->dim, a->n, a->dim); }

/// is the same for rows of Q8_0; dim is a multiple of 32.
//stub mix1Q8(acc *float32, weight *float32, v *byte, n int, dim int, ahead *byte)
KERNEL(mix1Q8) { weigh(Q8, 1, 1, a->acc, a->weight, (const uint8_t *)a->v, a->dim / 32 * Q8_BYTES, a->n, a->dim); }

/// is the same for 2 queries.
//stub mix2Q8(acc *float32, weight *float32, v *byte, n int, dim int, ahead *byte)
KERNEL(mix2Q8) { weigh(Q8, 1, 2, a->acc, a->weight, (const uint8_t *)a->v, a->dim / 32 * Q8_BYTES, a->n, a->dim); }

/// is the same for 3 queries.
//stub mix3Q8(acc *float32, weight *float32, v *byte, n int, dim int, ahead *byte)
KERNEL(mix3Q8) { weigh(Q8, 1, 3, a->acc, a->weight, (const uint8_t *)a->v, a->dim / 32 * Q8_BYTES, a->n, a->dim); }

/// is the same for 4 queries.
//stub mix4Q8(acc *float32, weight *float32, v *byte, n int, dim int, ahead *byte)
KERNEL(mix4Q8) { weigh(Q8, 1, 4, a->acc, a->weight, (const uint8_t *)a->v, a->dim / 32 * Q8_BYTES, a->n, a->dim); }
