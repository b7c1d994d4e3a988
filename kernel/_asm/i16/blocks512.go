package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
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

// matVecBlocks512 writes the product of rows of small blocks without minimums, as words,
// with tokens side by side. Eight blocks share a scale of the activations; a row may end with
// fewer. Rows are contiguous.
func matVecBlocks512(f *block512, tokens int) {
	name := fmt.Sprintf("matVec%sI16x%dAVX512", f.name, tokens)
	TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rows, blocks int, q *int16, scale, sum *float32, batch int)")
	Pragma("noescape")
	Doc(name+" multiplies rows of contiguous blocks of 32 with", fmt.Sprintf("%d token(s): out[t*stride+i]. q and scale point to the first", tokens),
		"token; chunks of activations are batch tokens apart. rows and blocks are at least 1.")
	out := Load(Param("out"), GP64()).(reg.GPVirtual)
	w := Load(Param("w"), GP64()).(reg.GPVirtual)
	rows := Load(Param("rows"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	f.constants(f)

	Label("row")
	left := Load(Param("blocks"), GP64()).(reg.GPVirtual)
	q := Load(Param("q"), GP64()).(reg.GPVirtual)
	scale := Load(Param("scale"), GP64()).(reg.GPVirtual)
	acc, part := make([]reg.VecVirtual, tokens), make([]reg.VecVirtual, tokens)
	for t := range tokens {
		acc[t], part[t] = ZMM(), ZMM()
		VPXORD(acc[t], acc[t], acc[t])
	}
	// block multiplies block i after w with the columns at q.
	block := func(i int, w, q reg.GPVirtual) {
		m := Mem{Base: w, Disp: f.bytes * i}
		words, d := f.words(f, m), half512(m, false)
		for t := range tokens {
			p := ZMM()
			VPMADDWD(Mem{Base: q, Disp: 512*t + 64*i}, words, p)
			VCVTDQ2PS(p, p)
			VFMADD231PS(d, p, part[t])
		}
	}
	scaled := func() {
		for t := range tokens {
			VFMADD231PS_BCST(Mem{Base: scale, Disp: 4 * t}, part[t], acc[t])
		}
	}
	zero := func() {
		for t := range tokens {
			VPXORD(part[t], part[t], part[t])
		}
	}

	Label("chunk")
	CMPQ(left, Imm(8))
	JLT(LabelRef("tail"))
	prefetch(w, 8*f.bytes, tokens)
	zero()
	for i := range 8 {
		block(i, w, q)
	}
	scaled()
	ADDQ(number(8*f.bytes), w)
	LEAQ(Mem{Base: scale, Index: batch, Scale: 4}, scale)
	step := GP64()
	MOVQ(batch, step)
	SHLQ(Imm(9), step)
	ADDQ(step, q)
	SUBQ(Imm(8), left)
	JMP(LabelRef("chunk"))

	Label("tail")
	CMPQ(left, Imm(4))
	JLT(LabelRef("rest"))
	// Four together, so that what comes behind rows of 896 columns is fetched too.
	prefetch(w, 4*f.bytes, tokens)
	zero()
	for i := range 4 {
		block(i, w, q)
	}
	scaled()
	ADDQ(number(4*f.bytes), w)
	ADDQ(number(4*64), q)
	SUBQ(Imm(4), left)

	Label("rest")
	TESTQ(left, left)
	JZ(LabelRef("sum"))
	zero()
	Label("block")
	block(0, w, q)
	ADDQ(number(f.bytes), w)
	ADDQ(Imm(64), q)
	DECQ(left)
	JNZ(LabelRef("block"))
	scaled()

	Label("sum")
	at, stride := GP64(), Load(Param("stride"), GP64())
	MOVQ(out, at)
	for t := range tokens {
		horizontalSum512(acc[t])
		VMOVSS(acc[t].AsX(), Mem{Base: at})
		if t < tokens-1 {
			LEAQ(Mem{Base: at, Index: stride, Scale: 4}, at)
		}
	}
	ADDQ(Imm(4), out)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
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
