package kernel

import (
	"encoding/binary"

	"github.com/apr-engine/apr/quant"
)

// The decoders of the int16 path: blocks of a file to integer weights, scales
// and minimums. The layouts are those of package quant, which documents them;
// the arithmetic differs (integers are kept apart from their scale).

// iq4Levels are the 16 levels of IQ4_NL and IQ4_XS (kvalues_iq4nl in ggml).
var iq4Levels = [16]int16{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// f16At reads a little-endian binary16.
func f16At(b []byte) float32 { return quant.F16ToF32(binary.LittleEndian.Uint16(b)) }

// setMin32 sets the minimum of 32-column group g.
func (c *i16Weights) setMin32(g int, m float32) { c.min[2*g], c.min[2*g+1] = m, m }

// decode32 calls block for each block of 32 columns and zeroes the rest.
func decode32(dst *i16Weights, src []byte, size int, block func(w *[32]int16, b []byte) (d, min float32)) {
	*dst = i16Weights{}
	for g := 0; g < 8 && len(src) >= size; g++ {
		d, m := block((*[32]int16)(dst.w[32*g:]), src[:size])
		dst.d[g] = d
		dst.setMin32(g, m)
		src = src[size:]
	}
}

// nibbles stores q of a 4-bit block: the lower halves of 16 bytes, then the upper.
func nibbles(w *[32]int16, qs []byte) {
	for i, b := range qs[:16] {
		w[i], w[16+i] = int16(b&15), int16(b>>4)
	}
}

func decodeQ4_0(dst *i16Weights, src []byte) {
	decode32(dst, src, 18, func(w *[32]int16, b []byte) (d, min float32) {
		nibbles(w, b[2:])
		for i := range w {
			w[i] -= 8
		}
		return f16At(b), 0
	})
}

func decodeQ4_1(dst *i16Weights, src []byte) {
	decode32(dst, src, 20, func(w *[32]int16, b []byte) (d, min float32) {
		nibbles(w, b[4:])
		return f16At(b), -f16At(b[2:])
	})
}

func decodeQ5_0(dst *i16Weights, src []byte) {
	decode32(dst, src, 22, func(w *[32]int16, b []byte) (d, min float32) {
		nibbles(w, b[6:])
		high := binary.LittleEndian.Uint32(b[2:])
		for i := range w {
			w[i] += int16(high>>i&1<<4) - 16
		}
		return f16At(b), 0
	})
}

func decodeQ5_1(dst *i16Weights, src []byte) {
	decode32(dst, src, 24, func(w *[32]int16, b []byte) (d, min float32) {
		nibbles(w, b[8:])
		high := binary.LittleEndian.Uint32(b[4:])
		for i := range w {
			w[i] += int16(high >> i & 1 << 4)
		}
		return f16At(b), -f16At(b[2:])
	})
}

func decodeQ8_0(dst *i16Weights, src []byte) {
	decode32(dst, src, 34, func(w *[32]int16, b []byte) (d, min float32) {
		for i, q := range b[2:34] {
			w[i] = int16(int8(q))
		}
		return f16At(b), 0
	})
}

func decodeIQ4NL(dst *i16Weights, src []byte) {
	decode32(dst, src, 18, func(w *[32]int16, b []byte) (d, min float32) {
		nibbles(w, b[2:])
		for i, q := range w {
			w[i] = iq4Levels[q]
		}
		return f16At(b), 0
	})
}

func decodeQ2K(dst *i16Weights, b []byte) {
	d, dmin := f16At(b[80:]), f16At(b[82:])
	for g := range 16 {
		qs, shift := b[16+g/8*32+g%2*16:], g%8/2*2
		for i := range 16 {
			dst.w[16*g+i] = int16(qs[i]>>shift&3) * int16(b[g]&15)
		}
		dst.min[g] = dmin * float32(b[g]>>4)
	}
	dst.d[0] = d
}

func decodeQ3K(dst *i16Weights, b []byte) {
	dst.min = [16]float32{}
	scales := b[96:108]
	for g := range 16 {
		s := int16(scales[g%8]>>(g/8*4)&15|scales[8+g%4]>>(g/4*2)&3<<4) - 32
		qs, shift, high := b[32+g/8*32+g%2*16:], g%8/2*2, b[g%2*16:]
		for i := range 16 {
			q := int16(qs[i]>>shift&3|high[i]>>(g/2)&1<<2) - 4
			dst.w[16*g+i] = q * s
		}
	}
	dst.d[0] = f16At(b[108:])
}

// scalesK4 unpacks the 6-bit scales and minimums of Q4_K and Q5_K.
func scalesK4(b []byte, g int) (scale, min byte) {
	if g < 4 {
		return b[g] & 63, b[g+4] & 63
	}
	return b[g+4]&15 | b[g-4]>>6<<4, b[g+4]>>4 | b[g]>>6<<4
}

func decodeQ4K(dst *i16Weights, b []byte) {
	dmin := f16At(b[2:])
	for g := range 8 {
		s, m := scalesK4(b[4:16], g)
		qs, shift := b[16+g/2*32:], g%2*4
		for i := range 32 {
			dst.w[32*g+i] = int16(qs[i]>>shift&15) * int16(s)
		}
		dst.setMin32(g, dmin*float32(m))
	}
	dst.d[0] = f16At(b)
}

func decodeQ5K(dst *i16Weights, b []byte) {
	dmin := f16At(b[2:])
	for g := range 8 {
		s, m := scalesK4(b[4:16], g)
		qs, shift, high := b[48+g/2*32:], g%2*4, b[16:48]
		for i := range 32 {
			dst.w[32*g+i] = int16(qs[i]>>shift&15|high[i]>>g&1<<4) * int16(s)
		}
		dst.setMin32(g, dmin*float32(m))
	}
	dst.d[0] = f16At(b)
}

func decodeQ6K(dst *i16Weights, b []byte) {
	dst.min = [16]float32{}
	for g := range 16 {
		// 128 elements share 64 bytes of ql and 32 of qh; group g is quarter
		// g%8/2 of them, in its lower or upper half.
		low, lowShift := b[g/8*64+g%4*16:], g%8/4*4
		high, highShift := b[128+g/8*32+g%2*16:], g%8/2*2
		s := int16(int8(b[192+g]))
		for i := range 16 {
			q := int16(low[i]>>lowShift&15|high[i]>>highShift&3<<4) - 32
			dst.w[16*g+i] = q * s
		}
	}
	dst.d[0] = f16At(b[208:])
}

func decodeIQ4XS(dst *i16Weights, b []byte) {
	dst.min = [16]float32{}
	scalesH := binary.LittleEndian.Uint16(b[2:])
	for g := range 8 {
		s := int16(b[4+g/2]>>(g%2*4)&15) | int16(scalesH>>(2*g)&3<<4) - 32
		qs := b[8+16*g:]
		for i := range 16 {
			dst.w[32*g+i] = iq4Levels[qs[i]&15] * s
			dst.w[32*g+16+i] = iq4Levels[qs[i]>>4] * s
		}
	}
	dst.d[0] = f16At(b)
}
