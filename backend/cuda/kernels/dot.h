// dot.h: for each format the product of one lane's piece of a row with activations,
// the inner part of the matrix-vector products in matvec.h.
//
// Activations are 16-bit integers v in two planes of bytes, v = 256·hi + lo, hi signed
// and lo not, with one float32 scale per 32 (docs/adr/int16-products.md). Weights
// become integers in bytes; two dp4a a quartet give an exact integer sum, which is
// converted once per scale of the weights. Signed weights of b < 8 bits stand at the
// top of their byte, so that they need no sign extension: the integers are 2^(8-b)
// times too large, and the scale is divided by it, exactly. The largest sum is
// 32·128·32767·256/256 < 2^31.
#pragma once
#include "quant.h"

// Act is one group of 32 activations: bytes 0-15 and 16-31 of each plane, the scale,
// and the sum of the 32 numbers times the scale (for formats with minimums).
struct Act { uint4 h0, h1, l0, l1; float d, sum; };

// shl shifts left, or right for a negative n.
DEV u32 shl(u32 v, int n) { return n >= 0 ? v << n : v >> -n; }

// sixteen products: four words of weights, signed or not, with 16 activations
template <bool SIGNED> DEV int dot16(const u32 *w, uint4 h, uint4 l) {
	int a = 0, b = 0;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		a = SIGNED ? dp4a_ss(w[i], word_of(h, i), a) : dp4a(w[i], word_of(h, i), a);
		b = SIGNED ? dp4a_su(w[i], word_of(l, i), b) : dp4a_uu(w[i], word_of(l, i), b);
	}
	return a * 256 + b;
}
template <bool SIGNED> DEV int dot32(const u32 *w, const Act &x) { return dot16<SIGNED>(w, x.h0, x.l0) + dot16<SIGNED>(w + 4, x.h1, x.l1); }

// Each format D has
//	D::Format    the layout, of quant.h
//	D::KIND      what scales there are besides the weights
//	D::UNIT      weights of a piece; D::FLOAT: activations are float32, see FloatAct
//	D::Raw       what a lane loads of a piece; load(raw, row, k, b) for piece b of a row
//	D::Weights   the same made ready; decode(weights, raw, b)
//	D::dot(w, x) the sum of the products, float32

enum { ONE, MINIMUM, HALVES, MINIMUMS, FLOATS };

struct DotNib0 { // formats with one scale and no minimum
	struct Weights { u32 w[8]; float s; };
	static const int KIND = ONE;
	static const int UNIT = 32;
	static const bool FLOAT = false;
	DEV float dot(const Weights &w, const Act &x) { return w.s * x.d * (float)dot32<true>(w.w, x); }
};
struct DotNib1 { // with a scale and a minimum, which is subtracted
	struct Weights { u32 w[8]; float s, m; };
	static const int KIND = MINIMUM;
	static const int UNIT = 32;
	static const bool FLOAT = false;
	DEV float dot(const Weights &w, const Act &x) { return w.s * x.d * (float)dot32<false>(w.w, x) - w.m * x.sum; }
};
struct DotHalves { // with a scale for each 16
	struct Weights { u32 w[8]; float s0, s1; };
	static const int KIND = HALVES;
	static const int UNIT = 32;
	static const bool FLOAT = false;
	DEV float dot(const Weights &w, const Act &x) {
		return x.d * (w.s0 * (float)dot16<true>(w.w, x.h0, x.l0) + w.s1 * (float)dot16<true>(w.w + 4, x.h1, x.l1));
	}
};

struct DotQ4_0 : DotNib0 {
	typedef Q4_0 Format;
	struct Raw { uint4 q; u32 d; };
	DEV void load(Raw &r, const u8 *row, int k, int b) { r.q = ld_stream128(row + b * 16), r.d = ld_stream16(row + k / 2 + b * 2); }
	DEV void decode(Weights &w, const Raw &r, int) {
#pragma unroll
		for (int i = 0; i < 4; i++) w.w[i] = (word_of(r.q, i) << 4) & 0xf0f0f0f0, w.w[i + 4] = word_of(r.q, i) & 0xf0f0f0f0;
		w.s = h2f((u16)r.d) * (1.f / 16);
	}
};

