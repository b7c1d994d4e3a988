package main

import (
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// blockProducts512 multiplies chunks of two rows with tokens side by side.
type blockProducts512 struct {
	f                  *blockPlanes512
	tokens             int
	apart              bool               // multiply one row after the other
	lower              reg.OpmaskVirtual  // dwords 0 to 7
	upper              [2]reg.VecVirtual  // scratch
	acc                [][]reg.VecVirtual // by row and token
	planes, scale, sum reg.GPVirtual      // sum is nil without minimums
}

// begin goes to the first chunk of the next rows.
func (p *blockProducts512) begin(load func(name string) reg.GPVirtual) {
	p.planes, p.scale = load("planes"), load("scale")
	if p.f.minimum >= 0 {
		p.sum = load("sum")
	}
	p.acc = make([][]reg.VecVirtual, 2)
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
		switch shift := bits.Len(uint(p.f.excess)) - 5; {
		case p.f.excess == 0:
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
			p.chunk(p.f.load(w[r]), false, func(t int, a, b reg.VecVirtual) { VFMADD231PS(b, a, p.acc[r][t]) })
		}
		return
	}
	p.few(w)
}

// halves multiplies up to four blocks of each of two rows. Both go to the lower half of
// their sums, so that a row's bits do not depend on which of two it is.
func (p *blockProducts512) halves(z [3]reg.VecVirtual) {
	p.chunk(z, true, func(t int, a, b reg.VecVirtual) {
		VFMADD231PS(b, a, p.lower, p.acc[0][t])
		high := [2]reg.VecVirtual{ZMM(), ZMM()}
		VSHUFF64X2(Imm(0xee), a, a, high[0])
		VSHUFF64X2(Imm(0xee), b, b, high[1])
		VFMADD231PS(high[1], high[0], p.lower, p.acc[1][t])
	})
}

// chunk multiplies one chunk with all tokens: add adds products of two vectors.
func (p *blockProducts512) chunk(z [3]reg.VecVirtual, halves bool, add func(t int, a, b reg.VecVirtual)) {
	d, min := p.f.scales(z)
	if min != nil {
		for t := range p.tokens {
			add(t, vector(Mem{Base: p.sum, Disp: 64 * t}, halves), min)
		}
	}
	fifths := p.f.fifths(z)
	var weights [4]reg.VecVirtual
	for v := range 2 {
		weights[v], weights[v+2] = p.f.pair(z, fifths, v)
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
		z := p.f.load(w[r])
		d[r], min = p.f.scales(z)
		if min != nil {
			for t := range p.tokens {
				VFMADD231PS(Mem{Base: p.sum, Disp: 64 * t}, min, p.acc[r][t])
			}
		}
		fifths := p.f.fifths(z)
		for v := range 2 {
			weights[r][v], weights[r][v+2] = p.f.pair(z, fifths, v)
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
	z := make([][3]reg.VecVirtual, len(w))
	d, fifths := make([]reg.VecVirtual, len(w)), make([]reg.VecVirtual, len(w))
	for r := range w {
		var min reg.VecVirtual
		z[r] = p.f.load(w[r])
		d[r], min = p.f.scales(z[r])
		if min != nil {
			VFMADD231PS(Mem{Base: p.sum}, min, p.acc[r][0])
		}
		fifths[r] = p.f.fifths(z[r])
	}
	upper, lower := p.sums(0, len(w), false)
	for v := range 2 {
		weights := make([][2]reg.VecVirtual, len(w))
		for r := range w {
			weights[r][0], weights[r][1] = p.f.pair(z[r], fifths[r], v)
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
