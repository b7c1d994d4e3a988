package main

import (
	"github.com/mmcloughlin/avo/operand"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// rope writes both rotations without fused multiply-add, so that they round as
// plain Go does.
func rope(g *lanes.Gen) {
	g.Begin("ropeNeoX", "func(x, cos, sin []float32)",
		"ropeNeoX"+g.Suffix+" rotates pairs (x[i], x[i+n]), n = len(cos), by cos[i], sin[i]; len(x) >= 2n, len(sin) >= n.")
	lo, n, pc, ps := g.Ptr("x"), g.Len("cos"), g.Ptr("cos"), g.Ptr("sin")
	hi := g.GP64()
	g.LEAQ(operand.Mem{Base: lo, Index: n, Scale: 4}, hi)
	g.Each(n, 1, func(_ int, at lanes.At, t *lanes.Tail) {
		a, b := g.LoadF32(at.F32(lo), t), g.LoadF32(at.F32(hi), t)
		c, s := g.LoadF32(at.F32(pc), t), g.LoadF32(at.F32(ps), t)
		ac, bs := g.Vec(), g.Vec()
		g.VMULPS(a, c, ac)
		g.VMULPS(b, s, bs)
		g.VSUBPS(bs, ac, ac)
		g.StoreF32(ac, at.F32(lo), t)
		g.VMULPS(a, s, s)
		g.VMULPS(b, c, c)
		g.VADDPS(c, s, s)
		g.StoreF32(s, at.F32(hi), t)
	})
	g.End()

	g.Begin("ropeNorm", "func(x, cos, sin []float32)",
		"ropeNorm"+g.Suffix+" rotates pairs (x[2i], x[2i+1]) by cos[i], sin[i]; len(cos) is a multiple of half the float32 lanes, len(x) >= 2*len(cos), len(sin) >= len(cos).")
	px, pairs, pc, ps := g.Ptr("x"), g.Len("cos"), g.Ptr("cos"), g.Ptr("sin")
	// Each cosine and sine serves two neighbouring lanes; the sine of the even one is negated.
	twice := g.Vec()
	words := make([]uint32, 16)
	for i := range words {
		words[i] = uint32(i / 2)
	}
	g.VMOVDQU32OrDQU(g.Words("each_twice", words...), twice)
	flip := make([]uint32, 16)
	for i := range flip {
		flip[i] = uint32(1-i%2) << 31
	}
	even := g.Vec()
	g.VMOVDQU32OrDQU(g.Words("sign_of_even", flip...), even)
	loop, done := g.Fresh("loop"), g.Fresh("done")
	i := g.GP64()
	g.XORQ(i, i)
	g.Label(loop)
	g.CMPQ(i, pairs)
	g.JGE(operand.LabelRef(done))
	c, s := g.Vec(), g.Vec()
	g.LoadHalfVec(operand.Mem{Base: pc, Index: i, Scale: 4}, c)
	g.LoadHalfVec(operand.Mem{Base: ps, Index: i, Scale: 4}, s)
	g.VPERMPS(c, twice, c)
	g.VPERMPS(s, twice, s)
	g.VXORPS(even, s, s)
	x, swapped := g.Vec(), g.Vec()
	at := operand.Mem{Base: px, Index: i, Scale: 8}
	g.VMOVUPS(at, x)
	g.VPERMILPS(operand.Imm(0xb1), x, swapped)
	g.VMULPS(c, x, x)
	g.VMULPS(s, swapped, swapped)
	g.VADDPS(swapped, x, x)
	g.VMOVUPS(x, at)
	g.ADDQ(operand.I32(g.L/2), i)
	g.JMP(operand.LabelRef(loop))
	g.Label(done)
	g.End()
}
