// quant.h: the tensor formats as they lie in device memory, and their exact
// decoding. Package quant defines the numbers; package packed writes these
// layouts. Both orders are bit for bit the same numbers: nothing is requantised.
//
// Why not the file's own blocks: lanes of a warp should each read 16 bytes of one
// plane, side by side and aligned, and a lane's 16 bytes should belong to one group
// of 32 weights with one scale. Blocks of 210 or 34 bytes allow neither.
//
// A packed row of k weights, nb = k/32 groups, consists of sections one after the
// other, each rounded up to 16 bytes, the row to 32 (a sector of the L2 cache).
// Group b's part of a section is at b times the bytes given:
//
//	F32 F16 BF16  numbers as in the file, 128 or 64 bytes a group
//	Q4_0          nib 16 | d 2             q−8 in two's complement (4 bits)
//	Q4_1          nib 16 | d,m 4           q
//	Q5_0          nib 16 | top 4 | d 2     q−16 in two's complement (5 bits)
//	Q5_1          nib 16 | top 4 | d,m 4   q
//	Q8_0          q[0..15] 16 | q[16..31] 16 | d 2
//	IQ4_NL        seq 16 | d 2             index into the table
//	Q2_K          two 8 | s,m of halves 2 | d,dmin 4 per 256     q
//	Q3_K          two 8 | top 4 | head 16 per 256                q−4 in two's complement (3 bits)
//	Q4_K          nib 16 | head 16 per 256                       q
//	Q5_K          nib 16 | top 4 | head 16 per 256               q
//	Q6_K          nib 16 | two 8 | s of halves 2 | d 2 per 256   q−32 in two's complement (6 bits)
//	IQ4_XS        seq 16 | head 8 per 256                        index into the table
//
// A quartet is four consecutive weights: quartet w holds elements 4w … 4w+3, one in
// each byte of a word, so that a word pairs with four activations in one dp4a.
//
//	nib   word w (0 … 3): quartet w in the lower halves of the bytes, w+4 in the upper
//	seq   nibble e of the 128 bits: element e (what a table look-up by prmt wants)
//	two   word h (0, 1): the two bits of quartet 4h+f at bits 2f of each byte
//	top   one word: bit w of byte c is element 4w+c
//	d     F16; d,m and d,dmin two F16
//	head  of Q3_K, Q4_K, Q5_K: word 0 d, dmin (0 in Q3_K); words 1, 2: byte g, and
//	      word 3: nibble g hold two 6-bit numbers of group g: the first in bits 0 … 5
//	      of the byte, the second's lower two bits in bits 6, 7, its upper four in the
//	      nibble. They are s, m of Q4_K and Q5_K, and s of the halves of Q3_K.
//	      of IQ4_XS: d, scales_h, scales_l as in the file
//	s of halves: Q6_K two signed bytes; s,m of halves of Q2_K: two bytes, s | m<<4
#pragma once
#include "cudalite.h"

