package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The AVX2 matrix-vector products take one token. AVX2 machines run several
// tokens as several passes over rows that are in the cache by then.

func matVecs256() {
	for _, f := range kquants256() {
		matVecK256(f)
	}
	for _, f := range blocks256() {
		matVecBlocks256(f)
	}
}

func kquants256() []*kquant256 {
	return []*kquant256{
		{name: "Q4K", bytes: 144, hasMin: true, vectors: q4Vectors256, scales: k4Scales256},
		{name: "Q5K", bytes: 176, hasMin: true, vectors: q5Vectors256, scales: k4Scales256},
		{name: "Q6K", bytes: 210, vectors: q6Vectors256, scales: q6Scales256},
	}
}

func blocks256() []*block256 {
	return []*block256{
		{name: "Q4_0", bytes: 18, levels: -8, at: 2},
		{name: "Q5_0", bytes: 22, levels: -16, at: 6, high: 2},
		{name: "Q8_0", bytes: 34, at: 2, whole: true},
	}
}

// kquant256 writes a format with super-blocks.
type kquant256 struct {
	name   string
	bytes  int
	hasMin bool
	// scales stores the chunk's scales as 16-bit words at words and returns d
	// and, for formats with minimums, two vectors of dmin × m per 16 columns.
	scales func(f *kquant256, p reg.GPVirtual, words Mem) (d reg.VecVirtual, min []reg.VecVirtual)
	// vectors calls use with each of 16 vectors of 16 weights, not yet scaled.
	vectors func(f *kquant256, p reg.GPVirtual, use func(g int, w reg.VecVirtual))
}

// word256 is a constant vector as an operand.
func word256(w int) Mem {
	return wordsConst(fmt.Sprintf("all%x_", w), 16, func(int) int { return w })
}