// the eight quartets of a nib section, in the lower halves
DEV void nib_words(u32 *w, uint4 q) {
#pragma unroll
	for (int i = 0; i < 4; i++) w[i] = word_of(q, i) & 0x0f0f0f0f, w[i + 4] = (word_of(q, i) >> 4) & 0x0f0f0f0f;
}
// adds the top bits as bit 4 of each byte
DEV void add_fifth(u32 *w, u32 top) {
#pragma unroll
	for (int i = 0; i < 8; i++) w[i] |= shl(top, 4 - i) & 0x10101010;
}

struct DotQ4_1 : DotNib1 {
	typedef Q4_1 Format;
	struct Raw { uint4 q; u32 dm; };
	DEV void load(Raw &r, const u8 *row, int k, int b) { r.q = ld_stream128(row + b * 16), r.dm = ld_stream32(row + k / 2 + b * 4); }
	DEV void decode(Weights &w, const Raw &r, int) {
		nib_words(w.w, r.q);
		w.s = h2f((u16)r.dm), w.m = -h2f((u16)(r.dm >> 16));
	}
};

struct DotQ5_0 : DotNib0 {
	typedef Q5_0 Format;
	struct Raw { uint4 q; u32 top, d; };
	DEV void load(Raw &r, const u8 *row, int k, int b) {
		r.q = ld_stream128(row + b * 16), r.top = ld_stream32(Q5_0::top(row, k, b)), r.d = ld_stream16(Q5_0::scale(row, k, b));
	}
	DEV void decode(Weights &w, const Raw &r, int) {
#pragma unroll
		for (int i = 0; i < 8; i++) w.w[i] = (shl(word_of(r.q, i & 3), i < 4 ? 3 : -1) & 0x78787878) | (shl(r.top, 7 - i) & 0x80808080);
		w.s = h2f((u16)r.d) * (1.f / 8);
	}
};

struct DotQ5_1 : DotNib1 {
	typedef Q5_1 Format;
	struct Raw { uint4 q; u32 top, dm; };
	DEV void load(Raw &r, const u8 *row, int k, int b) {
		r.q = ld_stream128(row + b * 16), r.top = ld_stream32(Q5_1::top(row, k, b)), r.dm = ld_stream32(Q5_1::scale(row, k, b));
	}
	DEV void decode(Weights &w, const Raw &r, int) {
		nib_words(w.w, r.q);
		add_fifth(w.w, r.top);
		w.s = h2f((u16)r.dm), w.m = -h2f((u16)(r.dm >> 16));
	}
};

struct DotQ8_0 : DotNib0 {
	typedef Q8_0 Format;
	struct Raw { uint4 q0, q1; u32 d; };
	DEV void load(Raw &r, const u8 *row, int k, int b) {
		r.q0 = ld_stream128(row + b * 16), r.q1 = ld_stream128(row + k / 2 + b * 16), r.d = ld_stream16(row + k + b * 2);
	}
	DEV void decode(Weights &w, const Raw &r, int) {
#pragma unroll
		for (int i = 0; i < 4; i++) w.w[i] = word_of(r.q0, i), w.w[i + 4] = word_of(r.q1, i);
		w.s = h2f((u16)r.d);
	}
};

// the levels of the 32 indices of a seq section
DEV void iq4_words(u32 *w, uint4 q) {
	u32 t0 = iq4_levels(0), t1 = iq4_levels(1), t2 = iq4_levels(2), t3 = iq4_levels(3);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		// Bits 0-2 of an index choose in the lower and in the upper half of the table,
		// bit 3 then chooses between the two (bit 2 of a second selector).
		u32 v = word_of(q, i), at = v & 0x77777777, pick = ((v & 0x88888888) >> 1) | 0x32103210;
		w[2 * i] = prmt(prmt(t0, t1, at), prmt(t2, t3, at), pick);
		w[2 * i + 1] = prmt(prmt(t0, t1, at >> 16), prmt(t2, t3, at >> 16), pick >> 16);
	}
}

struct DotIQ4_NL : DotNib0 {
	typedef IQ4_NL Format;
	struct Raw { uint4 q; u32 d; };
	DEV void load(Raw &r, const u8 *row, int k, int b) { r.q = ld_stream128(row + b * 16), r.d = ld_stream16(row + k / 2 + b * 2); }
	DEV void decode(Weights &w, const Raw &r, int) {
		iq4_words(w.w, r.q);
		w.s = h2f((u16)r.d);
	}
};

