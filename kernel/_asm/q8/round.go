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
// values and rounds to 16 bits. The scales of two blocks are put together a position at a
// time, then taken apart for all positions; a query's products with four blocks stay in
// registers, and the largest of all four are found and divided by together.
func roundWeights(g *lanes.Gen) {
	g.Begin("q8RoundWeights", "func(dst *int16, step, weight *float32, v *byte, pairs *uint32, scales *float32, queries, blocks int)",
		fmt.Sprintf("q8RoundWeights%s does what q8RoundWeightsGeneric does, for %d rows; there is room for %d scales of each block, and of one more", g.Suffix, attnBlock, attnBlock),
		"if their number is odd, and for half as many pairs. queries and blocks are positive.")
	copyScales(g)
	convertScales(g)
	r := &rounder{Gen: g, pick: g.Vec(), magic: g.ConstBits(magicBits), dst: g.Arg("dst"), step: g.Arg("step"), scales: g.Arg("scales"), next: g.Arg("queries"), stepNext: g.Arg("queries")}
	g.VMOVDQU32(g.Words("q8_low_words", alternateWords(0)...), r.pick)
	g.SHLQ(operand.Imm(7), r.next)
	g.SHLQ(operand.Imm(2), r.stepNext)
	left, done := g.Arg("blocks"), g.Fresh("done")
	for n := 4; n > 0; n-- { // fours, then what is left
		loop, fewer := g.Fresh("blocks"), g.Fresh("fewer")
		g.Label(loop)
		g.CMPQ(left, operand.Imm(uint64(n)))
		g.JLT(operand.LabelRef(fewer))
		r.round(n)
		g.SUBQ(operand.Imm(uint64(n)), left)
		if n == 4 {
			g.JMP(operand.LabelRef(loop))
		} else {
			g.JMP(operand.LabelRef(done))
		}
		g.Label(fewer)
	}
	g.Label(done)
	g.End()
}

// copyScales stores the scales of two blocks of a row as a word of 32 bits, row after row.
// A last block without another is its own.
func copyScales(g *lanes.Gen) {
	v, to, left, stride := g.Arg("v"), g.Arg("pairs"), g.Arg("blocks"), g.Arg("blocks")
	g.IMUL3Q(operand.Imm(blockBytes), stride, stride)
	rows := newGrid(g, v, stride, 8)
	back, other, second := g.GP64(), g.GP64(), g.GP64()
	g.MOVQ(stride, back)
	g.SHLQ(operand.Imm(6), back)
	pair, loop, even := g.Fresh("pair"), g.Fresh("scales"), g.Fresh("even")
	g.Label(pair)
	g.MOVQ(operand.I32(blockBytes-2), other) // two bytes of values, then the other scale
	g.CMPQ(left, operand.Imm(1))
	g.JNE(operand.LabelRef(even))
	g.XORQ(other, other)
	g.Label(even)
	end := g.GP64()
	g.LEAQ(operand.Mem{Base: to, Disp: 4 * attnBlock}, end)
	g.Label(loop)
	g.LEAQ(operand.Mem{Base: v, Index: other, Scale: 1}, second)
	others := &grid{[]reg.Register{second}, rows.one, rows.three, rows.five, rows.seven}
	for i := range 8 {
		both := g.GP32()
		g.MOVL(others.row(i), both)
		g.MOVW(rows.row(i), both.As16())
		g.MOVL(both, word(to, i))
	}
	g.LEAQ(operand.Mem{Base: v, Index: stride, Scale: 8}, v)
	g.ADDQ(operand.Imm(32), to)
	g.CMPQ(to, end)
	g.JNE(operand.LabelRef(loop))
	g.SUBQ(back, v)
	g.ADDQ(operand.Imm(2*blockBytes), v)
	g.SUBQ(operand.Imm(2), left)
	g.JG(operand.LabelRef(pair))
}

