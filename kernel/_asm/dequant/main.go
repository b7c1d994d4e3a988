// Command dequant writes the assembly that expands quantised blocks to float32,
// dequant_amd64.s in package kernel. Block layouts are described in package
// quant. Products and sums are rounded as there: no fused multiply-add.
package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

func main() {
	c := build.NewContext()
	c.ConstraintExpr("!noasm")
	for _, g := range lanes.Levels(c) {
		d := &gen{g}
		d.plain()
		d.small()
		d.q4K()
		d.q5K()
		d.q6K()
		d.q3K()
		d.q2K()
		d.iq4XS()
		d.fused()
	}
	lanes.Write(c, "dequant")
}

// gen adds what blocks need: bytes in YMM registers at both levels, expanded to
// vectors of the level's width.
type gen struct{ *lanes.Gen }

func imm(n int) operand.Constant { return operand.Imm(uint64(n)) }

// blocks writes a function that runs body for each block of len elements in
// size bytes, with src and dst pointing at it.
func (g *gen) blocks(name string, length, size int, setup func() func(src, dst reg.Register)) {
	g.Begin("dequant"+name, "func(dst []float32, src []byte)",
		"dequant"+name+g.Suffix+" expands len(dst) elements, a whole number of blocks, as package quant does; src has as many blocks.")
	dst, n, src := g.Ptr("dst"), g.Len("dst"), g.Ptr("src")
	body := setup()
	loop, done := g.Fresh("block"), g.Fresh("done")
	g.Label(loop)
	g.SUBQ(operand.I32(length), n)
	g.JLT(operand.LabelRef(done))
	body(src, dst)
	g.ADDQ(operand.I32(size), src)
	g.ADDQ(operand.I32(4*length), dst)
	g.JMP(operand.LabelRef(loop))
	g.Label(done)
	g.End()
}

func at(base reg.Register, offset int) operand.Mem { return operand.Mem{Base: base, Disp: offset} }

// half broadcasts the half at m, widened.
func (g *gen) half(m operand.Mem) reg.VecVirtual {
	v := g.Vec()
	if g.Wide {
		y := g.YMM()
		g.VPBROADCASTW(m, y)
		g.VCVTPH2PS(y, v)
	} else {
		x := g.XMM()
		g.VPBROADCASTW(m, x)
		g.VCVTPH2PS(x, v)
	}
	return v
}

// bytes broadcasts a byte over a YMM register.
func (g *gen) bytes(b byte) reg.VecVirtual {
	v := g.YMM()
	g.VPBROADCASTD(g.Word(uint32(b)*0x01010101), v)
	return v
}

// load reads 32 bytes.
func (g *gen) load(m operand.Mem) reg.VecVirtual {
	v := g.YMM()
	g.VMOVDQU(m, v)
	return v
}

// nibbles reads 16 bytes and returns 32 bytes: the lower halves, then the upper.
func (g *gen) nibbles(m operand.Mem, mask0f reg.VecVirtual) reg.VecVirtual {
	lo, hi := g.YMM(), g.XMM()
	g.VMOVDQU(m, lo.AsX())
	g.VPSRLW(imm(4), lo.AsX(), hi)
	g.VINSERTI128(imm(1), hi, lo, lo)
	g.VPAND(mask0f, lo, lo)
	return lo
}

// expand turns 32 bytes into float32 and hands them out by vectors, i counting
// elements. b is overwritten.
func (g *gen) expand(b reg.VecVirtual, signed bool, emit func(i int, v reg.VecVirtual)) {
	widen := g.VPMOVZXBD
	if signed {
		widen = g.VPMOVSXBD
	}
	high := g.XMM()
	g.VEXTRACTI128(imm(1), b, high)
	for h, x := range []reg.Register{b.AsX(), high} {
		for i := 0; i < 16; i += g.L {
			if i > 0 {
				g.VPSRLDQ(imm(8), x, x)
			}
			v := g.Vec()
			widen(x, v)
			g.VCVTDQ2PS(v, v)
			emit(16*h+i, v)
		}
	}
}

// widen expands bytes in memory to float32.
func (g *gen) widen(m operand.Mem, signed bool) reg.VecVirtual {
	v := g.Vec()
	if signed {
		g.VPMOVSXBD(m, v)
	} else {
		g.VPMOVZXBD(m, v)
	}
	g.VCVTDQ2PS(v, v)
	return v
}

// splat broadcasts a float32 in memory.
func (g *gen) splat(m operand.Mem) reg.VecVirtual {
	v := g.Vec()
	g.VBROADCASTSS(m, v)
	return v
}

// store writes v·scale; v is overwritten.
func (g *gen) store(v, scale reg.VecVirtual, m operand.Mem) {
	g.VMULPS(scale, v, v)
	g.VMOVUPS(v, m)
}

// table is 16 words as a vector (wide only).
func (g *gen) table(name string, f func(i int) float32) reg.VecVirtual {
	words := make([]uint32, 16)
	for i := range words {
		words[i] = float32bits(f(i))
	}
	v := g.ZMM()
	g.VMOVUPS(g.Words(name, words...), v)
	return v
}

// lookUp expands 16 bytes with two 16-entry tables: the lower halves of the
// bytes index low, the upper ones high. VPERMPS reads four bits of an index, so
// the lower half needs no mask. An entry is what the element would be
// calculated as, so the result is the same to the last bit.
func (g *gen) lookUp(m operand.Mem, low, high reg.VecVirtual, toLow, toHigh operand.Mem) {
	idx, v := g.ZMM(), g.ZMM()
	g.VPMOVZXBD(m, idx)
	g.VPERMPS(low, idx, v)
	g.VMOVUPS(v, toLow)
	g.VPSRLD(imm(4), idx, idx)
	w := g.ZMM()
	g.VPERMPS(high, idx, w)
	g.VMOVUPS(w, toHigh)
}