struct DotIQ4_XS : DotNib0 {
	typedef IQ4_XS Format;
	struct Raw { uint4 q; uint2 h; };
	DEV void load(Raw &r, const u8 *row, int k, int b) { r.q = ld_stream128(row + b * 16), r.h = ld_stream64(IQ4_XS::head(row, k, b)); }
	DEV void decode(Weights &w, const Raw &r, int b) {
		iq4_words(w.w, r.q);
		w.s = h2f((u16)r.h.x) * (float)IQ4_XS::group_scale(r.h, b & 7);
	}
};

// the two numbers of a head for a group that is the lane's, not the compiler's
DEV void head_pair(uint4 h, int g, int &first, int &second) {
	u32 byte = prmt(h.y, h.z, (u32)g), nibble = rotate(h.w, 4 * g - 2);
	first = byte & 63, second = ((byte >> 6) & 3) | (nibble & 0x3c);
}

struct DotQ4_K : DotNib1 {
	typedef Q4_K Format;
	struct Raw { uint4 q, h; };
	DEV void load(Raw &r, const u8 *row, int k, int b) { r.q = ld_stream128(row + b * 16), r.h = ld_stream128(Q4_K::head(row, k, b)); }
	DEV void decode(Weights &w, const Raw &r, int b) {
		int s, m;
		head_pair(r.h, b & 7, s, m);
		nib_words(w.w, r.q);
		w.s = h2f((u16)r.h.x) * (float)s, w.m = h2f((u16)(r.h.x >> 16)) * (float)m;
	}
};

struct DotQ5_K : DotNib1 {
	typedef Q5_K Format;
	struct Raw { uint4 q, h; u32 top; };
	DEV void load(Raw &r, const u8 *row, int k, int b) {
		r.q = ld_stream128(row + b * 16), r.top = ld_stream32(Q5_K::top(row, k, b)), r.h = ld_stream128(Q5_K::head(row, k, b));
	}
	DEV void decode(Weights &w, const Raw &r, int b) {
		int s, m;
		head_pair(r.h, b & 7, s, m);
		nib_words(w.w, r.q);
		add_fifth(w.w, r.top);
		w.s = h2f((u16)r.h.x) * (float)s, w.m = h2f((u16)(r.h.x >> 16)) * (float)m;
	}
};

// The scales of halves (0 … 15) go into the weights (0 … 3), which stay below 64.
// The minimums are numbers of their own: Σ m·v with the minimum in every byte.
struct DotQ2_K {
	typedef Q2_K Format;
	static const int KIND = MINIMUMS;
	static const int UNIT = 32;
	static const bool FLOAT = false;
	struct Raw { uint2 q; u32 s, dm; };
	struct Weights { u32 w[8], m0, m1; float d, dmin; };
	DEV void load(Raw &r, const u8 *row, int k, int b) {
		r.q = ld_stream64(row + b * 8), r.s = ld_stream16(Q2_K::scales(row, k, b)), r.dm = ld_stream32(Q2_K::head(row, k, b));
	}
	DEV void decode(Weights &w, const Raw &r, int) {
#pragma unroll
		for (int i = 0; i < 8; i++) w.w[i] = two_quartet(r.q, i) * (i < 4 ? r.s & 15 : (r.s >> 8) & 15);
		w.m0 = ((r.s >> 4) & 15) * 0x01010101, w.m1 = (r.s >> 12) * 0x01010101;
		w.d = h2f((u16)r.dm), w.dmin = h2f((u16)(r.dm >> 16));
	}
	DEV float dot(const Weights &w, const Act &x) {
		u32 m0[4] = {w.m0, w.m0, w.m0, w.m0}, m1[4] = {w.m1, w.m1, w.m1, w.m1};
		int a = dot32<false>(w.w, x), b = dot16<false>(m0, x.h0, x.l0) + dot16<false>(m1, x.h1, x.l1);
		return x.d * (w.d * (float)a - w.dmin * (float)b);
	}
};

