package main

import (
	"encoding/binary"
	"fmt"
	"math"

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
	scaleIndex, minIndex constant512 // of bytes, for pairs
	first                reg.OpmaskVirtual
	nibbles, bits        constant512 // for Q5_K
	half, sixteenth      constant512 // for Q4_K: see vector
	source, fifthSource  *stepped512
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

func (f *k4Planes) offset() bool { return false }
func (f *k4Planes) paired() bool { return true }
func (f *k4Planes) spare() bool  { return !f.fifth }

func (f *k4Planes) constants(tokens int) {
	twice := func(name string, b []byte) constant512 {
		return newConstant512(name+"twice", append(append(append(b, b...), b...), b...), false)
	}
	f.low = bytesConst("k4lowtwice", append(k4Low, k4Low...))
	f.high = bytesConst("k4hightwice", append(k4High, k4High...))
	f.shift = twice("k4shift", []byte{0, 8, 16, 24, 32, 40, 48, 56, 0, 8, 16, 24, 36, 44, 52, 60})
	f.lowMask = twice("k4lowmask", repeat(63, 4, 15, 4, 63, 4, 15, 4))
	f.mask = twice("k4highmask", repeat(0x30, 16))
	dwords := func(name string, first int) constant512 { // of row lane/2%2
		var b []byte
		for lane := range 16 {
			b = append(b, byte(16*(lane/2%2)+first+lane/4*2+lane%2), 0, 0, 0)
		}
		return newConstant512("k4"+name, b, false)
	}
	f.scaleIndex, f.minIndex = dwords("scales", 0), dwords("mins", 8)
	bits := GP64()
	MOVQ(U64(0x1111111111111111), bits)
	f.first = K()
	KMOVQ(bits, f.first)
	if f.fifth {
		f.nibbles = bitMatrix("nibbles", true, func(group, bit int) int {
			if bit > 3 {
				return -1
			}
			return bit + 4*(group/2%2)
		})
	} else {
		f.halves()
	}
	one := oneDword512()
	f.source = newStepped512("k4_", one, func(group int) int { return group/4*8 + group%2*4 })
	if f.fifth {
		f.bits = bitMatrix("fifth", true, func(group, bit int) int {
			if bit != 4 {
				return -1
			}
			return group / 2
		})
		f.fifthSource = newStepped512("k5_", one, func(group int) int { return group % 2 * 4 })
	}
}

// halves loads what takes the lower half of bytes of even sub-blocks and the upper half
// of odd ones, and what makes the scales of those 16 times smaller.
func (f *k4Planes) halves() {
	var masks, factors []byte
	for lane := range 16 {
		mask, factor := byte(0x0f), float32(1)
		if lane/2%2 == 1 {
			mask = 0xf0
		}
		if lane%2 == 1 { // see pairs512
			factor = 1. / 16
		}
		masks = append(masks, mask, mask, mask, mask)
		factors = binary.LittleEndian.AppendUint32(factors, math.Float32bits(factor))
	}
	f.half = newConstant512("k4half", masks, true)
	f.sixteenth = newConstant512("k4sixteenth", factors, false)
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
	halves, second, floats := YMM(), YMM(), ZMM()
	VPBROADCASTD(Mem{Base: w[0]}, halves)
	VPBROADCASTD(Mem{Base: w[1]}, second)
	VPUNPCKLWD(second, halves, halves)
	VCVTPH2PS(halves, floats) // d, d, dmin, dmin, …: of both rows
	times := func(index constant512, order uint64) reg.VecVirtual {
		z, d := ZMM(), ZMM()
		VPERMB_Z(decoded, index.get(), f.first, z)
		VCVTDQ2PS(z, z)
		VPERMILPS(Imm(order), floats, d)
		VMULPS(d, z, z)
		return z
	}
	scale[0], min[0] = times(f.scaleIndex, 0x50), times(f.minIndex, 0xfa)
	if !f.fifth {
		VMULPS(f.sixteenth.get(), scale[0], scale[0])
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

func (f *k4Planes) index(v int) {
	f.source.step(v)
	if f.fifth {
		f.fifthSource.step(v)
	}
}

func (f *k4Planes) again() planes512 {
	other := *f
	return &other
}

// vector leaves the weights in upper halves of bytes where they are if nothing is added to
// them: 16 times as large, with scales 16 times smaller, they give the same.
func (f *k4Planes) vector(p reg.GPVirtual, v int) reg.VecVirtual {
	z := f.source.v[v].copy()
	VPERMI2D(f.q[1], f.q[0], z)
	if !f.fifth {
		VPANDD(f.half.get(), z, z)
		return z
	}
	fifth := ZMM()
	VGF2P8AFFINEQB(Imm(0), f.nibbles.get(), z, z)
	VPERMD(f.h, f.fifthSource.v[v].get(), fifth)
	VGF2P8AFFINEQB(Imm(0), f.bits.get(), fifth, fifth)
	VPORD(fifth, z, z)
	return z
}

// q6KPlanes decodes Q6_K: 128 bytes of lower halves, 64 of upper pairs of bits, 16
// signed scales of 16 columns, d. Group L is quarter L%8/2 of half L/8.
type q6KPlanes struct {
	nibbles, pairs        constant512
	source, upper         *stepped512
	lowLevels, highLevels [2]reg.VecVirtual
}

func newQ6KPlanes() planes512 { return new(q6KPlanes) }

func (f *q6KPlanes) name() string { return "Q6K" }
func (f *q6KPlanes) bytes() int   { return 210 }
func (f *q6KPlanes) offset() bool { return true }
func (f *q6KPlanes) paired() bool { return false }
func (f *q6KPlanes) spare() bool  { return false }

func (f *q6KPlanes) constants(tokens int) {
	var one reg.VecVirtual
	if tokens > 1 {
		one = oneDword512()
	}
	f.nibbles = bitMatrix("q6nibbles", true, func(group, bit int) int {
		if bit > 3 {
			return -1
		}
		return bit + 4*(group%8/4)
	})
	f.pairs = bitMatrix("q6pairs", true, func(group, bit int) int {
		if bit != 4 && bit != 5 {
			return -1
		}
		return bit - 4 + 2*(group%8/2)
	})
	f.source = newStepped512("q6_", one, func(group int) int { return group/8*16 + group%4*4 })
	f.upper = newStepped512("q6upper", one, func(group int) int { return group/8*8 + group%2*4 })
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

func (f *q6KPlanes) index(v int) {
	f.source.step(v)
	f.upper.step(v)
}

func (f *q6KPlanes) again() planes512 {
	other := *f
	return &other
}

func (f *q6KPlanes) vector(p reg.GPVirtual, v int) reg.VecVirtual {
	z, upper := f.source.v[v].copy(), ZMM()
	VPERMI2D(f.lowLevels[1], f.lowLevels[0], z)
	VGF2P8AFFINEQB(Imm(0), f.nibbles.get(), z, z)
	VPERMD(f.highLevels[0], f.upper.v[v].get(), upper)
	VGF2P8AFFINEQB(Imm(0), f.pairs.get(), upper, upper)
	VPORD(upper, z, z)
	return z
}

// stepped512 are four indices of dwords, each one more than the one before. Where
// registers are short only the first stays in one and the others are made of it: a
// constant in memory costs a load of 64 bytes each time, of which there are two a
// cycle, and if it lies across cache lines, as the linker may put it, one cycle.
type stepped512 struct {
	v   [4]constant512
	one reg.VecVirtual // nil if all are in registers
}

// newStepped512 makes indices out of one, which oneDword512 loads, if it is not nil.
func newStepped512(name string, one reg.VecVirtual, at func(group int) int) *stepped512 {
	s := &stepped512{one: one}
	for v := range s.v {
		if one == nil || v == 0 {
			s.v[v] = dwordIndex(fmt.Sprintf("%s%d", name, v), true, func(group int) int { return at(group) + v })
		}
	}
	return s
}

func oneDword512() reg.VecVirtual { return dwordIndex("one", true, func(int) int { return 1 }).v }

// step makes index v after v-1.
func (s *stepped512) step(v int) {
	if s.one != nil && v > 0 {
		z := ZMM()
		VPADDD(s.one, s.v[v-1].v, z)
		s.v[v].v = z
	}
}
