package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	tinyBits = 0x0d800000 // 2^-100
	infBits  = 0x7f800000
	nanBits  = 0x7fc00000
)

// quantize512 writes the rounding of whole chunks of activations.
func quantize512() {
	const name = "quantizeI16AVX512"
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
	abs := ZMM()
	VPBROADCASTD(bytesConst("abs", []byte{255, 255, 255, 127, 255, 255, 255, 127}), abs)

	Label("chunk")
	v := load512(x, 0, 64)
	// The largest magnitude, as bits: NaN and infinity compare highest.
	largest := make([]reg.VecVirtual, 4)
	for i, z := range v {
		a := ZMM()
		VPANDD(abs, z, a)
		if i < len(largest) {
			largest[i] = a
		} else {
			VPMAXUD(a, largest[i%4], largest[i%4])
		}
	}
	VPMAXUD(largest[1], largest[0], largest[0])
	VPMAXUD(largest[3], largest[2], largest[2])
	VPMAXUD(largest[2], largest[0], largest[0])
	m, u := largest[0], ZMM()
	VEXTRACTI64X4(Imm(1), m, u.AsY())
	VPMAXUD(u.AsY(), m.AsY(), m.AsY())
	VEXTRACTI32X4(Imm(1), m.AsY(), u.AsX())
	VPMAXUD(u.AsX(), m.AsX(), m.AsX())
	VPSHUFD(Imm(0x4e), m.AsX(), u.AsX())
	VPMAXUD(u.AsX(), m.AsX(), m.AsX())
	VPSHUFD(Imm(0xb1), m.AsX(), u.AsX())
	VPMAXUD(u.AsX(), m.AsX(), m.AsX())
	bits, inverse, s := GP32(), ZMM(), ZMM()
	VMOVD(m.AsX(), bits)

	// keep is 0 where the chunk counts as zeros.
	keep, keepBits := K(), GP32()
	top := XMM()
	VMOVSS(argument("top"), top)
	VDIVSS(m.AsX(), top, inverse.AsX())
	VDIVSS(top, m.AsX(), s.AsX())
	MOVL(U32(0xffff), keepBits)
	CMPL(bits, U32(infBits))
	JAE(LabelRef("bad"))
	CMPL(bits, U32(tinyBits))
	JAE(LabelRef("scaled"))
	XORL(keepBits, keepBits)
	VPXORD(s.AsX(), s.AsX(), s.AsX())
	JMP(LabelRef("scaled"))
	Label("bad")
	MOVL(U32(nanBits), keepBits)
	VMOVD(keepBits, s.AsX())
	XORL(keepBits, keepBits)
	Label("scaled")
	KMOVW(keepBits, keep)
	VBROADCASTSS(inverse.AsX(), inverse)
	VBROADCASTSS(s.AsX(), s)
	VMOVSS(s.AsX(), Mem{Base: scale})

	for i, z := range v {
		VMULPS(inverse, z, z)
		VCVTPS2DQ_Z(z, keep, z) // to nearest, ties to even
		VPMOVDW(z, Mem{Base: q, Disp: 32 * i})
	}
	total := sums512(v)
	f := ZMM()
	VCVTDQ2PS(total, f)
	VMULPS(s, f, f)
	VMOVUPS(f, Mem{Base: sum})
	// Pairs of neighbours.
	odd := ZMM()
	VPSRLQ(Imm(32), total, odd)
	VPADDD(odd, total, total)
	VPMOVQD(total, total.AsY())
	VCVTDQ2PS(total.AsY(), total.AsY())
	VMULPS(s.AsY(), total.AsY(), total.AsY())
	VMOVUPS(total.AsY(), Mem{Base: sum32})

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

// sums512 returns the sum of the lanes of each of 16 vectors of dwords.
func sums512(v [16]reg.VecVirtual) reg.VecVirtual {
	add := func(f func(...Op), g func(...Op), a, b reg.VecVirtual) reg.VecVirtual {
		lo, hi := ZMM(), ZMM()
		f(b, a, lo)
		g(b, a, hi)
		VPADDD(hi, lo, lo)
		return lo
	}
	shuffle := func(imm uint64) func(...Op) {
		return func(ops ...Op) { VSHUFI32X4(append([]Op{Imm(imm)}, ops...)...) }
	}
	var lanes [4]reg.VecVirtual // lane-wise sums of four vectors each
	for i := range lanes {
		a := add(VPUNPCKLDQ, VPUNPCKHDQ, v[4*i], v[4*i+1])
		b := add(VPUNPCKLDQ, VPUNPCKHDQ, v[4*i+2], v[4*i+3])
		lanes[i] = add(VPUNPCKLQDQ, VPUNPCKHQDQ, a, b)
	}
	a := add(shuffle(0x88), shuffle(0xdd), lanes[0], lanes[1])
	b := add(shuffle(0x88), shuffle(0xdd), lanes[2], lanes[3])
	return add(shuffle(0x88), shuffle(0xdd), a, b)
}
