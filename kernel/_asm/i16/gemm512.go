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
	panelCross  = 30208 // cross [16][32]int32
	panelStep   = 128   // bytes of one pair of columns, 32 rows
)

// tiles512 are the numbers of tokens multiplied side by side. 12 tokens × 32
// rows use 24 registers for sums; the rest is for what is left over at the end.
var tiles512 = []int{12, 8, 4, 2, 1}

func gemm512() {
	matMul512("Folded", true, false)
	matMul512("Grouped", false, false)
	matMul512("FoldedCrossed", true, true)
	matMul512("GroupedCrossed", false, true)
	crossPanel512()
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
// for 14 loads, which keeps both multipliers busy. If it is crossed, each step
// takes two pairs of columns and multiplies sums instead (crossedStep512). After
// flush columns the int32 sums are converted and added to acc, in the panel; at the
// end of the chunk acc, scaled, is added to from, the minimums are subtracted, and the
// result goes to to.
func matMul512(kind string, folded, crossed bool) {
	name, signature := "matMul"+kind+"I16AVX512", "func(to, from *float32, toStep, fromStep int, p *int16, q *int16, scale, sum *float32, ahead *int16, tokens, pairs, flushes, mins int)"
	doc := []string{name + " sets to, 32 numbers every toStep bytes, to those of from, every fromStep bytes,",
		"plus the product of p with one chunk: q (tokens, 256), scale (tokens), sum (tokens, mins).",
		"int32 sums are flushed after pairs pairs of columns, flushes times; pairs is a multiple of 4,",
		"mins is 0, 8 or 16. From ahead on 64 bytes are asked for with each 4 pairs of each 12 tokens."}
	if crossed {
		signature = "func(to, from *float32, toStep, fromStep int, p *int16, q *int16, scale, sum *float32, cross *int32, crossStep int, ahead *int16, tokens, pairs, flushes, mins int)"
		doc = append(doc, "Sums begin with one of the panel's cross and one of those that cross has every crossStep bytes.")
	}
	TEXT(name, attr.NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc...)
	m := &gemm{folded: folded, crossed: crossed}
	m.panel = Load(Param("p"), GP64()).(reg.GPVirtual)
	m.q = Load(Param("q"), GP64()).(reg.GPVirtual)
	m.scale = Load(Param("scale"), GP64()).(reg.GPVirtual)
	m.sum = Load(Param("sum"), GP64()).(reg.GPVirtual)
	m.mins = Load(Param("mins"), GP64()).(reg.GPVirtual)
	if crossed {
		m.cross = Load(Param("cross"), GP64()).(reg.GPVirtual)
	}
	SHLQ(Imm(2), m.mins) // bytes of sum per token
	// These are needed rarely, and there are too few registers.
	m.to, m.from, m.tokens = argument("to"), argument("from"), argument("tokens")
	// One set of registers for all tiles: avo takes a register that is zeroed
	// by VPXORD for live before.
	acc := make([]tokenSums, tiles512[0])
	for t := range acc {
		acc[t] = tokenSums{ZMM(), ZMM()}
	}
	for i, n := range tiles512 {
		next := "done"
		if i+1 < len(tiles512) {
			next = fmt.Sprintf("tile%d", tiles512[i+1])
		}
		Label(fmt.Sprintf("tile%d", n))
		CMPQ(m.tokens, number(n))
		JLT(LabelRef(next))
		m.tile(acc[:n])
		ADDQ(number(n*512), m.q)
		ADDQ(number(n*4), m.scale)
		if crossed {
			step := Load(Param("crossStep"), GP64())
			IMUL3Q(Imm(uint64(n)), step, step)
			ADDQ(step, m.cross)
		}
		bytes := GP64()
		IMUL3Q(Imm(uint64(n)), m.mins, bytes)
		ADDQ(bytes, m.sum)
		SUBQ(number(n), m.tokens)
		JMP(LabelRef(fmt.Sprintf("tile%d", n)))
	}
	Label("done")
	VZEROUPPER()
	RET()
}

// argument is where an argument of the function lies.
func argument(name string) Mem {
	b, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// tokenSums are a token's sums with both halves of 16 rows.
type tokenSums [2]reg.VecVirtual

// gemm is a product of a panel; the registers are at the current tile of tokens.
type gemm struct {
	folded, crossed                   bool
	panel, q, scale, sum, cross, mins reg.GPVirtual
	to, from, tokens                  Mem
}

func (m *gemm) tile(acc []tokenSums) {
	n := len(acc)
	label := func(s string) string { return fmt.Sprintf("%s%d", s, n) }
	each := func(f func(t, half int, z reg.VecVirtual, saved Mem)) {
		for t := range acc {
			for half, z := range acc[t] {
				f(t, half, z, Mem{Base: m.panel, Disp: panelAcc + 128*t + 64*half})
			}
		}
	}
	// Results may go to rows of a large matrix that no cache holds.
	row, step := GP64(), Load(Param("toStep"), GP64())
	MOVQ(m.to, row)
	for range acc {
		PREFETCHT0(Mem{Base: row})
		PREFETCHT0(Mem{Base: row, Disp: 64})
		ADDQ(step, row)
	}
	weights, x, flush, cross := GP64(), GP64(), GP64(), GP64()
	MOVQ(m.panel, weights)
	MOVQ(m.q, x)
	MOVQ(m.panel, flush) // the panel + 128 × flushes done
	if m.crossed {
		MOVQ(m.cross, cross)
	}
	ahead := Load(Param("ahead"), GP64()).(reg.GPVirtual)
	flushes := Load(Param("flushes"), GP64()).(reg.GPVirtual)
	Label(label("flush"))
	if m.crossed {
		first := pair512(flush, panelCross)
		at, step := GP64(), Load(Param("crossStep"), GP64()).(reg.GPVirtual)
		MOVQ(cross, at)
		each(func(t, half int, z reg.VecVirtual, _ Mem) {
			src := Mem{Base: at}
			if t%3 > 0 {
				src.Index, src.Scale = step, uint8(t%3)
			} else if t > 0 && half == 0 {
				LEAQ(Mem{Base: at, Index: step, Scale: 2}, at)
				ADDQ(step, at)
			}
			VPADDD_BCST(src, first[half], z)
		})
		ADDQ(number(4), cross)
	} else {
		each(func(t, half int, z reg.VecVirtual, saved Mem) { VPXORD(z, z, z) })
	}
	pairs := Load(Param("pairs"), GP64()).(reg.GPVirtual)
	Label(label("pair"))
	const unroll = 4
	PREFETCHT1(Mem{Base: ahead})
	ADDQ(number(64), ahead)
	if m.crossed {
		for k := 0; k < unroll; k += 2 {
			crossedStep512(acc, weights, x, k)
		}
	} else {
		for k := range unroll {
			step512(acc, weights, x, k)
		}
	}
	ADDQ(number(panelStep*unroll), weights)
	ADDQ(number(4*unroll), x)
	SUBQ(number(unroll), pairs)
	JNZ(LabelRef(label("pair")))

	// The sums of the first flush begin what is saved; those of the last stay.
	var dv [2]reg.VecVirtual
	if !m.folded {
		dv = pair512(flush, panelD)
	}
	add := func(z reg.VecVirtual, half int, saved Mem, first bool) {
		VCVTDQ2PS(z, z)
		switch {
		case first && !m.folded:
			VMULPS(dv[half], z, z)
		case !first && m.folded:
			VADDPS(saved, z, z)
		case !first:
			VFMADD213PS(saved, dv[half], z)
		}
	}
	save := func(first bool) {
		each(func(_, half int, z reg.VecVirtual, saved Mem) {
			add(z, half, saved, first)
			VMOVUPS(z, saved)
		})
	}
	keep := func(first bool) {
		each(func(_, half int, z reg.VecVirtual, saved Mem) { add(z, half, saved, first) })
	}
	CMPQ(flushes, Imm(1))
	JE(LabelRef(label("last")))
	CMPQ(flush, m.panel)
	JE(LabelRef(label("first")))
	save(false)
	JMP(LabelRef(label("next")))
	Label(label("first"))
	save(true)
	Label(label("next"))
	ADDQ(number(128), flush)
	DECQ(flushes)
	JMP(LabelRef(label("flush")))
	Label(label("last"))
	CMPQ(flush, m.panel)
	JE(LabelRef(label("only")))
	keep(false)
	JMP(LabelRef(label("summed")))
	Label(label("only"))
	keep(true)
	Label(label("summed"))
	MOVQ(ahead, argument("ahead"))

	if m.folded {
		dv = pair512(m.panel, panelD)
	}
	step = Load(Param("fromStep"), GP64())
	from := GP64()
	MOVQ(m.from, from)
	for t := range acc {
		s := ZMM()
		VBROADCASTSS(Mem{Base: m.scale, Disp: 4 * t}, s)
		for half, z := range acc[t] {
			if m.folded {
				VMULPS(dv[half], z, z)
			}
			VFMADD213PS(Mem{Base: from, Disp: 64 * half}, s, z)
		}
		ADDQ(step, from)
	}
	MOVQ(from, m.from)
	subtractMins512(n, acc, m.panel, m.sum, m.mins, label)
	step = Load(Param("toStep"), GP64())
	to := GP64()
	MOVQ(m.to, to)
	for t := range acc {
		for half, z := range acc[t] {
			VMOVUPS(z, Mem{Base: to, Disp: 64 * half})
		}
		ADDQ(step, to)
	}
	MOVQ(to, m.to)
}

// pair512 loads the vectors of both halves of 16 rows.
func pair512(base reg.GPVirtual, disp int) (v [2]reg.VecVirtual) {
	for half := range v {
		v[half] = ZMM()
		VMOVDQU64(Mem{Base: base, Disp: disp + 64*half}, v[half])
	}
	return v
}

// step512 multiplies pair k of the columns.
func step512(acc []tokenSums, weights, x reg.GPVirtual, k int) {
	w := pair512(weights, panelStep*k)
	for t := range acc {
		b := ZMM()
		VPBROADCASTD(Mem{Base: x, Disp: 512*t + 4*k}, b)
		for half := range w {
			VPDPWSSD(b, w[half], acc[t][half])
		}
	}
}

// subtractMins512 subtracts, for each group of columns, the minimums of the
// rows times the sums of the tokens. mins is 4 × the number of groups.
func subtractMins512(n int, acc []tokenSums, panel, sum, mins reg.GPVirtual, label func(string) string) {
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
