package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

func nonlinear(g *lanes.Gen) {
	sumSquares(g)
	normScale(g)
	maximum(g)
	expSub(g)
	siluMul(g)
	geluMul(g)
	softCap(g)
}

// expo holds the constants of exp in registers.
//
// exp(x) = 2ⁿ·exp(r), n the integer nearest to x/ln 2, r = x - n·ln 2 in two
// steps (Cody and Waite) so that r is right to its last bits. On |r| ≤ ln 2 / 2
// the Taylor polynomial of degree 7 leaves r⁸/8! < 5.3e-9 of the value, a
// tenth of the rounding error.
type expo struct {
	g                *lanes.Gen
	log2e, hi, lo    reg.VecVirtual
	most, least, one reg.VecVirtual
}

// Splitting of ln 2: the upper part has 9 trailing zero bits, so n·ln2Hi is exact for |n| < 512.
const (
	ln2Hi = 0.693359375
	ln2Lo = -2.12194440054690583e-4
)

// newExp clamps arguments to [least, most]; beyond both ends the result no
// longer changes (0, or +Inf).
func newExp(g *lanes.Gen, least, most float64) *expo {
	return &expo{g, g.Const(math.Log2E), g.Const(ln2Hi), g.Const(ln2Lo), g.Const(most), g.Const(least), g.Const(1)}
}

// reduce clamps x, keeping NaN, and returns n (as float32) and r. x is overwritten.
func (e *expo) reduce(x ...reg.VecVirtual) (n, r []reg.VecVirtual) {
	g := e.g
	n = make([]reg.VecVirtual, len(x))
	each := func(do func(i int)) {
		for i := range x {
			do(i)
		}
	}
	// MIN and MAX return their second source if either is NaN; here that is x.
	each(func(i int) { g.VMINPS(x[i], e.most, x[i]) })
	each(func(i int) { g.VMAXPS(x[i], e.least, x[i]) })
	each(func(i int) { n[i] = g.Vec(); g.VMULPS(e.log2e, x[i], n[i]) })
	if g.Wide {
		each(func(i int) { g.VRNDSCALEPS(operand.Imm(8), n[i], n[i]) }) // to nearest even, no exception
	} else {
		each(func(i int) { g.VROUNDPS(operand.Imm(8), n[i], n[i]) })
	}
	each(func(i int) { g.VFNMADD231PS(e.hi, n[i], x[i]) })
	each(func(i int) { g.VFNMADD231PS(e.lo, n[i], x[i]) })
	return n, x
}

// horner returns the sum of r^(k-from)/k! over k in [from,7].
func (e *expo) horner(r []reg.VecVirtual, from int) []reg.VecVirtual {
	g := e.g
	fact := [...]float64{1, 1, 2, 6, 24, 120, 720, 5040}
	p := make([]reg.VecVirtual, len(r))
	for i := range r {
		p[i] = g.Const(1 / fact[7])
	}
	for k := 6; k >= from; k-- {
		c := g.Word(math.Float32bits(float32(1 / fact[k])))
		for i := range r {
			if g.Wide {
				g.VFMADD213PS_BCST(c, r[i], p[i])
				continue
			}
			v := g.YMM()
			g.VBROADCASTSS(c, v)
			g.VFMADD213PS(v, r[i], p[i])
		}
	}
	return p
}

// pow2 returns 2ⁿ for integral n in [-126, 127].
func (e *expo) pow2(n reg.VecVirtual) reg.VecVirtual {
	g := e.g
	v := g.Vec()
	g.VCVTPS2DQ(n, v)
	g.VPSLLD(operand.Imm(23), v, v)
	g.VPADDD(e.one, v, v) // the bits of 1 are the exponent's bias
	return v
}

// exp replaces x by exp(x).
func (e *expo) exp(x reg.VecVirtual) reg.VecVirtual { return e.exps(x)[0] }

// exps is exp for several vectors, instruction by instruction for all.
func (e *expo) exps(x ...reg.VecVirtual) []reg.VecVirtual {
	g := e.g
	n, r := e.reduce(x...)
	p := e.horner(r, 0)
	for i := range x {
		if g.Wide {
			g.VSCALEFPS(n[i], p[i], p[i]) // overflows and underflows as it should
			continue
		}
		// n reaches 128 and -150, beyond one float32 factor: 2ⁿ in two factors. The
		// first product is exact, so a subnormal result is rounded once.
		half := g.Vec()
		g.VMULPS(g.ConstBits(0x3f000000), n[i], half) // 0.5
		g.VROUNDPS(operand.Imm(9), half, half)        // down
		g.VSUBPS(half, n[i], n[i])
		g.VMULPS(e.pow2(half), p[i], p[i])
		g.VMULPS(e.pow2(n[i]), p[i], p[i])
	}
	return p
}