struct DotQ3_K : DotHalves {
	typedef Q3_K Format;
	struct Raw { uint2 q; u32 top; uint4 h; };
	DEV void load(Raw &r, const u8 *row, int k, int b) {
		r.q = ld_stream64(row + b * 8), r.top = ld_stream32(Q3_K::top(row, k, b)), r.h = ld_stream128(Q3_K::head(row, k, b));
	}
	DEV void decode(Weights &w, const Raw &r, int b) {
		int s0, s1;
		head_pair(r.h, b & 7, s0, s1);
#pragma unroll
		for (int i = 0; i < 8; i++) w.w[i] = (shl(i < 4 ? r.q.x : r.q.y, 5 - 2 * (i & 3)) & 0x60606060) | (shl(r.top, 7 - i) & 0x80808080);
		float d = h2f((u16)r.h.x) * (1.f / 32);
		w.s0 = d * (float)(s0 - 32), w.s1 = d * (float)(s1 - 32);
	}
};

struct DotQ6_K : DotHalves {
	typedef Q6_K Format;
	struct Raw { uint4 q; uint2 t; u32 s, d; };
	DEV void load(Raw &r, const u8 *row, int k, int b) {
		r.q = ld_stream128(row + b * 16), r.t = ld_stream64(Q6_K::two(row, k, b));
		r.s = ld_stream16(Q6_K::scales(row, k, b)), r.d = ld_stream16(Q6_K::head(row, k, b));
	}
	DEV void decode(Weights &w, const Raw &r, int) {
#pragma unroll
		for (int i = 0; i < 8; i++)
			w.w[i] = (shl(word_of(r.q, i & 3), i < 4 ? 2 : -2) & 0x3c3c3c3c) | (shl(i < 4 ? r.t.x : r.t.y, 6 - 2 * (i & 3)) & 0xc0c0c0c0);
		float d = h2f((u16)r.d) * (1.f / 4);
		w.s0 = d * (float)s8(r.s, 0), w.s1 = d * (float)s8(r.s, 1);
	}
};

// FloatAct is a piece of float32 activations: UNIT/4 times four.
template <int N> struct FloatAct { float4 v[N]; };

struct DotF32 {
	typedef F32 Format;
	static const int KIND = FLOATS;
	static const int UNIT = 4;
	static const bool FLOAT = true;
	struct Raw { uint4 q; };
	struct Weights { float w[4]; };
	DEV void load(Raw &r, const u8 *row, int, int b) { r.q = ld_stream128(row + b * 16); }
	DEV void decode(Weights &w, const Raw &r, int) {
#pragma unroll
		for (int i = 0; i < 4; i++) w.w[i] = u2f_bits(word_of(r.q, i));
	}
	DEV float dot(const Weights &w, const FloatAct<1> &x) { return (w.w[0] * x.v[0].x + w.w[1] * x.v[0].y) + (w.w[2] * x.v[0].z + w.w[3] * x.v[0].w); }
};

struct DotHalf { // F16 and BF16
	static const int KIND = FLOATS;
	static const int UNIT = 8;
	static const bool FLOAT = true;
	struct Raw { uint4 q; };
	struct Weights { float w[8]; };
	DEV void load(Raw &r, const u8 *row, int, int b) { r.q = ld_stream128(row + b * 16); }
	DEV float dot(const Weights &w, const FloatAct<2> &x) {
		return ((w.w[0] * x.v[0].x + w.w[1] * x.v[0].y) + (w.w[2] * x.v[0].z + w.w[3] * x.v[0].w)) +
		       ((w.w[4] * x.v[1].x + w.w[5] * x.v[1].y) + (w.w[6] * x.v[1].z + w.w[7] * x.v[1].w));
	}
};
struct DotF16 : DotHalf {
	typedef F16 Format;
	DEV void decode(Weights &w, const Raw &r, int) {
#pragma unroll
		for (int i = 0; i < 4; i++) w.w[2 * i] = h2f((u16)word_of(r.q, i)), w.w[2 * i + 1] = h2f((u16)(word_of(r.q, i) >> 16));
	}
};
struct DotBF16 : DotHalf {
	typedef BF16 Format;
	DEV void decode(Weights &w, const Raw &r, int) {
#pragma unroll
		for (int i = 0; i < 4; i++) w.w[2 * i] = u2f_bits(word_of(r.q, i) << 16), w.w[2 * i + 1] = u2f_bits(word_of(r.q, i) & 0xffff0000);
	}
};
