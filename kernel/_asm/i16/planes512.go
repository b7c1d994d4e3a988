package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Layout of one chunk of one token in I16.Planes; package kernel asserts it.
// Vector v has columns 16L+4v to 16L+4v+3 in dword L, upper bytes and lower bytes.
const (
	planeUpper = 0   // [4][64]int8
	planeLower = 256 // [4][64]int8
	planeSums  = 512 // [16]int32: 32 times the sum of 16 columns
	planeBytes = 576
)

// planes512 writes the decoding of a format with super-blocks whose weights are
// multiplied as bytes. Dword L of every vector belongs to columns 16L to 16L+15,
// so sums of four vectors can be formed before anything is scaled.
type planes512 interface {
	name() string
	bytes() int
	// offset has to be subtracted from the weights: 0, 16 or 32.
	offset() int
	constants(tokens int)
	// header decodes what a block of each of two rows has once: the scale of each
	// dword, and, where there are minimums, those.
	header(w [2]reg.GPVirtual) (scale, min [2]reg.VecVirtual)
	// prepare loads what vector needs of the block at p.
	prepare(p reg.GPVirtual)
	// vector returns vector v of the block, as unsigned bytes.
	vector(p reg.GPVirtual, v int) reg.VecVirtual
}

// matVecPlanes512 writes the product of rows with tokens side by side, two rows
// at a time, so that activations are read half as often. Products with the upper
// and with the lower bytes of the activations are summed over 16 columns, put
// together, and only then converted: for one token half the instructions of
// products with words, since nothing is widened and no weight is scaled.
func matVecPlanes512(f planes512, tokens int, block bool) {
	p := beginPlanes512(f, tokens, block)
	w := [2]reg.GPVirtual{p.w, GP64()}
	var ahead reg.GPVirtual
	if !block {
		ahead = aheadPlanes512(w[0], p.rowBytes)
	}

	Label("rows")
	// The second row; for a last one without a partner the same again.
	LEAQ(Mem{Base: w[0], Index: p.rowBytes, Scale: 1}, w[1])
	CMPQ(p.rows, Imm(1))
	CMOVQEQ(w[0], w[1])
	p.beginRows()
	isum := []reg.VecVirtual{ZMM(), ZMM(), ZMM(), ZMM()}
	acc := p.accumulators(2)

	Label("chunk")
	if block {
		for r := range w {
			prefetchBlock(w[r], p.rowBytes, f.bytes())
		}
	} else {
		prefetch(ahead, 2*f.bytes())
		ADDQ(number(2*f.bytes()), ahead)
	}
	d, min := f.header(w)
	var weights [2][4]reg.VecVirtual
	for r := range w {
		f.prepare(w[r])
		for v := range weights[r] {
			weights[r][v] = f.vector(w[r], v)
		}
	}
	productsPlanes512{p.planes, p.scale, p.sum, isum, f.offset()}.add(acc, weights[:], d[:], min[:])
	for r := range w {
		ADDQ(number(f.bytes()), w[r])
	}
	p.nextChunk()
	DECQ(p.chunks)
	JNZ(LabelRef("chunk"))

	p.store(w[:], acc)
}

// walkPlanes512 is what the kernels for I16.Planes have in common: their parameters
// and how they go through rows and chunks.
type walkPlanes512 struct {
	tokens, bytes                 int // of a block
	block                         bool
	out, rows, w, rowBytes, batch reg.GPVirtual
	planeStep, part               reg.GPVirtual
	chunks, planes, scale, sum    reg.GPVirtual // renewed by beginRows
}