// Beyond these exp is 0 (below half the least subnormal) or +Inf in float32.
const (
	expLeast = -104.5
	expMost  = 89
)

func sumSquares(g *lanes.Gen) {
	g.Begin("sumSquares", "func(x []float32) float64",
		"sumSquares"+g.Suffix+" returns the sum of x[i]*x[i], in float64.")
	px, n := g.Ptr("x"), g.Len("x")
	sums := [4]reg.VecVirtual{g.Zero(), g.Zero(), g.Zero(), g.Zero()}
	g.Each(n, 2, func(u int, at lanes.At, t *lanes.Tail) {
		x := g.LoadF32(at.F32(px), t)
		hi := g.Vec()
		g.VCVTPS2PD(g.Upper(x), hi)
		lo := g.Vec()
		g.VCVTPS2PD(g.Lower(x), lo)
		g.VFMADD231PD(lo, lo, sums[2*u])
		g.VFMADD231PD(hi, hi, sums[2*u+1])
	})
	g.VADDPD(sums[2], sums[0], sums[0])
	g.VADDPD(sums[3], sums[1], sums[1])
	g.VADDPD(sums[1], sums[0], sums[0])
	g.Store(foldDoubles(g, sums[0]), g.ReturnIndex(0))
	g.End()
}

func foldDoubles(g *lanes.Gen, v reg.VecVirtual) reg.Register {
	x := g.Fold(v, g.VADDPD)
	s := g.XMM()
	g.VPERMILPD(operand.Imm(1), x, s)
	g.VADDPD(s, x, x)
	return x
}

func normScale(g *lanes.Gen) {
	g.Begin("normScale", "func(dst, x, weight []float32, s float32)",
		"normScale"+g.Suffix+" does dst[i] = (x[i]*s)*weight[i] for i in [0,len(dst)); x and weight are at least as long and may be dst.")
	d, n, px, pw := g.Ptr("dst"), g.Len("dst"), g.Ptr("x"), g.Ptr("weight")
	s := g.Splat("s")
	g.Each(n, 2, func(_ int, at lanes.At, t *lanes.Tail) {
		x, w := g.LoadF32(at.F32(px), t), g.LoadF32(at.F32(pw), t)
		g.VMULPS(s, x, x)
		g.VMULPS(w, x, x)
		g.StoreF32(x, at.F32(d), t)
	})
	g.End()
}

func maximum(g *lanes.Gen) {
	g.Begin("max", "func(x []float32) float32",
		"max"+g.Suffix+" returns the largest element, ignoring NaN; -Inf if there is none.")
	px, n := g.Ptr("x"), g.Len("x")
	best := g.ConstBits(math.Float32bits(float32(math.Inf(-1))))
	g.Each(n, 1, func(_ int, at lanes.At, t *lanes.Tail) {
		x := g.LoadF32(at.F32(px), t)
		g.TakeBeyond(x, best, t)
		g.VMAXPS(best, x, best) // a NaN in x gives best
	})
	g.Store(g.FoldAll(best, g.VMAXPS), g.ReturnIndex(0))
	g.End()
}

func expSub(g *lanes.Gen) {
	g.Begin("expSub", "func(x []float32, m float32) float32",
		"expSub"+g.Suffix+" does x[i] = exp(x[i]-m) and returns the sum of the results, summed in float64.")
	px, n := g.Ptr("x"), g.Len("x")
	m := g.Splat("m")
	e := newExp(g, expLeast, expMost)
	lo, hi := g.Zero(), g.Zero()
	g.Each(n, 1, func(_ int, at lanes.At, t *lanes.Tail) { expSubStep(g, e, px, m, lo, hi, at, t) })
	g.VADDPD(hi, lo, lo)
	s := foldDoubles(g, lo)
	g.VCVTSD2SS(s, s, s)
	g.Store(s, g.ReturnIndex(0))
	g.End()
}

// expSubStep replaces a vector by exp(x-m) and adds it, in float64, to lo and hi.
func expSubStep(g *lanes.Gen, e *expo, px reg.Register, m, lo, hi reg.VecVirtual, at lanes.At, t *lanes.Tail) {
	x := g.LoadF32(at.F32(px), t)
	g.VSUBPS(m, x, x)
	y := e.exp(x)
	g.StoreF32(y, at.F32(px), t)
	g.ClearBeyond(y, t)
	addDoubles(g, y, lo, hi)
}

