package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// ratio divides largest numbers, given as bits, in the lanes of m: inverse is limit/m, step
// m/limit; both are 0 where m counts as zero, and where it is not finite step is NaN.
func ratio(g *lanes.Gen, m reg.Register, limit float32, vec func() reg.VecVirtual) (inverse, step reg.VecVirtual) {
	bits := func(b uint32) reg.VecVirtual {
		v := vec()
		g.VPBROADCASTD(g.Word(b), v)
		return v
	}
	top, inverse, step := bits(math.Float32bits(limit)), vec(), vec()
	some, bad := g.K(), g.K()
	g.VPCMPUD(operand.Imm(5), bits(tinyBits), m, some) // not below
	g.VPCMPUD(operand.Imm(5), bits(infBits), m, bad)
	g.VDIVPS_Z(top, m, some, step)
	g.VPBROADCASTD(g.Word(nanBits), bad, step)
	g.KANDNW(some, bad, some)
	g.VDIVPS_Z(m, top, some, inverse)
	return inverse, step
}

// roundQueries rounds blocks of 32 columns to 16 bits and splits them into bytes.
func roundQueries(g *lanes.Gen) {
	const most = 32639
	g.Begin("q8RoundQueries", "func(dst *int32, q *float32, queries, blocks int)",
		fmt.Sprintf("q8RoundQueries%s does what q8RoundQueriesGeneric does. queries and blocks are positive.", g.Suffix))
	dst, q, queries, left := g.Arg("dst"), g.Arg("q"), g.Arg("queries"), g.Arg("blocks")
	offset, stride := g.GP64(), g.Arg("blocks")
	g.SHLQ(operand.Imm(7), stride)
	ones, magic, abs := g.Vec(), g.ConstBits(magicBits), g.ConstBits(math.MaxInt32)
	g.VPBROADCASTD(g.Word(0x80808080), ones)
	half := g.ConstBits(128)
	block, loop := g.Fresh("block"), g.Fresh("query")
	g.Label(block)
	count, at := g.Arg("queries"), g.GP64()
	g.MOVQ(q, at)
	g.MOVQ(queries, offset) // of the offsets, behind all planes
	g.SHLQ(operand.Imm(6), offset)
	g.ADDQ(dst, offset)
	g.Label(loop)
	x := [2]reg.VecVirtual{g.Vec(), g.Vec()}
	m, u := g.Vec(), g.Vec()
	g.VMOVUPS(operand.Mem{Base: at}, x[0])
	g.VMOVUPS(operand.Mem{Base: at, Disp: 64}, x[1])
	g.VPANDD(abs, x[0], m)
	g.VPANDD(abs, x[1], u)
	g.VPMAXUD(u, m, m)
	g.FoldAll(m, g.VPMAXUD)
	inverse, step := ratio(g, m.AsX(), most, func() reg.VecVirtual { return g.XMM() })
	spreadInverse := g.Vec()
	g.VBROADCASTSS(inverse, spreadInverse)
	planes := [2]reg.VecVirtual{g.XMM(), g.XMM()}
	_ = planes
	both := g.Vec()
	for i := range x {
		n, up := g.Vec(), g.Vec()
		g.VMOVAPS(magic, n)
		g.VFMADD231PS(spreadInverse, x[i], n)
		g.VPSUBD(magic, n, n)
		g.VPADDD(half, n, up)
		g.VPSRAD(operand.Imm(8), up, up)
		g.VPMOVDB(up, operand.Mem{Base: dst, Disp: 16 * i})
		g.VPMOVDB(n, operand.Mem{Base: dst, Disp: 4*planeWords + 16*i})
		if i == 0 {
			g.VMOVDQA32(n, both)
		} else {
			g.VPADDD(n, both, both)
		}
	}
	g.FoldAll(both, g.VPADDD)
	g.VPSLLD(operand.Imm(7), both.AsX(), both.AsX())
	zero := g.XMM()
	g.VPXORD(zero, zero, zero)
	g.VPSUBD(both.AsX(), zero, zero)
	g.VMOVD(zero, operand.Mem{Base: offset})
	scale := g.GP64()
	g.LEAQ(operand.Mem{Base: offset, Index: queries, Scale: 4}, scale)
	g.VMOVSS(step, operand.Mem{Base: scale})
	g.ADDQ(operand.Imm(8*planeWords), dst)
	g.ADDQ(operand.Imm(4), offset)
	g.ADDQ(stride, at)
	g.DECQ(count)
	g.JNZ(operand.LabelRef(loop))
	g.LEAQ(operand.Mem{Base: dst, Index: queries, Scale: 8}, dst) // past offsets and scales
	g.ADDQ(operand.Imm(4*blockLen), q)
	g.DECQ(left)
	g.JNZ(operand.LabelRef(block))
	g.End()
}

