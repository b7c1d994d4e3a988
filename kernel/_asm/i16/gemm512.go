package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets in i16Panel; package kernel asserts them.
const (
	panelD      = 16384 // d [8][32]float32
	panelMin    = 17408 // min [16][32]float32
	panelAcc    = 19456 // acc [384]float32
	panelRows   = 20992 // rows [16][256]int16
	panelFloats = 29184 // floats [16][16]float32
	panelStep   = 128   // bytes of one pair of columns, 32 rows
)

// tiles512 are the numbers of tokens multiplied side by side. 12 tokens × 32
// rows use 24 registers for sums; the rest is for what is left over at the end.
var tiles512 = []int{12, 8, 4, 2, 1}

func gemm512() {
	matMul512("Folded", true)
	matMul512("Grouped", false)
	fetch()
}

// fetch writes the fetching of weights into the first-level cache, which any CPU does.
func fetch() {
	TEXT("fetch", attr.NOSPLIT, "func(p *byte, rowBytes, rows, bytes int)")
	Pragma("noescape")
	Doc("fetch asks for bytes from p on of each of some rows, rowBytes apart; rows and bytes are at", "least 1.")
	p := Load(Param("p"), GP64()).(reg.GPVirtual)
	rowBytes := Load(Param("rowBytes"), GP64()).(reg.GPVirtual)
	rows := Load(Param("rows"), GP64()).(reg.GPVirtual)
	bytes := Load(Param("bytes"), GP64()).(reg.GPVirtual)
	line, left := GP64(), GP64()
	Label("row")
	// Any row of n bytes lies in the lines of its first, each 64th, and its last byte.
	PREFETCHT0(Mem{Base: p, Index: bytes, Scale: 1, Disp: -1})
	MOVQ(p, line)
	MOVQ(bytes, left)
	Label("line")
	PREFETCHT0(Mem{Base: line})
	ADDQ(Imm(64), line)
	SUBQ(Imm(64), left)
	JG(LabelRef("line"))
	ADDQ(rowBytes, p)
	DECQ(rows)
	JNZ(LabelRef("row"))
	RET()
}

// matMul512 writes the product of a panel with any number of tokens.
//
// Each step multiplies two vectors of weights (a pair of columns of 16 rows
// each) with the same pair of columns of every token, broadcast: 24 products
// for 14 loads, which keeps both multipliers busy. After flush columns the
// int32 sums are converted and added to acc, in the panel; at the end of the
// chunk acc, scaled, is added to from, the minimums are subtracted, and the result
// goes to to.
func matMul512(kind string, folded bool) {
	name := "matMul" + kind + "I16AVX512"
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
	mins := Load(Param("mins"), GP64()).(reg.GPVirtual)
	SHLQ(Imm(2), mins) // bytes of sum per token
	// One set of registers for all tiles: avo takes a register that is zeroed
	// by VPXORD for live before.
	acc := make([][2]reg.VecVirtual, tiles512[0]) // (tokens, halves of 16 rows)
	for t := range acc {
		acc[t] = [2]reg.VecVirtual{ZMM(), ZMM()}
	}
	for i, n := range tiles512 {
		next := "done"
		if i+1 < len(tiles512) {
			next = fmt.Sprintf("tile%d", tiles512[i+1])
		}
		Label(fmt.Sprintf("tile%d", n))
		CMPQ(tokens, number(n))
		JLT(LabelRef(next))
		tile512(acc[:n], folded, to, from, panel, q, scale, sum, mins)
		ADDQ(number(n*512), q)
		ADDQ(number(n*4), scale)
		bytes := GP64()
		IMUL3Q(Imm(uint64(n)), mins, bytes)
		ADDQ(bytes, sum)
		SUBQ(number(n), tokens)
		JMP(LabelRef(fmt.Sprintf("tile%d", n)))
	}
	Label("done")
	VZEROUPPER()
	RET()
}