// beginPlanes512 begins a kernel for rows of contiguous blocks or, if block is
// set, for some columns of rows that are rowBytes apart.
func beginPlanes512(f planes512, tokens int, block bool) *walkPlanes512 {
	p := &walkPlanes512{tokens: tokens, bytes: f.bytes(), block: block}
	load := func(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }
	if block {
		name := fmt.Sprintf("matVec%sI16Block%dAVX512", f.name(), tokens)
		TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rowBytes, rows, chunks int, planes *int8, scale, sum *float32, batch int, part *float32, last int)")
		Doc(name+" multiplies chunks blocks of rows that are rowBytes apart with", fmt.Sprintf("%d token(s). Sums begin and end in part, 16 lanes for each row and token,", tokens),
			"or, if last is not 0, end as out[t*stride+i]. planes, scale and sum point to the first",
			"token; chunks of activations are batch tokens apart. rows and chunks are at least 1.")
	} else {
		name := fmt.Sprintf("matVec%sI16x%dAVX512", f.name(), tokens)
		TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rows, chunks int, planes *int8, scale, sum *float32, batch int)")
		Doc(name+" multiplies rows of chunks contiguous blocks with", fmt.Sprintf("%d token(s): out[t*stride+i]. planes, scale and sum point to the first token;", tokens),
			"chunks of activations are batch tokens apart. rows and chunks are at least 1.")
	}
	Pragma("noescape")
	f.constants(tokens)
	p.out, p.rows, p.w, p.batch = load("out"), load("rows"), load("w"), load("batch")
	if block {
		p.rowBytes, p.part = load("rowBytes"), load("part")
	} else {
		p.rowBytes = load("chunks")
		IMUL3Q(U32(uint32(f.bytes())), p.rowBytes, p.rowBytes)
	}
	p.planeStep = GP64()
	IMUL3Q(U32(planeBytes), p.batch, p.planeStep)
	return p
}

// beginRows goes back to the first chunk.
func (p *walkPlanes512) beginRows() {
	load := func(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }
	p.chunks, p.planes, p.scale, p.sum = load("chunks"), load("planes"), load("scale"), load("sum")
}

// accumulators returns where the sums of some rows begin, by row and token.
func (p *walkPlanes512) accumulators(rows int) [][]reg.VecVirtual {
	acc := make([][]reg.VecVirtual, rows)
	for r := range acc {
		for t := range p.tokens {
			z := ZMM()
			if p.block {
				VMOVUPS(Mem{Base: p.part, Disp: 64 * (r*p.tokens + t)}, z)
			} else {
				VPXORD(z, z, z)
			}
			acc[r] = append(acc[r], z)
		}
	}
	return acc
}

// nextChunk goes on to the next chunk of activations.
func (p *walkPlanes512) nextChunk() {
	ADDQ(p.planeStep, p.planes)
	LEAQ(Mem{Base: p.scale, Index: p.batch, Scale: 4}, p.scale)
	step := GP64()
	MOVQ(p.batch, step)
	SHLQ(Imm(6), step)
	ADDQ(step, p.sum)
}

// store ends the rows whose blocks end at w and goes on with the next ones or returns.
func (p *walkPlanes512) store(w []reg.GPVirtual, acc [][]reg.VecVirtual) {
	if !p.block {
		storePlanes512(p.out, p.rows, w, acc)
		return
	}
	skip, last := GP64(), GP64()
	Load(Param("chunks"), skip)
	IMUL3Q(U32(uint32(p.bytes)), skip, skip)
	NEGQ(skip)
	ADDQ(p.rowBytes, skip)
	for r := range w {
		ADDQ(skip, w[r])
	}
	Load(Param("last"), last)
	TESTQ(last, last)
	JNZ(LabelRef("last"))
	for r := range acc {
		for t := range acc[r] {
			VMOVUPS(acc[r][t], Mem{Base: p.part, Disp: 64 * (r*p.tokens + t)})
		}
	}
	ADDQ(U32(uint32(64*len(w)*p.tokens)), p.part)
	if len(w) > 1 {
		MOVQ(w[1], w[0])
	}
	SUBQ(Imm(uint64(len(w))), p.rows)
	JG(LabelRef("rows"))
	VZEROUPPER()
	RET()
	Label("last")
	ADDQ(U32(uint32(64*len(w)*p.tokens)), p.part)
	storePlanes512(p.out, p.rows, w, acc)
}

