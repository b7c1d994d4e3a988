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
	planeSums  = 512 // [16]int32: −32 times the sum of 16 columns
	planeBytes = 576
)

// planes512 writes the decoding of a format with super-blocks whose weights are
// multiplied as bytes. Dword L of every vector belongs to columns 16L to 16L+15,
// so sums of four vectors can be formed before anything is scaled.
type planes512 interface {
	walked512
	// offset is set where 32 has to be subtracted from the weights.
	offset() bool
	// spare is set where several tokens leave registers to decode in the meantime.
	spare() bool
	// header decodes what a block of each of two rows has once: the scale of each
	// dword, and, where there are minimums, those; for pairs, only one of each.
	header(w [2]reg.GPVirtual) (scale, min [2]reg.VecVirtual)
	// prepare loads what vector needs of the block at p.
	prepare(p reg.GPVirtual)
	// index makes the indices of vector v, for any number of blocks.
	index(v int)
	// again returns a decoder with the same constants, for another block at the same time.
	again() planes512
	// vector returns vector v of the block, as unsigned bytes.
	vector(p reg.GPVirtual, v int) reg.VecVirtual
}

// walked512 is what going through rows of blocks asks of a format.
type walked512 interface {
	name() string
	bytes() int
	constants(tokens int)
	// paired is set where 32 columns share a scale: see pairs512.
	paired() bool
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
		ahead = aheadPlanes512(w[0], p.rowBytes, tokens)
	}

	Label("rows")
	// The second row; for a last one without a partner the same again.
	LEAQ(Mem{Base: w[0], Index: p.rowBytes, Scale: 1}, w[1])
	CMPQ(p.rows, Imm(1))
	CMOVQEQ(w[0], w[1])
	p.beginRows()
	acc := p.accumulators(2)

	Label("chunk")
	if block {
		for r := range w {
			prefetchBlock(w[r], p.rowBytes, f.bytes(), tokens)
		}
	} else {
		prefetch(ahead, 2*f.bytes(), tokens)
		ADDQ(number(2*f.bytes()), ahead)
	}
	products := productsPlanes512{p.planes, p.scale, p.sum, f.offset(), f.paired()}
	switch {
	case tokens == 1:
		products.addAtOnce(acc, f, w)
	case f.spare():
		products.addDecoding(acc[0], f, w)
	default:
		products.addDecoded(acc, f, w)
	}
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
	pairs                         bool
	halves                        bool // of I16.Halves: see k4Halves
	block                         bool
	out, rows, w, rowBytes, batch reg.GPVirtual
	planeStep, part               reg.GPVirtual
	chunks, planes, scale, sum    reg.GPVirtual // renewed by beginRows
}

// beginPlanes512 begins a kernel for rows of contiguous blocks or, if block is
// set, for some columns of rows that are rowBytes apart.
func beginPlanes512(f walked512, tokens int, block bool) *walkPlanes512 {
	p := &walkPlanes512{tokens: tokens, bytes: f.bytes(), pairs: f.paired(), block: block}
	_, p.halves = f.(*k4Halves)
	load := func(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }
	if block {
		name := fmt.Sprintf("matVec%sI16Block%dAVX512", f.name(), tokens)
		TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rowBytes, rows, chunks int, planes *int8, scale, sum *float32, batch int, part *float32, last, ahead int)")
		Doc(name+" multiplies chunks blocks of rows that are rowBytes apart with", fmt.Sprintf("%d token(s). Sums begin and end in part, 16 lanes for each row and token,", tokens),
			"or, if last is not 0, end as out[t*stride+i]. planes, scale and sum point to the first",
			"token; chunks of activations are batch tokens apart. rows and chunks are at least 1.",
			"What is fetched for later begins ahead bytes behind w, if the kernel is one that is told.")
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

// accumulators returns where the sums of some rows begin, by row and token; pairs of
// rows count as one.
func (p *walkPlanes512) accumulators(rows int) [][]reg.VecVirtual {
	if p.pairs {
		rows = 1
	}
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
	if p.halves {
		return // the sums lie beside the planes
	}
	step := GP64()
	MOVQ(p.batch, step)
	SHLQ(Imm(6), step)
	ADDQ(step, p.sum)
}

// store ends the rows whose blocks end at w and goes on with the next ones or returns.
func (p *walkPlanes512) store(w []reg.GPVirtual, acc [][]reg.VecVirtual) {
	store := storePlanes512
	switch {
	case p.halves:
		store = storeHalves512
	case p.pairs:
		store = storePairs512
	}
	if !p.block {
		store(p.out, p.rows, w, acc)
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
	ADDQ(U32(uint32(64*len(acc)*p.tokens)), p.part)
	if len(w) > 1 {
		MOVQ(w[1], w[0])
	}
	SUBQ(Imm(uint64(len(w))), p.rows)
	JG(LabelRef("rows"))
	VZEROUPPER()
	RET()
	Label("last")
	ADDQ(U32(uint32(64*len(acc)*p.tokens)), p.part)
	store(p.out, p.rows, w, acc)
}

// prefetchBlock fetches what comes some rows later, the page of what comes twice as many
// later before. With two tokens two rows are over before memory has answered. With four
// tokens what is fetched earlier displaces activations, so it waits in the second-level
// cache first: pieces of rows are too short for the hardware's prefetcher.
func prefetchBlock(p, rowBytes reg.GPVirtual, bytes, tokens int) {
	rows, far := uint8(2), uint8(8)
	if tokens == 2 {
		rows = 4
	}
	prefetchPage(Mem{Base: p, Index: rowBytes, Scale: 2 * rows})
	for o := 0; o < bytes; o += 64 {
		if tokens == 4 {
			PREFETCHT1(Mem{Base: p, Index: rowBytes, Scale: far, Disp: o})
		}
		PREFETCHT0(Mem{Base: p, Index: rowBytes, Scale: rows, Disp: o})
	}
}

// prefetchStrip fetches, in the order of memory, what belongs to the strip of rows that
// comes next. It waits in the second-level cache, as a strip is more than the first holds.
func prefetchStrip(ahead reg.GPVirtual, bytes int) {
	prefetchPage(Mem{Base: ahead, Disp: prefetchPageAhead})
	for o := 0; o < bytes; o += 64 {
		PREFETCHT0(Mem{Base: ahead, Disp: o})
	}
	ADDQ(number(bytes), ahead)
}

// aheadPlanes512 returns the pointer for fetching rows from w on. Memory is fetched
// in its order, though two rows are read at a time. With one token the pointer begins
// with the second row; several, which need more of the first-level cache, have half of
// prefetchAhead between what the second row is at and what is fetched.
func aheadPlanes512(w, rowBytes reg.GPVirtual, tokens int) reg.GPVirtual {
	ahead := GP64()
	if tokens == 1 {
		LEAQ(Mem{Base: w, Index: rowBytes, Scale: 1}, ahead)
		return ahead
	}
	zero := GP64()
	XORL(zero.As32(), zero.As32())
	LEAQ(Mem{Base: rowBytes, Disp: -prefetchAhead(tokens) / 2}, ahead)
	TESTQ(ahead, ahead)
	CMOVQLT(zero, ahead)
	ADDQ(w, ahead)
	return ahead
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
