package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// peaks writes what measures the limits of the machine.
func peaks() {
	readStream("AVX512", ZMM, 64)
	readStream("AVX2", YMM, 32)
	peakI16("AVX512", 24, func(a, b, acc, _ reg.VecVirtual) { VPDPWSSD(a, b, acc) }, ZMM, func(z reg.VecVirtual) { VPXORD(z, z, z) })
	peakI16("AVX2", 10, func(a, b, acc, t reg.VecVirtual) {
		VPMADDWD(a, b, t)
		VPADDD(t, acc, acc)
	}, YMM, func(y reg.VecVirtual) { VPXOR(y, y, y) })
}

// readStream writes a loop that only reads: 512 bytes a round, fetched ahead.
func readStream(level string, vector func() reg.VecVirtual, width int) {
	name := "readStream" + level
	TEXT(name, attr.NOSPLIT, "func(p *byte, rounds int) uint64")
	Pragma("noescape")
	Doc(name + " reads rounds × 512 bytes at p and returns the exclusive or of the words read.")
	p := Load(Param("p"), GP64()).(reg.GPVirtual)
	rounds := Load(Param("rounds"), GP64()).(reg.GPVirtual)
	acc := make([]reg.VecVirtual, 4)
	xor := func(ops ...Op) { VPXOR(ops[0], ops[1], ops[2]) }
	if width == 64 {
		xor = func(ops ...Op) { VPXORQ(ops...) }
	}
	for i := range acc {
		acc[i] = vector()
		xor(acc[i], acc[i], acc[i])
	}
	Label("loop")
	prefetch(p, 512, 1)
	for i := 0; i*width < 512; i++ {
		xor(Mem{Base: p, Disp: i * width}, acc[i%4], acc[i%4])
	}
	ADDQ(number(512), p)
	DECQ(rounds)
	JNZ(LabelRef("loop"))
	xor(acc[1], acc[0], acc[0])
	xor(acc[3], acc[2], acc[2])
	xor(acc[2], acc[0], acc[0])
	low, high := acc[0], acc[1]
	if width == 64 {
		VEXTRACTI64X4(Imm(1), low, high.AsY())
		VPXOR(high.AsY(), low.AsY(), low.AsY())
	}
	VEXTRACTI128(Imm(1), low.AsY(), high.AsX())
	VPXOR(high.AsX(), low.AsX(), low.AsX())
	VPSHUFD(Imm(0x4e), low.AsX(), high.AsX())
	VPXOR(high.AsX(), low.AsX(), low.AsX())
	r := GP64()
	VMOVQ(low.AsX(), r)
	VZEROUPPER()
	Store(r, ReturnIndex(0))
	RET()
}

// peakI16 writes a loop of independent products of 16-bit integers.
func peakI16(level string, sums int, product func(a, b, acc, t reg.VecVirtual), vector func() reg.VecVirtual, zero func(reg.VecVirtual)) {
	name := "peakI16" + level
	TEXT(name, attr.NOSPLIT, "func(rounds int)")
	Doc(name + " multiplies and adds nothing of interest, as fast as the CPU can.")
	rounds := Load(Param("rounds"), GP64()).(reg.GPVirtual)
	acc := make([]reg.VecVirtual, sums)
	for i := range acc {
		acc[i] = vector()
		zero(acc[i])
	}
	a, b := vector(), vector()
	zero(a)
	zero(b)
	Label("loop")
	for range 2 {
		for i := range acc {
			product(a, b, acc[i], vector())
		}
	}
	DECQ(rounds)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
