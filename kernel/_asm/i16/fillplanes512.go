package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// fillPlanes512 writes the making of I16.Planes from I16.Q or, if blocks is set, of
// I16.BlockPlanes, which differ in the size of the pieces that go to different vectors.
func fillPlanes512(blocks bool) {
	name := "fillPlanesAVX512"
	if blocks {
		name = "fillBlockPlanesAVX512"
	}
	TEXT(name, attr.NOSPLIT, "func(planes *int8, q *int16, chunks, batch int)")
	Pragma("noescape")
	Doc(name+" makes the planes of chunks of one token from q. Chunks are batch apart in", "both; chunks is at least 1.")
	planes := Load(Param("planes"), GP64()).(reg.GPVirtual)
	q := Load(Param("q"), GP64()).(reg.GPVirtual)
	chunks := Load(Param("chunks"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	planeStep := GP64()
	IMUL3Q(U32(planeBytes), batch, planeStep)
	SHLQ(Imm(9), batch)
	half, ones := ZMM(), ZMM()
	VPBROADCASTW(wordsConst("half", 4, func(int) int { return 128 }), half)
	VPBROADCASTD(bytesConst("ones", repeat(1, 8)), ones)
	// Pieces of two vectors in natural order that belong to vectors v and v+1.
	var index [2]constant512
	for i := range index {
		if blocks {
			index[i] = qwordIndex(fmt.Sprintf("planes%d", i), func(to int) int { return to%4*4 + to/4 + 2*i })
		} else {
			index[i] = dwordIndex(fmt.Sprintf("planes%d", i), true, func(to int) int { return to%8*4 + to/8 + 2*i })
		}
	}

	Label("chunk")
	isum := ZMM()
	VPXORD(isum, isum, isum)
	for _, plane := range []int{planeUpper, planeLower} {
		for part := range 2 { // 128 columns
			var natural [2]reg.VecVirtual
			for i := range natural {
				natural[i] = ZMM()
				for k := range 2 {
					words, bytes := ZMM(), YMM()
					VMOVDQU64(Mem{Base: q, Disp: 256*part + 128*i + 64*k}, words)
					if plane == planeUpper {
						VPADDW(half, words, words)
						VPSRAW(Imm(8), words, words)
					}
					VPMOVWB(words, bytes)
					if k == 0 {
						VMOVDQA64(bytes.AsZ(), natural[i])
					} else {
						VINSERTI64X4(Imm(1), bytes, natural[i], natural[i])
					}
				}
			}
			for i := range index {
				z := index[i].copy()
				if blocks {
					VPERMI2Q(natural[1], natural[0], z)
				} else {
					VPERMI2D(natural[1], natural[0], z)
				}
				at := Mem{Base: planes, Disp: plane + 128*i + 32*part}
				VMOVDQU32(z.AsY(), at)
				VEXTRACTI64X4(Imm(1), z, at.Offset(64))
			}
		}
		for v := range 4 {
			VPDPBUSD(Mem{Base: planes, Disp: plane + 64*v}, ones, isum)
		}
		if plane == planeUpper {
			VPSLLD(Imm(8), isum, isum)
		}
	}
	zero, shift := ZMM(), uint64(5)
	VPXORD(zero, zero, zero)
	if blocks {
		shift = 4
	}
	VPSLLD(Imm(shift), isum, isum)
	VPSUBD(isum, zero, isum)
	VMOVDQU64(isum, Mem{Base: planes, Disp: planeSums})
	ADDQ(batch, q)
	ADDQ(planeStep, planes)
	DECQ(chunks)
	JNZ(LabelRef("chunk"))
	VZEROUPPER()
	RET()
}

// qwordIndex is dwordIndex for qwords.
func qwordIndex(name string, at func(i int) int) constant512 {
	var b []byte
	for i := range 8 {
		b = append(b, byte(at(i)), 0, 0, 0, 0, 0, 0, 0)
	}
	return newConstant512("qwords"+name, b, true)
}
