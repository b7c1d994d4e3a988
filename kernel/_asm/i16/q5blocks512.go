package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// q5Blocks decodes eight blocks of Q5_0 as if they were one of 256 columns: each
// is d, 32 fifth bits, and 16 bytes whose lower halves are columns 0 to 15 and
// whose upper halves are columns 16 to 31. Their 176 bytes are in three vectors,
// from bytes 0, 64 and 112 on; the third is read for blocks 5 to 7. Vectors are
// those of I16.BlockPlanes: qword i belongs to block i.
type q5Blocks struct {
	q     [2]constant512 // where the first and the last eight of a block's 16 bytes are
	high  constant512    // where its fifth bits are, as rows of a matrix: see fifths
	scale constant512    // where d is, in words, for each dword
	// place has bit j in byte j of a qword.
	place, nibble, five constant512
	// levels take the number of columns 8 to 15, 16 to 23 and 24 to 31 out of a byte
	// with four bits of it in one half and its fifth bit in the other.
	levels    [3]constant512
	lastBytes reg.OpmaskVirtual // blocks 5 to 7, which come from the third vector
	lastWords reg.OpmaskVirtual // blocks 6 and 7, as words of 4 bytes each
}

const q5Bytes, q5Half, q5Chunk = 22, 4 * 22, 8 * 22

// q5Starts are the offsets of the three vectors.
var q5Starts = [3]int{0, 64, 112}

func newQ5Blocks() *q5Blocks {
	f := new(q5Blocks)
	// An index is of the first two vectors, or of the third from block 5 on.
	index := func(name string, at func(i int) int) constant512 {
		var b []byte
		for i := range 64 {
			pos := q5Bytes*(i/8) + at(i%8)
			if i/8 >= 5 {
				pos -= q5Starts[2]
			}
			b = append(b, byte(pos))
		}
		return newConstant512("q50"+name, b, true)
	}
	for v := range f.q {
		f.q[v] = index(fmt.Sprintf("q%d", v), func(i int) int { return 6 + 8*v + i })
	}
	f.high = index("high", func(i int) int { return 2 + 3 - i%4 })
	var words []byte
	for i := range 32 {
		pos := q5Bytes * (i % 16 / 2)
		if i%16/2 >= 6 {
			pos -= q5Starts[2]
		}
		words = append(words, byte(pos/2), 0)
	}
	f.scale = newConstant512("q50scale", words, true)
	var place []byte
	for i := range 64 {
		place = append(place, 1<<(i%8))
	}
	f.place = newConstant512("q50place", place, false)
	f.nibble = newConstant512("q50nibble", repeat(15, 64), true)
	f.five = newConstant512("q50five", repeat(31, 64), true)
	for i := range f.levels {
		k := i + 1
		f.levels[i] = bitMatrix(fmt.Sprintf("q50level%d", k), true, func(_, bit int) int {
			switch {
			case bit == 4 && k == 1:
				return 5
			case bit == 4:
				return k
			case bit > 4:
				return -1
			case k == 1:
				return bit
			}
			return 4 + bit
		})
	}
	f.lastBytes, f.lastWords = opmask(0xffffff0000000000), opmask(0xf000)
	return f
}

func opmask(bits uint64) reg.OpmaskVirtual {
	k := K()
	setOpmask(k, bits)
	return k
}

func setOpmask(k reg.OpmaskVirtual, bits uint64) {
	r := GP64()
	MOVQ(U64(bits), r)
	KMOVQ(r, k)
}

// load returns the vectors of the chunk at p.
func (f *q5Blocks) load(p reg.GPVirtual) (z [3]reg.VecVirtual) {
	for i, start := range q5Starts {
		z[i] = ZMM()
		VMOVDQU64(Mem{Base: p, Disp: start}, z[i])
	}
	return z
}

// halves are the masks for blocks of two rows that are decoded as one chunk: of
// vector 0, and of vector 2; of vector 1, the part of the first row and that of the second.
type halves struct{ first, last, end, begin reg.OpmaskVirtual }

// q5Split is where the second row begins in vector 1.
const q5Split = q5Half - 64

const q5Begin = ^uint64(1<<q5Split - 1)

