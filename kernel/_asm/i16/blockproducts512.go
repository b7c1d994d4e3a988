package main

import (
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// blocks8 is a format of blocks of 32 columns, eight of which are multiplied with a chunk of
// I16.BlockPlanes as if they were one block of 256.
type blocks8 interface {
	shape() shape8
	// constants loads what stays in registers for a whole function.
	constants(tokens int)
	// load loads the chunk at p; loadHalves one of four blocks at w[0] and, as its blocks 4
	// to 7, of four at w[1]; loadParts the same for fewer blocks, of which there are so many bytes.
	load(p reg.GPVirtual) chunk8
	loadHalves(w []reg.GPVirtual) chunk8
	loadParts(w []reg.GPVirtual, bytes reg.GPVirtual) chunk8
}

// shape8 is what the products have to know of a format.
type shape8 struct {
	name  string
	bytes int // of a block
	// excess is what the weights have too much where they are multiplied.
	excess  int
	minimum bool
	// single: with one token rows are read one after the other, for two that are fetched at a
	// time are slower where each is many bytes.
	single bool
}

// half and chunk are the bytes of four and of eight blocks.
func (s shape8) half() int  { return 4 * s.bytes }
func (s shape8) chunk() int { return 8 * s.bytes }

// chunk8 are eight blocks in registers.
type chunk8 interface {
	// scales returns d for each dword and, if there is one, the minimum.
	scales() (d, min reg.VecVirtual)
	// prepare does what pair needs, once.
	prepare()
	// pair returns the weights plus excess of vectors v and v+2, those of I16.BlockPlanes:
	// qword i belongs to block i.
	pair(v int) (low, high reg.VecVirtual)
}

// blockProducts512 multiplies chunks of two rows with tokens side by side.
type blockProducts512 struct {
	f blocks8
	shape8
	tokens             int
	apart              bool               // multiply one row after the other
	lower              reg.OpmaskVirtual  // dwords 0 to 7
	upper              [2]reg.VecVirtual  // scratch
	acc                [][]reg.VecVirtual // by row and token
	planes, scale, sum reg.GPVirtual      // sum is nil without minimums
}

// begin goes to the first chunk of the next one or two rows.
func (p *blockProducts512) begin(rows int, load func(name string) reg.GPVirtual) {
	p.planes, p.scale = load("planes"), load("scale")
	if p.minimum {
		p.sum = load("sum")
	}
	p.acc = make([][]reg.VecVirtual, rows)
	for r := range p.acc {
		for range p.tokens {
			z := ZMM()
			VPXORD(z, z, z)
			p.acc[r] = append(p.acc[r], z)
		}
	}
}

// next goes on to the next chunk.
func (p *blockProducts512) next(step, batch reg.GPVirtual) {
	ADDQ(step, p.planes)
	LEAQ(Mem{Base: p.scale, Index: batch, Scale: 4}, p.scale)
	if p.sum != nil {
		sumStep := GP64()
		MOVQ(batch, sumStep)
		SHLQ(Imm(6), sumStep)
		ADDQ(sumStep, p.sum)
	}
}

// nextHalf goes on to blocks 4 to 7 of the chunk.
func (p *blockProducts512) nextHalf() {
	ADDQ(Imm(32), p.planes)
	if p.sum != nil {
		ADDQ(Imm(32), p.sum)
	}
}

// vector loads 16 dwords; of halves, the first eight of them twice.
func vector(m Mem, halves bool) reg.VecVirtual {
	z := ZMM()
	if halves {
		VBROADCASTI64X4(m, z)
	} else {
		VMOVDQU64(m, z)
	}
	return z
}

func (p *blockProducts512) load(t, at int, halves bool) reg.VecVirtual {
	return vector(Mem{Base: p.planes, Disp: planeBytes*t + at}, halves)
}

// sums returns, for some rows, where sums of the upper bytes and of the lower ones begin;
// the latter with what the weights have too much. BlockPlanes has it for an excess of 16.
func (p *blockProducts512) sums(t, rows int, halves bool) (upper, lower []reg.VecVirtual) {
	for r := range rows {
		VPXORD(p.upper[r], p.upper[r], p.upper[r])
		z := ZMM()
		switch shift := bits.Len(uint(p.excess)) - 5; {
		case p.excess == 0:
			VMOVDQA64(p.upper[r], z)
		case r > 0:
			VMOVDQA64(lower[0], z)
		default:
			z = p.load(t, planeSums, halves)
			if shift < 0 {
				VPSRAD(Imm(uint64(-shift)), z, z)
			} else if shift > 0 {
				VPSLLD(Imm(uint64(shift)), z, z)
			}
		}
		lower = append(lower, z)
	}
	return p.upper[:rows], lower
}

// total returns the sums, as numbers, and what they have to be multiplied with.
func (p *blockProducts512) total(t int, upper, lower, d reg.VecVirtual) (sums, scale reg.VecVirtual) {
	VPSLLD(Imm(8), upper, upper)
	VPADDD(lower, upper, upper)
	VCVTDQ2PS(upper, upper)
	scale = ZMM()
	VMULPS_BCST(Mem{Base: p.scale, Disp: 4 * t}, d, scale)
	return upper, scale
}

// whole multiplies a chunk of each of the rows at w.
func (p *blockProducts512) whole(w []reg.GPVirtual) {
	if p.tokens == 1 {
		p.one(w)
		return
	}
	if p.apart {
		for r := range w {
			p.multiply(p.f.load(w[r]), false, func(t int, a, b reg.VecVirtual) { VFMADD231PS(b, a, p.acc[r][t]) })
		}
		return
	}
	p.few(w)
}

// halves multiplies up to four blocks of each of two rows, or of one, twice. Both go to the
// lower half of their sums, so that a row's bits do not depend on which of two it is.
func (p *blockProducts512) halves(c chunk8) {
	p.multiply(c, true, func(t int, a, b reg.VecVirtual) {
		VFMADD231PS(b, a, p.lower, p.acc[0][t])
		if len(p.acc) == 1 {
			return
		}
		high := [2]reg.VecVirtual{ZMM(), ZMM()}
		VSHUFF64X2(Imm(0xee), a, a, high[0])
		VSHUFF64X2(Imm(0xee), b, b, high[1])
		VFMADD231PS(high[1], high[0], p.lower, p.acc[1][t])
	})
}

// multiply multiplies one chunk with all tokens: add adds products of two vectors.
func (p *blockProducts512) multiply(c chunk8, halves bool, add func(t int, a, b reg.VecVirtual)) {
	d, min := c.scales()
	if min != nil {
		for t := range p.tokens {
			add(t, vector(Mem{Base: p.sum, Disp: 64 * t}, halves), min)
		}
	}
	c.prepare()
	var weights [4]reg.VecVirtual
	for v := range 2 {
		weights[v], weights[v+2] = c.pair(v)
	}
	for t := range p.tokens {
		upper, lower := p.sums(t, 1, halves)
		for v, w := range weights {
			VPDPBUSD(p.load(t, planeUpper+64*v, halves), w, upper[0])
			VPDPBUSD(p.load(t, planeLower+64*v, halves), w, lower[0])
		}
		sums, scale := p.total(t, upper[0], lower[0], d)
		add(t, sums, scale)
	}
}

// few multiplies a chunk of each of the rows at w with all tokens: weights are decoded
// once, and each vector of the activations is read once.
func (p *blockProducts512) few(w []reg.GPVirtual) {
	d, weights := make([]reg.VecVirtual, len(w)), make([][4]reg.VecVirtual, len(w))
	for r := range w {
		var min reg.VecVirtual
		c := p.f.load(w[r])
		d[r], min = c.scales()
		if min != nil {
			for t := range p.tokens {
				VFMADD231PS(Mem{Base: p.sum, Disp: 64 * t}, min, p.acc[r][t])
			}
		}
		c.prepare()
		for v := range 2 {
			weights[r][v], weights[r][v+2] = c.pair(v)
		}
	}
	for t := range p.tokens {
		upper, lower := p.sums(t, len(w), false)
		for v := range 4 {
			for _, plane := range []struct {
				at   int
				sums []reg.VecVirtual
			}{{planeUpper, upper}, {planeLower, lower}} {
				q := p.load(t, plane.at+64*v, false)
				for r := range w {
					VPDPBUSD(q, weights[r][v], plane.sums[r])
				}
			}
		}
		for r := range w {
			sums, scale := p.total(t, upper[r], lower[r], d[r])
			VFMADD231PS(scale, sums, p.acc[r][t])
		}
	}
}

// one multiplies a chunk of each of the rows at w with one token: each vector of the
// activations is read once.
func (p *blockProducts512) one(w []reg.GPVirtual) {
	c, d := make([]chunk8, len(w)), make([]reg.VecVirtual, len(w))
	for r := range w {
		var min reg.VecVirtual
		c[r] = p.f.load(w[r])
		d[r], min = c[r].scales()
		if min != nil {
			VFMADD231PS(Mem{Base: p.sum}, min, p.acc[r][0])
		}
		c[r].prepare()
	}
	upper, lower := p.sums(0, len(w), false)
	for v := range 2 {
		weights := make([][2]reg.VecVirtual, len(w))
		for r := range w {
			weights[r][0], weights[r][1] = c[r].pair(v)
		}
		for i := range 2 {
			for _, plane := range []struct {
				at   int
				sums []reg.VecVirtual
			}{{planeUpper, upper}, {planeLower, lower}} {
				q := p.load(0, plane.at+64*(v+2*i), false)
				for r := range w {
					VPDPBUSD(q, weights[r][i], plane.sums[r])
				}
			}
		}
	}
	for r := range w {
		sums, scale := p.total(0, upper[r], lower[r], d[r])
		VFMADD231PS(scale, sums, p.acc[r][0])
	}
}