// addDoubles adds the halves of y, in float64, to lo and hi.
func addDoubles(g *lanes.Gen, y, lo, hi reg.VecVirtual) {
	up := g.Vec()
	g.VCVTPS2PD(g.Upper(y), up)
	g.VADDPD(up, hi, hi)
	g.VCVTPS2PD(g.Lower(y), up)
	g.VADDPD(up, lo, lo)
}

func siluMul(g *lanes.Gen) {
	g.Begin("siluMul", "func(dst, gate, up []float32)",
		"siluMul"+g.Suffix+" does dst[i] = gate[i]/(1+exp(-gate[i]))*up[i] for i in [0,len(dst)); gate and up are at least as long and may be dst.")
	d, n, pg, pu := g.Ptr("dst"), g.Len("dst"), g.Ptr("gate"), g.Ptr("up")
	e := newExp(g, expLeast, expMost)
	sign := g.ConstBits(0x80000000)
	g.Each(n, 1, func(_ int, at lanes.At, t *lanes.Tail) {
		gate := g.LoadF32(at.F32(pg), t)
		x := g.Vec()
		g.VXORPS(sign, gate, x)
		y := e.exp(x)
		g.VADDPS(e.one, y, y)
		g.VDIVPS(y, gate, y)
		g.VMULPS(g.LoadF32(at.F32(pu), t), y, y)
		g.StoreF32(y, at.F32(d), t)
	})
	g.End()
}

// geluMul uses x/2·(1+tanh u) = x/(1+exp(-2u)), which does not cancel.
func geluMul(g *lanes.Gen) {
	g.Begin("geluMul", "func(dst, gate, up []float32)",
		"geluMul"+g.Suffix+" does dst[i] = x/(1+exp(-2u))*up[i], x = gate[i], u = sqrt(2/pi)*(x+0.044715*x*x*x), for i in [0,len(dst)); gate and up are at least as long and may be dst.")
	d, n, pg, pu := g.Ptr("dst"), g.Len("dst"), g.Ptr("gate"), g.Ptr("up")
	e := newExp(g, expLeast, expMost)
	const c = -2 * 0.79788456080286535587989211986876
	linear, cubic := g.Const(c), g.Const(c*0.044715)
	g.Each(n, 1, func(_ int, at lanes.At, t *lanes.Tail) {
		gate := g.LoadF32(at.F32(pg), t)
		u := g.Vec()
		g.VMULPS(gate, gate, u)
		v := g.Vec()
		g.VMULPS(cubic, u, v)
		g.VADDPS(linear, v, v)
		g.VMULPS(gate, v, v)
		y := e.exp(v)
		g.VADDPS(e.one, y, y)
		g.VDIVPS(y, gate, y)
		g.VMULPS(g.LoadF32(at.F32(pu), t), y, y)
		g.StoreF32(y, at.F32(d), t)
	})
	g.End()
}

// softCap takes tanh(u) = m/(m+2) with m = exp(2u)-1 formed without
// cancellation: m = 2ⁿ·(exp(r)-1) + (2ⁿ-1).
func softCap(g *lanes.Gen) {
	g.Begin("softCap", "func(x []float32, s, limit float32)",
		"softCap"+g.Suffix+" does x[i] = limit*tanh(s*x[i]).")
	px, n := g.Ptr("x"), g.Len("x")
	s, limit := g.Splat("s"), g.Splat("limit")
	g.VADDPS(s, s, s)
	// tanh is ±1 in float32 beyond |2u| = 19.
	e := newExp(g, -30, 30)
	g.Each(n, 1, func(_ int, at lanes.At, t *lanes.Tail) {
		x := g.LoadF32(at.F32(px), t)
		g.VMULPS(s, x, x)
		ks, rs := e.reduce(x)
		p, k, r := e.horner(rs, 1)[0], ks[0], rs[0]
		g.VMULPS(r, p, p)
		two := e.pow2(k)
		m := g.Vec()
		g.VSUBPS(e.one, two, m)
		g.VFMADD231PS(two, p, m)
		g.VADDPS(e.one, m, two)
		g.VADDPS(e.one, two, two)
		g.VDIVPS(two, m, m)
		g.VMULPS(limit, m, m)
		g.StoreF32(m, at.F32(px), t)
	})
	g.End()
}