// prefetchBlock fetches what comes two rows later.
func prefetchBlock(p, rowBytes reg.GPVirtual, bytes int) {
	for o := 0; o < bytes; o += 64 {
		PREFETCHT0(Mem{Base: p, Index: rowBytes, Scale: 2, Disp: o})
	}
}

// aheadPlanes512 returns the pointer for fetching rows from w on. Memory is fetched
// in its order, though two rows are read at a time: the pointer begins where the
// second row is 4 KiB before what it fetches.
func aheadPlanes512(w, rowBytes reg.GPVirtual) reg.GPVirtual {
	ahead, zero := GP64(), GP64()
	XORL(zero.As32(), zero.As32())
	LEAQ(Mem{Base: rowBytes, Disp: -prefetchAhead / 2}, ahead)
	TESTQ(ahead, ahead)
	CMOVQLT(zero, ahead)
	ADDQ(w, ahead)
	return ahead
}

// productsPlanes512 multiplies one chunk of some rows with tokens side by side.
type productsPlanes512 struct {
	planes, scale, sum reg.GPVirtual
	// isum is scratch: a register for each row, or two, which gives shorter chains.
	isum   []reg.VecVirtual
	offset int // of the weights: 0, 16 or 32
}

// add adds to acc, by row and token, the products with weights, by row and vector,
// times d less min, if there are any, times the sums of the columns.
func (p productsPlanes512) add(acc [][]reg.VecVirtual, weights [][4]reg.VecVirtual, d, min []reg.VecVirtual) {
	for t := range acc[0] {
		products := func(plane int, isum []reg.VecVirtual) {
			for v := range 4 {
				at := Mem{Base: p.planes, Disp: planeBytes*t + plane + 64*v}
				if len(acc) == 1 {
					VPDPBUSD(at, weights[0][v], isum[0])
					continue
				}
				q := ZMM()
				VMOVDQU64(at, q)
				for r := range acc {
					VPDPBUSD(q, weights[r][v], isum[r])
				}
			}
		}
		for _, z := range p.isum {
			VPXORD(z, z, z)
		}
		upper, lower := p.isum[:len(acc)], p.isum[len(p.isum)-len(acc):]
		products(planeUpper, upper)
		for _, z := range upper {
			VPSLLD(Imm(8), z, z)
		}
		products(planeLower, lower)
		if len(p.isum) > len(acc) {
			for r := range acc {
				VPADDD(lower[r], upper[r], upper[r])
			}
		}
		sums := Mem{Base: p.planes, Disp: planeBytes*t + planeSums}
		var half reg.VecVirtual
		if p.offset == 16 {
			half = ZMM()
			VPSRAD(Imm(1), sums, half)
		}
		for r, s := range upper {
			switch p.offset {
			case 16:
				VPSUBD(half, s, s)
			case 32:
				VPSUBD(sums, s, s)
			}
			VCVTDQ2PS(s, s)
			both := ZMM()
			VMULPS_BCST(Mem{Base: p.scale, Disp: 4 * t}, d[r], both)
			VFMADD231PS(both, s, acc[r][t])
			if min != nil && min[r] != nil {
				VFNMADD231PS(Mem{Base: p.sum, Disp: 64 * t}, min[r], acc[r][t])
			}
		}
	}
}

