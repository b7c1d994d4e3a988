package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// blockPlanes512 writes the decoding of a format of blocks of 32 columns, eight of them
// as if they were one block of 256. A block is d, maybe a minimum and 32 fifth bits, and
// 16 bytes whose lower halves are columns 0 to 15 and whose upper halves are columns 16
// to 31. The bytes of eight blocks are in three vectors: two from the first byte on, the
// third of the last 64. Vectors of weights are those of I16.BlockPlanes: qword i belongs
// to block i.
type blockPlanes512 struct {
	name             string
	bytes            int
	q, high, minimum int // offsets in a block; -1 for none
	// excess is what the weights have too much where they are multiplied.
	excess int
	// table holds the weights plus excess, if they are not just numbers.
	table []int

	source [2]blockIndex512 // of the first and the last eight of a block's 16 bytes
	fifth  blockIndex512    // of its fifth bits, as rows of a matrix: see fifths
	scale  blockIndex512    // of d for each dword, and then of the minimum, as words
	// place has bit j in byte j of a qword.
	place, nibble, five, levels constant512
	// numbers take columns 8 to 15, 16 to 23 and 24 to 31 out of a byte with four bits
	// in one half and the fifth in the other; without a fifth bit, only the upper half.
	numbers [3]constant512
	masks   map[uint64]reg.OpmaskVirtual
	// end and begin are the parts of the second vector that are of the first and of the
	// second row.
	end, begin reg.OpmaskVirtual
}

