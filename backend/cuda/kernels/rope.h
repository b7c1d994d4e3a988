// rope.h: the angles of rotary position embeddings without tables and without
// float64. An angle is kept in turns as a 64-bit fraction, so that the product of
// position and frequency drops whole turns by overflow: at any position, negative
// ones included, it is right to 2^-40 of a turn.
#pragma once
#include "cudalite.h"

// rope_angle: the cosine and sine of 2*pi*pos*freq/2^64; freq is round(inv_freq/(2*pi)*2^64).
DEV void rope_angle(u64 freq, int pos, float *cosine, float *sine) {
	u64 phase = freq * (u64)(long long)pos;
	// The nearest quarter turn, and what is left: at most an eighth of a turn either side.
	u32 quarter = (u32)((phase + (1ull << 61)) >> 62);
	long long rest = (long long)(phase - ((u64)quarter << 62));
	// 2*pi/2^32 times the upper half; the 24 bits of a float are then what limits.
	float x = (float)(int)(rest >> 32) * 1.4629180792671596e-9f, z = x * x;
	// Taylor series up to x^9 and x^8, |x| <= pi/4: errors below 4e-8
	float s = x + x * z * (-1.6666667e-1f + z * (8.3333333e-3f + z * (-1.9841270e-4f + z * 2.7557319e-6f)));
	float c = 1.f + z * (-0.5f + z * (4.1666667e-2f + z * (-1.3888889e-3f + z * 2.4801587e-5f)));
	switch (quarter & 3) {
	case 0: *cosine = c, *sine = s; break;
	case 1: *cosine = -s, *sine = c; break;
	case 2: *cosine = -c, *sine = -s; break;
	default: *cosine = s, *sine = -c;
	}
}

// rope_pair rotates two numbers by the angle, times magnitude.
DEV void rope_pair(u64 freq, int pos, float magnitude, float *a, float *b) {
	float c, s, x = *a, y = *b;
	rope_angle(freq, pos, &c, &s);
	c *= magnitude, s *= magnitude;
	*a = x * c - y * s;
	*b = x * s + y * c;
}
