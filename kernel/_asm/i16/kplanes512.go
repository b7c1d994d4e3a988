package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// k4Planes decodes Q4_K and Q5_K: a header (see scalesK4.decode), for Q5_K 32
// bytes of fifth bits, bit g of byte i for column i of sub-block g, and 4 × 32
// bytes whose lower and upper halves are two sub-blocks of 32.
type k4Planes struct {
	fifth                bool
	low, high            Mem // see scalesK4.decode
	shift, lowMask, mask constant512
	index                [2]constant512 // of scales (even dwords) and minimums (odd ones)
	first                reg.OpmaskVirtual
	nibbles, bits        constant512
	source, fifthSource  [4]constant512
	q                    [2]reg.VecVirtual
	h                    reg.VecVirtual
}

func newQ4KPlanes() planes512 { return new(k4Planes) }
func newQ5KPlanes() planes512 { return &k4Planes{fifth: true} }

func (f *k4Planes) name() string {
	if f.fifth {
		return "Q5K"
	}
	return "Q4K"
}

func (f *k4Planes) bytes() int { return 144 + f.levels() - 16 }

// levels is where the halves of bytes begin.
func (f *k4Planes) levels() int {
	if f.fifth {
		return 48
	}
	return 16
}

func (f *k4Planes) offset() int { return 0 }

func (f *k4Planes) constants(tokens int) {
	few := tokens == 1
	twice := func(name string, b []byte, keep bool) constant512 {
		return newConstant512(name+"twice", append(append(append(b, b...), b...), b...), keep)
	}
	f.low = bytesConst("k4lowtwice", append(k4Low, k4Low...))
	f.high = bytesConst("k4hightwice", append(k4High, k4High...))
	f.shift = twice("k4shift", []byte{0, 8, 16, 24, 32, 40, 48, 56, 0, 8, 16, 24, 36, 44, 52, 60}, few)
	f.lowMask = twice("k4lowmask", repeat(63, 4, 15, 4, 63, 4, 15, 4), few)
	f.mask = twice("k4highmask", repeat(0x30, 16), few)
	for row := range f.index {
		var b []byte
		for g := range 16 { // scales are bytes 0 to 7, minimums 8 to 15
			b = append(b, byte(16*row+g/2+8*(g%2)), 0, 0, 0)
		}
		f.index[row] = newConstant512(fmt.Sprintf("k4index%d", row), b, few)
	}
	bits := GP64()
	MOVQ(U64(0x1111111111111111), bits)
	f.first = K()
	KMOVQ(bits, f.first)
	f.nibbles = bitMatrix("nibbles", true, func(group, bit int) int {
		if bit > 3 {
			return -1
		}
		return bit + 4*(group/2%2)
	})
	for v := range f.source {
		f.source[v] = dwordIndex(fmt.Sprintf("k4_%d", v), few, func(group int) int { return group/4*8 + group%2*4 + v })
	}
	if f.fifth {
		f.bits = bitMatrix("fifth", false, func(group, bit int) int {
			if bit != 4 {
				return -1
			}
			return group / 2
		})
		for v := range f.fifthSource {
			f.fifthSource[v] = dwordIndex(fmt.Sprintf("k5_%d", v), false, func(group int) int { return group%2*4 + v })
		}
	}
}

var (
	k4Low  = []byte{4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15}
	k4High = []byte{128, 128, 128, 128, 4, 5, 6, 7, 128, 128, 128, 128, 8, 9, 10, 11}
)

func (f *k4Planes) header(w [2]reg.GPVirtual) (scale, min [2]reg.VecVirtual) {
	header, low, high, decoded := YMM(), YMM(), YMM(), ZMM()
	VMOVDQU32(Mem{Base: w[0]}, header.AsX())
	VINSERTI32X4(Imm(1), Mem{Base: w[1]}, header, header)
	VPSHUFB(f.low, header, low)
	VPMULTISHIFTQB(low, f.shift.get().AsY(), decoded.AsY())
	VPANDD(f.lowMask.get().AsY(), decoded.AsY(), decoded.AsY())
	VPSHUFB(f.high, header, high)
	VPSRLW(Imm(2), high, high)
	VPTERNLOGD(Imm(0xf8), f.mask.get().AsY(), high, decoded.AsY()) // decoded | high&mask
	for r := range w {
		halves, floats, both := YMM(), ZMM(), ZMM()
		VPBROADCASTD(Mem{Base: w[r]}, halves)
		VCVTPH2PS(halves, floats) // d, dmin, d, dmin, …
		VPERMB_Z(decoded, f.index[r].get(), f.first, both)
		VCVTDQ2PS(both, both)
		VMULPS(floats, both, both)
		scale[r], min[r] = ZMM(), ZMM()
		VMOVSLDUP(both, scale[r])
		VMOVSHDUP(both, min[r])
	}
	return scale, min
}