func blockPlanesFormats512() []blocks8 {
	levels := []int{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
	for i := range levels {
		levels[i] += 128
	}
	return []blocks8{
		&blockPlanes512{name: "Q4_0", bytes: 18, q: 2, high: -1, minimum: -1, excess: 8},
		&blockPlanes512{name: "Q4_1", bytes: 20, q: 4, high: -1, minimum: 2},
		&blockPlanes512{name: "Q5_0", bytes: 22, q: 6, high: 2, minimum: -1, excess: 16},
		&blockPlanes512{name: "Q5_1", bytes: 24, q: 8, high: 4, minimum: 2},
		&blockPlanes512{name: "IQ4NL", bytes: 18, q: 2, high: -1, minimum: -1, excess: 128, table: levels},
		&bytes8{},
	}
}

func (f *blockPlanes512) shape() shape8 {
	return shape8{name: f.name, bytes: f.bytes, excess: f.excess, minimum: f.minimum >= 0}
}

// third is where the third vector begins.
func (f *blockPlanes512) third() int { return f.shape().chunk() - 64 }

// split is where the second row begins in the second vector, if each of two rows has four blocks.
func (f *blockPlanes512) split() int { return f.shape().half() - 64 }

// blockIndex512 is an index of bytes or words of the first two vectors, or of the third
// in the elements of mask, if that is not nil.
type blockIndex512 struct {
	constant512
	mask reg.OpmaskVirtual
}

// index makes the index of elements of size bytes: at gives the byte in the block for
// each of the elements that belong to one block, perBlock in a row.
func (f *blockPlanes512) index(name string, size, perBlock, bytes int, at func(i int) int) blockIndex512 {
	var b []byte
	mask := uint64(0)
	for i := range 64 / size {
		block := i / perBlock % 8
		pos := f.bytes*block + at(i)
		if f.bytes*block+bytes > 128 {
			mask |= 1 << i
			pos -= f.third()
		}
		b = append(b, byte(pos/size))
		for range size - 1 {
			b = append(b, 0)
		}
	}
	x := blockIndex512{constant512: newConstant512("blocks"+f.name+name, b, true)}
	if mask != 0 {
		if f.masks[mask] == nil {
			f.masks[mask] = opmask(mask)
		}
		x.mask = f.masks[mask]
	}
	return x
}

// constants loads what stays in registers for a whole function. What is short of them,
// because there are many tokens or many constants, is read from memory.
func (f *blockPlanes512) constants(tokens int) {
	f.masks = map[uint64]reg.OpmaskVirtual{}
	f.end, f.begin = opmask(1<<f.split()-1), opmask(^(uint64(1)<<f.split() - 1))
	for v := range f.source {
		f.source[v] = f.index(fmt.Sprintf("q%d", v), 1, 8, f.q+16, func(i int) int { return f.q + 8*v + i%8 })
	}
	f.scale = f.index("scale", 2, 2, 4, func(i int) int {
		if i < 16 || f.minimum < 0 {
			return 0
		}
		return f.minimum
	})
	f.nibble = newConstant512("blocksnibble", repeat(15, 64), true)
	number := func(k int, from func(bit int) int) constant512 {
		return bitMatrix(fmt.Sprintf("blocks%d", k), tokens < 4, func(_, bit int) int { return from(bit) })
	}
	if f.high < 0 {
		f.numbers[0] = number(0, func(bit int) int {
			if bit > 3 {
				return -1
			}
			return 4 + bit
		})
		if f.table != nil {
			var b []byte
			for i := range 64 {
				b = append(b, byte(f.table[i%16]))
			}
			f.levels = newConstant512("blocks"+f.name+"levels", b, true)
		}
		return
	}
	f.fifth = f.index("high", 1, 8, f.high+4, func(i int) int { return f.high + 3 - i%4 })
	var place []byte
	for i := range 64 {
		place = append(place, 1<<(i%8))
	}
	f.place = newConstant512("blocksplace", place, false)
	f.five = newConstant512("blocksfive", repeat(31, 64), tokens < 4 && f.minimum < 0)
	for i := range f.numbers {
		k := i + 1
		f.numbers[i] = number(k, func(bit int) int {
			switch {
			case bit > 4:
				return -1
			case bit == 4 && k == 1:
				return 5
			case bit == 4:
				return k
			case k == 1:
				return bit
			}
			return 4 + bit
		})
	}
}

func opmask(bits uint64) reg.OpmaskVirtual {
	r, k := GP64(), K()
	MOVQ(U64(bits), r)
	KMOVQ(r, k)
	return k
}

// planesChunk8 is a chunk in the vectors z.
type planesChunk8 struct {
	f      *blockPlanes512
	z      [3]reg.VecVirtual
	fifths reg.VecVirtual
}

func (f *blockPlanes512) load(p reg.GPVirtual) chunk8 {
	var z [3]reg.VecVirtual
	for i, start := range []int{0, 64, f.third()} {
		z[i] = ZMM()
		VMOVDQU64(Mem{Base: p, Disp: start}, z[i])
	}
	return &planesChunk8{f: f, z: z}
}

func (f *blockPlanes512) loadHalves(w []reg.GPVirtual) chunk8 {
	z := [3]reg.VecVirtual{ZMM(), ZMM(), ZMM()}
	VMOVDQU64(Mem{Base: w[0]}, z[0])
	VMOVDQU8_Z(Mem{Base: w[1], Disp: -f.split()}, f.begin, z[1])
	VMOVDQU8(Mem{Base: w[0], Disp: 64}, f.end, z[1])
	VMOVDQU64(Mem{Base: w[1], Disp: f.split()}, z[2])
	return &planesChunk8{f: f, z: z}
}

func (f *blockPlanes512) loadParts(w []reg.GPVirtual, bytes reg.GPVirtual) chunk8 {
	z := [3]reg.VecVirtual{ZMM(), ZMM(), ZMM()}
	VMOVDQU8_Z(Mem{Base: w[0]}, firstBytes(bytes, 0, 0), z[0])
	VMOVDQU8_Z(Mem{Base: w[1], Disp: -f.split()}, firstBytes(bytes, -f.split(), f.split()), z[1])
	VMOVDQU8(Mem{Base: w[0], Disp: 64}, firstBytes(bytes, 64, 0), z[1])
	VMOVDQU8_Z(Mem{Base: w[1], Disp: f.split()}, firstBytes(bytes, f.split(), 0), z[2])
	return &planesChunk8{f: f, z: z}
}

// firstBytes returns a mask of the first bytes-less bits, at least 0 and at most 64, but
// not of the first except of them.
func firstBytes(bytes reg.GPVirtual, less, except int) reg.OpmaskVirtual {
	n, bits, limit, k := GP64(), GP64(), GP64(), K()
	LEAQ(Mem{Base: bytes, Disp: -less}, n)
	XORL(limit.As32(), limit.As32())
	TESTQ(n, n)
	CMOVQLT(limit, n)
	MOVQ(I32(64), limit)
	CMPQ(n, limit)
	CMOVQGT(limit, n)
	MOVQ(I32(-1), bits)
	BZHIQ(n, bits, bits)
	if except > 0 {
		SHRQ(Imm(uint64(except)), bits)
		SHLQ(Imm(uint64(except)), bits)
	}
	KMOVQ(bits, k)
	return k
}

func (x blockIndex512) gather(z [3]reg.VecVirtual, words bool) reg.VecVirtual {
	v := x.copy()
	if words {
		VPERMI2W(z[1], z[0], v)
	} else {
		VPERMI2B(z[1], z[0], v)
	}
	switch {
	case x.mask != nil && words:
		VPERMW(z[2], x.get(), x.mask, v)
	case x.mask != nil:
		VPERMB(z[2], x.get(), x.mask, v)
	}
	return v
}

func (c *planesChunk8) scales() (d, min reg.VecVirtual) {
	words := c.f.scale.gather(c.z, true)
	d = ZMM()
	VCVTPH2PS(words.AsY(), d)
	if c.f.minimum >= 0 {
		min = ZMM()
		VEXTRACTI64X4(Imm(1), words, words.AsY())
		VCVTPH2PS(words.AsY(), min)
	}
	return d, min
}

// prepare finds the fifth bits, if there are any: bits k and 4+k of byte j are that of
// column 8k+j.
func (c *planesChunk8) prepare() {
	if c.f.high < 0 {
		return
	}
	c.fifths = c.f.fifth.gather(c.z, false)
	VGF2P8AFFINEQB(Imm(0), c.fifths, c.f.place.get(), c.fifths)
}

func (c *planesChunk8) pair(v int) (low, high reg.VecVirtual) {
	f := c.f
	high, low = f.source[v].gather(c.z, false), ZMM()
	if f.high < 0 {
		VPANDD(f.nibble.get(), high, low)
		VGF2P8AFFINEQB(Imm(0), f.numbers[0].get(), high, high)
		if f.table != nil {
			VPSHUFB(low, f.levels.get(), low)
			VPSHUFB(high, f.levels.get(), high)
		}
		return low, high
	}
	VMOVDQA64(high, low)
	VPTERNLOGD(Imm(0xe4), f.nibble.get(), c.fifths, low)  // the lower half of low, the upper of fifths
	VPTERNLOGD(Imm(0xd8), f.nibble.get(), c.fifths, high) // the upper half of high, the lower of fifths
	if v == 0 {
		VPANDD(f.five.get(), low, low)
	} else {
		VGF2P8AFFINEQB(Imm(0), f.numbers[0].get(), low, low)
	}
	VGF2P8AFFINEQB(Imm(0), f.numbers[1+v].get(), high, high)
	return low, high
}

// matVecBlockPlanes512 writes the product of rows with tokens side by side, two rows at
// a time. The last blocks of rows that are no whole chunks are multiplied four at a
// time, those of both rows as one chunk. If apart is set, several tokens are multiplied
// with a chunk of one row and then of the other, so that the activations of a chunk are
// read twice while they are in the first-level cache, which is better where those of
// all columns are not. Formats that ask for it go through single rows with one token.
func matVecBlockPlanes512(f blocks8, tokens int, apart bool) {
	s := f.shape()
	name := fmt.Sprintf("matVec%sI16x%dAVX512", s.name, tokens)
	if apart {
		name = fmt.Sprintf("matVec%sI16Wide%dAVX512", s.name, tokens)
	}
	TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rows, blocks int, planes *int8, scale, sum *float32, batch int)")
	Pragma("noescape")
	Doc(name+" multiplies rows of contiguous blocks with", fmt.Sprintf("%d token(s): out[t*stride+i]. planes, of I16.BlockPlanes, scale and sum point to the first token;", tokens),
		"chunks of activations are batch tokens apart. rows and blocks are at least 1.")
	f.constants(tokens)
	load := func(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }
	out, rows, batch, rowBytes := load("out"), load("rows"), load("batch"), load("blocks")
	step := GP64()
	IMUL3Q(U32(planeBytes), batch, step)
	IMUL3Q(Imm(uint64(s.bytes)), rowBytes, rowBytes)
	w := []reg.GPVirtual{load("w")}
	ahead := GP64()
	if tokens == 1 && s.single {
		MOVQ(w[0], ahead)
	} else {
		ahead, w = aheadPlanes512(w[0], rowBytes, tokens), append(w, GP64())
	}
	p := &blockProducts512{f: f, shape8: s, tokens: tokens, apart: apart, lower: opmask(0xff), upper: [2]reg.VecVirtual{ZMM(), ZMM()}}

	Label("rows")
	if len(w) > 1 {
		LEAQ(Mem{Base: w[0], Index: rowBytes, Scale: 1}, w[1])
		CMPQ(rows, Imm(1))
		CMOVQEQ(w[0], w[1])
	}
	left := GP64()
	MOVQ(rowBytes, left)
	p.begin(len(w), load)
	next := func(bytes int) {
		for r := range w {
			ADDQ(number(bytes), w[r])
		}
		SUBQ(number(bytes), left)
	}
	fetch := func(bytes int) {
		prefetch(ahead, bytes*len(w), tokens)
		ADDQ(number(bytes*len(w)), ahead)
	}
	CMPQ(left, number(s.chunk()))
	JLT(LabelRef("tail"))

	Label("chunk")
	fetch(s.chunk())
	p.whole(w)
	next(s.chunk())
	p.next(step, batch)
	CMPQ(left, number(s.chunk()))
	JGE(LabelRef("chunk"))

	Label("tail")
	CMPQ(left, number(s.half()))
	JLT(LabelRef("part"))
	fetch(s.half())
	p.halves(f.loadHalves([]reg.GPVirtual{w[0], w[len(w)-1]}))
	next(s.half())
	p.nextHalf()

	Label("part")
	TESTQ(left, left)
	JZ(LabelRef("sum"))
	LEAQ(Mem{Base: ahead, Index: left, Scale: uint8(len(w))}, ahead)
	p.halves(f.loadParts([]reg.GPVirtual{w[0], w[len(w)-1]}, left))
	for r := range w {
		ADDQ(left, w[r])
	}

	Label("sum")
	storePlanes512(out, rows, w, p.acc)
}