// A product that is not fused with a following addition: package quant rounds twice.
#if defined(CUDA_EMU)
DEV float mul_rn(float a, float b) { return a * b; }
#else
DEV float mul_rn(float a, float b) { float r; asm("mul.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
#endif

DEV size_t pad16(size_t n) { return (n + 15) & ~(size_t)15; }
DEV size_t pad32(size_t n) { return (n + 31) & ~(size_t)31; }
DEV u32 ld_u16(const u8 *p) { return *(const u16 *)p; }
DEV u32 ld_u32(const u8 *p) { return *(const u32 *)p; }
DEV uint2 ld_u64(const u8 *p) { return *(const uint2 *)p; }

// byte c of a word as a signed or unsigned number
DEV int s8(u32 w, int c) { return (int)(w << (24 - 8 * c)) >> 24; }
DEV int u8at(u32 w, int c) { return (w >> (8 * c)) & 255; }
DEV u32 word_of(uint4 v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// quartet w of a nib section, one weight in the lower half of each byte
DEV u32 nib_quartet(uint4 q, int w) { return (word_of(q, w & 3) >> (w & 4)) & 0x0f0f0f0f; }
// quartet w of a two section, in the lower two bits of each byte
DEV u32 two_quartet(uint2 q, int w) { return ((w < 4 ? q.x : q.y) >> (2 * (w & 3))) & 0x03030303; }
// quartet w of a top section, in the lowest bit of each byte
DEV u32 top_quartet(u32 q, int w) { return (q >> w) & 0x01010101; }

// the two 6-bit numbers of group g of a head
DEV u32 head_first(uint4 h, int g) { return ((g < 4 ? h.y : h.z) >> (8 * (g & 3))) & 63; }
DEV u32 head_second(uint4 h, int g) { return (((g < 4 ? h.y : h.z) >> (8 * (g & 3) + 6)) & 3) | ((h.w >> (4 * g)) & 15) << 2; }

// the levels of the IQ4 formats, four signed bytes a word
DEV u32 iq4_levels(int i) { return i == 0 ? 0xbfad9881u : i == 1 ? 0xf6eaddcfu : i == 2 ? 0x26190d01u : 0x71594535u; }
DEV int iq4_level(u32 q) { return s8(iq4_levels(q >> 2), q & 3); }

// Every format F has
//	F::TYPE                     the number of the type in GGUF (tensor.DType)
//	F::row_bytes(k)             bytes of a packed row of k weights
//	F::dequant32(row, k, b, o)  o[0..31] = weights 32b … 32b+31 of a row, bit for bit
//	                            what quant.Dequantize gives
// Rows start at multiples of row_bytes(k) from an address that is a multiple of 32.

struct F32 {
	static const int TYPE = 0;
	DEV size_t row_bytes(int k) { return pad32((size_t)k * 4); }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
#pragma unroll
		for (int i = 0; i < 8; i++) {
			uint4 v = ldg128(row + (size_t)b * 128 + i * 16);
#pragma unroll
			for (int c = 0; c < 4; c++) o[4 * i + c] = u2f_bits(word_of(v, c));
		}
	}
};

struct F16 {
	static const int TYPE = 1;
	DEV size_t row_bytes(int k) { return pad32((size_t)k * 2); }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
#pragma unroll
		for (int i = 0; i < 4; i++) {
			uint4 v = ldg128(row + (size_t)b * 64 + i * 16);
#pragma unroll
			for (int c = 0; c < 4; c++) o[8 * i + 2 * c] = h2f((u16)word_of(v, c)), o[8 * i + 2 * c + 1] = h2f((u16)(word_of(v, c) >> 16));
		}
	}
};

struct BF16 {
	static const int TYPE = 30;
	DEV size_t row_bytes(int k) { return pad32((size_t)k * 2); }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
#pragma unroll
		for (int i = 0; i < 4; i++) {
			uint4 v = ldg128(row + (size_t)b * 64 + i * 16);
#pragma unroll
			for (int c = 0; c < 4; c++) o[8 * i + 2 * c] = u2f_bits(word_of(v, c) << 16), o[8 * i + 2 * c + 1] = u2f_bits(word_of(v, c) & 0xffff0000);
		}
	}
};

struct Q4_0 {
	static const int TYPE = 2;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 2 + pad16((size_t)k / 16)); }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint4 q = ldg128(row + (size_t)b * 16);
		float d = h2f((u16)ld_u16(row + k / 2 + b * 2));
#pragma unroll
		for (int e = 0; e < 32; e++) o[e] = d * (float)(s8(nib_quartet(q, e / 4) << 4, e % 4) >> 4);
	}
};

struct Q4_1 {
	static const int TYPE = 3;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 2 + pad16((size_t)k / 8)); }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint4 q = ldg128(row + (size_t)b * 16);
		u32 dm = ld_u32(row + k / 2 + b * 4);
		float d = h2f((u16)dm), m = h2f((u16)(dm >> 16));
#pragma unroll
		for (int e = 0; e < 32; e++) o[e] = mul_rn(d, (float)u8at(nib_quartet(q, e / 4), e % 4)) + m;
	}
};

