package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// spread512 holds the scales of a chunk for 8 vectors of 32 words: dword k of
// every 128-bit lane of element i is the scale of vector 4i+k, as two words. If
// a scale is for 16 columns only, the two lower lanes have the one of the first
// 16 columns, the two upper lanes the other. VPSHUFD with a constant then gives
// the vector of scales, at twice the rate of a real permutation.
type spread512 [2]reg.VecVirtual

// apply multiplies vector j of the weights.
func (s spread512) apply(j int, v reg.VecVirtual) {
	b := ZMM()
	VPSHUFD(Imm(uint64(0x55*(j%4))), s[j/4], b)
	VPMULLW(b, v, v)
}

// spreadIndex says which scale each of 32 words of an element gets.
func spreadIndex(first int, pairs bool) (index [32]int) {
	for i := range index {
		k := i % 8 / 2
		index[i] = first + k
		if pairs {
			index[i] = first + 2*k + i/16
		}
	}
	return index
}

// spreadBytes is spreadIndex as an index of bytes for VPERMB.
func spreadBytes(first int, pairs bool) (b []byte) {
	for _, i := range spreadIndex(first, pairs) {
		b = append(b, byte(i), byte(i))
	}
	return b
}

// spreader makes a spread512 of 8 or, for pairs, 16 words.
type spreader struct{ index [2]reg.VecVirtual }

func newSpreader(pairs bool) (s spreader) {
	name, step := "spread", 4
	if pairs {
		name, step = "spreadpairs", 8
	}
	for k := range s.index {
		index := spreadIndex(step*k, pairs)
		s.index[k] = ZMM()
		VMOVDQU64(wordsConst(fmt.Sprintf("%s%d_", name, k), 32, func(i int) int { return index[i] }), s.index[k])
	}
	return s
}

func (s spreader) spread(words reg.VecVirtual) spread512 {
	out := spread512{ZMM(), ZMM()}
	for k := range out {
		VPERMW(words, s.index[k], out[k])
	}
	return out
}

// wordMask loads a vector with the same word everywhere.
func wordMask(word int) reg.VecVirtual {
	z := ZMM()
	VPBROADCASTW(wordsConst(fmt.Sprintf("word%x_", word), 4, func(int) int { return word }), z)
	return z
}

// scalesK4 decodes the twelve bytes of 6-bit scales and minimums that follow d
// and dmin in Q4_K and Q5_K.
//
// Levels are made symmetrical, half of their number less, so that more columns can be
// summed; the minimums take the difference.
type scalesK4 struct {
	spreader
	scales spread512
	bits   uint64 // of a level
	half   reg.VecVirtual
}

func (s *scalesK4) constants(bits uint64) {
	s.spreader = newSpreader(false)
	s.bits = bits
	s.half = wordMask(1 << (bits - 1))
}

// finish makes level words of sub-block j weights.
func (s *scalesK4) finish(j int, v reg.VecVirtual, use func(j int, w reg.VecVirtual)) {
	VPSUBW(s.half, v, v)
	s.scales.apply(j, v)
	use(j, v)
}