func matVecK256(f *kquant256) {
	name := "matVec" + f.name + "I16x1AVX2"
	TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rows, chunks int, q *int16, scale, sum *float32, batch int)")
	Pragma("noescape")
	matVecDoc512(name, 1)
	words := AllocLocal(32)
	out := Load(Param("out"), GP64()).(reg.GPVirtual)
	w := Load(Param("w"), GP64()).(reg.GPVirtual)
	rows := Load(Param("rows"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	acc, low, high := YMM(), YMM(), YMM()

	Label("row")
	chunks := Load(Param("chunks"), GP64()).(reg.GPVirtual)
	q := Load(Param("q"), GP64()).(reg.GPVirtual)
	scale := Load(Param("scale"), GP64()).(reg.GPVirtual)
	sum := Load(Param("sum"), GP64()).(reg.GPVirtual)
	VXORPS(acc, acc, acc)

	Label("chunk")
	prefetch(w, f.bytes, 1)
	d, min := f.scales(f, w, words)
	for v, m := range min {
		VFNMADD231PS(Mem{Base: sum, Disp: 32 * v}, m, acc)
	}
	VPXOR(low, low, low)
	VPXOR(high, high, high)
	f.vectors(f, w, func(g int, v reg.VecVirtual) {
		s := YMM()
		VPBROADCASTW(words.Offset(2*g), s)
		VPMULLW(s, v, v)
		VPMADDWD(Mem{Base: q, Disp: 32 * g}, v, v)
		// 16 products a lane: the most that Q6_K can add without overflow.
		if g < 8 {
			VPADDD(v, low, low)
		} else {
			VPADDD(v, high, high)
		}
	})
	both := YMM()
	VBROADCASTSS(Mem{Base: scale}, both)
	VMULPS(d, both, both)
	VCVTDQ2PS(low, low)
	VCVTDQ2PS(high, high)
	VADDPS(high, low, low)
	VFMADD231PS(both, low, acc)
	ADDQ(number(f.bytes), w)
	advance256(batch, q, scale, sum, 6)
	DECQ(chunks)
	JNZ(LabelRef("chunk"))
	horizontalSum256(acc)
	VMOVSS(acc.AsX(), Mem{Base: out})
	ADDQ(Imm(4), out)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// advance256 moves to the next chunk; a chunk has 2^sumShift bytes of sums.
func advance256(batch, q, scale, sum reg.GPVirtual, sumShift uint64) {
	LEAQ(Mem{Base: scale, Index: batch, Scale: 4}, scale)
	step := GP64()
	MOVQ(batch, step)
	SHLQ(Imm(sumShift), step)
	ADDQ(step, sum)
	SHLQ(Imm(9-sumShift), step)
	ADDQ(step, q)
}

func horizontalSum256(v reg.VecVirtual) {
	u := YMM()
	VEXTRACTF128(Imm(1), v, u.AsX())
	VADDPS(u.AsX(), v.AsX(), v.AsX())
	VPERMILPD(Imm(1), v.AsX(), u.AsX())
	VADDPS(u.AsX(), v.AsX(), v.AsX())
	VMOVSHDUP(v.AsX(), u.AsX())
	VADDSS(u.AsX(), v.AsX(), v.AsX())
}

// k4Scales256 decodes the header of Q4_K and Q5_K (see scalesK4.decode) in
// general registers, which are idle otherwise.
func k4Scales256(f *kquant256, p reg.GPVirtual, words Mem) (d reg.VecVirtual, min []reg.VecVirtual) {
	low, high, mask, t := GP64(), GP64(), GP64(), GP64()
	MOVQ(Mem{Base: p, Disp: 4}, low) // bytes 0–7
	MOVL(Mem{Base: p, Disp: 12}, high.As32())
	MOVQ(high, t)
	SHLQ(Imm(28), t)
	ORQ(t, high) // lower halves of bytes 8–11, then upper halves
	MOVQ(U64(0x0f0f0f0f0f0f0f0f), mask)
	ANDQ(mask, high)
	MOVQ(low, t)
	SHRQ(Imm(2), t)
	MOVQ(U64(0x3030303030303030), mask)
	ANDQ(mask, t)
	ORQ(t, high) // scales and minimums 4–7
	MOVQ(U64(0x3f3f3f3f3f3f3f3f), mask)
	ANDQ(mask, low) // scales and minimums 0–3
	a, b, s := XMM(), XMM(), XMM()
	VMOVQ(low, a)
	VMOVQ(high, b)
	VPUNPCKLDQ(b, a, a) // 8 scales, 8 minimums
	// Each scale is for two vectors of 16 columns.
	VPUNPCKLBW(a, a, s)
	wide := YMM()
	VPMOVZXBW(s, wide)
	VMOVDQU(wide, words)

	header, m := XMM(), XMM()
	VMOVDQU(Mem{Base: p}, header)
	VCVTPH2PS(header, header)
	d = YMM()
	dmin := YMM()
	VBROADCASTSS(header, d)
	VMOVSHDUP(header, header)
	VBROADCASTSS(header, dmin)
	VPUNPCKHBW(a, a, m)
	for v := range 2 {
		y := YMM()
		if v == 1 {
			VPSRLDQ(Imm(8), m, m)
		}
		VPMOVZXBD(m, y)
		VCVTDQ2PS(y, y)
		VMULPS(dmin, y, y)
		min = append(min, y)
	}
	return d, min
}

func q4Vectors256(f *kquant256, p reg.GPVirtual, use func(g int, w reg.VecVirtual)) {
	for i := range 4 {
		for v := range 2 {
			low, high := YMM(), YMM()
			VPMOVZXBW(Mem{Base: p, Disp: 16 + 32*i + 16*v}, low)
			VPSRLW(Imm(4), low, high)
			VPAND(word256(15), low, low)
			use(4*i+v, low)
			use(4*i+2+v, high)
		}
	}
}

func q5Vectors256(f *kquant256, p reg.GPVirtual, use func(g int, w reg.VecVirtual)) {
	for v := range 2 {
		fifth := YMM()
		VPMOVZXBW(Mem{Base: p, Disp: 16 + 16*v}, fifth)
		for i := range 4 {
			low, high := YMM(), YMM()
			VPMOVZXBW(Mem{Base: p, Disp: 48 + 32*i + 16*v}, low)
			VPSRLW(Imm(4), low, high)
			VPAND(word256(15), low, low)
			for k, y := range []reg.VecVirtual{low, high} {
				bit := YMM()
				if n := 4 - (2*i + k); n > 0 {
					VPSLLW(Imm(uint64(n)), fifth, bit)
				} else {
					VPSRLW(Imm(uint64(-n)), fifth, bit)
				}
				VPAND(word256(16), bit, bit)
				VPOR(bit, y, y)
				use(4*i+2*k+v, y)
			}
		}
	}
}

func q6Scales256(f *kquant256, p reg.GPVirtual, words Mem) (d reg.VecVirtual, min []reg.VecVirtual) {
	s, h := YMM(), XMM()
	VPMOVSXBW(Mem{Base: p, Disp: 192}, s)
	VMOVDQU(s, words)
	d = YMM()
	VPBROADCASTW(Mem{Base: p, Disp: 208}, h)
	VCVTPH2PS(h, d)
	return d, nil
}

func q6Vectors256(f *kquant256, p reg.GPVirtual, use func(g int, w reg.VecVirtual)) {
	for half := range 2 {
		for v := range 2 {
			a, b, h := YMM(), YMM(), YMM()
			VPMOVZXBW(Mem{Base: p, Disp: 64*half + 16*v}, a)
			VPMOVZXBW(Mem{Base: p, Disp: 64*half + 32 + 16*v}, b)
			VPMOVZXBW(Mem{Base: p, Disp: 128 + 32*half + 16*v}, h)
			for quarter := range 4 {
				y, t := YMM(), YMM()
				src := []reg.VecVirtual{a, b}[quarter%2]
				if quarter < 2 {
					VPAND(word256(15), src, y)
				} else {
					VPSRLW(Imm(4), src, y)
				}
				if n := 4 - 2*quarter; n >= 0 {
					VPSLLW(Imm(uint64(n)), h, t)
				} else {
					VPSRLW(Imm(uint64(-n)), h, t)
				}
				VPAND(word256(0x30), t, t)
				VPOR(t, y, y)
				VPSUBW(word256(32), y, y)
				use(8*half+2*quarter+v, y)
			}
		}
	}
}

// block256 writes a format of blocks of 32 columns.
type block256 struct {
	name   string
	bytes  int
	levels int  // added to a half byte
	at     int  // offset of the numbers
	high   int  // offset of fifth bits, 0 for none
	whole  bool // signed bytes rather than half bytes
}

// words decodes 2 × 16 weights of the block at p.
func (f *block256) words(p reg.GPVirtual) [2]reg.VecVirtual {
	a, b := YMM(), YMM()
	if f.whole {
		VPMOVSXBW(Mem{Base: p, Disp: f.at}, a)
		VPMOVSXBW(Mem{Base: p, Disp: f.at + 16}, b)
		return [2]reg.VecVirtual{a, b}
	}
	VPMOVZXBW(Mem{Base: p, Disp: f.at}, a)
	VPSRLW(Imm(4), a, b)
	VPAND(word256(15), a, a)
	bits := wordsConst("bits", 16, func(i int) int { return 1 << i })
	for i, y := range []reg.VecVirtual{a, b} {
		if f.high > 0 {
			// Compare each word with its bit; where it is set the comparison gives
			// −1, and −1 AND 16 is added.
			m := YMM()
			VPBROADCASTW(Mem{Base: p, Disp: f.high + 2*i}, m)
			VPAND(bits, m, m)
			VPCMPEQW(bits, m, m)
			VPAND(word256(16), m, m)
			VPADDW(m, y, y)
		}
		VPADDW(word256(f.levels&0xffff), y, y)
	}
	return [2]reg.VecVirtual{a, b}
}

func matVecBlocks256(f *block256) {
	name := "matVec" + f.name + "I16x1AVX2"
	TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rows, blocks int, q *int16, scale, sum *float32, batch int)")
	Pragma("noescape")
	Doc(name+" multiplies rows of contiguous blocks of 32 with 1 token; sum has one",
		"number per 32 columns, chunks of activations are batch tokens apart. rows and blocks are at least 1.")
	out := Load(Param("out"), GP64()).(reg.GPVirtual)
	w := Load(Param("w"), GP64()).(reg.GPVirtual)
	rows := Load(Param("rows"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	acc, part := YMM(), YMM()

	Label("row")
	left := Load(Param("blocks"), GP64()).(reg.GPVirtual)
	q := Load(Param("q"), GP64()).(reg.GPVirtual)
	scale := Load(Param("scale"), GP64()).(reg.GPVirtual)
	sum := Load(Param("sum"), GP64()).(reg.GPVirtual)
	VXORPS(acc, acc, acc)

	Label("chunk")
	VXORPS(part, part, part)
	prefetch(w, 8*f.bytes, 1)
	n, x := GP64(), GP64()
	MOVQ(q, x)
	MOVQ(U32(8), n)
	CMPQ(left, n)
	CMOVQLT(left, n)
	SUBQ(n, left)
	Label("block")
	y := f.words(w)
	VPMADDWD(Mem{Base: x}, y[0], y[0])
	VPMADDWD(Mem{Base: x, Disp: 32}, y[1], y[1])
	VPADDD(y[1], y[0], y[0])
	VCVTDQ2PS(y[0], y[0])
	h, d := XMM(), YMM()
	VPBROADCASTW(Mem{Base: w}, h)
	VCVTPH2PS(h, d)
	VFMADD231PS(d, y[0], part)
	ADDQ(number(f.bytes), w)
	ADDQ(Imm(64), x)
	DECQ(n)
	JNZ(LabelRef("block"))
	s := YMM()
	VBROADCASTSS(Mem{Base: scale}, s)
	VFMADD231PS(s, part, acc)
	advance256(batch, q, scale, sum, 5)
	TESTQ(left, left)
	JNZ(LabelRef("chunk"))
	horizontalSum256(acc)
	VMOVSS(acc.AsX(), Mem{Base: out})
	ADDQ(Imm(4), out)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}