struct Q5_0 {
	static const int TYPE = 6;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 2 + pad16((size_t)k / 8) + pad16((size_t)k / 16)); }
	DEV const u8 *top(const u8 *row, int k, int b) { return row + k / 2 + b * 4; }
	DEV const u8 *scale(const u8 *row, int k, int b) { return row + k / 2 + pad16(k / 8) + b * 2; }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint4 q = ldg128(row + (size_t)b * 16);
		u32 t = ld_u32(top(row, k, b));
		float d = h2f((u16)ld_u16(scale(row, k, b)));
#pragma unroll
		for (int e = 0; e < 32; e++) o[e] = d * (float)(s8(nib_quartet(q, e / 4) << 3 | top_quartet(t, e / 4) << 7, e % 4) >> 3);
	}
};

struct Q5_1 {
	static const int TYPE = 7;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 2 + 2 * pad16((size_t)k / 8)); }
	DEV const u8 *top(const u8 *row, int k, int b) { return row + k / 2 + b * 4; }
	DEV const u8 *scale(const u8 *row, int k, int b) { return row + k / 2 + pad16(k / 8) + b * 4; }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint4 q = ldg128(row + (size_t)b * 16);
		u32 t = ld_u32(top(row, k, b)), dm = ld_u32(scale(row, k, b));
		float d = h2f((u16)dm), m = h2f((u16)(dm >> 16));
#pragma unroll
		for (int e = 0; e < 32; e++) o[e] = mul_rn(d, (float)u8at(nib_quartet(q, e / 4) | top_quartet(t, e / 4) << 4, e % 4)) + m;
	}
};

struct Q8_0 {
	static const int TYPE = 8;
	DEV size_t row_bytes(int k) { return pad32((size_t)k + pad16((size_t)k / 16)); }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		float d = h2f((u16)ld_u16(row + k + b * 2));
#pragma unroll
		for (int h = 0; h < 2; h++) {
			uint4 q = ldg128(row + (size_t)h * (k / 2) + (size_t)b * 16);
#pragma unroll
			for (int e = 0; e < 16; e++) o[16 * h + e] = d * (float)s8(word_of(q, e / 4), e % 4);
		}
	}
};

struct IQ4_NL {
	static const int TYPE = 20;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 2 + pad16((size_t)k / 16)); }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint4 q = ldg128(row + (size_t)b * 16);
		float d = h2f((u16)ld_u16(row + k / 2 + b * 2));
#pragma unroll
		for (int e = 0; e < 32; e++) o[e] = d * (float)iq4_level((word_of(q, e / 8) >> (4 * (e % 8))) & 15);
	}
};

struct Q2_K {
	static const int TYPE = 10;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 4 + pad16((size_t)k / 16) + pad16((size_t)k / 64)); }
	DEV const u8 *scales(const u8 *row, int k, int b) { return row + k / 4 + b * 2; }
	DEV const u8 *head(const u8 *row, int k, int b) { return row + k / 4 + k / 16 + (b >> 3) * 4; }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint2 q = ld_u64(row + (size_t)b * 8);
		u32 s = ld_u16(scales(row, k, b)), dm = ld_u32(head(row, k, b));
		float d = h2f((u16)dm), dmin = h2f((u16)(dm >> 16));
#pragma unroll
		for (int h = 0; h < 2; h++) {
			float scale = d * (float)((s >> (8 * h)) & 15), minimum = dmin * (float)((s >> (8 * h + 4)) & 15);
#pragma unroll
			for (int e = 16 * h; e < 16 * h + 16; e++) o[e] = mul_rn(scale, (float)u8at(two_quartet(q, e / 4), e % 4)) - minimum;
		}
	}
};

struct Q3_K {
	static const int TYPE = 11;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 4 + (size_t)k / 8 + (size_t)k / 16); }
	DEV const u8 *top(const u8 *row, int k, int b) { return row + k / 4 + b * 4; }
	DEV const u8 *head(const u8 *row, int k, int b) { return row + k / 4 + k / 8 + (b >> 3) * 16; }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint2 q = ld_u64(row + (size_t)b * 8);
		u32 t = ld_u32(top(row, k, b));
		uint4 h = ldg128(head(row, k, b));
		float d = h2f((u16)h.x);
		float s0 = d * (float)((int)head_first(h, b & 7) - 32), s1 = d * (float)((int)head_second(h, b & 7) - 32);
