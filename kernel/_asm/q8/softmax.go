package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// tops finds the largest scores of some blocks of positions.
func tops(g *lanes.Gen) {
	g.Begin("q8Tops", "func(top, scores *float32, blocks, queries int, scale float32)",
		fmt.Sprintf("q8Tops%s does top[q] = max(top[q], max of scale*scores[(b*queries+q)*%d+p] over b in [0,blocks), p in [0,%d)),", g.Suffix, attnBlock, attnBlock),
		"ignoring NaN, for q in [0,queries). blocks and queries are positive.")
	top, scores, stride, queries, scale := g.Arg("top"), g.Arg("scores"), g.Arg("queries"), g.Arg("queries"), g.Splat("scale")
	g.SHLQ(operand.Imm(8), stride)
	query, block := g.Fresh("query"), g.Fresh("block")
	g.Label(query)
	at, left := g.GP64(), g.Arg("blocks")
	g.MOVQ(scores, at)
	var best [attnBlock / 16]reg.VecVirtual
	for i := range best {
		best[i] = g.Vec()
		g.VBROADCASTSS(operand.Mem{Base: top}, best[i])
	}
	g.Label(block)
	for i := range best {
		v := g.Vec()
		g.VMULPS(operand.Mem{Base: at, Disp: 4 * g.L * i}, scale, v)
		g.VMAXPS(best[i], v, best[i]) // a NaN in v gives what was best before
	}
	g.ADDQ(stride, at)
	g.DECQ(left)
	g.JNZ(operand.LabelRef(block))
	g.VMAXPS(best[1], best[0], best[0])
	g.VMAXPS(best[3], best[2], best[2])
	g.VMAXPS(best[2], best[0], best[0])
	g.VMOVSS(g.FoldAll(best[0], g.VMAXPS), operand.Mem{Base: top})
	g.ADDQ(operand.Imm(4), top)
	g.ADDQ(operand.I32(4*attnBlock), scores)
	g.DECQ(queries)
	g.JNZ(operand.LabelRef(query))
	g.End()
}

// exps makes powers of two. The exponent is rounded to sixteenths, whose fraction selects
// one of 16 powers; what is left, at most 1/32, is taken by a polynomial of degree 3,
// whose error is below 1e-8.
func exps(g *lanes.Gen) {
	g.Begin("q8Exps", "func(x, sum, base *float32, factor float32, queries int)",
		fmt.Sprintf("q8Exps%s does x[q][p] = 2^(factor*x[q][p]-base[q]); sum[q] += sum over p of x[q][p] for q in [0,queries), p in [0,%d),", g.Suffix, attnBlock),
		fmt.Sprintf("with x[q][p] at x[q*%d+p]. No exponent is above 1. queries is positive.", attnBlock))
	powers := make([]uint32, 16)
	for i := range powers {
		powers[i] = math.Float32bits(float32(math.Exp2(float64(i) / 16)))
	}
	e := &powersOfTwo{
		Gen: g, x: g.Arg("x"), sum: g.Arg("sum"), base: g.Arg("base"), factor: g.Splat("factor"),
		table: g.Vec(), least: g.Const(-200),
		sixteenths: g.Const(1.5 * (1 << 19)), // added to a small number, leaves its sixteenths in the low bits
		c1:         g.Const(math.Ln2), c2: g.Const(math.Ln2 * math.Ln2 / 2), c3: g.Const(math.Ln2 * math.Ln2 * math.Ln2 / 6),
	}
	g.VMOVDQU32(g.Words("q8_powers", powers...), e.table)
	left, one, done := g.Arg("queries"), g.Fresh("one"), g.Fresh("done")
	loop := g.Fresh("queries")
	g.SUBQ(operand.Imm(2), left)
	g.JLT(operand.LabelRef(one))
	g.Label(loop)
	e.rows(2)
	g.SUBQ(operand.Imm(2), left)
	g.JGE(operand.LabelRef(loop))
	g.Label(one)
	g.CMPQ(left, operand.I32(-1))
	g.JNE(operand.LabelRef(done))
	e.rows(1)
	g.Label(done)
	g.End()
}

type powersOfTwo struct {
	*lanes.Gen
	x, sum, base                                 reg.Register
	factor, table, least, sixteenths, c1, c2, c3 reg.VecVirtual
}

// rows does one row or two, instruction by instruction for all vectors of them, as the
// processor does not look far enough ahead to overlap chains that follow each other.
func (e *powersOfTwo) rows(n int) {
	const vecs = attnBlock / 16
	x, t, p := make([]reg.VecVirtual, n*vecs), make([]reg.VecVirtual, n*vecs), make([]reg.VecVirtual, n*vecs)
	at := func(i int) operand.Mem {
		return operand.Mem{Base: e.x, Disp: 4 * e.L * i}
	}
	for r := range n {
		base := e.Vec()
		e.VBROADCASTSS(word(e.base, r), base)
		for i := r * vecs; i < (r+1)*vecs; i++ {
			x[i], t[i], p[i] = e.Vec(), e.Vec(), e.Vec()
			e.VMOVUPS(at(i), x[i])
			e.VFMSUB132PS(e.factor, base, x[i])
		}
	}
	for _, do := range []func(x, t, p reg.VecVirtual){
		func(x, t, p reg.VecVirtual) { e.VMAXPS(x, e.least, x) }, // keeps NaN
		func(x, t, p reg.VecVirtual) { e.VRNDSCALEPS(operand.Imm(0x48), x, t) },
		func(x, t, p reg.VecVirtual) { e.VSUBPS(t, x, x) },
		func(x, t, p reg.VecVirtual) { e.VMOVAPS(e.c3, p) },
		func(x, t, p reg.VecVirtual) { e.VFMADD213PS(e.c2, x, p) },
		func(x, t, p reg.VecVirtual) { e.VFMADD213PS(e.c1, x, p) },
		func(x, t, p reg.VecVirtual) { e.VMULPS(x, p, p) },
		func(x, t, p reg.VecVirtual) { e.VADDPS(e.sixteenths, t, x) },
		func(x, t, p reg.VecVirtual) { e.VPERMPS(e.table, x, x) },
		func(x, t, p reg.VecVirtual) { e.VFMADD213PS(x, x, p) },
		func(x, t, p reg.VecVirtual) { e.VSCALEFPS(t, p, p) },
	} {
		for i := range x {
			do(x[i], t[i], p[i])
		}
	}
	for i := range p {
		e.VMOVUPS(p[i], at(i))
	}
	sums := []reg.VecVirtual{p[0], p[0]}
	for r := range n {
		q := p[r*vecs:]
		e.VADDPS(q[1], q[0], q[0])
		e.VADDPS(q[3], q[2], q[2])
		e.VADDPS(q[2], q[0], q[0])
		sums[r] = q[0]
	}
	total, old := e.FoldRows(sums), e.XMM()
	if n == 2 {
		e.VMOVSD(operand.Mem{Base: e.sum}, old)
		e.VADDPS(total, old, old)
		e.VMOVSD(old, operand.Mem{Base: e.sum})
	} else {
		e.VMOVSS(operand.Mem{Base: e.sum}, old)
		e.VADDPS(total, old, old)
		e.VMOVSS(old, operand.Mem{Base: e.sum})
	}
	e.ADDQ(operand.Imm(uint64(4*n)), e.sum)
	e.ADDQ(operand.Imm(uint64(4*n)), e.base)
	e.ADDQ(operand.I32(4*attnBlock*n), e.x)
}
