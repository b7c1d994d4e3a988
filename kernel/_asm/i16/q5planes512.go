package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// q5Planes decodes eight blocks of Q5_0 as if they were one of 256 columns: each
// is d, 32 fifth bits, and 16 bytes whose lower halves are columns 0 to 15 and
// whose upper halves are columns 16 to 31. Their 176 bytes are loaded as three
// vectors, from bytes 0, 64 and 112 on.
type q5Planes struct {
	source, third     [4]constant512 // of the halves' bytes: in the first two vectors, in the third
	high, highThird   constant512    // of the fifth bits
	scale, scaleThird constant512    // of d, as words
	odd               constant512    // shifts dwords of columns 16 to 31
	shift             [4]constant512
	nibble, bit       constant512
	lastBytes         reg.OpmaskVirtual // groups 10 to 15, which come from the third vector
	lastWords         reg.OpmaskVirtual // groups 12 to 15, as words
}

const q5Bytes, q5Chunk = 22, 8 * 22

// q5Starts are the offsets of the three vectors.
var q5Starts = [3]int{0, 64, 112}

func newQ5Planes() *q5Planes {
	f := new(q5Planes)
	// index makes the indices of n bytes, each given by its position in the chunk.
	index := func(name string, start int, keep bool, at func(i int) int) constant512 {
		var b []byte
		for i := range 64 {
			b = append(b, byte(max(0, at(i)-start)))
		}
		return newConstant512("q50"+name, b, keep)
	}
	words := func(name string, start int) constant512 {
		var b []byte
		for i := range 32 {
			b = append(b, byte(max(0, q5Bytes*(i%16/2)-start)/2), 0)
		}
		return newConstant512("q50"+name, b, false)
	}
	block := func(i int) int { return q5Bytes * (i / 8) }
	for v := range f.source {
		at := func(i int) int { return block(i) + 6 + 4*v + i%4 }
		f.source[v], f.third[v] = index(fmt.Sprintf("source%d", v), 0, true, at), index(fmt.Sprintf("third%d", v), q5Starts[2], true, at)
		var b []byte
		for i := range 64 { // bit 4 of byte i becomes fifth bit 16h + 4v + i%4 of its block, which is there twice
			b = append(b, byte(i%8/4*16+4*v+i%4-4)&63)
		}
		f.shift[v] = newConstant512(fmt.Sprintf("q50shift%d", v), b, false)
	}
	high := func(i int) int { return block(i) + 2 + i%4 }
	f.high, f.highThird = index("high", 0, false, high), index("highthird", q5Starts[2], false, high)
	f.scale, f.scaleThird = words("scale", 0), words("scalethird", q5Starts[2])
	f.odd = dwordIndex("q50odd", true, func(group int) int { return group % 2 * 4 })
	f.nibble = newConstant512("q50nibble", repeat(15, 64), true)
	f.bit = newConstant512("q50bit", repeat(16, 64), true)
	mask := func(bits uint64) reg.OpmaskVirtual {
		r, k := GP64(), K()
		MOVQ(U64(bits), r)
		KMOVQ(r, k)
		return k
	}
	f.lastBytes, f.lastWords = mask(0xffffff0000000000), mask(0xf000)
	return f
}

// chunk decodes the blocks at p, of which only the bytes in masks exist, if those
// are given: the scale of each dword, and the weights plus 16.
func (f *q5Planes) chunk(p reg.GPVirtual, masks []reg.OpmaskVirtual) (d reg.VecVirtual, weights [4]reg.VecVirtual) {
	var z [3]reg.VecVirtual
	for i, start := range q5Starts {
		z[i] = ZMM()
		if masks == nil {
			VMOVDQU64(Mem{Base: p, Disp: start}, z[i])
		} else {
			VMOVDQU8_Z(Mem{Base: p, Disp: start}, masks[i], z[i])
		}
	}
	gather := func(source, third constant512) reg.VecVirtual {
		v := source.copy()
		VPERMI2B(z[1], z[0], v)
		VPERMB(z[2], third.get(), f.lastBytes, v)
		return v
	}
	halves := f.scale.copy()
	d = ZMM()
	VPERMI2W(z[1], z[0], halves)
	VPERMW(z[2], f.scaleThird.get(), f.lastWords, halves)
	VCVTPH2PS(halves.AsY(), d)
	high := gather(f.high, f.highThird)
	for v := range weights {
		w, fifth := gather(f.source[v], f.third[v]), ZMM()
		VPSRLVD(f.odd.get(), w, w)
		VPANDD(f.nibble.get(), w, w)
		VPMULTISHIFTQB(high, f.shift[v].get(), fifth)
		VPTERNLOGD(Imm(0xf8), f.bit.get(), fifth, w) // w | fifth&bit
		weights[v] = w
	}
	return d, weights
}