func tile512(acc [][2]reg.VecVirtual, folded bool, to, from, panel, q, scale, sum, mins reg.GPVirtual) {
	n := len(acc)
	label := func(s string) string { return fmt.Sprintf("%s%d", s, n) }
	each := func(f func(t, half int, z reg.VecVirtual, saved Mem)) {
		for t := range acc {
			for half, z := range acc[t] {
				f(t, half, z, Mem{Base: panel, Disp: panelAcc + 128*t + 64*half})
			}
		}
	}
	// Results may go to rows of a large matrix that no cache holds.
	row, step := GP64(), Load(Param("toStep"), GP64())
	MOVQ(to, row)
	for range acc {
		PREFETCHT0(Mem{Base: row})
		PREFETCHT0(Mem{Base: row, Disp: 64})
		ADDQ(step, row)
	}
	zero := ZMM()
	VPXORD(zero, zero, zero)
	each(func(t, half int, z reg.VecVirtual, saved Mem) { VMOVDQU64(zero, saved) })

	weights, x, d := GP64(), GP64(), GP64()
	MOVQ(panel, weights)
	MOVQ(q, x)
	LEAQ(Mem{Base: panel, Disp: panelD}, d)
	flushes := Load(Param("flushes"), GP64()).(reg.GPVirtual)
	Label(label("flush"))
	each(func(t, half int, z reg.VecVirtual, saved Mem) { VPXORD(z, z, z) })
	pairs := Load(Param("pairs"), GP64()).(reg.GPVirtual)
	Label(label("pair"))
	const unroll = 4
	for k := range unroll {
		w := [2]reg.VecVirtual{ZMM(), ZMM()}
		for half := range w {
			VMOVDQU64(Mem{Base: weights, Disp: panelStep*k + 64*half}, w[half])
		}
		for t := range acc {
			b := ZMM()
			VPBROADCASTD(Mem{Base: x, Disp: 512*t + 4*k}, b)
			for half := range w {
				VPDPWSSD(b, w[half], acc[t][half])
			}
		}
	}
	ADDQ(number(panelStep*unroll), weights)
	ADDQ(number(4*unroll), x)
	SUBQ(number(unroll), pairs)
	JNZ(LabelRef(label("pair")))

	var dv [2]reg.VecVirtual
	loadD := func() {
		for half := range dv {
			dv[half] = ZMM()
			VMOVUPS(Mem{Base: d, Disp: 64 * half}, dv[half])
		}
	}
	if !folded {
		loadD()
		ADDQ(number(128), d)
	}
	each(func(t, half int, z reg.VecVirtual, saved Mem) {
		VCVTDQ2PS(z, z)
		if folded {
			VADDPS(saved, z, z)
		} else {
			VFMADD213PS(saved, dv[half], z)
		}
		VMOVUPS(z, saved)
	})
	DECQ(flushes)
	JNZ(LabelRef(label("flush")))

	if folded {
		loadD()
	}
	step = Load(Param("fromStep"), GP64())
	for t := range acc {
		s := ZMM()
		VBROADCASTSS(Mem{Base: scale, Disp: 4 * t}, s)
		for half, z := range acc[t] {
			if folded {
				VMULPS(dv[half], z, z)
			}
			VFMADD213PS(Mem{Base: from, Disp: 64 * half}, s, z)
		}
		ADDQ(step, from)
	}
	subtractMins512(n, acc, panel, sum, mins, label)
	step = Load(Param("toStep"), GP64())
	for t := range acc {
		for half, z := range acc[t] {
			VMOVUPS(z, Mem{Base: to, Disp: 64 * half})
		}
		ADDQ(step, to)
	}
}

// subtractMins512 subtracts, for each group of columns, the minimums of the
// rows times the sums of the tokens. mins is 4 × the number of groups.
func subtractMins512(n int, acc [][2]reg.VecVirtual, panel, sum, mins reg.GPVirtual, label func(string) string) {
	TESTQ(mins, mins)
	JZ(LabelRef(label("nomin")))
	left, at := GP64(), GP64()
	MOVQ(mins, left)
	LEAQ(Mem{Base: panel, Disp: panelMin}, at)
	// Rows of sum are mins bytes apart: three tokens by addressing, then a new base.
	var bases []reg.GPVirtual
	for t := 0; t < n; t += 3 {
		b := GP64()
		if t == 0 {
			MOVQ(sum, b)
		} else {
			LEAQ(Mem{Base: bases[len(bases)-1], Index: mins, Scale: 2}, b)
			ADDQ(mins, b)
		}
		bases = append(bases, b)
	}
	Label(label("min"))
	m := [2]reg.VecVirtual{ZMM(), ZMM()}
	for half := range m {
		VMOVUPS(Mem{Base: at, Disp: 64 * half}, m[half])
	}
	for t := range acc {
		src := Mem{Base: bases[t/3]}
		if t%3 > 0 {
			src.Index, src.Scale = mins, uint8(t%3)
		}
		s := ZMM()
		VBROADCASTSS(src, s)
		for half, z := range acc[t] {
			VFNMADD231PS(m[half], s, z)
		}
	}
	for _, b := range bases {
		ADDQ(number(4), b)
	}
	ADDQ(number(128), at)
	SUBQ(number(4), left)
	JNZ(LabelRef(label("min")))
	Label(label("nomin"))
}