// storePlanes512 sums and stores the results of the rows that are read together, one
// or two, or of one of two if it is the last, and goes on with the next or returns.
func storePlanes512(out, rows reg.GPVirtual, w []reg.GPVirtual, acc [][]reg.VecVirtual) {
	at, stride := GP64(), Load(Param("stride"), GP64())
	store := func(r int) {
		LEAQ(Mem{Base: out, Disp: 4 * r}, at)
		for t := range acc[r] {
			horizontalSum512(acc[r][t])
			VMOVSS(acc[r][t].AsX(), Mem{Base: at})
			if t < len(acc[r])-1 {
				LEAQ(Mem{Base: at, Index: stride, Scale: 4}, at)
			}
		}
	}
	store(0)
	if len(w) > 1 {
		CMPQ(rows, Imm(1))
		JEQ(LabelRef("done"))
		store(1)
		MOVQ(w[1], w[0])
	}
	ADDQ(Imm(uint64(4*len(w))), out)
	SUBQ(Imm(uint64(len(w))), rows)
	JNZ(LabelRef("rows"))
	Label("done")
	VZEROUPPER()
	RET()
}

// constant512 is a constant that is in a register for the whole function, or in
// memory where registers are short.
type constant512 struct {
	m Mem
	v reg.VecVirtual
}

func newConstant512(name string, b []byte, keep bool) (c constant512) {
	c.m = bytesConst(name, b)
	if keep {
		c.v = c.copy()
	}
	return c
}

// get returns a register that must not be changed.
func (c constant512) get() reg.VecVirtual {
	if c.v != nil {
		return c.v
	}
	return c.copy()
}

// copy returns a register to be overwritten.
func (c constant512) copy() reg.VecVirtual {
	z := ZMM()
	if c.v != nil {
		VMOVDQA64(c.v, z)
	} else {
		VMOVDQU64(c.m, z)
	}
	return z
}

// bitMatrix is a constant for VGF2P8AFFINEQB, which makes each bit of a byte a sum
// of bits of a source byte: from says which one bit becomes bit i of the columns
// of group L (two groups to a qword), or -1 for none.
func bitMatrix(name string, keep bool, from func(group, bit int) int) constant512 {
	var b []byte
	for qword := range 8 {
		for row := range 8 { // the first row is the highest bit
			mask := byte(0)
			if i := from(2*qword, 7-row); i >= 0 {
				mask = 1 << i
			}
			b = append(b, mask)
		}
	}
	return newConstant512("bits"+name, b, keep)
}

// dwordIndex is an index for permutations of dwords: at says which one group L takes.
func dwordIndex(name string, keep bool, at func(group int) int) constant512 {
	var b []byte
	for group := range 16 {
		b = append(b, byte(at(group)), 0, 0, 0)
	}
	return newConstant512("dwords"+name, b, keep)
}

// k4Planes decodes Q4_K and Q5_K: a header (see scalesK4.decode), for Q5_K 32
// bytes of fifth bits, bit g of byte i for column i of sub-block g, and 4 × 32
// bytes whose lower and upper halves are two sub-blocks of 32.
type k4Planes struct {
	fifth                bool
	low, high            Mem // see scalesK4.decode
	shift, lowMask, mask constant512
	index                [2]constant512 // of scales (even dwords) and minimums (odd ones)
	first                reg.OpmaskVirtual
	nibbles, bits        constant512
	source, fifthSource  [4]constant512
	q                    [2]reg.VecVirtual
	h                    reg.VecVirtual
}

func newQ4KPlanes() planes512 { return new(k4Planes) }
func newQ5KPlanes() planes512 { return &k4Planes{fifth: true} }

func (f *k4Planes) name() string {
	if f.fifth {
		return "Q5K"
	}
	return "Q4K"
}

func (f *k4Planes) bytes() int { return 144 + f.levels() - 16 }

// levels is where the halves of bytes begin.
func (f *k4Planes) levels() int {
	if f.fifth {
		return 48
	}
	return 16
}

func (f *k4Planes) offset() int { return 0 }