// matVecQ5Planes512 writes matVecPlanes512 for Q5_0. Rows may end with less than
// eight blocks: what is missing of those is read as zeros. More than one token is
// multiplied with one row at a time, because the constants want registers.
func matVecQ5Planes512(tokens int) {
	name := fmt.Sprintf("matVecQ5_0I16x%dAVX512", tokens)
	TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rows, blocks int, planes *int8, scale, sum *float32, batch int)")
	Pragma("noescape")
	Doc(name+" multiplies rows of contiguous blocks with", fmt.Sprintf("%d token(s): out[t*stride+i]. planes and scale point to the first token;", tokens),
		"chunks of activations are batch tokens apart. rows and blocks are at least 1.")
	f := newQ5Planes()
	out := Load(Param("out"), GP64()).(reg.GPVirtual)
	rows := Load(Param("rows"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	rowBytes := Load(Param("blocks"), GP64()).(reg.GPVirtual)
	IMUL3Q(Imm(q5Bytes), rowBytes, rowBytes)
	w := []reg.GPVirtual{Load(Param("w"), GP64()).(reg.GPVirtual)}
	ahead := aheadPlanes512(w[0], rowBytes, tokens)
	if tokens == 1 {
		w = append(w, GP64())
	}

	Label("rows")
	if len(w) > 1 {
		LEAQ(Mem{Base: w[0], Index: rowBytes, Scale: 1}, w[1])
		CMPQ(rows, Imm(1))
		CMOVQEQ(w[0], w[1])
	}
	left := GP64()
	MOVQ(rowBytes, left)
	planes := Load(Param("planes"), GP64()).(reg.GPVirtual)
	scale := Load(Param("scale"), GP64()).(reg.GPVirtual)
	products := productsPlanes512{planes, scale, scale, []reg.VecVirtual{ZMM(), ZMM()}, 16}
	acc := make([][]reg.VecVirtual, len(w))
	for r := range acc {
		for range tokens {
			z := ZMM()
			VPXORD(z, z, z)
			acc[r] = append(acc[r], z)
		}
	}
	multiply := func(masks []reg.OpmaskVirtual) {
		d, weights := make([]reg.VecVirtual, len(w)), make([][4]reg.VecVirtual, len(w))
		for r := range w {
			d[r], weights[r] = f.chunk(w[r], masks)
		}
		products.add(acc, weights, d, nil)
	}

	Label("chunk")
	CMPQ(left, U32(q5Chunk))
	JLT(LabelRef("tail"))
	prefetch(ahead, len(w)*q5Chunk, tokens)
	ADDQ(U32(uint32(len(w)*q5Chunk)), ahead)
	multiply(nil)
	for r := range w {
		ADDQ(U32(q5Chunk), w[r])
	}
	step := GP64()
	IMUL3Q(U32(planeBytes), batch, step)
	ADDQ(step, planes)
	LEAQ(Mem{Base: scale, Index: batch, Scale: 4}, scale)
	SUBQ(U32(q5Chunk), left)
	JMP(LabelRef("chunk"))

	Label("tail")
	TESTQ(left, left)
	JZ(LabelRef("sum"))
	masks := make([]reg.OpmaskVirtual, len(q5Starts))
	for i, start := range q5Starts {
		// The first left-start bits, at least 0 and at most 64.
		n, bits, limit := GP64(), GP64(), GP64()
		LEAQ(Mem{Base: left, Disp: -start}, n)
		XORL(limit.As32(), limit.As32())
		TESTQ(n, n)
		CMOVQLT(limit, n)
		MOVQ(I32(64), limit)
		CMPQ(n, limit)
		CMOVQGT(limit, n)
		MOVQ(I32(-1), bits)
		BZHIQ(n, bits, bits)
		masks[i] = K()
		KMOVQ(bits, masks[i])
	}
	prefetch(ahead, len(w)*q5Chunk/2, tokens)
	LEAQ(Mem{Base: ahead, Index: left, Scale: uint8(len(w))}, ahead)
	multiply(masks)
	for r := range w {
		ADDQ(left, w[r])
	}
	Label("sum")
	storePlanes512(out, rows, w, acc)
}
