package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// bytes8 is Q8_0: a block is d and 32 signed bytes.
type bytes8 struct {
	excess constant512    // 128 in each byte
	words  constant512    // index of d of four blocks, twice each, in their first 128 bytes
	qwords [2]constant512 // indices of vectors 0 or 1 and of 2 or 3: see prepare
}

const (
	q8Bytes = 34
	q8Half  = 4 * q8Bytes
)

func (f *bytes8) shape() shape8 {
	return shape8{name: "Q8_0", bytes: q8Bytes, excess: 128, single: true}
}

func (f *bytes8) constants(int) {
	f.excess = newConstant512("q8excess", repeat(128, 64), true)
	var words []byte
	for i := range 32 {
		words = append(words, byte(i/2%4*q8Bytes/2), 0)
	}
	f.words = newConstant512("q8words", words, true)
	for i := range f.qwords {
		var b []byte
		for block := range 8 {
			b = append(b, byte(block/4*8+block%2*4+block/2%2+2*i), 0, 0, 0, 0, 0, 0, 0)
		}
		f.qwords[i] = newConstant512([]string{"q8even", "q8odd"}[i], b, true)
	}
}

// bytesChunk8 are two blocks in each of the vectors of z, and d of all twice.
type bytesChunk8 struct {
	f     *bytes8
	z     [4]reg.VecVirtual
	words reg.VecVirtual
}

func (f *bytes8) load(p reg.GPVirtual) chunk8 {
	return f.chunk([2]Mem{{Base: p}, {Base: p, Disp: q8Half}}, nil)
}

func (f *bytes8) loadHalves(w []reg.GPVirtual) chunk8 {
	return f.chunk([2]Mem{{Base: w[0]}, {Base: w[1]}}, nil)
}

func (f *bytes8) loadParts(w []reg.GPVirtual, bytes reg.GPVirtual) chunk8 {
	return f.chunk([2]Mem{{Base: w[0]}, {Base: w[1]}}, bytes)
}

// chunk loads four blocks at each of two places, or of each only so many bytes.
func (f *bytes8) chunk(from [2]Mem, bytes reg.GPVirtual) chunk8 {
	c := &bytesChunk8{f: f}
	var words [2]reg.VecVirtual
	load := func(m Mem, z Op) {
		if bytes == nil {
			VMOVDQU64(m, z)
		} else {
			VMOVDQU8_Z(m, firstBytes(bytes, m.Disp, 0), z)
		}
	}
	for half, m := range from {
		for i := range 2 {
			z, second := ZMM(), Op(m.Offset(q8Bytes*(2*i+1)+2))
			c.z[2*half+i] = z
			VXORPS(z, z, z) // or it is taken to be in use from the start
			load(m.Offset(2*q8Bytes*i+2), z.AsY())
			if bytes != nil {
				y := YMM()
				load(second.(Mem), y)
				second = y
			}
			VINSERTI64X4(Imm(1), second, z, z)
		}
		first, second := ZMM(), ZMM()
		words[half] = f.words.copy()
		load(m, first)
		load(m.Offset(64), second)
		VPERMI2W(second, first, words[half])
	}
	c.words = words[0]
	VINSERTI32X4(Imm(1), words[1].AsX(), words[0].AsY(), c.words.AsY())
	return c
}

func (c *bytesChunk8) scales() (d, min reg.VecVirtual) {
	d = ZMM()
	VCVTPH2PS(c.words.AsY(), d)
	return d, nil
}

// prepare makes unsigned bytes and transposes qwords: vectors 0 and 2 come from the even
// ones of all blocks, 1 and 3 from the odd ones.
func (c *bytesChunk8) prepare() {
	for _, z := range c.z {
		VPXORD(c.f.excess.get(), z, z)
	}
	even, odd := [2]reg.VecVirtual{ZMM(), ZMM()}, [2]reg.VecVirtual{ZMM(), ZMM()}
	for i := range 2 { // of blocks 0 2 0 2 1 3 1 3, then of 4 6 4 6 5 7 5 7
		VPUNPCKLQDQ(c.z[2*i+1], c.z[2*i], even[i])
		VPUNPCKHQDQ(c.z[2*i+1], c.z[2*i], odd[i])
	}
	for v, from := range [][2]reg.VecVirtual{even, odd} {
		c.z[v], c.z[v+2] = c.f.qwords[0].copy(), from[0]
		VPERMI2Q(from[1], from[0], c.z[v])
		VPERMT2Q(from[1], c.f.qwords[1].get(), c.z[v+2])
	}
}

func (c *bytesChunk8) pair(v int) (low, high reg.VecVirtual) { return c.z[v], c.z[v+2] }