// decode reads the 16-byte header at p.
//
// Scales 0–3 are the lower 6 bits of bytes 0–3, minimums 0–3 those of bytes
// 4–7; scales and minimums 4–7 are the lower and upper halves of bytes 8–11,
// and the two upper bits of bytes 0–3 and 4–7 on top. The first gather and the
// shift by single bytes bring the low parts in place, the second the high ones.
func (s *scalesK4) decode(p reg.GPVirtual) (d, min reg.VecVirtual) {
	header, low, high := XMM(), XMM(), XMM()
	VMOVDQU32(Mem{Base: p}, header)
	VPSHUFB(bytesConst("k4low", []byte{4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15}), header, low)
	VPMULTISHIFTQB(low, s.shift(), low)
	VPANDD(bytesConst("k4lowmask", repeat(63, 4, 15, 4, 63, 4, 15, 4)), low, low)
	VPSHUFB(bytesConst("k4high", []byte{128, 128, 128, 128, 4, 5, 6, 7, 128, 128, 128, 128, 8, 9, 10, 11}), header, high)
	VPSRLW(Imm(2), high, high)
	VPTERNLOGD(Imm(0xf8), bytesConst("k4highmask", repeat(0x30, 16)), high, low) // low | high&mask
	words := ZMM()
	VPMOVZXBW(low, words.AsY())
	s.scales = s.spread(words)

	floats, dm, m, scale := XMM(), XMM(), ZMM(), ZMM()
	VCVTPH2PS(header, floats) // d, dmin, and two that are not numbers
	d, min = ZMM(), ZMM()
	VBROADCASTSS(floats, d)
	VMOVSHDUP(floats, dm)
	VBROADCASTSS(dm, min)
	VPSHUFB(bytesConst("k4scale", []byte{0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7}), low, scale.AsX())
	VPMOVZXBD(scale.AsX(), scale)
	VPSLLD(Imm(s.bits-1), scale, scale)
	VCVTDQ2PS(scale, scale)
	VPSHUFB(bytesConst("k4min", []byte{8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15}), low, low)
	VPMOVZXBD(low, m)
	VCVTDQ2PS(m, m)
	VMULPS(m, min, min)
	VFNMADD231PS(scale, d, min)
	return d, min
}

func (s *scalesK4) shift() reg.VecVirtual {
	x := XMM()
	VMOVDQU32(bytesConst("k4shift", []byte{0, 8, 16, 24, 32, 40, 48, 56, 0, 8, 16, 24, 36, 44, 52, 60}), x)
	return x
}

// q4K512 decodes Q4_K: d, dmin, 12 bytes of scales, then 4 × 32 bytes whose
// lower and upper halves are two sub-blocks of 32.
type q4K512 struct {
	scalesK4
	nib reg.VecVirtual
}

func newQ4K512() folded512 { return new(q4K512) }

func (f *q4K512) name() string { return "Q4K" }
func (f *q4K512) bytes() int   { return 144 }
func (f *q4K512) mins() int    { return 8 }
func (f *q4K512) constants() {
	f.scalesK4.constants(4)
	f.nib = wordMask(15)
}
func (f *q4K512) chunk(p reg.GPVirtual) (d, min reg.VecVirtual) { return f.decode(p) }
func (f *q4K512) vectors(p reg.GPVirtual, use func(j int, w reg.VecVirtual)) {
	for i := range 4 {
		low, high := ZMM(), ZMM()
		VPMOVZXBW(Mem{Base: p, Disp: 16 + 32*i}, low)
		VPSRLW(Imm(4), low, high)
		VPANDD(f.nib, low, low)
		f.finish(2*i, low, use)
		f.finish(2*i+1, high, use)
	}
}

// q6K512 decodes Q6_K: 128 bytes of lower halves, 64 of upper pairs of bits, 16
// signed scales of 16 columns, d.
type q6K512 struct {
	spreader
	nib             reg.VecVirtual
	levels0, levels reg.VecVirtual // −32 … −1 and 0 … 31
	scales          spread512
}

func newQ6K512() folded512 { return new(q6K512) }

func (f *q6K512) name() string { return "Q6K" }
func (f *q6K512) bytes() int   { return 210 }
func (f *q6K512) mins() int    { return 0 }
func (f *q6K512) constants() {
	f.spreader = newSpreader(true)
	f.nib = wordMask(15)
	f.levels0, f.levels = ZMM(), ZMM()
	VMOVDQU64(wordsConst("q6low", 32, func(i int) int { return i - 32 }), f.levels0)
	VMOVDQU64(wordsConst("q6high", 32, func(i int) int { return i }), f.levels)
}

func (f *q6K512) chunk(p reg.GPVirtual) (d, min reg.VecVirtual) {
	words := ZMM()
	d = ZMM()
	VPMOVSXBW(Mem{Base: p, Disp: 192}, words.AsY())
	f.scales = f.spread(words)
	h := YMM()
	VPBROADCASTW(Mem{Base: p, Disp: 208}, h)
	VCVTPH2PS(h, d)
	return d, nil
}