func (f *k4Planes) constants(tokens int) {
	few := tokens == 1
	twice := func(name string, b []byte, keep bool) constant512 {
		return newConstant512(name+"twice", append(append(append(b, b...), b...), b...), keep)
	}
	f.low = bytesConst("k4lowtwice", append(k4Low, k4Low...))
	f.high = bytesConst("k4hightwice", append(k4High, k4High...))
	f.shift = twice("k4shift", []byte{0, 8, 16, 24, 32, 40, 48, 56, 0, 8, 16, 24, 36, 44, 52, 60}, few)
	f.lowMask = twice("k4lowmask", repeat(63, 4, 15, 4, 63, 4, 15, 4), few)
	f.mask = twice("k4highmask", repeat(0x30, 16), few)
	for row := range f.index {
		var b []byte
		for g := range 16 { // scales are bytes 0 to 7, minimums 8 to 15
			b = append(b, byte(16*row+g/2+8*(g%2)), 0, 0, 0)
		}
		f.index[row] = newConstant512(fmt.Sprintf("k4index%d", row), b, few)
	}
	bits := GP64()
	MOVQ(U64(0x1111111111111111), bits)
	f.first = K()
	KMOVQ(bits, f.first)
	f.nibbles = bitMatrix("nibbles", true, func(group, bit int) int {
		if bit > 3 {
			return -1
		}
		return bit + 4*(group/2%2)
	})
	for v := range f.source {
		f.source[v] = dwordIndex(fmt.Sprintf("k4_%d", v), few, func(group int) int { return group/4*8 + group%2*4 + v })
	}
	if f.fifth {
		f.bits = bitMatrix("fifth", false, func(group, bit int) int {
			if bit != 4 {
				return -1
			}
			return group / 2
		})
		for v := range f.fifthSource {
			f.fifthSource[v] = dwordIndex(fmt.Sprintf("k5_%d", v), false, func(group int) int { return group%2*4 + v })
		}
	}
}

var (
	k4Low  = []byte{4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15}
	k4High = []byte{128, 128, 128, 128, 4, 5, 6, 7, 128, 128, 128, 128, 8, 9, 10, 11}
)

func (f *k4Planes) header(w [2]reg.GPVirtual) (scale, min [2]reg.VecVirtual) {
	header, low, high, decoded := YMM(), YMM(), YMM(), ZMM()
	VMOVDQU32(Mem{Base: w[0]}, header.AsX())
	VINSERTI32X4(Imm(1), Mem{Base: w[1]}, header, header)
	VPSHUFB(f.low, header, low)
	VPMULTISHIFTQB(low, f.shift.get().AsY(), decoded.AsY())
	VPANDD(f.lowMask.get().AsY(), decoded.AsY(), decoded.AsY())
	VPSHUFB(f.high, header, high)
	VPSRLW(Imm(2), high, high)
	VPTERNLOGD(Imm(0xf8), f.mask.get().AsY(), high, decoded.AsY()) // decoded | high&mask
	for r := range w {
		halves, floats, both := YMM(), ZMM(), ZMM()
		VPBROADCASTD(Mem{Base: w[r]}, halves)
		VCVTPH2PS(halves, floats) // d, dmin, d, dmin, …
		VPERMB_Z(decoded, f.index[r].get(), f.first, both)
		VCVTDQ2PS(both, both)
		VMULPS(floats, both, both)
		scale[r], min[r] = ZMM(), ZMM()
		VMOVSLDUP(both, scale[r])
		VMOVSHDUP(both, min[r])
	}
	return scale, min
}

func (f *k4Planes) prepare(p reg.GPVirtual) {
	f.q = [2]reg.VecVirtual{ZMM(), ZMM()}
	for i := range f.q {
		VMOVDQU64(Mem{Base: p, Disp: f.levels() + 64*i}, f.q[i])
	}
	if f.fifth {
		f.h = ZMM()
		VBROADCASTI64X4(Mem{Base: p, Disp: 16}, f.h)
	}
}

func (f *k4Planes) vector(p reg.GPVirtual, v int) reg.VecVirtual {
	z := f.source[v].copy()
	VPERMI2D(f.q[1], f.q[0], z)
	VGF2P8AFFINEQB(Imm(0), f.nibbles.get(), z, z)
	if f.fifth {
		fifth := ZMM()
		VPERMD(f.h, f.fifthSource[v].get(), fifth)
		VGF2P8AFFINEQB(Imm(0), f.bits.get(), fifth, fifth)
		VPORD(fifth, z, z)
	}
	return z
}

