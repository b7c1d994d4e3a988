package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// scoreStride is the distance in bytes of two queries' scores: a block of 64 positions.
const scoreStride = 64 * 4

// promptQueries is how many queries are multiplied side by side: with 64 columns 24
// registers of sums, fed by 10 loads for 24 multiply-adds.
const promptQueries = 6

// prompt writes what attention of many queries consists of, for AVX-512 only.
func prompt(g *lanes.Gen) {
	if !g.Wide {
		return
	}
	for q := 1; q <= promptQueries; q++ {
		outer(g, q)
	}
	promptSoftmax(g)
	transposeBlock(g)
}

// outer multiplies two matrices that are walked along their common side, lanes along
// the columns of the result: nothing has to be summed across lanes.
func outer(g *lanes.Gen, queries int) {
	name := fmt.Sprintf("outer%d", queries)
	g.Begin(name, "func(out *float32, outStride int, a *float32, aStride int, b *float32, bStride, n, width, add int)",
		fmt.Sprintf("%s%s sets out[q*outStride+i], or adds to it if add is not 0, the sum over p in [0,n) of", name, g.Suffix),
		fmt.Sprintf("a[q*aStride+p]*b[p*bStride+i] for q in [0,%d), i in [0,width), p ascending from zero. n and width are", queries),
		"positive, width is a multiple of 16.")
	out, outStride, b, bStride, width := g.Arg("out"), g.Arg("outStride"), g.Arg("b"), g.Arg("bStride"), g.Arg("width")
	aStride := g.Arg("aStride")
	for _, r := range []reg.Register{outStride, aStride, bStride} {
		g.SHLQ(operand.Imm(2), r)
	}
	// One set of registers for both widths: to avo a register that is cleared was in use.
	sums := make([][]reg.VecVirtual, queries)
	for q := range sums {
		for range 4 {
			sums[q] = append(sums[q], g.Vec())
		}
	}
	for _, vecs := range []int{4, 1} {
		loop, done := g.Fresh("width"), g.Fresh("narrower")
		g.SUBQ(operand.I32(vecs*g.L), width)
		g.JLT(operand.LabelRef(done))
		g.Label(loop)
		outerColumns(g, sums, vecs, out, outStride, aStride, b, bStride)
		g.ADDQ(operand.I32(4*vecs*g.L), out)
		g.ADDQ(operand.I32(4*vecs*g.L), b)
		g.SUBQ(operand.I32(vecs*g.L), width)
		g.JGE(operand.LabelRef(loop))
		g.Label(done)
		g.ADDQ(operand.I32(vecs*g.L), width)
	}
	g.End()
}

func outerColumns(g *lanes.Gen, sums [][]reg.VecVirtual, vecs int, out, outStride, aStride, b, bStride reg.Register) {
	queries := len(sums)
	for q := range sums {
		for i := range vecs {
			g.Clear(sums[q][i])
		}
	}
	// Queries 0 to 2 hang on a, 3 to 5 on a3: the addressing modes reach strides 0, 1 and 2.
	a, n, row := g.Arg("a"), g.Arg("n"), g.GP64()
	bases := []reg.Register{a}
	if queries > 3 {
		a3 := g.GP64()
		g.LEAQ(operand.Mem{Base: a, Index: aStride, Scale: 2}, a3)
		g.ADDQ(aStride, a3)
		bases = append(bases, a3)
	}
	g.MOVQ(b, row)
	loop := g.Fresh("step")
	g.Label(loop)
	columns := make([]reg.VecVirtual, vecs)
	for i := range columns {
		columns[i] = g.LoadF32(operand.Mem{Base: row, Disp: 4 * g.L * i}, nil)
	}
	for q := range sums {
		x := g.Vec()
		g.VBROADCASTSS(strided(bases[q/3], aStride, q%3), x)
		for i, c := range columns {
			g.VFMADD231PS(c, x, sums[q][i])
		}
	}
	for _, r := range bases {
		g.ADDQ(operand.Imm(4), r)
	}
	g.ADDQ(bStride, row)
	g.DECQ(n)
	g.JNZ(operand.LabelRef(loop))

	store, add, at := g.Fresh("store"), g.Arg("add"), g.GP64()
	each := func(f func(sum reg.VecVirtual, m operand.Mem)) {
		g.MOVQ(out, at)
		for q := range sums {
			for i, s := range sums[q][:vecs] {
				f(s, operand.Mem{Base: at, Disp: 4 * g.L * i})
			}
			if q+1 < queries {
				g.ADDQ(outStride, at)
			}
		}
	}
	g.TESTQ(add, add)
	g.JZ(operand.LabelRef(store))
	each(func(sum reg.VecVirtual, m operand.Mem) { g.VADDPS(m, sum, sum) })
	g.Label(store)
	each(func(sum reg.VecVirtual, m operand.Mem) { g.VMOVUPS(sum, m) })
}

