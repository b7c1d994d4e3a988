package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// Shapes of the register tiles. AVX-512 has 32 registers, AVX2 16.
func tileTokens(g *lanes.Gen) int {
	if g.Wide {
		return 6 // 24 sums, 4 rows, tokens one after the other
	}
	return 3 // 12 sums, 3 tokens, rows one after the other
}

func products(g *lanes.Gen) {
	for t := 1; t <= tileTokens(g); t++ {
		tile(g, t)
	}
	for q := 1; q <= 6; q++ {
		weighted(g, q)
	}
}

// tile multiplies rows of w, four at a time, with a fixed number of tokens,
// lanes along k. Each sum is one register whatever the number of tokens, folded
// in the same way, so the tiles agree to the last bit.
func tile(g *lanes.Gen, tokens int) {
	name := fmt.Sprintf("tile%d", tokens)
	g.Begin(name, "func(acc *float32, accStride int, w *float32, wStride, quads int, x *float32, xStride, n int)",
		fmt.Sprintf("%s%s does acc[t*accStride+r] += sum over k in [0,n) of w[r*wStride+k]*x[t*xStride+k] for r in [0,4*quads), t in [0,%d).", name, g.Suffix, tokens),
		"quads and n are positive.")
	acc, accStride := g.Arg("acc"), g.Arg("accStride")
	w, wStride, quads := g.Arg("w"), g.Arg("wStride"), g.Arg("quads")
	x, xStride := g.Arg("x"), g.Arg("xStride")
	for _, r := range []reg.Register{accStride, wStride, xStride} {
		g.SHLQ(operand.Imm(2), r)
	}
	wStride3, x3, left := g.GP64(), g.GP64(), g.GP64()
	g.LEAQ(operand.Mem{Base: wStride, Index: wStride, Scale: 2}, wStride3)

	row := g.Fresh("rows")
	g.Label(row)
	sums := make([][4]reg.VecVirtual, tokens)
	for t := range sums {
		for r := range 4 {
			sums[t][r] = g.Zero()
		}
	}
	// Tokens 0 to 2 hang on x, 3 to 5 on x3: the addressing modes reach strides 0, 1 and 2.
	if tokens > 3 {
		g.LEAQ(operand.Mem{Base: xStride, Index: xStride, Scale: 2}, x3)
		g.ADDQ(x, x3)
	}
	token := func(t int) operand.Mem { return strided([]reg.Register{x, x3}[t/3], xStride, t%3) }
	weight := func(r int) operand.Mem {
		if r == 3 {
			return operand.Mem{Base: w, Index: wStride3, Scale: 1}
		}
		return strided(w, wStride, r)
	}
	step := func(t *lanes.Tail) {
		if g.Wide {
			multiplyRowsHeld(g, sums, weight, token, t)
		} else {
			multiplyTokensHeld(g, sums, weight, token, t)
		}
	}
	n := g.Arg("n")
	g.MOVQ(n, left)
	tail, done := g.Fresh("tail"), g.Fresh("fold")
	g.SUBQ(operand.I32(g.L), left)
	g.JLT(operand.LabelRef(tail))
	loop := g.Fresh("loop")
	g.Label(loop)
	step(nil)
	g.ADDQ(operand.I32(4*g.L), w)
	g.ADDQ(operand.I32(4*g.L), x)
	if tokens > 3 {
		g.ADDQ(operand.I32(4*g.L), x3)
	}
	g.SUBQ(operand.I32(g.L), left)
	g.JGE(operand.LabelRef(loop))
	g.Label(tail)
	g.ADDQ(operand.I32(g.L), left)
	g.JZ(operand.LabelRef(done))
	step(g.NewTail(left))
	g.Label(done)

	// Back to the start of the tokens, on to the next four rows.
	g.SUBQ(left, n)
	g.SHLQ(operand.Imm(2), n)
	g.SUBQ(n, x)
	g.SUBQ(n, w)
	g.LEAQ(operand.Mem{Base: w, Index: wStride, Scale: 4}, w)
	out := g.GP64()
	g.MOVQ(acc, out)
	for t := range sums {
		s := g.FoldRows(sums[t][:])
		g.VADDPS(operand.Mem{Base: out}, s, s)
		g.VMOVUPS(s, operand.Mem{Base: out})
		if t+1 < tokens {
			g.ADDQ(accStride, out)
		}
	}
	g.ADDQ(operand.Imm(16), acc)
	g.DECQ(quads)
	g.JNZ(operand.LabelRef(row))
	g.End()
}