// wholeHalves are the masks for four blocks.
func wholeHalves() halves { return halves{end: opmask(^q5Begin), begin: opmask(q5Begin)} }

// part makes masks for less than q5Half bytes, two of them in the same registers.
func (m halves) part(bytes reg.GPVirtual) halves {
	part := halves{first: K(), last: K(), end: m.end, begin: m.begin}
	for _, k := range []struct {
		less int
		mask reg.OpmaskVirtual
	}{{0, part.first}, {64, part.end}, {-q5Split, part.begin}, {q5Half - 64, part.last}} {
		// The first bytes-less bits, at least 0 and at most 64.
		n, bits, limit := GP64(), GP64(), GP64()
		LEAQ(Mem{Base: bytes, Disp: -k.less}, n)
		XORL(limit.As32(), limit.As32())
		TESTQ(n, n)
		CMOVQLT(limit, n)
		MOVQ(I32(64), limit)
		CMPQ(n, limit)
		CMOVQGT(limit, n)
		MOVQ(I32(-1), bits)
		BZHIQ(n, bits, bits)
		if k.less < 0 {
			ANDQ(I32(-1<<q5Split), bits)
		}
		KMOVQ(bits, k.mask)
	}
	return part
}

// restore undoes part.
func (m halves) restore() {
	setOpmask(m.end, ^q5Begin)
	setOpmask(m.begin, q5Begin)
}

// loadHalves returns the vectors of a chunk that has up to four blocks at w[0],
// and as many at w[1] as its blocks 4 to 7.
func (f *q5Blocks) loadHalves(w []reg.GPVirtual, m halves) (z [3]reg.VecVirtual) {
	z = [3]reg.VecVirtual{ZMM(), ZMM(), ZMM()}
	first, last := Mem{Base: w[0]}, Mem{Base: w[1], Disp: q5Half - 64}
	if m.first == nil {
		VMOVDQU64(first, z[0])
		VMOVDQU64(last, z[2])
	} else {
		VMOVDQU8_Z(first, m.first, z[0])
		VMOVDQU8_Z(last, m.last, z[2])
	}
	VMOVDQU8_Z(Mem{Base: w[1], Disp: -q5Split}, m.begin, z[1])
	VMOVDQU8(Mem{Base: w[0], Disp: 64}, m.end, z[1])
	return z
}

func (f *q5Blocks) gather(z [3]reg.VecVirtual, index constant512) reg.VecVirtual {
	v := index.copy()
	VPERMI2B(z[1], z[0], v)
	VPERMB(z[2], index.get(), f.lastBytes, v)
	return v
}

// scales returns d, for each dword.
func (f *q5Blocks) scales(z [3]reg.VecVirtual) reg.VecVirtual {
	words, d := f.scale.copy(), ZMM()
	VPERMI2W(z[1], z[0], words)
	VPERMW(z[2], f.scale.get(), f.lastWords, words)
	VCVTPH2PS(words.AsY(), d)
	return d
}

// fifths returns the fifth bits: bits k and 4+k of byte j are that of column 8k+j.
func (f *q5Blocks) fifths(z [3]reg.VecVirtual) reg.VecVirtual {
	high := f.gather(z, f.high)
	VGF2P8AFFINEQB(Imm(0), high, f.place.get(), high)
	return high
}

// pair returns the weights plus 16 of vectors v and v+2.
func (f *q5Blocks) pair(z [3]reg.VecVirtual, fifths reg.VecVirtual, v int) (low, high reg.VecVirtual) {
	high, low = f.gather(z, f.q[v]), ZMM()
	VMOVDQA64(high, low)
	VPTERNLOGD(Imm(0xe4), f.nibble.get(), fifths, low)  // the lower half of low, the upper of fifths
	VPTERNLOGD(Imm(0xd8), f.nibble.get(), fifths, high) // the upper half of high, the lower of fifths
	if v == 0 {
		VPANDD(f.five.get(), low, low)
	} else {
		VGF2P8AFFINEQB(Imm(0), f.levels[0].get(), low, low)
	}
	VGF2P8AFFINEQB(Imm(0), f.levels[1+v].get(), high, high)
	return low, high
}

