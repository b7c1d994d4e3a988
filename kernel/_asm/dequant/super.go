package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// eightScales stores float32(byte) · d for the eight bytes of r in buf.
func (g *gen) eightScales(r reg.Register, d reg.VecVirtual, buf operand.Mem) {
	x, y := g.XMM(), g.YMM()
	g.VMOVQ(r, x)
	g.VPMOVZXBD(x, y)
	g.VCVTDQ2PS(y, y)
	g.VMULPS(d.AsY(), y, y)
	g.VMOVUPS(y, buf)
}

// scaleBytesK unpacks the eight 6-bit scales and the eight minimums of Q4_K and Q5_K
// from the 12 bytes at 4.
func (g *gen) scaleBytesK(src reg.Register) (scales, minimums reg.GPVirtual) {
	a, b, c, t := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.MOVL(at(src, 4), a.As32())
	g.MOVL(at(src, 8), b.As32())
	g.MOVL(at(src, 12), c.As32())
	// Groups 4 to 7 have four bits in c and two at the top of a (scales) or b (minimums).
	upper := func(six, four reg.GPVirtual, shift int) reg.GPVirtual {
		v := g.GP64()
		g.MOVL(six.As32(), v.As32())
		g.SHRL(imm(2), v.As32())
		g.ANDL(operand.I32(0x30303030), v.As32())
		g.MOVL(four.As32(), t.As32())
		if shift > 0 {
			g.SHRL(imm(shift), t.As32())
		}
		g.ANDL(operand.I32(0x0f0f0f0f), t.As32())
		g.ORL(t.As32(), v.As32())
		g.SHLQ(imm(32), v)
		g.ANDL(operand.I32(0x3f3f3f3f), six.As32())
		g.ORQ(six, v)
		return v
	}
	return upper(a, c, 0), upper(b, c, 4)
}

// scalesK stores the scales of Q4_K and Q5_K in buf: scales·d, then minimums·dmin,
// all float32.
func (g *gen) scalesK(src reg.Register, buf operand.Mem) {
	scales, minimums := g.scaleBytesK(src)
	g.eightScales(scales, g.half(at(src, 0)), buf)
	g.eightScales(minimums, g.half(at(src, 2)), buf.Offset(32))
}

// scalesInVector is scalesK in a register (wide only): what is broadcast from memory just
// written has to wait.
func (g *gen) scalesInVector(src reg.Register) reg.VecVirtual {
	scales, minimums := g.scaleBytesK(src)
	d, v := g.half(at(src, 0)), g.ZMM()
	g.VINSERTF64X4(imm(1), g.half(at(src, 2)).AsY(), d, d)
	g.VMOVQ(scales, v.AsX())
	g.VPINSRQ(imm(1), minimums, v.AsX(), v.AsX())
	g.VPMOVZXBD(v.AsX(), v)
	g.VCVTDQ2PS(v, v)
	g.VMULPS(d, v, v)
	return v
}

func (g *gen) q4K() {
	g.blocks("Q4K", 256, 144, func() func(src, dst reg.Register) {
		if g.Wide {
			count := g.table("count", func(i int) float32 { return float32(i) })
			var lane [16]reg.VecVirtual
			for i := range lane {
				lane[i] = g.ZMM()
				g.VPBROADCASTD(g.Word(uint32(i)), lane[i])
			}
			return func(src, dst reg.Register) {
				scales := g.scalesInVector(src)
				for j := range 4 {
					var t [2]reg.VecVirtual
					for i := range t {
						m := g.ZMM()
						t[i] = g.ZMM()
						g.VPERMPS(scales, lane[2*j+i], t[i])
						g.VPERMPS(scales, lane[8+2*j+i], m)
						g.VMULPS(count, t[i], t[i])
						g.VSUBPS(m, t[i], t[i])
					}
					for i := range 2 {
						g.lookUp(at(src, 16+32*j+16*i), t[0], t[1], at(dst, 256*j+64*i), at(dst, 256*j+128+64*i))
					}
				}
			}
		}
		buf, mask := g.AllocLocal(64), g.bytes(0x0f)
		return func(src, dst reg.Register) {
			g.scalesK(src, buf)
			for j := range 4 {
				q := g.load(at(src, 16+32*j))
				for i := range 2 {
					b := g.nibble(q, i, mask)
					g.group(b, false, buf.Offset(4*(2*j+i)), buf.Offset(32+4*(2*j+i)), at(dst, 4*(64*j+32*i)))
				}
			}
		}
	})
}

// nibble is the lower (0) or upper (1) half of each byte of q.
func (g *gen) nibble(q reg.VecVirtual, upper int, mask0f reg.VecVirtual) reg.VecVirtual {
	b := g.YMM()
	if upper == 0 {
		g.VPAND(mask0f, q, b)
		return b
	}
	g.VPSRLW(imm(4), q, b)
	g.VPAND(mask0f, b, b)
	return b
}