func (f *q6K512) vectors(p reg.GPVirtual, use func(j int, w reg.VecVirtual)) {
	// The level of a column is 4 bits of l and 2 bits above them of h; VPERMI2W
	// looks only at those 6 and subtracts 32 on the way.
	quarter := func(j int, l, h reg.VecVirtual) {
		VPTERNLOGD(Imm(0xe4), f.nib, h, l) // nib ? l : h
		VPERMI2W(f.levels, f.levels0, l)
		f.scales.apply(j, l)
		use(j, l)
	}
	for half := range 2 {
		a, b, h := ZMM(), ZMM(), ZMM()
		VPMOVZXBW(Mem{Base: p, Disp: 64 * half}, a)
		VPMOVZXBW(Mem{Base: p, Disp: 64*half + 32}, b)
		VPMOVZXBW(Mem{Base: p, Disp: 128 + 32*half}, h)
		a4, b4, t := ZMM(), ZMM(), ZMM()
		VPSRLW(Imm(4), a, a4)
		VPSRLW(Imm(4), b, b4)
		VPSLLW(Imm(4), h, t)
		quarter(4*half, a, t)
		t = ZMM()
		VPSLLW(Imm(2), h, t)
		quarter(4*half+1, b, t)
		quarter(4*half+2, a4, h)
		t = ZMM()
		VPSRLW(Imm(2), h, t)
		quarter(4*half+3, b4, t)
	}
}

// q5K512 decodes Q5_K: the header of Q4_K, 32 bytes that hold the fifth bits
// (bit j of byte i for column i of sub-block j), 4 × 32 bytes as in Q4_K.
type q5K512 struct {
	q4K512
	bit reg.VecVirtual
}

func newQ5K512() folded512 { return new(q5K512) }

func (f *q5K512) name() string { return "Q5K" }
func (f *q5K512) bytes() int   { return 176 }
func (f *q5K512) constants() {
	f.scalesK4.constants(5)
	f.nib = wordMask(15)
	f.bit = f.half
}
func (f *q5K512) vectors(p reg.GPVirtual, use func(j int, w reg.VecVirtual)) {
	fifth := ZMM()
	VPMOVZXBW(Mem{Base: p, Disp: 16}, fifth)
	finish := func(j int, v reg.VecVirtual) {
		VPTERNLOGD(Imm(0xf8), f.bit, shiftedTo(4, j, fifth), v) // v | bit of fifth
		f.scalesK4.finish(j, v, use)
	}
	for i := range 4 {
		low, high := ZMM(), ZMM()
		VPMOVZXBW(Mem{Base: p, Disp: 48 + 32*i}, low)
		VPSRLW(Imm(4), low, high)
		VPANDD(f.nib, low, low)
		finish(2*i, low)
		finish(2*i+1, high)
	}
}

// shiftedTo returns v with bit from of every word moved to bit to.
func shiftedTo(to, from int, v reg.VecVirtual) reg.VecVirtual {
	if to == from {
		return v
	}
	t := ZMM()
	if from < to {
		VPSLLW(Imm(uint64(to-from)), v, t)
	} else {
		VPSRLW(Imm(uint64(from-to)), v, t)
	}
	return t
}

// q2K512 decodes Q2_K: 16 bytes of 4-bit scales and minimums, 2 × 32 bytes
// whose pairs of bits are four sub-blocks of 32, d, dmin.
type q2K512 struct {
	spreader
	three       reg.VecVirtual
	scales      spread512
	nibbleBytes Mem
}

func newQ2K512() folded512 { return new(q2K512) }