// q5Products multiplies chunks of some rows with tokens side by side.
type q5Products struct {
	f             *q5Blocks
	tokens        int
	planes, scale reg.GPVirtual
	acc           [][]reg.VecVirtual // by row and token
	upper         [2]reg.VecVirtual  // scratch
}

// load returns a vector of the activations; of halves, blocks 0 to 3 twice.
func (p *q5Products) load(t, at int, halves bool) reg.VecVirtual {
	z, m := ZMM(), Mem{Base: p.planes, Disp: planeBytes*t + at}
	if halves {
		VBROADCASTI64X4(m, z)
	} else {
		VMOVDQU64(m, z)
	}
	return z
}

// begin returns sums for the upper bytes and for the lower ones; the latter begin
// with what the weights have too much.
func (p *q5Products) begin(row, t int, halves bool) (upper, lower reg.VecVirtual) {
	VPXORD(p.upper[row], p.upper[row], p.upper[row])
	return p.upper[row], p.load(t, planeSums, halves)
}

// end returns the sums, as numbers, and what they have to be multiplied with.
func (p *q5Products) end(t int, upper, lower, d reg.VecVirtual) (sums, scale reg.VecVirtual) {
	VPSLLD(Imm(8), upper, upper)
	VPADDD(lower, upper, upper)
	VCVTDQ2PS(upper, upper)
	scale = ZMM()
	VMULPS_BCST(Mem{Base: p.scale, Disp: 4 * t}, d, scale)
	return upper, scale
}

// chunks multiplies, with one token, the chunks whose vectors are z, by row: each
// vector of the activations is read once.
func (p *q5Products) chunks(z [][3]reg.VecVirtual, halves bool, add func(row int, sums, scale reg.VecVirtual)) {
	rows := len(z)
	d, fifths := make([]reg.VecVirtual, rows), make([]reg.VecVirtual, rows)
	upper, lower := make([]reg.VecVirtual, rows), make([]reg.VecVirtual, rows)
	for r := range z {
		d[r], fifths[r] = p.f.scales(z[r]), p.f.fifths(z[r])
		upper[r], lower[r] = p.begin(r, 0, halves)
	}
	for v := range 2 {
		weights := make([][2]reg.VecVirtual, rows)
		for r := range z {
			weights[r][0], weights[r][1] = p.f.pair(z[r], fifths[r], v)
		}
		for i := range 2 {
			q := p.load(0, planeUpper+64*(v+2*i), halves)
			for r := range z {
				VPDPBUSD(q, weights[r][i], upper[r])
			}
			q = p.load(0, planeLower+64*(v+2*i), halves)
			for r := range z {
				VPDPBUSD(q, weights[r][i], lower[r])
			}
		}
	}
	for r := range z {
		sums, scale := p.end(0, upper[r], lower[r], d[r])
		add(r, sums, scale)
	}
}

// chunk multiplies one chunk with all tokens.
func (p *q5Products) chunk(z [3]reg.VecVirtual, halves bool, add func(t int, sums, scale reg.VecVirtual)) {
	d, fifths := p.f.scales(z), p.f.fifths(z)
	var weights [4]reg.VecVirtual
	for v := range 2 {
		weights[v], weights[v+2] = p.f.pair(z, fifths, v)
	}
	for t := range p.tokens {
		upper, lower := p.begin(0, t, halves)
		for v, w := range weights {
			VPDPBUSD(p.load(t, planeUpper+64*v, halves), w, upper)
			VPDPBUSD(p.load(t, planeLower+64*v, halves), w, lower)
		}
		sums, scale := p.end(t, upper, lower, d)
		add(t, sums, scale)
	}
}

// whole multiplies a chunk of each of the rows at w.
func (p *q5Products) whole(w []reg.GPVirtual) {
	if p.tokens == 1 {
		z := make([][3]reg.VecVirtual, len(w))
		for r := range w {
			z[r] = p.f.load(w[r])
		}
		p.chunks(z, false, func(r int, sums, scale reg.VecVirtual) { VFMADD231PS(scale, sums, p.acc[r][0]) })
		return
	}
	for r := range w {
		p.chunk(p.f.load(w[r]), false, func(t int, sums, scale reg.VecVirtual) { VFMADD231PS(scale, sums, p.acc[r][t]) })
	}
}