// convertScales makes numbers of the pairs, block after block.
func convertScales(g *lanes.Gen) {
	from, to, left := g.Arg("pairs"), g.Arg("scales"), g.Arg("blocks")
	var pick [2]reg.VecVirtual
	for i := range pick {
		pick[i] = g.Vec()
		g.VMOVDQU32(g.Words([]string{"q8_low_words", "q8_high_words"}[i], alternateWords(uint32(i))...), pick[i])
	}
	loop := g.Fresh("convert")
	g.Label(loop)
	for half := range 2 {
		a, b := g.Vec(), g.Vec()
		g.VMOVDQU32(operand.Mem{Base: from, Disp: 128 * half}, a)
		g.VMOVDQU32(operand.Mem{Base: from, Disp: 128*half + 64}, b)
		for i := range pick {
			h, s, t := g.Vec(), g.Vec(), g.Vec()
			g.VMOVDQA32(pick[i], h)
			g.VPERMI2W(b, a, h)
			g.VCVTPH2PS(h.AsY(), s)
			g.VMOVUPS(s, operand.Mem{Base: to, Disp: 4*attnBlock*i + 128*half})
			g.VCVTPH2PS(g.Upper(h), t)
			g.VMOVUPS(t, operand.Mem{Base: to, Disp: 4*attnBlock*i + 128*half + 64})
		}
	}
	g.ADDQ(operand.I32(4*attnBlock), from)
	g.ADDQ(operand.I32(8*attnBlock), to)
	g.SUBQ(operand.Imm(2), left)
	g.JG(operand.LabelRef(loop))
}

type rounder struct {
	*lanes.Gen
	pick, magic    reg.VecVirtual
	dst, step      reg.Register
	scales         reg.Register // of the blocks at work
	next, stepNext reg.Register // from a block to the next, in dst and step
}

// round rounds the weights of all queries for n blocks, at most four, and goes on to the
// next ones.
func (r *rounder) round(n int) {
	weight, count, loop := r.Arg("weight"), r.Arg("queries"), r.Fresh("query")
	step, dst := r.GP64(), r.GP64()
	r.MOVQ(r.step, step)
	r.MOVQ(r.dst, dst)
	r.Label(loop)
	const vecs = attnBlock / 16
	var x [4][vecs]reg.VecVirtual
	var most [4]reg.VecVirtual
	for b := range n {
		for i := range vecs {
			x[b][i] = r.Vec()
		}
	}
	for i := range vecs {
		w := r.Vec()
		r.VMOVUPS(operand.Mem{Base: weight, Disp: 4 * r.L * i}, w)
		for b := range n {
			r.VMULPS(operand.Mem{Base: r.scales, Disp: 4 * (attnBlock*b + r.L*i)}, w, x[b][i])
		}
	}
	for b := range n {
		u := r.Vec()
		most[b] = r.Vec()
		r.VPMAXUD(x[b][1], x[b][0], most[b])
		r.VPMAXUD(x[b][3], x[b][2], u)
		r.VPMAXUD(u, most[b], most[b])
	}
	inverse, s := ratio(r.Gen, r.foldFour(most), math.MaxInt16, func() reg.VecVirtual { return r.XMM() })
	to := r.GP64()
	r.MOVQ(step, to)
	at := r.GP64()
	r.MOVQ(dst, at)
	for b := range n {
		wide := r.Vec()
		if b > 0 {
			r.VPERMILPS(operand.Imm(uint64(0x55*b)), inverse, wide.AsX())
			r.VBROADCASTSS(wide.AsX(), wide)
		} else {
			r.VBROADCASTSS(inverse, wide)
		}
		r.VEXTRACTPS(operand.Imm(uint64(b)), s, operand.Mem{Base: to})
		for i := range vecs {
			r.VFMADD213PS(r.magic, wide, x[b][i])
		}
		for i := 0; i < vecs; i += 2 {
			r.VPERMT2W(x[b][i+1], r.pick, x[b][i])
			r.VMOVDQU32(x[b][i], operand.Mem{Base: at, Disp: 2 * r.L * i})
		}
		if b+1 < n {
			r.ADDQ(r.stepNext, to)
			r.ADDQ(r.next, at)
		}
	}
	r.ADDQ(operand.I32(4*attnBlock), weight)
	r.ADDQ(operand.I32(2*attnBlock), dst)
	r.ADDQ(operand.Imm(4), step)
	r.DECQ(count)
	r.JNZ(operand.LabelRef(loop))
	for range n {
		r.ADDQ(r.next, r.dst)
		r.ADDQ(r.stepNext, r.step)
	}
	r.ADDQ(operand.I32(4*attnBlock*n), r.scales)
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

// alternateWords picks the lower halves of the words of 32 bits of two vectors, or the
// upper ones if first is 1; two of them in a word of the table.
func alternateWords(first uint32) (w []uint32) {
	for i := first; i < 64; i += 4 {
		w = append(w, i|(i+2)<<16)
	}
	return w
}