// promptSoftmax makes one step of an online softmax. There is no branch on what the
// scores are: a maximum that stays makes a factor of exp(0) = 1.
func promptSoftmax(g *lanes.Gen) {
	g.Begin("promptSoftmax", "func(scores *float32, seen *uint64, max, sum, out *float32, dim, rows int, scale float32)",
		"promptSoftmax"+g.Suffix+" takes rows of 64 scores, of which row r sees those in the bits of seen[r]. Times scale,",
		"less the new max[r], their exponentials replace them, 0 for those unseen; sum[r] and the dim numbers of",
		"out at r*dim, which are relative to the old max[r], shrink, and the exponentials are added to sum[r]. rows and",
		"dim are positive, dim is a multiple of 16.")
	scores, seen, largest, sum, out := g.Arg("scores"), g.Arg("seen"), g.Arg("max"), g.Arg("sum"), g.Arg("out")
	dim, rows := g.Arg("dim"), g.Arg("rows")
	scale := g.Splat("scale")
	e := newExp(g, expLeast, expMost)
	masked := g.ConstBits(math.Float32bits(float32(math.Inf(-1))))

	row := g.Fresh("row")
	g.Label(row)
	bits := g.GP64()
	g.MOVQ(operand.Mem{Base: seen}, bits)
	var k [4]reg.Register
	var x [4]reg.VecVirtual
	old, m := g.Vec(), g.Vec()
	g.VBROADCASTSS(operand.Mem{Base: largest}, old)
	g.VMOVAPS(old, m)
	for v := range x {
		k[v], x[v] = g.K(), g.Vec()
		g.KMOVW(bits.As32(), k[v])
		if v < 3 {
			g.SHRQ(operand.Imm(16), bits)
		}
		g.VMULPS(operand.Mem{Base: scores, Disp: 64 * v}, scale, x[v])
		g.VBLENDMPS(x[v], masked, k[v], x[v])
		g.VMAXPS(m, x[v], m) // a NaN in x gives m
	}
	top := g.FoldAll(m, g.VMAXPS)
	g.VMOVSS(top, operand.Mem{Base: largest})
	g.VBROADCASTSS(top, m)
	// Where all is -Inf, 0 is subtracted, so that -Inf and no NaN results.
	some := g.K()
	g.VCMPPS(operand.Imm(4), masked, m, some) // not equal
	g.VMOVAPS_Z(m, some, m)

	g.VSUBPS(m, old, old)
	shrink := e.exp(old)
	for v := range x {
		g.VSUBPS(m, x[v], x[v])
		y := e.exp(x[v])
		g.VMOVAPS_Z(y, k[v], y)
		g.VMOVUPS(y, operand.Mem{Base: scores, Disp: 64 * v})
		x[v] = y
	}
	g.VADDPS(x[1], x[0], x[0])
	g.VADDPS(x[3], x[2], x[2])
	g.VADDPS(x[2], x[0], x[0])
	total := g.FoldAll(x[0], g.VADDPS)
	g.VFMADD231SS(operand.Mem{Base: sum}, shrink.AsX(), total)
	g.VMOVSS(total, operand.Mem{Base: sum})
	left, o := g.GP64(), g.Fresh("shrink")
	g.MOVQ(dim, left)
	g.Label(o)
	y := g.Vec()
	g.VMULPS(operand.Mem{Base: out}, shrink, y)
	g.VMOVUPS(y, operand.Mem{Base: out})
	g.ADDQ(operand.Imm(64), out)
	g.SUBQ(operand.Imm(16), left)
	g.JNZ(operand.LabelRef(o))

	for _, r := range []reg.Register{largest, sum} {
		g.ADDQ(operand.Imm(4), r)
	}
	g.ADDQ(operand.Imm(8), seen)
	g.ADDQ(operand.I32(scoreStride), scores)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef(row))
	g.End()
}