// half multiplies up to four blocks of each of two rows. Both go to the lower half
// of their sums, so that a row's bits do not depend on which of two it is.
func (p *q5Products) half(w []reg.GPVirtual, m halves, lower reg.OpmaskVirtual) {
	add := func(t int, sums, scale reg.VecVirtual) {
		VFMADD231PS(scale, sums, lower, p.acc[0][t])
		VEXTRACTF64X4(Imm(1), sums, sums.AsY())
		VEXTRACTF64X4(Imm(1), scale, scale.AsY())
		VFMADD231PS(scale, sums, lower, p.acc[1][t])
	}
	p.chunk(p.f.loadHalves(w, m), true, add)
}

// matVecQ5Blocks512 writes the product of rows of Q5_0 with tokens side by side, two
// rows at a time. The last blocks of rows that are no whole chunks are multiplied
// four at a time, those of both rows as one chunk.
func matVecQ5Blocks512(tokens int) {

	name := fmt.Sprintf("matVecQ5_0I16x%dAVX512", tokens)
	TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rows, blocks int, planes *int8, scale, sum *float32, batch int)")
	Pragma("noescape")
	Doc(name+" multiplies rows of contiguous blocks with", fmt.Sprintf("%d token(s): out[t*stride+i]. planes, of I16.BlockPlanes, and scale point to the first token;", tokens),
		"chunks of activations are batch tokens apart. rows and blocks are at least 1.")
	f := newQ5Blocks()
	out := Load(Param("out"), GP64()).(reg.GPVirtual)
	rows := Load(Param("rows"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	step := GP64()
	IMUL3Q(U32(planeBytes), batch, step)
	rowBytes := Load(Param("blocks"), GP64()).(reg.GPVirtual)
	IMUL3Q(Imm(q5Bytes), rowBytes, rowBytes)
	w := []reg.GPVirtual{Load(Param("w"), GP64()).(reg.GPVirtual), GP64()}
	ahead := aheadPlanes512(w[0], rowBytes, tokens)
	lower, whole := opmask(0xff), wholeHalves()

	Label("rows")
	LEAQ(Mem{Base: w[0], Index: rowBytes, Scale: 1}, w[1])
	CMPQ(rows, Imm(1))
	CMOVQEQ(w[0], w[1])
	left := GP64()
	MOVQ(rowBytes, left)
	p := &q5Products{f: f, tokens: tokens, upper: [2]reg.VecVirtual{ZMM(), ZMM()}}
	p.planes = Load(Param("planes"), GP64()).(reg.GPVirtual)
	p.scale = Load(Param("scale"), GP64()).(reg.GPVirtual)
	for range w {
		acc := make([]reg.VecVirtual, tokens)
		for t := range acc {
			acc[t] = ZMM()
			VPXORD(acc[t], acc[t], acc[t])
		}
		p.acc = append(p.acc, acc)
	}
	next := func(bytes int) {
		for r := range w {
			ADDQ(number(bytes), w[r])
		}
		SUBQ(number(bytes), left)
	}
	CMPQ(left, U32(q5Chunk))
	JLT(LabelRef("tail"))

	Label("chunk")
	prefetch(ahead, 2*q5Chunk, tokens)
	ADDQ(U32(2*q5Chunk), ahead)
	p.whole(w)
	next(q5Chunk)
	ADDQ(step, p.planes)
	LEAQ(Mem{Base: p.scale, Index: batch, Scale: 4}, p.scale)
	CMPQ(left, U32(q5Chunk))
	JGE(LabelRef("chunk"))

	Label("tail")
	CMPQ(left, Imm(q5Half))
	JLT(LabelRef("part"))
	prefetch(ahead, 2*q5Half, tokens)
	ADDQ(U32(2*q5Half), ahead)
	p.half(w, whole, lower)
	next(q5Half)
	ADDQ(Imm(32), p.planes)

	Label("part")
	TESTQ(left, left)
	JZ(LabelRef("sum"))
	LEAQ(Mem{Base: ahead, Index: left, Scale: 2}, ahead)
	p.half(w, whole.part(left), lower)
	whole.restore()
	for r := range w {
		ADDQ(left, w[r])
	}

	Label("sum")
	storePlanes512(out, rows, w, p.acc)
}
