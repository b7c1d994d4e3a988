package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// tiles256 are the numbers of tokens multiplied side by side with 16 rows: 5
// use 10 of the 16 registers for sums and leave 5 for operands.
var tiles256 = []int{5, 2, 1}

func gemm256() {
	matMul256("Folded", true)
	matMul256("Grouped", false)
}

// matMul256 is matMul512 for AVX2: 16 rows at a time in two vectors of pairs of
// columns each 8 rows, VPMADDWD and VPADDD in place of VPDPWSSD.
func matMul256(kind string, folded bool) {
	name := "matMul" + kind + "I16AVX2"
	TEXT(name, attr.NOSPLIT, "func(to, from *float32, toStep, fromStep int, p *int16, q *int16, scale, sum *float32, tokens, pairs, flushes, mins int)")
	Pragma("noescape")
	Doc(name+" sets to, 32 numbers every toStep bytes, to those of from, every fromStep bytes,",
		"plus the product of p with one chunk: q (tokens, 256), scale (tokens), sum (tokens, mins).",
		"int32 sums are flushed after pairs pairs of columns, flushes times; pairs is a multiple of 4,",
		"mins is 0, 8 or 16.")
	to := Load(Param("to"), GP64()).(reg.GPVirtual)
	from := Load(Param("from"), GP64()).(reg.GPVirtual)
	panel := Load(Param("p"), GP64()).(reg.GPVirtual)
	q := Load(Param("q"), GP64()).(reg.GPVirtual)
	scale := Load(Param("scale"), GP64()).(reg.GPVirtual)
	sum := Load(Param("sum"), GP64()).(reg.GPVirtual)
	tokens := Load(Param("tokens"), GP64()).(reg.GPVirtual)
	acc := make([][2]reg.VecVirtual, tiles256[0]) // (tokens, 2 × 8 rows)
	for t := range acc {
		acc[t] = [2]reg.VecVirtual{YMM(), YMM()}
	}
	for i, n := range tiles256 {
		next := "done"
		if i+1 < len(tiles256) {
			next = fmt.Sprintf("tile%d", tiles256[i+1])
		}
		Label(fmt.Sprintf("tile%d", n))
		CMPQ(tokens, number(n))
		JLT(LabelRef(next))
		for half := range 2 {
			tile256(acc[:n], folded, half, to, from, panel, q, scale, sum)
		}
		for i, at := range []reg.GPVirtual{to, from} {
			steps := Load(Param([]string{"toStep", "fromStep"}[i]), GP64())
			IMUL3Q(Imm(uint64(n)), steps, steps)
			ADDQ(steps, at)
		}
		ADDQ(number(n*512), q)
		ADDQ(number(n*4), scale)
		bytes := Load(Param("mins"), GP64())
		IMUL3Q(Imm(uint64(4*n)), bytes, bytes)
		ADDQ(bytes, sum)
		SUBQ(number(n), tokens)
		JMP(LabelRef(fmt.Sprintf("tile%d", n)))
	}
	Label("done")
	VZEROUPPER()
	RET()
}

func tile256(acc [][2]reg.VecVirtual, folded bool, half int, to, from, panel, q, scale, sum reg.GPVirtual) {
	label := func(s string) string { return fmt.Sprintf("%s%dhalf%d", s, len(acc), half) }
	each := func(f func(t, v int, y reg.VecVirtual, saved Mem)) {
		for t := range acc {
			for v, y := range acc[t] {
				f(t, v, y, Mem{Base: panel, Disp: panelAcc + 128*t + 32*v})
			}
		}
	}
	at := func(base reg.GPVirtual, disp, v int) Mem { return Mem{Base: base, Disp: disp + 64*half + 32*v} }
	zero := YMM()
	VPXOR(zero, zero, zero)
	each(func(t, v int, y reg.VecVirtual, saved Mem) { VMOVUPS(zero, saved) })

	weights, x, d := GP64(), GP64(), GP64()
	MOVQ(panel, weights)
	MOVQ(q, x)
	LEAQ(Mem{Base: panel, Disp: panelD}, d)
	flushes := Load(Param("flushes"), GP64()).(reg.GPVirtual)
	Label(label("flush"))
	each(func(t, v int, y reg.VecVirtual, saved Mem) { VPXOR(y, y, y) })
	pairs := Load(Param("pairs"), GP64()).(reg.GPVirtual)
	Label(label("pair"))
	const unroll = 4
	for k := range unroll {
		w := [2]reg.VecVirtual{YMM(), YMM()}
		for v := range w {
			VMOVDQU(at(weights, panelStep*k, v), w[v])
		}
		for t := range acc {
			b := YMM()
			VPBROADCASTD(Mem{Base: x, Disp: 512*t + 4*k}, b)
			for v := range w {
				p := YMM()
				VPMADDWD(b, w[v], p)
				VPADDD(p, acc[t][v], acc[t][v])
			}
		}
	}
	ADDQ(number(panelStep*unroll), weights)
	ADDQ(number(4*unroll), x)
	SUBQ(number(unroll), pairs)
	JNZ(LabelRef(label("pair")))

	each(func(t, v int, y reg.VecVirtual, saved Mem) {
		VCVTDQ2PS(y, y)
		if folded {
			VADDPS(saved, y, y)
		} else {
			s := YMM()
			VMOVUPS(saved, s)
			VFMADD132PS(at(d, 0, v), s, y) // y·d + s
		}
		VMOVUPS(y, saved)
	})
	if !folded {
		ADDQ(number(128), d)
	}
	DECQ(flushes)
	JNZ(LabelRef(label("flush")))

	step, row := Load(Param("fromStep"), GP64()), GP64()
	MOVQ(from, row)
	for t := range acc {
		s := YMM()
		VBROADCASTSS(Mem{Base: scale, Disp: 4 * t}, s)
		for v, y := range acc[t] {
			if folded {
				VMULPS(at(d, 0, v), y, y)
			}
			VFMADD213PS(at(row, 0, v), s, y)
		}
		ADDQ(step, row)
	}

	mins := Load(Param("mins"), GP64()).(reg.GPVirtual)
	SHLQ(Imm(2), mins)
	JZ(LabelRef(label("nomin")))
	left, from, column := GP64(), GP64(), GP64()
	MOVQ(mins, left)
	LEAQ(Mem{Base: panel, Disp: panelMin}, from)
	MOVQ(sum, column)
	Label(label("min"))
	m := [2]reg.VecVirtual{YMM(), YMM()}
	for v := range m {
		VMOVUPS(at(from, 0, v), m[v])
	}
	row = GP64()
	MOVQ(column, row)
	for t := range acc {
		s := YMM()
		VBROADCASTSS(Mem{Base: row}, s)
		ADDQ(mins, row)
		for v, y := range acc[t] {
			VFNMADD231PS(m[v], s, y)
		}
	}
	ADDQ(Imm(4), column)
	ADDQ(number(128), from)
	SUBQ(Imm(4), left)
	JNZ(LabelRef(label("min")))
	Label(label("nomin"))
	step, row = Load(Param("toStep"), GP64()), GP64()
	MOVQ(to, row)
	for t := range acc {
		for v, y := range acc[t] {
			VMOVUPS(y, at(row, 0, v))
		}
		ADDQ(step, row)
	}
}
