package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// quantize256 is quantize512 for AVX2, in two passes over a chunk: the largest
// magnitude, then 64 numbers a round.
func quantize256() {
	const name = "quantizeI16AVX2"
	TEXT(name, attr.NOSPLIT, "func(q *int16, scale, sum, sum32, x *float32, chunks, batch int, top float32)")
	Pragma("noescape")
	Doc(name+" quantises chunks of 256 numbers at x as one token; the token's chunks are batch",
		"apart in q, scale, sum and sum32. chunks is at least 1; top is the largest magnitude. The result is that of plain Go.")
	q := Load(Param("q"), GP64()).(reg.GPVirtual)
	scale := Load(Param("scale"), GP64()).(reg.GPVirtual)
	sum := Load(Param("sum"), GP64()).(reg.GPVirtual)
	sum32 := Load(Param("sum32"), GP64()).(reg.GPVirtual)
	x := Load(Param("x"), GP64()).(reg.GPVirtual)
	chunks := Load(Param("chunks"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	abs, ones := YMM(), YMM()
	VPBROADCASTD(bytesConst("abs", []byte{255, 255, 255, 127, 255, 255, 255, 127}), abs)
	VPBROADCASTW(wordsConst("one", 4, func(int) int { return 1 }), ones)

	Label("chunk")
	var largest [4]reg.VecVirtual
	for i := range 32 {
		a := YMM()
		VPAND(Mem{Base: x, Disp: 32 * i}, abs, a)
		if i < len(largest) {
			largest[i] = a
		} else {
			VPMAXUD(a, largest[i%4], largest[i%4])
		}
	}
	VPMAXUD(largest[1], largest[0], largest[0])
	VPMAXUD(largest[3], largest[2], largest[2])
	VPMAXUD(largest[2], largest[0], largest[0])
	m, u := largest[0], YMM()
	VEXTRACTI128(Imm(1), m, u.AsX())
	VPMAXUD(u.AsX(), m.AsX(), m.AsX())
	VPSHUFD(Imm(0x4e), m.AsX(), u.AsX())
	VPMAXUD(u.AsX(), m.AsX(), m.AsX())
	VPSHUFD(Imm(0xb1), m.AsX(), u.AsX())
	VPMAXUD(u.AsX(), m.AsX(), m.AsX())

	bits, number32 := GP32(), GP32()
	inverse, s, keep, top := YMM(), YMM(), YMM(), XMM()
	VMOVD(m.AsX(), bits)
	VMOVSS(argument("top"), top)
	VDIVSS(m.AsX(), top, inverse.AsX())
	VDIVSS(top, m.AsX(), s.AsX())
	VPCMPEQD(keep, keep, keep) // 0 where the chunk counts as zeros
	CMPL(bits, U32(infBits))
	JAE(LabelRef("bad"))
	CMPL(bits, U32(tinyBits))
	JAE(LabelRef("scaled"))
	VPXOR(keep, keep, keep)
	VPXOR(s, s, s)
	JMP(LabelRef("scaled"))
	Label("bad")
	MOVL(U32(nanBits), number32)
	VMOVD(number32, s.AsX())
	VPXOR(keep, keep, keep)
	Label("scaled")
	VBROADCASTSS(inverse.AsX(), inverse)
	VBROADCASTSS(s.AsX(), s)
	VMOVSS(s.AsX(), Mem{Base: scale})

	for round := range 4 {
		var sums [4]reg.VecVirtual
		for g := range sums {
			at := 4*round + g
			a, b := YMM(), YMM()
			for i, y := range []reg.VecVirtual{a, b} {
				VMULPS(Mem{Base: x, Disp: 64*at + 32*i}, inverse, y)
				VCVTPS2DQ(y, y) // to nearest, ties to even
				VPAND(keep, y, y)
			}
			VPACKSSDW(b, a, a)
			VPERMQ(Imm(0xd8), a, a)
			VMOVDQU(a, Mem{Base: q, Disp: 32 * at})
			sums[g] = YMM()
			VPMADDWD(ones, a, sums[g])
		}
		VPHADDD(sums[1], sums[0], sums[0])
		VPHADDD(sums[3], sums[2], sums[2])
		VPHADDD(sums[2], sums[0], sums[0])
		total, t := sums[0].AsX(), XMM()
		VEXTRACTI128(Imm(1), sums[0], t)
		VPADDD(t, total, total)
		VCVTDQ2PS(total, t)
		VMULPS(s.AsX(), t, t)
		VMOVUPS(t, Mem{Base: sum, Disp: 16 * round})
		VPHADDD(total, total, total)
		VCVTDQ2PS(total, total)
		VMULPS(s.AsX(), total, total)
		VMOVQ(total, Mem{Base: sum32, Disp: 8 * round})
	}

	ADDQ(number(1024), x)
	LEAQ(Mem{Base: scale, Index: batch, Scale: 4}, scale)
	step := GP64()
	MOVQ(batch, step)
	SHLQ(Imm(5), step)
	ADDQ(step, sum32)
	LEAQ(Mem{Base: sum, Index: step, Scale: 2}, sum)
	SHLQ(Imm(4), step)
	ADDQ(step, q)
	DECQ(chunks)
	JNZ(LabelRef("chunk"))
	VZEROUPPER()
	RET()
}