// strided addresses base + times·stride for times 0, 1, 2; stride is in bytes.
func strided(base, stride reg.Register, times int) operand.Mem {
	m := operand.Mem{Base: base}
	if times > 0 {
		m.Index, m.Scale = stride, uint8(times)
	}
	return m
}

func multiplyRowsHeld(g *lanes.Gen, sums [][4]reg.VecVirtual, weight, token func(int) operand.Mem, t *lanes.Tail) {
	var rows [4]reg.VecVirtual
	for r := range rows {
		rows[r] = g.LoadF32(weight(r), t)
	}
	for i := range sums {
		v := g.LoadF32(token(i), t)
		for r := range rows {
			g.VFMADD231PS(v, rows[r], sums[i][r])
		}
	}
}

func multiplyTokensHeld(g *lanes.Gen, sums [][4]reg.VecVirtual, weight, token func(int) operand.Mem, t *lanes.Tail) {
	xs := make([]reg.VecVirtual, len(sums))
	for i := range sums {
		xs[i] = g.LoadF32(token(i), t)
	}
	for r := range 4 {
		v := g.LoadF32(weight(r), t)
		for i := range sums {
			g.VFMADD231PS(xs[i], v, sums[i][r])
		}
	}
}

// weighted adds weighted rows of v to a fixed number of queries' sums. The sums
// of a stretch of dim stay in registers while the positions go by; each is a
// single chain of fused multiply-adds, so grouping queries changes no bit.
func weighted(g *lanes.Gen, queries int) {
	name := fmt.Sprintf("weighted%d", queries)
	g.Begin(name, "func(acc, weight, v *float32, n, dim int)",
		fmt.Sprintf("%s%s does acc[q*dim+i] += weight[q*64+p]*v[p*dim+i] for q in [0,%d), i in [0,dim), p in [0,n) ascending, rounding once.", name, g.Suffix, queries),
		"n is positive.")
	acc, v, dim := g.Arg("acc"), g.Arg("v"), g.Arg("dim")
	left, stride := g.GP64(), g.GP64()
	g.MOVQ(dim, left)
	g.MOVQ(dim, stride)
	g.SHLQ(operand.Imm(2), stride)
	chunk := 2
	if g.Wide {
		chunk = 4
	}
	done := g.Fresh("done")
	for _, vecs := range []int{chunk, 1} {
		next, loop := g.Fresh("next"), g.Fresh("chunk")
		lanes := vecs * g.L
		g.SUBQ(operand.I32(lanes), left)
		g.JLT(operand.LabelRef(next))
		g.Label(loop)
		weightedChunk(g, queries, vecs, acc, v, stride, nil)
		g.ADDQ(operand.I32(4*lanes), acc)
		g.ADDQ(operand.I32(4*lanes), v)
		g.SUBQ(operand.I32(lanes), left)
		g.JGE(operand.LabelRef(loop))
		g.Label(next)
		g.ADDQ(operand.I32(lanes), left)
	}
	g.TESTQ(left, left)
	g.JZ(operand.LabelRef(done))
	weightedChunk(g, queries, 1, acc, v, stride, g.NewTail(left))
	g.Label(done)
	g.End()
}

