package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

func vectors(g *lanes.Gen) {
	dot(g, "dotF32", "b []float32", func(b reg.Register, at lanes.At, t *lanes.Tail) reg.VecVirtual {
		return g.LoadF32(at.F32(b), t)
	})
	dot(g, "dotF16", "b []uint16", func(b reg.Register, at lanes.At, t *lanes.Tail) reg.VecVirtual {
		return g.LoadF16(at.F16(b), t)
	})
	axpy(g, "axpyF32", "x []float32", func(x reg.Register, at lanes.At, t *lanes.Tail) reg.VecVirtual {
		return g.LoadF32(at.F32(x), t)
	})
	axpy(g, "axpyF16", "x []uint16", func(x reg.Register, at lanes.At, t *lanes.Tail) reg.VecVirtual {
		return g.LoadF16(at.F16(x), t)
	})
	elementwise(g, "add", "dst[i] = a[i] + b[i]", g.VADDPS)
	elementwise(g, "mul", "dst[i] = a[i] * b[i]", g.VMULPS)
	scale(g)
	convert(g)
}

// dot sums in four registers, so that additions need not wait for each other.
func dot(g *lanes.Gen, name, b string, load func(reg.Register, lanes.At, *lanes.Tail) reg.VecVirtual) {
	g.Begin(name, "func(a []float32, "+b+") float32",
		name+g.Suffix+" returns the sum of a[i]*b[i] for i in [0,len(a)); b is at least as long.")
	pa, n, pb := g.Ptr("a"), g.Len("a"), g.Ptr("b")
	var sums [4]reg.VecVirtual
	for i := range sums {
		sums[i] = g.Zero()
	}
	g.Each(n, 4, func(u int, at lanes.At, t *lanes.Tail) {
		y := load(pb, at, t)
		x := g.LoadF32(at.F32(pa), t)
		g.VFMADD231PS(x, y, sums[u])
	})
	g.VADDPS(sums[2], sums[0], sums[0])
	g.VADDPS(sums[3], sums[1], sums[1])
	g.VADDPS(sums[1], sums[0], sums[0])
	g.Store(g.FoldAll(sums[0], g.VADDPS), g.ReturnIndex(0))
	g.End()
}

func axpy(g *lanes.Gen, name, x string, load func(reg.Register, lanes.At, *lanes.Tail) reg.VecVirtual) {
	g.Begin(name, "func(y []float32, a float32, "+x+")",
		name+g.Suffix+" does y[i] += a*x[i], rounding once, for i in [0,len(y)); x is at least as long.")
	py, n, px := g.Ptr("y"), g.Len("y"), g.Ptr("x")
	a := g.Splat("a")
	g.Each(n, 2, func(_ int, at lanes.At, t *lanes.Tail) {
		v := load(px, at, t)
		y := g.LoadF32(at.F32(py), t)
		g.VFMADD231PS(v, a, y)
		g.StoreF32(y, at.F32(py), t)
	})
	g.End()
}

func elementwise(g *lanes.Gen, name, loop string, op func(...operand.Op)) {
	g.Begin(name, "func(dst, a, b []float32)",
		name+g.Suffix+" does "+loop+" for i in [0,len(dst)); a and b are at least as long and may be dst.")
	d, n, pa, pb := g.Ptr("dst"), g.Len("dst"), g.Ptr("a"), g.Ptr("b")
	g.Each(n, 2, func(_ int, at lanes.At, t *lanes.Tail) {
		x, y := g.LoadF32(at.F32(pa), t), g.LoadF32(at.F32(pb), t)
		op(y, x, x)
		g.StoreF32(x, at.F32(d), t)
	})
	g.End()
}

func scale(g *lanes.Gen) {
	g.Begin("scale", "func(dst, x []float32, s float32)",
		"scale"+g.Suffix+" does dst[i] = s*x[i] for i in [0,len(dst)); x is at least as long and may be dst.")
	d, n, px := g.Ptr("dst"), g.Len("dst"), g.Ptr("x")
	s := g.Splat("s")
	g.Each(n, 2, func(_ int, at lanes.At, t *lanes.Tail) {
		x := g.LoadF32(at.F32(px), t)
		g.VMULPS(s, x, x)
		g.StoreF32(x, at.F32(d), t)
	})
	g.End()
}

func convert(g *lanes.Gen) {
	g.Begin("f32ToF16", "func(dst []uint16, src []float32)",
		"f32ToF16"+g.Suffix+" rounds len(dst) values to halves, to nearest even; src is as long.")
	d, n, s := g.Ptr("dst"), g.Len("dst"), g.Ptr("src")
	g.Each(n, 2, func(_ int, at lanes.At, t *lanes.Tail) {
		g.StoreF16(g.LoadF32(at.F32(s), t), at.F16(d), t)
	})
	g.End()

	g.Begin("f16ToF32", "func(dst []float32, src []uint16)",
		"f16ToF32"+g.Suffix+" widens len(dst) halves; src is as long.")
	d, n, s = g.Ptr("dst"), g.Len("dst"), g.Ptr("src")
	g.Each(n, 2, func(_ int, at lanes.At, t *lanes.Tail) {
		g.StoreF32(g.LoadF16(at.F16(s), t), at.F32(d), t)
	})
	g.End()
}
