package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// broadcastIndex loads 8 vectors of word indices; vector j selects word
// low(j) for the lower 16 lanes and high(j) for the upper 16.
func broadcastIndex(name string, low, high func(j int) int) (idx [8]reg.VecVirtual) {
	for j := range idx {
		m := wordsConst(fmt.Sprintf("%s%d_", name, j), 32, func(i int) int {
			if i < 16 {
				return low(j)
			}
			return high(j)
		})
		idx[j] = ZMM()
		VMOVDQU64(m, idx[j])
	}
	return idx
}

// wordMask loads a vector with the same word everywhere.
func wordMask(word int) reg.VecVirtual {
	z := ZMM()
	VPBROADCASTW(wordsConst(fmt.Sprintf("word%x_", word), 4, func(int) int { return word }), z)
	return z
}

// scalesK4 decodes the twelve bytes of 6-bit scales and minimums that follow d
// and dmin in Q4_K and Q5_K.
type scalesK4 struct {
	words reg.VecVirtual // 8 scales, 8 minimums, as words
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
	s.words = ZMM()
	VPMOVZXBW(low, s.words.AsY())

	floats, dm, m := XMM(), XMM(), ZMM()
	VCVTPH2PS(header, floats) // d, dmin, and two that are not numbers
	d, min = ZMM(), ZMM()
	VBROADCASTSS(floats, d)
	VMOVSHDUP(floats, dm)
	VBROADCASTSS(dm, min)
	VPSHUFB(bytesConst("k4min", []byte{8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15}), low, low)
	VPMOVZXBD(low, m)
	VCVTDQ2PS(m, m)
	VMULPS(m, min, min)
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
	idx [8]reg.VecVirtual
	nib reg.VecVirtual
}

func newQ4K512() folded512 { return new(q4K512) }

func (f *q4K512) name() string { return "Q4K" }
func (f *q4K512) bytes() int   { return 144 }
func (f *q4K512) hasMin() bool { return true }
func (f *q4K512) constants() {
	same := func(j int) int { return j }
	f.idx = broadcastIndex("word", same, same)
	f.nib = wordMask(15)
}
func (f *q4K512) chunk(p reg.GPVirtual) (d, min reg.VecVirtual) { return f.decode(p) }
func (f *q4K512) vectors(p reg.GPVirtual, use func(j int, w reg.VecVirtual)) {
	for i := range 4 {
		low, high, s := ZMM(), ZMM(), ZMM()
		VPMOVZXBW(Mem{Base: p, Disp: 16 + 32*i}, low)
		VPSRLW(Imm(4), low, high)
		VPANDD(f.nib, low, low)
		VPERMW(f.words, f.idx[2*i], s)
		VPMULLW(s, low, low)
		use(2*i, low)
		s = ZMM()
		VPERMW(f.words, f.idx[2*i+1], s)
		VPMULLW(s, high, high)
		use(2*i+1, high)
	}
}

// q6K512 decodes Q6_K: 128 bytes of lower halves, 64 of upper pairs of bits, 16
// signed scales of 16 columns, d.
type q6K512 struct {
	idx             [8]reg.VecVirtual
	nib             reg.VecVirtual
	levels0, levels reg.VecVirtual // −32 … −1 and 0 … 31
	words           reg.VecVirtual
}

func newQ6K512() folded512 { return new(q6K512) }

func (f *q6K512) name() string { return "Q6K" }
func (f *q6K512) bytes() int   { return 210 }
func (f *q6K512) hasMin() bool { return false }
func (f *q6K512) constants() {
	f.idx = broadcastIndex("pair", func(j int) int { return 2 * j }, func(j int) int { return 2*j + 1 })
	f.nib = wordMask(15)
	f.levels0, f.levels = ZMM(), ZMM()
	VMOVDQU64(wordsConst("q6low", 32, func(i int) int { return i - 32 }), f.levels0)
	VMOVDQU64(wordsConst("q6high", 32, func(i int) int { return i }), f.levels)
}

func (f *q6K512) chunk(p reg.GPVirtual) (d, min reg.VecVirtual) {
	f.words, d = ZMM(), ZMM()
	VPMOVSXBW(Mem{Base: p, Disp: 192}, f.words.AsY())
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
		s := ZMM()
		VPERMW(f.words, f.idx[j], s)
		VPMULLW(s, l, l)
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
