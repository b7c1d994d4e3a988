package main

import (
	"math"

	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

func float32bits(f float32) uint32 { return math.Float32bits(f) }

// levelsIQ4 are the values of the 4-bit codes of IQ4_NL and IQ4_XS.
var levelsIQ4 = [16]int8{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// plain writes the types without blocks.
func (g *gen) plain() {
	g.Begin("dequantF16", "func(dst []float32, src []byte)",
		"dequantF16"+g.Suffix+" widens len(dst) halves.")
	d, n, s := g.Ptr("dst"), g.Len("dst"), g.Ptr("src")
	g.Each(n, 4, func(_ int, at lanes.At, t *lanes.Tail) {
		g.StoreF32(g.LoadF16(at.F16(s), t), at.F32(d), t)
	})
	g.End()

	// A bfloat16 is the upper half of a float32. The last few are left to the caller.
	g.Begin("dequantBF16", "func(dst []float32, src []byte)",
		"dequantBF16"+g.Suffix+" widens len(dst) bfloat16 values, a multiple of the float32 lanes.")
	d, n, s = g.Ptr("dst"), g.Len("dst"), g.Ptr("src")
	g.Each(n, 4, func(_ int, at lanes.At, t *lanes.Tail) {
		if t != nil {
			return
		}
		v := g.Vec()
		g.VPMOVZXWD(at.F16(s), v)
		g.VPSLLD(imm(16), v, v)
		g.StoreF32(v, at.F32(d), nil)
	})
	g.End()
}

// small writes the types with blocks of 32.
func (g *gen) small() {
	g.q8_0()
	g.nibbleType("Q4_0", 18, 2, func(i int) float32 { return float32(i - 8) }, false)
	g.nibbleType("Q4_1", 20, 4, func(i int) float32 { return float32(i) }, true)
	g.nibbleType("IQ4NL", 18, 2, func(i int) float32 { return float32(levelsIQ4[i]) }, false)
	g.fiveBits("Q5_0", 22, 2, false)
	g.fiveBits("Q5_1", 24, 4, true)
}

func (g *gen) q8_0() {
	g.blocks("Q8_0", 32, 34, func() func(src, dst reg.Register) {
		return func(src, dst reg.Register) {
			d := g.half(at(src, 0))
			for i := 0; i < 32; i += g.L {
				g.store(g.widen(at(src, 2+i), true), d, at(dst, 4*i))
			}
		}
	})
}

// nibbleType is d·value(code), plus a minimum if there is one, for 4-bit codes
// at offset qs.
func (g *gen) nibbleType(name string, size, qs int, value func(int) float32, minimum bool) {
	g.blocks(name, 32, size, func() func(src, dst reg.Register) {
		if g.Wide {
			values := g.table("values_"+name, value)
			return func(src, dst reg.Register) {
				v := g.half(at(src, 0))
				g.VMULPS(values, v, v)
				if minimum {
					g.VADDPS(g.half(at(src, 2)), v, v)
				}
				g.lookUp(at(src, qs), v, v, at(dst, 0), at(dst, 64))
			}
		}
		mask := g.bytes(0x0f)
		codes := g.byteTable("codes_"+name, value)
		return func(src, dst reg.Register) {
			d := g.half(at(src, 0))
			var m reg.VecVirtual
			if minimum {
				m = g.half(at(src, 2))
			}
			b := g.nibbles(at(src, qs), mask)
			g.VPSHUFB(b, codes, b)
			g.expand(b, true, func(i int, v reg.VecVirtual) {
				g.VMULPS(d, v, v)
				if minimum {
					g.VADDPS(m, v, v)
				}
				g.VMOVUPS(v, at(dst, 4*i))
			})
		}
	})
}

// byteTable is the values of the 4-bit codes as bytes, for VPSHUFB.
func (g *gen) byteTable(name string, value func(int) float32) reg.VecVirtual {
	words := make([]uint32, 8)
	for i := range 32 {
		words[i/4] |= uint32(uint8(int8(value(i%16)))) << (8 * (i % 4))
	}
	return g.load(g.Words(name, words...))
}

// fiveBits writes Q5_0 and Q5_1: 32 fifth bits in a word before the 4-bit
// codes; Q5_0 counts from -16, Q5_1 has a minimum instead.
func (g *gen) fiveBits(name string, size, qh int, minimum bool) {
	g.blocks(name, 32, size, func() func(src, dst reg.Register) {
		mask := g.bytes(0x0f)
		sixteen := g.bytes(16)
		// Byte i of a register gets byte i/8 of the word, of which bit i%8 is its.
		spread := g.load(g.Words("byte_of_bit", 0, 0, 0x01010101, 0x01010101, 0x02020202, 0x02020202, 0x03030303, 0x03030303))
		bit := g.load(g.Words("bit_of_byte", 0x08040201, 0x80402010, 0x08040201, 0x80402010, 0x08040201, 0x80402010, 0x08040201, 0x80402010))
		return func(src, dst reg.Register) {
			d := g.half(at(src, 0))
			var m reg.VecVirtual
			if minimum {
				m = g.half(at(src, 2))
			}
			b := g.nibbles(at(src, qh+4), mask)
			set := g.YMM()
			g.VPBROADCASTD(at(src, qh), set)
			g.VPSHUFB(spread, set, set)
			g.VPAND(bit, set, set)
			g.VPCMPEQB(bit, set, set)
			if minimum {
				g.VPAND(sixteen, set, set)
				g.VPOR(set, b, b)
			} else {
				g.VPANDN(sixteen, set, set) // 16 where the bit is clear
				g.VPSUBB(set, b, b)
			}
			g.expand(b, true, func(i int, v reg.VecVirtual) {
				g.VMULPS(d, v, v)
				if minimum {
					g.VADDPS(m, v, v)
				}
				g.VMOVUPS(v, at(dst, 4*i))
			})
		}
	})
}