func weightedChunk(g *lanes.Gen, queries, vecs int, acc, v, stride reg.Register, t *lanes.Tail) {
	sums := make([][]reg.VecVirtual, queries)
	at := g.GP64()
	g.MOVQ(acc, at)
	each := func(f func(sum reg.VecVirtual, m operand.Mem)) {
		for q := range sums {
			for i := range vecs {
				f(sums[q][i], operand.Mem{Base: at, Disp: 4 * g.L * i})
			}
			if q+1 < queries {
				g.ADDQ(stride, at)
			}
		}
	}
	for q := range sums {
		sums[q] = make([]reg.VecVirtual, vecs)
		for i := range vecs {
			sums[q][i] = g.Vec()
		}
	}
	each(func(sum reg.VecVirtual, m operand.Mem) { g.LoadInto(sum, m, t) })
	weight, row, n := g.Arg("weight"), g.GP64(), g.Arg("n")
	g.MOVQ(v, row)
	loop := g.Fresh("position")
	g.Label(loop)
	vs := make([]reg.VecVirtual, vecs)
	for i := range vs {
		vs[i] = g.LoadF32(operand.Mem{Base: row, Disp: 4 * g.L * i}, t)
	}
	for q := range sums {
		b := g.Vec()
		g.VBROADCASTSS(operand.Mem{Base: weight, Disp: 4 * 64 * q}, b)
		for i := range vs {
			g.VFMADD231PS(vs[i], b, sums[q][i])
		}
	}
	g.ADDQ(stride, row)
	g.ADDQ(operand.Imm(4), weight)
	g.DECQ(n)
	g.JNZ(operand.LabelRef(loop))
	g.MOVQ(acc, at)
	each(func(sum reg.VecVirtual, m operand.Mem) { g.StoreF32(sum, m, t) })
}

// peak keeps as many independent sums as hide the latency of multiply-add.
func peak(g *lanes.Gen) {
	const sums = 12
	g.Begin("peak", "func(iterations int) float32",
		fmt.Sprintf("peak%s does %d vectors of independent fused multiply-adds an iteration; iterations is positive.", g.Suffix, sums))
	n := g.Arg("iterations")
	factor, term := g.Const(0.999), g.Const(0.001)
	var s [sums]reg.VecVirtual
	for i := range s {
		s[i] = g.Const(float64(i + 1))
	}
	loop := g.Fresh("loop")
	g.Label(loop)
	for i := range s {
		g.VFMADD213PS(term, factor, s[i])
	}
	g.DECQ(n)
	g.JNZ(operand.LabelRef(loop))
	for i := 1; i < sums; i++ {
		g.VADDPS(s[i], s[0], s[0])
	}
	g.Store(g.FoldAll(s[0], g.VADDPS), g.ReturnIndex(0))
	g.End()
}

func pause(c *build.Context) {
	c.Function("pause")
	c.Attributes(build.NOSPLIT)
	c.Doc("pause executes the PAUSE instruction once.")
	c.SignatureExpr("func()")
	c.PAUSE()
	c.RET()
}

func prefetchPages(c *build.Context) {
	c.Function("prefetchPages")
	c.Attributes(build.NOSPLIT)
	c.Pragma("noescape")
	c.Doc("prefetchPages asks for the first line of each page of 4 KiB that begins in the n bytes from p on, which need not exist.")
	c.SignatureExpr("func(p *byte, n int)")
	p, end := c.Load(c.Param("p"), c.GP64()), c.Load(c.Param("n"), c.GP64())
	c.ADDQ(p, end)
	c.ADDQ(operand.I32(4095), p)
	c.ANDQ(operand.I32(-4096), p)
	c.JMP(operand.LabelRef("check"))
	c.Label("page")
	c.PREFETCHT0(operand.Mem{Base: p})
	c.ADDQ(operand.I32(4096), p)
	c.Label("check")
	c.CMPQ(p, end)
	c.JCS(operand.LabelRef("page"))
	c.RET()
}
