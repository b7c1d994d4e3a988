package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// block512 writes the decoding of a format of blocks of 32 columns, each with
// one scale and maybe one minimum.
type block512 struct {
	name  string
	bytes int
	// min: the block has a minimum, added to the weights.
	min bool
	// constants loads what stays in registers during the whole function.
	constants func(f *block512)
	// words decodes the 32 integer weights of the block at m.
	words func(f *block512, m Mem) reg.VecVirtual

	levels, sixteen reg.VecVirtual
}

// blocks512 lists the formats, each with fresh state.
func blocks512() []*block512 {
	return []*block512{
		{name: "Q4_0", bytes: 18, constants: levels512("q40", -8), words: nibbles512(2, -1)},
		{name: "Q4_1", bytes: 20, min: true, constants: levels512("q41", 0), words: nibbles512(4, -1)},
		{name: "Q5_0", bytes: 22, constants: levels512("q50", -16), words: nibbles512(6, 2)},
		{name: "Q5_1", bytes: 24, min: true, constants: levels512("q41", 0), words: nibbles512(8, 4)},
		{name: "IQ4NL", bytes: 18, constants: func(f *block512) { f.levels = iq4Levels() }, words: nibbles512(2, -1)},
		{name: "Q8_0", bytes: 34, constants: func(f *block512) {}, words: func(f *block512, m Mem) reg.VecVirtual {
			w := ZMM()
			VPMOVSXBW(m.Offset(2), w)
			return w
		}},
	}
}

// levels512 makes a table of the numbers of a half byte, from low on, twice:
// indices have five bits of which the highest does not matter.
func levels512(name string, low int) func(f *block512) {
	return func(f *block512) {
		f.levels = ZMM()
		VMOVDQU64(wordsConst(name, 32, func(i int) int { return i%16 + low }), f.levels)
		f.sixteen = wordMask(16)
	}
}

// nibbles512 decodes 16 bytes at offset at: lower halves, then upper halves. If
// high is not negative a word of 32 fifth bits is there.
func nibbles512(at, high int) func(f *block512, m Mem) reg.VecVirtual {
	return func(f *block512, m Mem) reg.VecVirtual {
		w, upper := ZMM(), ZMM()
		VPMOVZXBW(m.Offset(at), w.AsY())
		VPSRLW(Imm(4), w.AsY(), upper.AsY())
		VINSERTI64X4(Imm(1), upper.AsY(), w, w)
		VPERMW(f.levels, w, w)
		if high >= 0 {
			k := K()
			KMOVD(m.Offset(high), k)
			VPADDW(f.sixteen, w, k, w)
		}
		return w
	}
}

// half512 broadcasts a binary16 as float32; negated if asked.
func half512(m Mem, negate bool) reg.VecVirtual {
	h, f := YMM(), ZMM()
	VPBROADCASTW(m, h)
	if negate {
		VPXORD(bytesConst("signs", repeatWord(0x8000, 16)), h, h)
	}
	VCVTPH2PS(h, f)
	return f
}

func repeatWord(w, n int) (b []byte) {
	for range n {
		b = append(b, byte(w), byte(w>>8))
	}
	return b
}

// unpackBlocks512 writes the unpacking of up to 8 blocks of 32 rows.
func unpackBlocks512(f *block512) {
	unpackHead("unpack"+f.name+"I16AVX512", true)
	u := unpackLoop512()
	f.constants(f)
	zero := ZMM()
	VPXORD(zero, zero, zero)
	for row := range 16 { // what the loop leaves out of minimums has to be 0
		VMOVDQU64(zero, Mem{Base: u.panel, Disp: panelFloats + 64*row})
	}
	u.rows(func() {
		block, words, floats, left := GP64(), GP64(), GP64(), Load(Param("blocks"), GP64())
		MOVQ(u.w, block)
		MOVQ(u.words, words)
		MOVQ(u.scratch, floats)
		Label("block")
		m := Mem{Base: block}
		VMOVDQU64(f.words(f, m), Mem{Base: words})
		VMOVSS(half512(m, false).AsX(), Mem{Base: floats, Disp: panelFloats - panelRows})
		if f.min {
			// A panel's minimums are subtracted.
			VMOVSS(half512(m.Offset(2), true).AsX(), Mem{Base: floats, Disp: panelFloats - panelRows + 32})
		}
		ADDQ(number(f.bytes), block)
		ADDQ(number(64), words)
		ADDQ(number(4), floats)
		DECQ(left)
		JNZ(LabelRef("block"))
	}, func() {
		v := transpose512(load512(u.panel, panelFloats, 64))
		for g := range 8 {
			VMOVUPS(v[g], Mem{Base: u.out, Disp: panelD + 128*g})
			if f.min {
				VMOVUPS(v[8+g], Mem{Base: u.out, Disp: panelMin + 128*g})
			}
		}
	})
}