// q6KPlanes decodes Q6_K: 128 bytes of lower halves, 64 of upper pairs of bits, 16
// signed scales of 16 columns, d. Group L is quarter L%8/2 of half L/8.
type q6KPlanes struct {
	nibbles, pairs        constant512
	source, upper         [4]constant512
	lowLevels, highLevels [2]reg.VecVirtual
}

func newQ6KPlanes() planes512 { return new(q6KPlanes) }

func (f *q6KPlanes) name() string { return "Q6K" }
func (f *q6KPlanes) bytes() int   { return 210 }
func (f *q6KPlanes) offset() int  { return 32 }

func (f *q6KPlanes) constants(tokens int) {
	few := tokens == 1
	f.nibbles = bitMatrix("q6nibbles", few, func(group, bit int) int {
		if bit > 3 {
			return -1
		}
		return bit + 4*(group%8/4)
	})
	f.pairs = bitMatrix("q6pairs", few, func(group, bit int) int {
		if bit != 4 && bit != 5 {
			return -1
		}
		return bit - 4 + 2*(group%8/2)
	})
	for v := range f.source {
		f.source[v] = dwordIndex(fmt.Sprintf("q6_%d", v), few, func(group int) int { return group/8*16 + group%4*4 + v })
		f.upper[v] = dwordIndex(fmt.Sprintf("q6upper%d", v), few, func(group int) int { return group/8*8 + group%2*4 + v })
	}
}

func (f *q6KPlanes) header(w [2]reg.GPVirtual) (scale, min [2]reg.VecVirtual) {
	for r := range w {
		d, h := ZMM(), YMM()
		scale[r] = ZMM()
		VPMOVSXBD(Mem{Base: w[r], Disp: 192}, scale[r])
		VCVTDQ2PS(scale[r], scale[r])
		VPBROADCASTW(Mem{Base: w[r], Disp: 208}, h)
		VCVTPH2PS(h, d)
		VMULPS(d, scale[r], scale[r])
	}
	return scale, min
}

func (f *q6KPlanes) prepare(p reg.GPVirtual) {
	for i := range f.lowLevels {
		f.lowLevels[i] = ZMM()
		VMOVDQU64(Mem{Base: p, Disp: 64 * i}, f.lowLevels[i])
	}
	f.highLevels[0] = ZMM()
	VMOVDQU64(Mem{Base: p, Disp: 128}, f.highLevels[0])
}

func (f *q6KPlanes) vector(p reg.GPVirtual, v int) reg.VecVirtual {
	z, upper := f.source[v].copy(), ZMM()
	VPERMI2D(f.lowLevels[1], f.lowLevels[0], z)
	VGF2P8AFFINEQB(Imm(0), f.nibbles.get(), z, z)
	VPERMD(f.highLevels[0], f.upper[v].get(), upper)
	VGF2P8AFFINEQB(Imm(0), f.pairs.get(), upper, upper)
	VPORD(upper, z, z)
	return z
}

// fillPlanes512 writes the making of I16.Planes from I16.Q.
func fillPlanes512() {
	const name = "fillPlanesAVX512"
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
	// Dwords of two vectors in natural order that belong to vectors v and v+1.
	var index [2]constant512
	for i := range index {
		index[i] = dwordIndex(fmt.Sprintf("planes%d", i), true, func(to int) int { return to%8*4 + to/8 + 2*i })
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
				VPERMI2D(natural[1], natural[0], z)
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
	VPSLLD(Imm(5), isum, isum)
	VMOVDQU64(isum, Mem{Base: planes, Disp: planeSums})
	ADDQ(batch, q)
	ADDQ(planeStep, planes)
	DECQ(chunks)
	JNZ(LabelRef("chunk"))
	VZEROUPPER()
	RET()
}