func (f *k4Planes) prepare(p reg.GPVirtual) {
	f.q = [2]reg.VecVirtual{ZMM(), ZMM()}
	for i := range f.q {
		VMOVDQU64(Mem{Base: p, Disp: f.levels() + 64*i}, f.q[i])
	}
	if f.fifth {
		f.h = ZMM()
		VBROADCASTI64X4(Mem{Base: p, Disp: 16}, f.h)
	}
}

func (f *k4Planes) again() planes512 {
	other := *f
	return &other
}

func (f *k4Planes) vector(p reg.GPVirtual, v int) reg.VecVirtual {
	z := f.source[v].copy()
	VPERMI2D(f.q[1], f.q[0], z)
	VGF2P8AFFINEQB(Imm(0), f.nibbles.get(), z, z)
	if f.fifth {
		fifth := ZMM()
		VPERMD(f.h, f.fifthSource[v].get(), fifth)
		VGF2P8AFFINEQB(Imm(0), f.bits.get(), fifth, fifth)
		VPORD(fifth, z, z)
	}
	return z
}

// q6KPlanes decodes Q6_K: 128 bytes of lower halves, 64 of upper pairs of bits, 16
// signed scales of 16 columns, d. Group L is quarter L%8/2 of half L/8.
type q6KPlanes struct {
	nibbles, pairs        constant512
	source, upper         [4]constant512
	lowLevels, highLevels [2]reg.VecVirtual
}

func newQ6KPlanes() planes512 { return new(q6KPlanes) }

func (f *q6KPlanes) name() string { return "Q6K" }
func (f *q6KPlanes) bytes() int   { return 210 }
func (f *q6KPlanes) offset() int  { return 32 }

func (f *q6KPlanes) constants(tokens int) {
	few := tokens == 1
	f.nibbles = bitMatrix("q6nibbles", few, func(group, bit int) int {
		if bit > 3 {
			return -1
		}
		return bit + 4*(group%8/4)
	})
	f.pairs = bitMatrix("q6pairs", few, func(group, bit int) int {
		if bit != 4 && bit != 5 {
			return -1
		}
		return bit - 4 + 2*(group%8/2)
	})
	for v := range f.source {
		f.source[v] = dwordIndex(fmt.Sprintf("q6_%d", v), few, func(group int) int { return group/8*16 + group%4*4 + v })
		f.upper[v] = dwordIndex(fmt.Sprintf("q6upper%d", v), few, func(group int) int { return group/8*8 + group%2*4 + v })
	}
}

func (f *q6KPlanes) header(w [2]reg.GPVirtual) (scale, min [2]reg.VecVirtual) {
	for r := range w {
		d, h := ZMM(), YMM()
		scale[r] = ZMM()
		VPMOVSXBD(Mem{Base: w[r], Disp: 192}, scale[r])
		VCVTDQ2PS(scale[r], scale[r])
		VPBROADCASTW(Mem{Base: w[r], Disp: 208}, h)
		VCVTPH2PS(h, d)
		VMULPS(d, scale[r], scale[r])
	}
	return scale, min
}

func (f *q6KPlanes) prepare(p reg.GPVirtual) {
	for i := range f.lowLevels {
		f.lowLevels[i] = ZMM()
		VMOVDQU64(Mem{Base: p, Disp: 64 * i}, f.lowLevels[i])
	}
	f.highLevels[0] = ZMM()
	VMOVDQU64(Mem{Base: p, Disp: 128}, f.highLevels[0])
}

func (f *q6KPlanes) again() planes512 {
	other := *f
	return &other
}

func (f *q6KPlanes) vector(p reg.GPVirtual, v int) reg.VecVirtual {
	z, upper := f.source[v].copy(), ZMM()
	VPERMI2D(f.lowLevels[1], f.lowLevels[0], z)
	VGF2P8AFFINEQB(Imm(0), f.nibbles.get(), z, z)
	VPERMD(f.highLevels[0], f.upper[v].get(), upper)
	VGF2P8AFFINEQB(Imm(0), f.pairs.get(), upper, upper)
	VPORD(upper, z, z)
	return z
}
