// piece.h: a format's piece as the loop of matvec.h wants it, with few instructions.
#pragma once
#include "dot.h"

// Piece is how a lane works on a piece of 32 weights (or UNIT) of format D:
//	Index, index(i, k, b)     where the loads of piece b of any row of k weights are, in
//	                          units of their sizes, so that an address is one multiply-add
//	load(raw, row, i)         loads them
//	decode(weights, raw, at)  makes them ready; at is b modulo 8
//	add(acc, weights, x)      adds the sum of the products with the activations
template <class D> struct Piece {
	struct Index { int k, b; };
	DEV void index(Index &i, int k, int b) { i.k = k, i.b = b; }
	DEV void load(typename D::Raw &r, const u8 *row, const Index &i) { D::load(r, row, i.k, i.b); }
	DEV void decode(typename D::Weights &w, const typename D::Raw &r, int at) { D::decode(w, r, at); }
	template <class X> DEV void add(float &acc, const typename D::Weights &w, const X &x) { acc += D::dot(w, x); }
};

DEV const u8 *unit_at(const u8 *row, u32 i, u32 size) { return row + (u64)i * size; }

// Q4_K: the upper nibbles stay where they are, 16 times too large; their exact sums are
// shifted instead, two numbers for four.
template <> struct Piece<DotQ4_K> {
	typedef DotQ4_K D;
	struct Index { u32 q, h; };
	DEV void index(Index &i, int k, int b) { i.q = b, i.h = k / 32 + (b >> 3); }
	DEV void load(D::Raw &r, const u8 *row, const Index &i) { r.q = ld_stream128(unit_at(row, i.q, 16)), r.h = ld_stream128(unit_at(row, i.h, 16)); }
	DEV void decode(D::Weights &w, const D::Raw &r, int at) {
		int s, m;
		head_pair(r.h, at & 7, s, m);
#pragma unroll
		for (int i = 0; i < 4; i++) w.w[i] = word_of(r.q, i) & 0x0f0f0f0f, w.w[i + 4] = word_of(r.q, i) & 0xf0f0f0f0;
		w.s = h2f((u16)r.h.x) * (float)s, w.m = h2f((u16)(r.h.x >> 16)) * (float)m;
	}
	DEV void add(float &acc, const D::Weights &w, const Act &x) {
		int a = 0, b = 0;
#pragma unroll
		for (int i = 0; i < 4; i++) a = dp4a(w.w[i + 4], word_of(x.h1, i), a), b = dp4a_uu(w.w[i + 4], word_of(x.l1, i), b);
		a >>= 4, b >>= 4;
#pragma unroll
		for (int i = 0; i < 4; i++) a = dp4a(w.w[i], word_of(x.h0, i), a), b = dp4a_uu(w.w[i], word_of(x.l0, i), b);
		acc = cl_fma(w.s * x.d, (float)(a * 256 + b), acc);
		acc = cl_fma(-w.m, x.sum, acc);
	}
};

template <> struct Piece<DotQ6_K> {
	typedef DotQ6_K D;
	struct Index { u32 q, t, s, d; };
	DEV void index(Index &i, int k, int b) { i.q = b, i.t = k / 16 + b, i.s = k / 8 * 3 + b, i.d = k / 32 * 13 + (b >> 3); }
	DEV void load(D::Raw &r, const u8 *row, const Index &i) {
		r.q = ld_stream128(unit_at(row, i.q, 16)), r.t = ld_stream64(unit_at(row, i.t, 8));
		r.s = ld_stream16(unit_at(row, i.s, 2)), r.d = ld_stream16(unit_at(row, i.d, 2));
	}
	DEV void decode(D::Weights &w, const D::Raw &r, int at) { D::decode(w, r, at); }
	DEV void add(float &acc, const D::Weights &w, const Act &x) { acc += D::dot(w, x); }
};
