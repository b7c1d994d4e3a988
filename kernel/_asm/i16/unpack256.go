package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func unpacks256() {
	for _, f := range kquants256() {
		unpackK256(f)
	}
	for _, f := range blocks256() {
		unpackBlocks256(f)
	}
}

// unpack256 is the loop over 4 × 8 rows of a panel.
type unpack256 struct {
	panel, out  reg.GPVirtual // the panel, and the panel + 32 × octet
	w, rowBytes reg.GPVirtual // the current row
	left        reg.GPVirtual // rows left, the current one included
	row         reg.GPVirtual // the panel's scratch for words of the row
	floats      reg.GPVirtual // the panel's scratch for floats of the row
	d           reg.GPVirtual // where d of the row goes
}

func newUnpack256(name string, blocks bool) *unpack256 {
	unpackHead("unpack"+name+"I16AVX2", blocks)
	u := &unpack256{out: GP64(), row: GP64(), floats: GP64(), d: GP64()}
	u.panel = Load(Param("p"), GP64()).(reg.GPVirtual)
	u.w = Load(Param("w"), GP64()).(reg.GPVirtual)
	u.rowBytes = Load(Param("rowBytes"), GP64()).(reg.GPVirtual)
	u.left = Load(Param("rows"), GP64()).(reg.GPVirtual)
	return u
}

// rows writes the loop: row decodes one row; after eight the words are
// transposed and done may do the same with the floats.
func (u *unpack256) rows(row, done func()) {
	octets := GP64()
	MOVQ(U32(4), octets)
	MOVQ(u.panel, u.out)
	LEAQ(Mem{Base: u.panel, Disp: panelD}, u.d)
	Label("octet")
	n := GP64()
	MOVQ(U32(8), n)
	LEAQ(Mem{Base: u.panel, Disp: panelRows}, u.row)
	LEAQ(Mem{Base: u.panel, Disp: panelFloats}, u.floats)
	Label("row")
	row()
	ADDQ(number(512), u.row)
	ADDQ(number(64), u.floats)
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
	MOVQ(U32(16), n)
	Label("transpose")
	for i, y := range transpose256(from, 0, 512) {
		VMOVDQU(y, Mem{Base: to, Disp: panelStep * i})
	}
	ADDQ(number(32), from)
	ADDQ(number(8*panelStep), to)
	DECQ(n)
	JNZ(LabelRef("transpose"))
	done()
	ADDQ(number(32), u.out)
	DECQ(octets)
	JNZ(LabelRef("octet"))
	VZEROUPPER()
	RET()
}

// transpose256 loads 8 vectors of dwords, step bytes apart, and returns their
// columns.
func transpose256(base reg.GPVirtual, disp, step int) (out [8]reg.VecVirtual) {
	var t [8]reg.VecVirtual // t[4i+c]: columns c and 4+c of rows 4i … 4i+3
	for i := 0; i < 8; i += 4 {
		var v [4]reg.VecVirtual
		for r := 0; r < 4; r += 2 {
			a, b := YMM(), Mem{Base: base, Disp: disp + step*(i+r+1)}
			VMOVDQU(Mem{Base: base, Disp: disp + step*(i+r)}, a)
			v[r], v[r+1] = YMM(), YMM()
			VPUNPCKLDQ(b, a, v[r])
			VPUNPCKHDQ(b, a, v[r+1])
		}
		for c := range 2 {
			t[i+2*c], t[i+2*c+1] = YMM(), YMM()
			VPUNPCKLQDQ(v[2+c], v[c], t[i+2*c])
			VPUNPCKHQDQ(v[2+c], v[c], t[i+2*c+1])
		}
	}
	for c := range 4 {
		out[c], out[4+c] = YMM(), YMM()
		VPERM2I128(Imm(0x20), t[4+c], t[c], out[c])
		VPERM2I128(Imm(0x31), t[4+c], t[c], out[4+c])
	}
	return out
}

func unpackK256(f *kquant256) {
	u := newUnpack256(f.name, false)
	words := AllocLocal(32)
	u.rows(func() {
		d, min := f.scales(f, u.w, words)
		VMOVSS(d.AsX(), Mem{Base: u.d})
		for v, m := range min {
			VMOVUPS(m, Mem{Base: u.floats, Disp: 32 * v})
		}
		f.vectors(f, u.w, func(g int, v reg.VecVirtual) {
			s := YMM()
			VPBROADCASTW(words.Offset(2*g), s)
			VPMULLW(s, v, v)
			VMOVDQU(v, Mem{Base: u.row, Disp: 32 * g})
		})
	}, func() {
		if !f.hasMin {
			return
		}
		for v := range 2 {
			// Each minimum is there twice, once per 16 columns.
			columns := transpose256(u.panel, panelFloats+32*v, 64)
			for g := range 4 {
				VMOVDQU(columns[2*g], Mem{Base: u.out, Disp: panelMin + 128*(4*v+g)})
			}
		}
	})
}

func unpackBlocks256(f *block256) {
	u := newUnpack256(f.name, true)
	u.rows(func() {
		block, words, scale, n := GP64(), GP64(), GP64(), Load(Param("blocks"), GP64()).(reg.GPVirtual)
		MOVQ(u.w, block)
		MOVQ(u.row, words)
		MOVQ(u.floats, scale)
		Label("block")
		y := f.words(block)
		VMOVDQU(y[0], Mem{Base: words})
		VMOVDQU(y[1], Mem{Base: words, Disp: 32})
		h := XMM()
		VPBROADCASTW(Mem{Base: block}, h)
		VCVTPH2PS(h, h)
		VMOVSS(h, Mem{Base: scale})
		ADDQ(number(f.bytes), block)
		ADDQ(number(64), words)
		ADDQ(number(4), scale)
		DECQ(n)
		JNZ(LabelRef("block"))
	}, func() {
		for g, y := range transpose256(u.panel, panelFloats, 64) {
			VMOVDQU(y, Mem{Base: u.out, Disp: panelD + 128*g})
		}
	})
}
