// embed.cu: rows of the embedding matrix by token, in every format.
// targets: sm_80 sm_90
#include "quant.h"

// One row of a matrix, 32 weights a thread.
template <class F> DEV void embed_row(const u8 *w, int token, int k, float *out) {
	const u8 *row = w + (size_t)token * F::row_bytes(k);
	for (int b = threadIdx.x; b < k / 32; b += blockDim.x) {
		float v[32];
		F::dequant32(row, k, b, v);
#pragma unroll
		for (int i = 0; i < 8; i++) {
			float4 f;
			f.x = v[4 * i], f.y = v[4 * i + 1], f.z = v[4 * i + 2], f.w = v[4 * i + 3];
			*(float4 *)(out + (size_t)b * 32 + i * 4) = f;
		}
	}
}

// embed_tokens: out[t, 0..k) = row token[t] of w, bit for bit as quant.Dequantize gives it.
// Grid: one block a token. Block: any multiple of 32 up to 256; 128 does.
//
//	w      packed rows of type (its number in GGUF) and k weights, see quant.h
//	rows   of w; a token outside 0 … rows-1 gives NaN, never a read outside the matrix
//	token  (T), read after pdl_wait
//	out    (T, k) float32, 16-byte aligned
KERNEL(embed_tokens, 256, const u8 *w, int type, int rows, int k, const int *token, float *out) {
	pdl_launch();
	pdl_wait();
	int id = token[blockIdx.x];
	out += (size_t)blockIdx.x * k;
	if (id < 0 || id >= rows) {
		for (int i = threadIdx.x; i < k; i += blockDim.x) out[i] = u2f_bits(0x7fc00000);
		return;
	}
	switch (type) {
	case F32::TYPE: embed_row<F32>(w, id, k, out); break;
	case F16::TYPE: embed_row<F16>(w, id, k, out); break;
	case BF16::TYPE: embed_row<BF16>(w, id, k, out); break;
	case Q4_0::TYPE: embed_row<Q4_0>(w, id, k, out); break;
	case Q4_1::TYPE: embed_row<Q4_1>(w, id, k, out); break;
	case Q5_0::TYPE: embed_row<Q5_0>(w, id, k, out); break;
	case Q5_1::TYPE: embed_row<Q5_1>(w, id, k, out); break;
	case Q8_0::TYPE: embed_row<Q8_0>(w, id, k, out); break;
	case Q2_K::TYPE: embed_row<Q2_K>(w, id, k, out); break;
	case Q3_K::TYPE: embed_row<Q3_K>(w, id, k, out); break;
	case Q4_K::TYPE: embed_row<Q4_K>(w, id, k, out); break;
	case Q5_K::TYPE: embed_row<Q5_K>(w, id, k, out); break;
	case Q6_K::TYPE: embed_row<Q6_K>(w, id, k, out); break;
	case IQ4_NL::TYPE: embed_row<IQ4_NL>(w, id, k, out); break;
	case IQ4_XS::TYPE: embed_row<IQ4_XS>(w, id, k, out); break;
	}
}
