package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// softmaxRows is scale, max and expSub in one, for several rows: first the maxima of all
// rows, then all exponentials, so that no row waits for the end of another's chains.
func softmaxRows(g *lanes.Gen) {
	g.Begin("softmaxRows", "func(x *float32, rows, n int, scale float32, top, sum *float32)",
		fmt.Sprintf("softmaxRows%s does, for r in [0,rows) and i in [0,n), with x[r][i] at x[r*%d+i]:", g.Suffix, attnBlock),
		"top[r] = max(top[r], max over i of scale*x[r][i]), ignoring NaN, m = top[r] or 0 if that is -Inf;",
		"x[r][i] = exp(scale*x[r][i]-m); sum[r] = sum over i of x[r][i], summed in float64. rows and n are positive.")
	n, scale := g.Arg("n"), g.Splat("scale")
	s := &softmax{Gen: g, x: g.Arg("x"), top: g.Arg("top")}
	s.each(g.Arg("rows"), 1, func() {
		best := g.Vec()
		g.VBROADCASTSS(operand.Mem{Base: s.top}, best)
		g.Each(n, 1, func(_ int, at lanes.At, t *lanes.Tail) {
			v := g.LoadF32(at.F32(s.x), t)
			g.VMULPS(scale, v, v)
			g.StoreF32(v, at.F32(s.x), t)
			g.TakeBeyond(v, best, t)
			g.VMAXPS(best, v, best) // a NaN in v gives best
		})
		g.VMOVSS(g.FoldAll(best, g.VMAXPS), operand.Mem{Base: s.top})
	})

	s = &softmax{Gen: g, x: g.Arg("x"), top: g.Arg("top"), sum: g.Arg("sum")}
	e, rows := newExp(g, expLeast, expMost), g.Arg("rows")
	if g.Wide { // a full block of two rows fits the registers
		part := g.Fresh("part")
		g.CMPQ(n, operand.Imm(attnBlock))
		g.JNE(operand.LabelRef(part))
		s.each(rows, 2, func() { s.block(e, 2) })
		g.Label(part)
	}
	s.each(rows, 1, func() {
		m, lo, hi := s.largest(0), g.Zero(), g.Zero()
		g.Each(n, 1, func(_ int, at lanes.At, t *lanes.Tail) { expSubStep(g, e, s.x, m, lo, hi, at, t) })
		s.total(0, lo, hi)
	})
	g.End()
}

// softmax walks along rows of scores, their maxima and, unless nil, their sums.
type softmax struct {
	*lanes.Gen
	x, top, sum reg.Register
}

// each runs body for so many rows together, as often as there are so many left.
func (s *softmax) each(rows reg.Register, together int, body func()) {
	loop, next := s.Fresh("rows"), s.Fresh("next")
	s.SUBQ(operand.Imm(uint64(together)), rows)
	s.JLT(operand.LabelRef(next))
	s.Label(loop)
	body()
	s.ADDQ(operand.I32(4*attnBlock*together), s.x)
	s.ADDQ(operand.Imm(uint64(4*together)), s.top)
	if s.sum != nil {
		s.ADDQ(operand.Imm(uint64(4*together)), s.sum)
	}
	s.SUBQ(operand.Imm(uint64(together)), rows)
	s.JGE(operand.LabelRef(loop))
	s.Label(next)
	s.ADDQ(operand.Imm(uint64(together)), rows)
}

// block does the exponentials of so many full rows, instruction by instruction for all:
// the processor does not look far enough ahead to overlap chains that follow each other.
func (s *softmax) block(e *expo, rows int) {
	perRow := attnBlock / s.L
	at := func(i int) operand.Mem {
		return operand.Mem{Base: s.x, Disp: 4 * (i/perRow*attnBlock + i%perRow*s.L)}
	}
	x := make([]reg.VecVirtual, rows*perRow)
	for r := range rows {
		m := s.largest(r)
		for i := r * perRow; i < (r+1)*perRow; i++ {
			x[i] = s.LoadF32(at(i), nil)
			s.VSUBPS(m, x[i], x[i])
		}
	}
	y := e.exps(x...)
	lo, hi := make([]reg.VecVirtual, rows), make([]reg.VecVirtual, rows)
	for i := range perRow {
		for r := range rows {
			v := y[r*perRow+i]
			s.StoreF32(v, at(r*perRow+i), nil)
			if i > 0 {
				addDoubles(s.Gen, v, lo[r], hi[r])
				continue
			}
			lo[r], hi[r] = s.Vec(), s.Vec()
			s.VCVTPS2PD(s.Upper(v), hi[r])
			s.VCVTPS2PD(s.Lower(v), lo[r])
		}
	}
	for r := range rows {
		s.total(r, lo[r], hi[r])
	}
}

// largest broadcasts what is subtracted from row r of those at work.
func (s *softmax) largest(r int) reg.VecVirtual {
	m := s.Vec()
	s.VBROADCASTSS(operand.Mem{Base: s.top, Disp: 4 * r}, m)
	zeroIfMasked(s.Gen, m)
	return m
}

// total stores the sum of row r of those at work.
func (s *softmax) total(r int, lo, hi reg.VecVirtual) {
	s.VADDPD(hi, lo, lo)
	v := foldDoubles(s.Gen, lo)
	s.VCVTSD2SS(v, v, v)
	s.VMOVSS(v, operand.Mem{Base: s.sum, Disp: 4 * r})
}

// zeroIfMasked makes m zero if it is -Inf.
func zeroIfMasked(g *lanes.Gen, m reg.VecVirtual) {
	none := g.ConstBits(math.Float32bits(float32(math.Inf(-1))))
	if g.Wide {
		some := g.K()
		g.VCMPPS(operand.Imm(4), none, m, some) // not equal
		g.VMOVAPS_Z(m, some, m)
		return
	}
	g.VCMPPS(operand.Imm(0), none, m, none) // equal
	g.VANDNPS(m, none, m)
}