// transposeBlock works on 16 × 16 numbers in registers.
func transposeBlock(g *lanes.Gen) {
	g.Begin("transposeBlock", "func(dst, src *float32, dim, rows int)",
		"transposeBlock"+g.Suffix+" sets dst[i*64+p] = src[p*dim+i] for p in [0,rows), i in [0,dim). rows, at most 64,",
		"and dim are multiples of 16 and positive.")
	dst, src, dim, rows := g.Arg("dst"), g.Arg("src"), g.Arg("dim"), g.Arg("rows")
	stride := g.GP64()
	g.MOVQ(dim, stride)
	g.SHLQ(operand.Imm(2), stride)
	band, tile := g.Fresh("band"), g.Fresh("tile")
	g.Label(band)
	left, to := g.GP64(), g.GP64()
	g.MOVQ(dim, left)
	g.MOVQ(dst, to)
	g.Label(tile)
	at := g.GP64()
	g.MOVQ(src, at)
	var v [16]reg.VecVirtual
	for i := range v {
		v[i] = g.LoadF32(operand.Mem{Base: at}, nil)
		g.ADDQ(stride, at)
	}
	for i, z := range transpose16(g, v) {
		g.VMOVUPS(z, operand.Mem{Base: to, Disp: scoreStride * i})
	}
	g.ADDQ(operand.I32(16*scoreStride), to)
	g.ADDQ(operand.Imm(64), src)
	g.SUBQ(operand.Imm(16), left)
	g.JNZ(operand.LabelRef(tile))
	// src has gone one row on; fifteen more make the next band.
	next := g.GP64()
	g.MOVQ(stride, next)
	g.SHLQ(operand.Imm(4), next)
	g.SUBQ(stride, next)
	g.ADDQ(next, src)
	g.ADDQ(operand.Imm(64), dst)
	g.SUBQ(operand.Imm(16), rows)
	g.JNZ(operand.LabelRef(band))
	g.End()
}

// transpose16 returns the columns of 16 rows.
func transpose16(g *lanes.Gen, v [16]reg.VecVirtual) (out [16]reg.VecVirtual) {
	two := func(a, b reg.VecVirtual, low, high func(...operand.Op)) (lo, hi reg.VecVirtual) {
		lo, hi = g.Vec(), g.Vec()
		low(b, a, lo)
		high(b, a, hi)
		return lo, hi
	}
	shuffle := func(imm uint64) func(...operand.Op) {
		return func(ops ...operand.Op) { g.VSHUFF32X4(operand.Imm(imm), ops[0], ops[1], ops[2]) }
	}
	// Within 128-bit lanes 4 × 4: t[4i+c] then has, in lane l, column 4l+c of rows 4i to 4i+3.
	var t [16]reg.VecVirtual
	for i := 0; i < 16; i += 4 {
		a0, a1 := two(v[i], v[i+1], g.VUNPCKLPS, g.VUNPCKHPS)
		b0, b1 := two(v[i+2], v[i+3], g.VUNPCKLPS, g.VUNPCKHPS)
		t[i], t[i+1] = two(a0, b0, g.VUNPCKLPD, g.VUNPCKHPD)
		t[i+2], t[i+3] = two(a1, b1, g.VUNPCKLPD, g.VUNPCKHPD)
	}
	// Then the lanes, for each c.
	even, odd := shuffle(0x88), shuffle(0xdd)
	for c := range 4 {
		a0, a1 := two(t[c], t[4+c], even, odd)
		b0, b1 := two(t[8+c], t[12+c], even, odd)
		out[c], out[8+c] = two(a0, b0, even, odd)
		out[4+c], out[12+c] = two(a1, b1, even, odd)
	}
	return out
}