func (f *q2K512) name() string { return "Q2K" }
func (f *q2K512) bytes() int   { return 84 }
func (f *q2K512) mins() int    { return 16 }
func (f *q2K512) constants() {
	f.spreader = newSpreader(true)
	f.three = wordMask(3)
	f.nibbleBytes = bytesConst("nibbles", repeat(15, 16))
}
func (f *q2K512) chunk(p reg.GPVirtual) (d, min reg.VecVirtual) {
	scales, m := XMM(), XMM()
	VMOVDQU32(Mem{Base: p}, scales)
	VPSRLW(Imm(4), scales, m)
	VPANDD(f.nibbleBytes, scales, scales)
	VPANDD(f.nibbleBytes, m, m)
	words := ZMM()
	VPMOVZXBW(scales, words.AsY())
	f.scales = f.spread(words)
	mins, h := ZMM(), YMM()
	d, min = ZMM(), ZMM()
	VPMOVZXBD(m, mins)
	VCVTDQ2PS(mins, mins)
	VPBROADCASTW(Mem{Base: p, Disp: 80}, h)
	VCVTPH2PS(h, d)
	h = YMM()
	VPBROADCASTW(Mem{Base: p, Disp: 82}, h)
	VCVTPH2PS(h, min)
	VMULPS(mins, min, min)
	return d, min
}
func (f *q2K512) vectors(p reg.GPVirtual, use func(j int, w reg.VecVirtual)) {
	for half := range 2 {
		z := ZMM()
		VPMOVZXBW(Mem{Base: p, Disp: 16 + 32*half}, z)
		for k := range 4 {
			j := 4*half + k
			v := ZMM()
			VPANDD(f.three, shiftedTo(0, 2*k, z), v)
			f.scales.apply(j, v)
			use(j, v)
		}
	}
}

// q3K512 decodes Q3_K: 32 bytes that hold the third bits as Q5_K the fifth, 64
// bytes as in Q2_K, 12 bytes of 6-bit scales, d.
type q3K512 struct {
	spreader
	three  reg.VecVirtual
	levels reg.VecVirtual // −4 … 3, four times
	scales spread512
}

func newQ3K512() folded512 { return new(q3K512) }

func (f *q3K512) name() string { return "Q3K" }
func (f *q3K512) bytes() int   { return 110 }
func (f *q3K512) mins() int    { return 0 }
func (f *q3K512) constants() {
	f.spreader = newSpreader(true)
	f.three = wordMask(3)
	f.levels = ZMM()
	VMOVDQU64(wordsConst("q3levels", 32, func(i int) int { return i%8 - 4 }), f.levels)
}

func (f *q3K512) chunk(p reg.GPVirtual) (d, min reg.VecVirtual) {
	// The lower 4 bits of scale g are a half of byte g%8, the upper 2 are bits
	// 2·(g/4) of byte 8 + g%4; they go to bits 4 and 5.
	var lowShift, highShift []byte
	for g := range 16 {
		lowShift = append(lowShift, byte(8*(g%8)+g/8*4))
		highShift = append(highShift, byte(8*(g%8)+g/4*2-4)&63)
	}
	tail, low, high, shift := XMM(), XMM(), XMM(), XMM()
	VMOVDQU32(Mem{Base: p, Disp: 94}, tail) // 2 bytes before, the scales, d
	VPSHUFB(bytesConst("q3low", []byte{2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9}), tail, low)
	VMOVDQU32(bytesConst("q3lowshift", lowShift), shift)
	VPMULTISHIFTQB(low, shift, low)
	VPANDD(bytesConst("nibbles", repeat(15, 16)), low, low)
	VPSHUFB(bytesConst("q3high", []byte{10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13}), tail, high)
	shift = XMM()
	VMOVDQU32(bytesConst("q3highshift", highShift), shift)
	VPMULTISHIFTQB(high, shift, high)
	VPTERNLOGD(Imm(0xf8), bytesConst("k4highmask", repeat(0x30, 16)), high, low) // low | high&mask
	VPSUBB(bytesConst("thirtytwo", repeat(32, 16)), low, low)
	words := ZMM()
	d = ZMM()
	VPMOVSXBW(low, words.AsY())
	f.scales = f.spread(words)
	h := YMM()
	VPBROADCASTW(Mem{Base: p, Disp: 108}, h)
	VCVTPH2PS(h, d)
	return d, nil
}