// roundWeights multiplies weights of positions with the scale of each block of their
// values and rounds to 16 bits: first the largest of all, then what they are divided by,
// then the rest, so that nothing waits at the end of a long chain. While a block is at
// work the scales of the next are copied together, as vectors cannot soon read what has
// been written in pieces.
func roundWeights(g *lanes.Gen) {
	g.Begin("q8RoundWeights", "func(dst *int16, step, weight *float32, v *byte, scales *uint16, inverse *float32, queries, blocks int)",
		fmt.Sprintf("q8RoundWeights%s does what q8RoundWeightsGeneric does, for %d rows; there is room for %d*blocks scales and queries*blocks inverses.", g.Suffix, attnBlock, attnBlock),
		"queries and blocks are positive.")
	r := &rounder{Gen: g}
	for i := range r.scale {
		r.scale[i] = g.Vec()
	}
	r.largest()
	n := g.Arg("queries")
	blocks := g.Arg("blocks")
	g.IMULQ(blocks, n)
	step, inverse := g.Arg("step"), g.Arg("inverse")
	g.Each(n, 1, func(_ int, at lanes.At, t *lanes.Tail) {
		i, s := ratio(g, g.LoadF32(at.F32(step), t), math.MaxInt16, g.Vec)
		g.StoreF32(i, at.F32(inverse), t)
		g.StoreF32(s, at.F32(step), t)
	})
	r.round()
	g.End()
}

type rounder struct {
	*lanes.Gen
	rows  *grid
	scale [attnBlock / 16]reg.VecVirtual
}

// largest leaves the largest products of each block and query where steps belong.
func (r *rounder) largest() {
	v, scales, left, stride, step := r.Arg("v"), r.Arg("scales"), r.Arg("blocks"), r.Arg("blocks"), r.Arg("step")
	r.IMUL3Q(operand.Imm(blockBytes), stride, stride)
	r.rows = newGrid(r.Gen, v, stride, 8)
	r.copyScales(scales)
	block, last := r.Fresh("block"), r.Fresh("last")
	r.Label(block)
	r.loadScales(scales)
	r.ADDQ(operand.I32(2*attnBlock), scales)
	r.CMPQ(left, operand.Imm(1))
	r.JEQ(operand.LabelRef(last))
	r.ADDQ(operand.Imm(blockBytes), v)
	r.copyScales(scales)
	r.Label(last)
	weight, count, done := r.Arg("weight"), r.Arg("queries"), r.Fresh("done")
	for n := 4; n > 0; n-- { // fours, then what is left
		loop, fewer := r.Fresh("queries"), r.Fresh("fewer")
		r.Label(loop)
		r.CMPQ(count, operand.Imm(uint64(n)))
		r.JLT(operand.LabelRef(fewer))
		r.largestOf(n, weight, step)
		r.ADDQ(operand.I32(4*attnBlock*n), weight)
		r.ADDQ(operand.I32(4*n), step)
		r.SUBQ(operand.Imm(uint64(n)), count)
		if n == 4 {
			r.JMP(operand.LabelRef(loop))
		} else {
			r.JMP(operand.LabelRef(done))
		}
		r.Label(fewer)
	}
	r.Label(done)
	r.DECQ(left)
	r.JNZ(operand.LabelRef(block))
}

func (r *rounder) loadScales(from reg.Register) {
	for i, s := range r.scale {
		r.VCVTPH2PS(operand.Mem{Base: from, Disp: 2 * r.L * i}, s)
	}
}