// group writes 32 elements with one scale and one minimum.
func (g *gen) group(b reg.VecVirtual, signed bool, scale, minimum, dst operand.Mem) {
	s, m := g.splat(scale), g.splat(minimum)
	g.expand(b, signed, func(i int, v reg.VecVirtual) {
		g.VMULPS(s, v, v)
		g.VSUBPS(m, v, v)
		g.VMOVUPS(v, dst.Offset(4*i))
	})
}

// twoGroups writes 32 elements with a scale for each 16.
func (g *gen) twoGroups(b reg.VecVirtual, scales, dst operand.Mem) {
	s := [2]reg.VecVirtual{g.splat(scales), g.splat(scales.Offset(4))}
	g.expand(b, true, func(i int, v reg.VecVirtual) {
		g.VMULPS(s[i/16], v, v)
		g.VMOVUPS(v, dst.Offset(4*i))
	})
}

// moveBits brings the bits of each byte of q at from to bit to; other bits are noise
// that mask removes.
func (g *gen) moveBits(q reg.VecVirtual, from, to int, mask reg.VecVirtual) reg.VecVirtual {
	v := g.YMM()
	switch {
	case from < to:
		g.VPSLLW(imm(to-from), q, v)
		g.VPAND(mask, v, v)
	case from > to:
		g.VPSRLW(imm(from-to), q, v)
		g.VPAND(mask, v, v)
	default:
		g.VPAND(mask, q, v)
	}
	return v
}

func (g *gen) q5K() {
	g.blocks("Q5K", 256, 176, func() func(src, dst reg.Register) {
		buf := g.AllocLocal(64)
		mask, sixteen := g.bytes(0x0f), g.bytes(0x10)
		return func(src, dst reg.Register) {
			g.scalesK(src, buf)
			qh := g.load(at(src, 16))
			for j := range 4 {
				q := g.load(at(src, 48+32*j))
				for i := range 2 {
					b := g.nibble(q, i, mask)
					g.VPOR(g.moveBits(qh, 2*j+i, 4, sixteen), b, b)
					g.group(b, false, buf.Offset(4*(2*j+i)), buf.Offset(32+4*(2*j+i)), at(dst, 4*(64*j+32*i)))
				}
			}
		}
	})
}

// sixteenScales emits float32(signed bytes at m) · d to buf.
func (g *gen) sixteenScales(m operand.Mem, d reg.VecVirtual, buf operand.Mem) {
	for i := 0; i < 16; i += g.L {
		v := g.widen(m.Offset(i), true)
		g.VMULPS(d, v, v)
		g.VMOVUPS(v, buf.Offset(4*i))
	}
}

func (g *gen) q6K() {
	g.blocks("Q6K", 256, 210, func() func(src, dst reg.Register) {
		buf := g.AllocLocal(64)
		mask, top, offset := g.bytes(0x0f), g.bytes(0x30), g.bytes(32)
		return func(src, dst reg.Register) {
			g.sixteenScales(at(src, 192), g.half(at(src, 208)), buf)
			for h := range 2 {
				qh := g.load(at(src, 128+32*h))
				low := [2]reg.VecVirtual{g.load(at(src, 64*h)), g.load(at(src, 64*h+32))}
				for k := range 4 {
					b := g.nibble(low[k%2], k/2, mask)
					g.VPOR(g.moveBits(qh, 2*k, 4, top), b, b)
					g.VPSUBB(offset, b, b)
					g.twoGroups(b, buf.Offset(4*(8*h+2*k)), at(dst, 4*(128*h+32*k)))
				}
			}
		}
	})
}

func (g *gen) q3K() {
	g.blocks("Q3K", 256, 110, func() func(src, dst reg.Register) {
		buf, packed := g.AllocLocal(64), g.AllocLocal(16)
		three, four := g.bytes(3), g.bytes(4)
		return func(src, dst reg.Register) {
			g.scalesQ3K(src, packed)
			g.sixteenScales(packed, g.half(at(src, 108)), buf)
			high := g.load(at(src, 0))
			for h := range 2 {
				q := g.load(at(src, 32+32*h))
				for k := range 4 {
					b := g.moveBits(q, 2*k, 0, three)
					g.VPOR(g.moveBits(high, 4*h+k, 2, four), b, b)
					g.VPSUBB(four, b, b)
					g.twoGroups(b, buf.Offset(4*(8*h+2*k)), at(dst, 4*(128*h+32*k)))
				}
			}
		}
	})
}

