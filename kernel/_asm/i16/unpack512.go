package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func unpacks512() {
	for _, f := range kquants512 {
		unpackFolded512(f())
	}
	for _, f := range blocks512() {
		unpackBlocks512(f)
	}
}

// unpackFolded512 writes the unpacking of one chunk of 32 rows: 16 rows at a
// time are decoded to words in the panel's scratch memory and transposed.
func unpackFolded512(f folded512) {
	unpackHead("unpack"+f.name()+"I16AVX512", false)
	u := unpackLoop512()
	f.constants()
	u.rows(func() {
		d, min := f.chunk(u.w)
		VMOVSS(d.AsX(), Mem{Base: u.d})
		if f.mins() > 0 {
			VMOVUPS(min, Mem{Base: u.scratch, Disp: panelFloats - panelRows})
		}
		f.vectors(u.w, func(j int, words reg.VecVirtual) {
			VMOVDQU64(words, Mem{Base: u.words, Disp: 64 * j})
		})
	}, func() {
		if f.mins() > 0 {
			v := transpose512(load512(u.panel, panelFloats, 64))
			// The vector has a minimum per 16 columns; a panel has what the format has.
			for g := range f.mins() {
				VMOVUPS(v[g*16/f.mins()], Mem{Base: u.out, Disp: panelMin + 128*g})
			}
		}
	})
}

// unpackHead begins a function that unpacks a panel; with blocks, of any number of
// blocks of 32 columns.
func unpackHead(name string, blocks bool) {
	signature, what := "func(p *int16, w *byte, rowBytes, rows int)", "one chunk"
	if blocks {
		signature, what = "func(p *int16, w *byte, rowBytes, rows, blocks int)", "1 ≤ blocks ≤ 8 blocks"
	}
	TEXT(name, attr.NOSPLIT, signature)
	Pragma("noescape")
	Doc(name+" unpacks "+what+" of 1 ≤ rows ≤ 32 rows, rowBytes apart, into p. The rest",
		"of the 32 rows become copies of the last one.")
}

// unpack512 is the loop over 2 × 16 rows of a panel.
type unpack512 struct {
	panel, out     reg.GPVirtual // the panel, and the panel + 64 × half
	w, rowBytes    reg.GPVirtual // the current row
	left           reg.GPVirtual // rows after the current one
	words, scratch reg.GPVirtual // scratch for words; for floats less panelFloats−panelRows
	d              reg.GPVirtual // where the row's d goes
}

func unpackLoop512() *unpack512 {
	u := &unpack512{out: GP64(), words: GP64(), scratch: GP64(), d: GP64()}
	u.panel = Load(Param("p"), GP64()).(reg.GPVirtual)
	u.w = Load(Param("w"), GP64()).(reg.GPVirtual)
	u.rowBytes = Load(Param("rowBytes"), GP64()).(reg.GPVirtual)
	u.left = Load(Param("rows"), GP64()).(reg.GPVirtual)
	return u
}

// rows writes the loop: row for each of 16 rows, twice; after each 16 the words
// are transposed and done may do the same with the floats.
func (u *unpack512) rows(row, done func()) {
	halves := GP64()
	MOVQ(U32(2), halves)
	MOVQ(u.panel, u.out)
	LEAQ(Mem{Base: u.panel, Disp: panelD}, u.d)
	Label("half")
	n := GP64()
	MOVQ(U32(16), n)
	LEAQ(Mem{Base: u.panel, Disp: panelRows}, u.words)
	LEAQ(Mem{Base: u.panel, Disp: panelRows}, u.scratch)
	Label("row")
	row()
	ADDQ(number(512), u.words)
	ADDQ(number(64), u.scratch)
	ADDQ(number(4), u.d)
	// Stay on the last row.
	next := GP64()
	LEAQ(Mem{Base: u.w, Index: u.rowBytes, Scale: 1}, next)
	CMPQ(u.left, Imm(1))
	CMOVQGT(next, u.w)
	DECQ(u.left)
	DECQ(n)
	JNZ(LabelRef("row"))

	from, to := GP64(), GP64()
	LEAQ(Mem{Base: u.panel, Disp: panelRows}, from)
	MOVQ(u.out, to)
	MOVQ(U32(8), n)
	Label("transpose")
	v := transpose512(load512(from, 0, 512))
	for i, z := range v {
		VMOVDQU64(z, Mem{Base: to, Disp: panelStep * i})
	}
	ADDQ(number(64), from)
	ADDQ(number(16*panelStep), to)
	DECQ(n)
	JNZ(LabelRef("transpose"))
	done()
	ADDQ(number(64), u.out)
	DECQ(halves)
	JNZ(LabelRef("half"))
	VZEROUPPER()
	RET()
}

func load512(base reg.GPVirtual, disp, step int) (v [16]reg.VecVirtual) {
	for i := range v {
		v[i] = ZMM()
		VMOVDQU64(Mem{Base: base, Disp: disp + step*i}, v[i])
	}
	return v
}

// transpose512 transposes 16 × 16 dwords: result i holds lane i of every input.
func transpose512(v [16]reg.VecVirtual) (out [16]reg.VecVirtual) {
	two := func(a, b reg.VecVirtual, f func(m, a, dst Op), g func(m, a, dst Op)) (lo, hi reg.VecVirtual) {
		lo, hi = ZMM(), ZMM()
		f(b, a, lo)
		g(b, a, hi)
		return lo, hi
	}
	op := func(f func(...Op)) func(m, a, dst Op) { return func(m, a, dst Op) { f(m, a, dst) } }
	shuffle := func(imm uint64) func(m, a, dst Op) {
		return func(m, a, dst Op) { VSHUFI32X4(Imm(imm), m, a, dst) }
	}
	// Within 128-bit lanes: 4 × 4 blocks of rows 4i … 4i+3. t[4i+c] then has, in
	// lane l, column 4l+c of those rows.
	var t [16]reg.VecVirtual
	for i := 0; i < 16; i += 4 {
		a0, a1 := two(v[i], v[i+1], op(VPUNPCKLDQ), op(VPUNPCKHDQ))
		b0, b1 := two(v[i+2], v[i+3], op(VPUNPCKLDQ), op(VPUNPCKHDQ))
		t[i], t[i+1] = two(a0, b0, op(VPUNPCKLQDQ), op(VPUNPCKHQDQ))
		t[i+2], t[i+3] = two(a1, b1, op(VPUNPCKLQDQ), op(VPUNPCKHQDQ))
	}
	// Across lanes: a 4 × 4 transposition of lanes for each c.
	for c := range 4 {
		a0, a1 := two(t[c], t[4+c], shuffle(0x88), shuffle(0xdd)) // lanes 0,2 | 1,3
		b0, b1 := two(t[8+c], t[12+c], shuffle(0x88), shuffle(0xdd))
		out[c], out[8+c] = two(a0, b0, shuffle(0x88), shuffle(0xdd))
		out[4+c], out[12+c] = two(a1, b1, shuffle(0x88), shuffle(0xdd))
	}
	return out
}