// copyScales puts the scales of a block of all rows together, and leaves the rows where
// they were.
func (r *rounder) copyScales(to reg.Register) {
	loop, at, end := r.Fresh("scales"), r.GP64(), r.GP64()
	r.MOVQ(to, at)
	r.LEAQ(operand.Mem{Base: to, Disp: 2 * attnBlock}, end)
	r.Label(loop)
	for i := range 8 {
		h := r.GP32()
		r.MOVWLZX(r.rows.row(i), h)
		r.MOVW(h.As16(), operand.Mem{Base: at, Disp: 2 * i})
	}
	r.LEAQ(operand.Mem{Base: r.rows.at[0], Index: r.rows.one, Scale: 8}, r.rows.at[0])
	r.ADDQ(operand.Imm(16), at)
	r.CMPQ(at, end)
	r.JNE(operand.LabelRef(loop))
	r.MOVQ(r.rows.one, at)
	r.SHLQ(operand.Imm(6), at)
	r.SUBQ(at, r.rows.at[0])
}

// largestOf is largest for n queries, at most four.
func (r *rounder) largestOf(n int, weight, to reg.Register) {
	var most [4]reg.VecVirtual
	for q := range n {
		var x [len(r.scale)]reg.VecVirtual
		for i, s := range r.scale {
			x[i] = r.Vec()
			r.VMULPS(operand.Mem{Base: weight, Disp: 4 * (attnBlock*q + r.L*i)}, s, x[i])
		}
		r.VPMAXUD(x[1], x[0], x[0])
		r.VPMAXUD(x[3], x[2], x[2])
		r.VPMAXUD(x[2], x[0], x[0])
		most[q] = x[0]
	}
	m := r.foldFour(most)
	if n == 4 {
		r.VMOVUPS(m, word(to, 0))
		return
	}
	for q := range n {
		r.VEXTRACTPS(operand.Imm(uint64(q)), m, word(to, q))
	}
}

// round stores the weights.
func (r *rounder) round() {
	dst, scales, inverse, left := r.Arg("dst"), r.Arg("scales"), r.Arg("inverse"), r.Arg("blocks")
	pick, magic := r.Vec(), r.ConstBits(magicBits)
	r.VMOVDQU32(r.Words("q8_low_words", evenWords()...), pick)
	block, loop := r.Fresh("block"), r.Fresh("query")
	r.Label(block)
	r.loadScales(scales)
	weight, count := r.Arg("weight"), r.Arg("queries")
	r.Label(loop)
	wide := r.Vec()
	r.VBROADCASTSS(word(inverse, 0), wide)
	var x [len(r.scale)]reg.VecVirtual
	for i, s := range r.scale {
		x[i] = r.Vec()
		r.VMULPS(operand.Mem{Base: weight, Disp: 4 * r.L * i}, s, x[i])
		r.VFMADD213PS(magic, wide, x[i])
	}
	for i := 0; i < len(x); i += 2 {
		r.VPERMT2W(x[i+1], pick, x[i])
		r.VMOVDQU32(x[i], operand.Mem{Base: dst, Disp: 2 * r.L * i})
	}
	r.ADDQ(operand.I32(4*attnBlock), weight)
	r.ADDQ(operand.I32(2*attnBlock), dst)
	r.ADDQ(operand.Imm(4), inverse)
	r.DECQ(count)
	r.JNZ(operand.LabelRef(loop))
	r.ADDQ(operand.I32(2*attnBlock), scales)
	r.DECQ(left)
	r.JNZ(operand.LabelRef(block))
}

// foldFour returns the largest lanes of up to four vectors, as integers without sign, in
// their order; it overwrites them.
func (r *rounder) foldFour(a [4]reg.VecVirtual) reg.Register {
	pair := func(p, q reg.VecVirtual) reg.VecVirtual {
		if q == nil {
			q = p
		}
		low, high := r.Vec(), r.Vec()
		r.VPUNPCKHDQ(q, p, high)
		r.VPUNPCKLDQ(q, p, low)
		r.VPMAXUD(high, low, low)
		return low
	}
	p := pair(a[0], a[1])
	q := p
	if a[2] != nil {
		q = pair(a[2], a[3])
	}
	low, high := r.Vec(), r.Vec()
	r.VPUNPCKHQDQ(q, p, high)
	r.VPUNPCKLQDQ(q, p, low)
	r.VPMAXUD(high, low, low)
	return r.Fold(low, r.VPMAXUD)
}

// evenWords picks the lower half of each word of 32 bits of two vectors, two of them in
// a word of the table.
func evenWords() (w []uint32) {
	for i := uint32(0); i < 64; i += 4 {
		w = append(w, i|(i+2)<<16)
	}
	return w
}
