package kernel

import "math"

// dotF32Generic keeps eight sums: faster than one, because additions need not
// wait for each other, and more exact, because each sum stays smaller.
func dotF32Generic(a, b []float32) float32 {
	b = b[:len(a)]
	var s0, s1, s2, s3, s4, s5, s6, s7 float32
	i := 0
	for ; i+8 <= len(a); i += 8 {
		x, y := a[i:i+8:i+8], b[i:i+8:i+8]
		s0 += x[0] * y[0]
		s1 += x[1] * y[1]
		s2 += x[2] * y[2]
		s3 += x[3] * y[3]
		s4 += x[4] * y[4]
		s5 += x[5] * y[5]
		s6 += x[6] * y[6]
		s7 += x[7] * y[7]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7))
}

func axpyF32Generic(y []float32, a float32, x []float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] += a * x[i]
	}
}

func dotF16Generic(a []float32, b []uint16) float32 {
	b = b[:len(a)]
	var s [4]float32
	for i, v := range a {
		s[i&3] += v * halfToFloat(b[i])
	}
	return (s[0] + s[2]) + (s[1] + s[3])
}

func axpyF16Generic(y []float32, a float32, x []uint16) {
	x = x[:len(y)]
	for i := range y {
		y[i] += a * halfToFloat(x[i])
	}
}

func addGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

func mulGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] * b[i]
	}
}

func scaleGeneric(dst, x []float32, s float32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] = s * x[i]
	}
}

func f32ToF16Generic(dst []uint16, src []float32) {
	for i, v := range src {
		dst[i] = floatToHalf(v)
	}
}

func f16ToF32Generic(dst []float32, src []uint16) {
	for i, v := range src {
		dst[i] = halfToFloat(v)
	}
}

// halfToFloat widens an IEEE half. The value is exact; a NaN is made quiet, as
// VCVTPH2PS does.
func halfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 31
	frac := uint32(h & 0x3ff)
	switch exp {
	case 31:
		if frac != 0 {
			frac |= 0x200
		}
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case 0:
		// Zero or subnormal: frac·2⁻²⁴ is exact in float32.
		f := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(f))
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// floatToHalf rounds to the nearest IEEE half, ties to even. A NaN keeps its
// sign and upper payload bits and is made quiet, as VCVTPS2PH does.
func floatToHalf(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000:
		return sign | 0x7e00 | uint16(b>>13&0x3ff)
	case b >= 0x477ff000: // 65520 and up round to infinity
		return sign | 0x7c00
	case b >= 0x38800000: // normal: rebias, then round on the 13 bits dropped
		b -= 112 << 23
		return sign | uint16((b+0xfff+(b>>13&1))>>13)
	case b <= 0x33000000: // up to 2⁻²⁵, which ties to even zero
		return sign
	}
	// Subnormal: count units of 2⁻²⁴.
	shift := 126 - b>>23 // 14 … 24
	m := b&0x7fffff | 0x800000
	half := uint32(1) << (shift - 1)
	return sign | uint16((m+half-1+(m>>shift&1))>>shift)
}