#pragma unroll
		for (int e = 0; e < 32; e++) o[e] = (e < 16 ? s0 : s1) * (float)(s8(two_quartet(q, e / 4) << 5 | top_quartet(t, e / 4) << 7, e % 4) >> 5);
	}
};

struct Q4_K {
	static const int TYPE = 12;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 2 + (size_t)k / 16); }
	DEV const u8 *head(const u8 *row, int k, int b) { return row + k / 2 + (b >> 3) * 16; }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint4 q = ldg128(row + (size_t)b * 16), h = ldg128(head(row, k, b));
		float scale = h2f((u16)h.x) * (float)head_first(h, b & 7), minimum = mul_rn(h2f((u16)(h.x >> 16)), (float)head_second(h, b & 7));
#pragma unroll
		for (int e = 0; e < 32; e++) o[e] = mul_rn(scale, (float)u8at(nib_quartet(q, e / 4), e % 4)) - minimum;
	}
};

struct Q5_K {
	static const int TYPE = 13;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 2 + (size_t)k / 8 + (size_t)k / 16); }
	DEV const u8 *top(const u8 *row, int k, int b) { return row + k / 2 + b * 4; }
	DEV const u8 *head(const u8 *row, int k, int b) { return row + k / 2 + k / 8 + (b >> 3) * 16; }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint4 q = ldg128(row + (size_t)b * 16), h = ldg128(head(row, k, b));
		u32 t = ld_u32(top(row, k, b));
		float scale = h2f((u16)h.x) * (float)head_first(h, b & 7), minimum = mul_rn(h2f((u16)(h.x >> 16)), (float)head_second(h, b & 7));
#pragma unroll
		for (int e = 0; e < 32; e++) o[e] = mul_rn(scale, (float)u8at(nib_quartet(q, e / 4) | top_quartet(t, e / 4) << 4, e % 4)) - minimum;
	}
};

struct Q6_K {
	static const int TYPE = 14;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 2 + (size_t)k / 4 + pad16((size_t)k / 16) + pad16((size_t)k / 128)); }
	DEV const u8 *two(const u8 *row, int k, int b) { return row + k / 2 + b * 8; }
	DEV const u8 *scales(const u8 *row, int k, int b) { return row + k / 2 + k / 4 + b * 2; }
	DEV const u8 *head(const u8 *row, int k, int b) { return row + k / 2 + k / 4 + k / 16 + (b >> 3) * 2; }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint4 q = ldg128(row + (size_t)b * 16);
		uint2 t = ld_u64(two(row, k, b));
		u32 s = ld_u16(scales(row, k, b));
		float d = h2f((u16)ld_u16(head(row, k, b)));
		float s0 = d * (float)s8(s, 0), s1 = d * (float)s8(s, 1);
#pragma unroll
		for (int e = 0; e < 32; e++) o[e] = (e < 16 ? s0 : s1) * (float)(s8(nib_quartet(q, e / 4) << 2 | two_quartet(t, e / 4) << 6, e % 4) >> 2);
	}
};

struct IQ4_XS {
	static const int TYPE = 23;
	DEV size_t row_bytes(int k) { return pad32((size_t)k / 2 + pad16((size_t)k / 32)); }
	DEV const u8 *head(const u8 *row, int k, int b) { return row + k / 2 + (b >> 3) * 8; }
	DEV int group_scale(uint2 h, int g) { return (int)(((h.y >> (4 * g)) & 15) | ((h.x >> (16 + 2 * g)) & 3) << 4) - 32; }
	DEV void dequant32(const u8 *row, int k, int b, float *o) {
		uint4 q = ldg128(row + (size_t)b * 16);
		uint2 h = ld_u64(head(row, k, b));
		float scale = h2f((u16)h.x) * (float)group_scale(h, b & 7);
#pragma unroll
		for (int e = 0; e < 32; e++) o[e] = scale * (float)iq4_level((word_of(q, e / 8) >> (4 * (e % 8))) & 15);
	}
};