// scalesQ3K unpacks sixteen 6-bit scales, less 32, into signed bytes: eight
// bytes hold the lower four bits of scales g and g+8, four bytes the upper two
// of g, g+4, g+8 and g+12.
func (g *gen) scalesQ3K(src reg.Register, packed operand.Mem) {
	low, top := g.XMM(), g.XMM()
	g.VMOVQ(at(src, 96), low)
	high := g.XMM()
	g.VPSRLW(imm(4), low, high)
	g.VPUNPCKLQDQ(high, low, low)
	mask := g.XMM()
	g.VPBROADCASTD(g.Word(0x0f0f0f0f), mask)
	g.VPAND(mask, low, low)
	g.VPBROADCASTD(at(src, 104), top)
	g.VPSRLVD(g.Words("every_two_bits", 0, 2, 4, 6), top, top)
	g.VPBROADCASTD(g.Word(0x03030303), mask)
	g.VPAND(mask, top, top)
	g.VPSLLW(imm(4), top, top)
	g.VPOR(top, low, low)
	g.VPBROADCASTD(g.Word(0x20202020), mask)
	g.VPSUBB(mask, low, low)
	g.VMOVDQU(low, packed)
}

func (g *gen) q2K() {
	g.blocks("Q2K", 256, 84, func() func(src, dst reg.Register) {
		scales, minimums := g.AllocLocal(64), g.AllocLocal(64)
		mask, three := g.Vec(), g.bytes(3)
		g.VPBROADCASTD(g.Word(15), mask)
		return func(src, dst reg.Register) {
			d, dmin := g.half(at(src, 80)), g.half(at(src, 82))
			for i := 0; i < 16; i += g.L {
				v, w := g.Vec(), g.Vec()
				g.VPMOVZXBD(at(src, i), v)
				g.VPSRLD(imm(4), v, w)
				if g.Wide {
					g.VPANDD(mask, v, v)
				} else {
					g.VPAND(mask, v, v)
				}
				g.VCVTDQ2PS(v, v)
				g.VCVTDQ2PS(w, w)
				g.VMULPS(d, v, v)
				g.VMULPS(dmin, w, w)
				g.VMOVUPS(v, scales.Offset(4*i))
				g.VMOVUPS(w, minimums.Offset(4*i))
			}
			for h := range 2 {
				q := g.load(at(src, 16+32*h))
				for k := range 4 {
					b := g.moveBits(q, 2*k, 0, three)
					first := 4 * (8*h + 2*k)
					s := [2]reg.VecVirtual{g.splat(scales.Offset(first)), g.splat(scales.Offset(first + 4))}
					m := [2]reg.VecVirtual{g.splat(minimums.Offset(first)), g.splat(minimums.Offset(first + 4))}
					g.expand(b, false, func(i int, v reg.VecVirtual) {
						g.VMULPS(s[i/16], v, v)
						g.VSUBPS(m[i/16], v, v)
						g.VMOVUPS(v, at(dst, 4*(128*h+32*k+i)))
					})
				}
			}
		}
	})
}

func (g *gen) iq4XS() {
	g.blocks("IQ4XS", 256, 136, func() func(src, dst reg.Register) {
		buf := g.AllocLocal(32)
		value := func(i int) float32 { return float32(levelsIQ4[i]) }
		var levels reg.VecVirtual
		var mask reg.VecVirtual
		if g.Wide {
			levels = g.table("values_IQ4NL", value)
		} else {
			levels, mask = g.byteTable("codes_IQ4NL", value), g.bytes(0x0f)
		}
		return func(src, dst reg.Register) {
			g.scalesIQ4XS(src, buf)
			for j := range 8 {
				s := g.splat(buf.Offset(4 * j))
				if g.Wide {
					g.VMULPS(levels, s, s)
					g.lookUp(at(src, 8+16*j), s, s, at(dst, 128*j), at(dst, 128*j+64))
					continue
				}
				b := g.nibbles(at(src, 8+16*j), mask)
				g.VPSHUFB(b, levels, b)
				g.expand(b, true, func(i int, v reg.VecVirtual) { g.store(v, s, at(dst, 128*j+4*i)) })
			}
		}
	})
}

// scalesIQ4XS unpacks eight 6-bit scales, less 32, times d: four bits each in
// a word, two bits each in a half word.
func (g *gen) scalesIQ4XS(src reg.Register, buf operand.Mem) {
	low, top, mask := g.YMM(), g.YMM(), g.YMM()
	g.VPBROADCASTD(at(src, 4), low)
	g.VPSRLVD(g.Words("every_four_bits_of_8", 0, 4, 8, 12, 16, 20, 24, 28), low, low)
	g.VPBROADCASTD(g.Word(15), mask)
	g.VPAND(mask, low, low)
	g.VPBROADCASTW(at(src, 2), top)
	g.VPSRLVD(g.Words("every_two_bits_of_8", 0, 2, 4, 6, 8, 10, 12, 14), top, top)
	g.VPBROADCASTD(g.Word(3), mask)
	g.VPAND(mask, top, top)
	g.VPSLLD(imm(4), top, top)
	g.VPOR(top, low, low)
	g.VPBROADCASTD(g.Word(32), mask)
	g.VPSUBD(mask, low, low)
	g.VCVTDQ2PS(low, low)
	g.VMULPS(g.half(at(src, 0)).AsY(), low, low)
	g.VMOVUPS(low, buf)
}
