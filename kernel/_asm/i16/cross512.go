package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// crossedStep512 multiplies pairs k and k+1 of the columns, sums of a weight and an
// activation with each other: 72 operations, of which any of four pipes does 48, where
// step512 would have 48 for two pipes.
func crossedStep512(acc []tokenSums, weights, x reg.GPVirtual, k int) {
	w0, w1 := pair512(weights, panelStep*k), pair512(weights, panelStep*(k+1))
	for t := range acc {
		x0, x1 := ZMM(), ZMM()
		VPBROADCASTD(Mem{Base: x, Disp: 512*t + 4*k}, x0)
		VPBROADCASTD(Mem{Base: x, Disp: 512*t + 4*k + 4}, x1)
		for half := range w0 {
			a, b := x0, x1
			if half == 0 { // they are needed once more
				a, b = ZMM(), ZMM()
			}
			VPADDW(x0, w1[half], a)
			VPADDW(x1, w0[half], b)
			VPDPWSSD(a, b, acc[t][half])
		}
	}
}

// crossPanel512 writes the making of i16Panel.cross.
func crossPanel512() {
	TEXT("crossPanelAVX512", attr.NOSPLIT, "func(p *int16, pairs, flushes int)")
	Pragma("noescape")
	Doc("crossPanelAVX512 makes cross of panel p for sums of pairs pairs of columns, a multiple of 4, of", "which it has flushes.")
	p := Load(Param("p"), GP64()).(reg.GPVirtual)
	pairs := Load(Param("pairs"), GP64()).(reg.GPVirtual)
	flushes := Load(Param("flushes"), GP64()).(reg.GPVirtual)
	to, left := GP64(), GP64()
	LEAQ(Mem{Base: p, Disp: panelCross}, to)
	zero := ZMM()
	VPXORD(zero, zero, zero)
	var sums [2][2]reg.VecVirtual // of each half, two chains
	for half := range sums {
		sums[half] = [2]reg.VecVirtual{ZMM(), ZMM()}
	}
	Label("flush")
	for half := range sums {
		for _, z := range sums[half] {
			VMOVDQA64(zero, z)
		}
	}
	MOVQ(pairs, left)
	Label("pair")
	for chain := range 2 {
		w := pair512(p, 2*chain*panelStep)
		for half := range w {
			VPDPWSSD(Mem{Base: p, Disp: (2*chain+1)*panelStep + 64*half}, w[half], sums[half][chain])
		}
	}
	ADDQ(number(4*panelStep), p)
	SUBQ(number(4), left)
	JNZ(LabelRef("pair"))
	for half, s := range sums {
		VPADDD(s[0], s[1], s[1])
		VPSUBD(s[1], zero, s[1])
		VMOVDQU64(s[1], Mem{Base: to, Disp: 64 * half})
	}
	ADDQ(number(128), to)
	DECQ(flushes)
	JNZ(LabelRef("flush"))
	VZEROUPPER()
	RET()
}

// fillCross512 writes the making of I16.Cross from I16.Q.
func fillCross512() {
	TEXT("fillCrossAVX512", attr.NOSPLIT, "func(cross *int32, q *int16, token, chunks, batch int)")
	Pragma("noescape")
	Doc("fillCrossAVX512 makes, in a cross of batch tokens, that of all chunks of one token from q, where",
		"they are batch apart; chunks is at least 1.")
	cross := Load(Param("cross"), GP64()).(reg.GPVirtual)
	q := Load(Param("q"), GP64()).(reg.GPVirtual)
	chunks := Load(Param("chunks"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	at16, at32 := GP64(), GP64() // of the token, for parts of 16 columns and of 32
	Load(Param("token"), at32)
	ADDQ(batch, at32)
	SHLQ(Imm(5), at32)
	LEAQ(Mem{Base: at32, Index: at32, Scale: 1}, at16)
	part := func(shift uint64) reg.GPVirtual {
		r := GP64()
		MOVQ(at32, r)
		SHRQ(Imm(shift), r)
		return r
	}
	at64, at128, at256 := part(1), part(2), part(3)
	qStep := GP64()
	MOVQ(batch, qStep)
	SHLQ(Imm(9), qStep)
	SHLQ(Imm(7), batch)
	zero := ZMM()
	VPXORD(zero, zero, zero)
	// The sums come as two of each four vectors side by side.
	index := dwordIndex("cross", true, func(g int) int { return g/8*8 + g%2*4 + g%8/2 })
	Label("chunk")
	// Each vector has 32 columns, so two sums; each pair of dwords holds a product twice.
	var parts [8]reg.VecVirtual
	for i := range parts {
		x, swapped := ZMM(), ZMM()
		VMOVDQU64(Mem{Base: q, Disp: 64 * i}, x)
		VPSHUFD(Imm(0xb1), x, swapped)
		parts[i] = ZMM()
		VMOVDQA64(zero, parts[i])
		VPDPWSSD(x, swapped, parts[i])
	}
	// Sums of four dwords: lane l of four[i] has those of 8 columns, from column 8l of
	// vectors 4i to 4i+3 on.
	var four [2]reg.VecVirtual
	for i := range four {
		two := [2]reg.VecVirtual{}
		for j := range two {
			a, b, odd := parts[4*i+2*j], parts[4*i+2*j+1], ZMM()
			two[j] = ZMM()
			VPUNPCKLDQ(b, a, two[j])
			VPUNPCKHDQ(b, a, odd)
			VPADDD(odd, two[j], two[j])
		}
		four[i] = ZMM()
		VPUNPCKLQDQ(two[1], two[0], four[i])
	}
	sums, odd := ZMM(), ZMM()
	VSHUFI32X4(Imm(0x88), four[1], four[0], sums)
	VSHUFI32X4(Imm(0xdd), four[1], four[0], odd)
	VPADDD(odd, sums, sums)
	VPSUBD(sums, zero, sums)
	VPERMD(sums, index.get(), sums)
	VMOVDQU64(sums, Mem{Base: cross, Index: at16, Scale: 1})
	// Sums of neighbours, down to one.
	VPSRLQ(Imm(32), sums, odd)
	VPADDD(odd, sums, sums)
	VPMOVQD(sums, sums.AsY())
	VMOVDQU(sums.AsY(), Mem{Base: cross, Index: at32, Scale: 1})
	VPSRLQ(Imm(32), sums.AsY(), odd.AsY())
	VPADDD(odd.AsY(), sums.AsY(), sums.AsY())
	VPMOVQD(sums.AsY(), sums.AsX())
	VMOVDQU(sums.AsX(), Mem{Base: cross, Index: at64, Scale: 1})
	VPSRLQ(Imm(32), sums.AsX(), odd.AsX())
	VPADDD(odd.AsX(), sums.AsX(), sums.AsX())
	VPMOVQD(sums.AsX(), sums.AsX())
	VMOVQ(sums.AsX(), Mem{Base: cross, Index: at128, Scale: 1})
	VPSRLQ(Imm(32), sums.AsX(), odd.AsX())
	VPADDD(odd.AsX(), sums.AsX(), sums.AsX())
	VMOVD(sums.AsX(), Mem{Base: cross, Index: at256, Scale: 1})
	ADDQ(qStep, q)
	ADDQ(batch, cross)
	DECQ(chunks)
	JNZ(LabelRef("chunk"))
	VZEROUPPER()
	RET()
}