func (f *q3K512) vectors(p reg.GPVirtual, use func(j int, w reg.VecVirtual)) {
	third := ZMM()
	VPMOVZXBW(Mem{Base: p}, third)
	for half := range 2 {
		z := ZMM()
		VPMOVZXBW(Mem{Base: p, Disp: 32 + 32*half}, z)
		for k := range 4 {
			j := 4*half + k
			v := ZMM()
			if k == 0 {
				VMOVDQA64(z, v)
			} else {
				VPSRLW(Imm(uint64(2*k)), z, v)
			}
			VPTERNLOGD(Imm(0xe4), f.three, shiftedTo(2, j, third), v) // three ? v : third
			VPERMW(f.levels, v, v)
			f.scales.apply(j, v)
			use(j, v)
		}
	}
}

// iq4XS512 decodes IQ4_XS: d, 8 × 2 upper and 8 × 4 lower bits of scales, 8 × 16
// bytes whose lower and upper halves index the levels of columns 0–15 and 16–31.
type iq4XS512 struct {
	spreader
	levels reg.VecVirtual
	scales spread512
}

func newIQ4XS512() folded512 { return new(iq4XS512) }

func (f *iq4XS512) name() string { return "IQ4XS" }
func (f *iq4XS512) bytes() int   { return 136 }
func (f *iq4XS512) mins() int    { return 0 }
func (f *iq4XS512) constants() {
	f.spreader = newSpreader(false)
	f.levels = iq4Levels()
}

// iq4Levels loads the 16 levels twice, for indices of 5 bits of which the
// highest does not matter.
func iq4Levels() reg.VecVirtual {
	levels := [16]int{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
	z := ZMM()
	VMOVDQU64(wordsConst("iq4levels", 32, func(i int) int { return levels[i%16] }), z)
	return z
}

func (f *iq4XS512) chunk(p reg.GPVirtual) (d, min reg.VecVirtual) {
	var lowShift, highShift []byte
	for g := range 8 {
		lowShift = append(lowShift, byte(32+4*g))
		highShift = append(highShift, byte(12+2*g))
	}
	header, low, high, shift := XMM(), XMM(), XMM(), XMM()
	VMOVDQU32(Mem{Base: p}, header)
	VMOVDQU32(bytesConst("xslowshift", append(lowShift, lowShift...)), shift)
	VPMULTISHIFTQB(header, shift, low)
	shift = XMM()
	VMOVDQU32(bytesConst("xshighshift", append(highShift, highShift...)), shift)
	VPMULTISHIFTQB(header, shift, high)
	VPANDD(bytesConst("nibbles", repeat(15, 16)), low, low)
	VPTERNLOGD(Imm(0xf8), bytesConst("k4highmask", repeat(0x30, 16)), high, low) // low | high&mask
	VPSUBB(bytesConst("thirtytwo", repeat(32, 16)), low, low)
	words := ZMM()
	d = ZMM()
	VPMOVSXBW(low, words.AsY())
	f.scales = f.spread(words)
	VCVTPH2PS(header, header)
	VBROADCASTSS(header, d)
	return d, nil
}

func (f *iq4XS512) vectors(p reg.GPVirtual, use func(j int, w reg.VecVirtual)) {
	finish := func(j int, v reg.VecVirtual) {
		f.scales.apply(j, v)
		use(j, v)
	}
	for i := range 4 {
		low, high, a, b := ZMM(), ZMM(), ZMM(), ZMM()
		VPMOVZXBW(Mem{Base: p, Disp: 8 + 32*i}, low)
		VPSRLW(Imm(4), low, high)
		VPERMW(f.levels, low, low)
		VPERMW(f.levels, high, high)
		VINSERTI64X4(Imm(1), high.AsY(), low, a)
		VSHUFI64X2(Imm(0xee), high, low, b)
		finish(2*i, a)
		finish(2*i+1, b)
	}
}
