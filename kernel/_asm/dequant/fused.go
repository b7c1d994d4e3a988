package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// part is matmulK of package kernel: the elements whose products are summed in
// one register before they are added to the total.
const part = 1024

// fused writes products of four rows with one token that expand weights in
// registers. They add in the same order as expanding to memory and the tile
// kernel do, so the bits are the same; four rows at a time hide the latency of
// the chain of additions in each.
func (g *gen) fused() {
	g.fusedPlain("F32", 4, func(m operand.Mem, t *lanes.Tail) reg.VecVirtual { return g.LoadF32(m, t) })
	g.fusedPlain("F16", 2, func(m operand.Mem, t *lanes.Tail) reg.VecVirtual { return g.LoadF16(m, t) })
	if !g.Wide {
		return // fewer registers: the way through a panel is as good
	}
	g.fusedPlain("BF16", 2, g.loadBF16)
	g.fusedRows("Q8_0", 32, 34, g.setUpQ8_0)
	g.fusedRows("Q4K", 256, 144, g.setUpQ4K)
	g.fusedRows("Q5K", 256, 176, g.setUpQ5K)
	g.fusedRows("Q6K", 256, 210, g.setUpQ6K)
}

// rowPtrs addresses byte offset of row r, for four rows a stride apart.
type rowPtrs struct {
	base, stride, stride3 reg.Register
}

func (p rowPtrs) at(r, offset int) operand.Mem {
	m := operand.Mem{Base: p.base, Disp: offset}
	switch r {
	case 1, 2:
		m.Index, m.Scale = p.stride, uint8(r)
	case 3:
		m.Index, m.Scale = p.stride3, 1
	}
	return m
}

// beginFused starts a function and returns its parameters.
func (g *gen) beginFused(name, multiple string) (w rowPtrs, n, x reg.Register) {
	g.Begin("dot4"+name, "func(out, x *float32, w *byte, rowBytes, n int)",
		"dot4"+name+g.Suffix+" does out[r] = sum over k in [0,n) of w[r][k]*x[k] for r in [0,4), rows rowBytes apart.",
		"n is positive"+multiple+".")
	w.base, w.stride, w.stride3 = g.Arg("w"), g.Arg("rowBytes"), g.GP64()
	g.LEAQ(operand.Mem{Base: w.stride, Index: w.stride, Scale: 2}, w.stride3)
	return w, g.Arg("n"), g.Arg("x")
}

// parts runs body, which must consume the elements counted in its argument and
// add to sums, for every part of a row, and stores the totals.
func (g *gen) parts(n reg.Register, body func(count reg.Register, sums [4]reg.VecVirtual)) {
	total := g.XMM()
	g.VPXOR(total, total, total)
	loop := g.Fresh("part")
	g.Label(loop)
	count := g.GP64()
	g.MOVQ(operand.I32(part), count)
	g.CMPQ(n, count)
	g.CMOVQLT(n, count)
	g.SUBQ(count, n)
	var sums [4]reg.VecVirtual
	for r := range sums {
		sums[r] = g.Zero()
	}
	body(count, sums)
	g.VADDPS(g.FoldFour(sums), total, total)
	g.TESTQ(n, n)
	g.JNZ(operand.LabelRef(loop))
	g.VMOVUPS(total, operand.Mem{Base: g.Arg("out")})
	g.End()
}

// loadBF16 widens bfloat16 values, upper halves of float32 (wide only).
func (g *gen) loadBF16(m operand.Mem, t *lanes.Tail) reg.VecVirtual {
	v := g.ZMM()
	if t == nil {
		g.VPMOVZXWD(m, v)
	} else {
		h := g.YMM()
		g.VMOVDQU16_Z(m, t.K, h)
		g.VPMOVZXWD(h, v)
	}
	g.VPSLLD(imm(16), v, v)
	return v
}

// prefetchAhead is how far ahead of the fourth of its rows fusedPlain fetches
// weights, in bytes.
const prefetchAhead = 2048

// fusedPlain writes the product for a type without blocks, elements of size bytes.
// Weights are fetched in the order of memory, four lines for one of each row: rows
// follow each other, so that the next four are on their way when these end.
func (g *gen) fusedPlain(name string, size int, load func(operand.Mem, *lanes.Tail) reg.VecVirtual) {
	w, n, x := g.beginFused(name, "")
	ahead := g.GP64()
	g.LEAQ(operand.Mem{Base: w.base, Index: w.stride3, Scale: 1, Disp: prefetchAhead}, ahead)
	g.parts(n, func(count reg.Register, sums [4]reg.VecVirtual) {
		step := func(u int, t *lanes.Tail) {
			xs := g.LoadF32(at(x, 4*g.L*u), t)
			for r := range sums {
				g.VFMADD231PS(xs, load(w.at(r, size*g.L*u), t), sums[r])
			}
		}
		// rounds runs steps of a number of vectors as long as there are so many.
		rounds := func(vectors int, fetch bool) {
			done, loop := g.Fresh("done"), g.Fresh("loop")
			g.SUBQ(operand.I32(g.L*vectors), count)
			g.JLT(operand.LabelRef(done))
			g.Label(loop)
			if fetch {
				page := g.GP64() // see prefetchPageAhead of the generator i16
				g.LEAQ(at(ahead, 16384-prefetchAhead), page)
				g.ANDQ(operand.I32(-4096), page)
				g.PREFETCHT0(operand.Mem{Base: page})
				for i := range 4 {
					g.PREFETCHT0(at(ahead, 64*i))
				}
				g.ADDQ(operand.I32(256), ahead)
			}
			for u := range vectors {
				step(u, nil)
			}
			g.ADDQ(operand.I32(size*g.L*vectors), w.base)
			g.ADDQ(operand.I32(4*g.L*vectors), x)
			g.SUBQ(operand.I32(g.L*vectors), count)
			g.JGE(operand.LabelRef(loop))
			g.Label(done)
			g.ADDQ(operand.I32(g.L*vectors), count)
		}
		line := 64 / (size * g.L) // vectors in a cache line
		rounds(line, true)
		if line > 1 {
			rounds(1, false)
		}
		done := g.Fresh("done")
		g.TESTQ(count, count)
		g.JZ(operand.LabelRef(done))
		step(0, g.NewTail(count)) // only the last part has a tail
		g.Label(done)
	})
}

// fusedRows writes a product for a type with blocks; setUp loads constants and
// returns what to do with one block of each row.
func (g *gen) fusedRows(name string, length, size int, setUp func() func(w rowPtrs, x reg.Register, sums [4]reg.VecVirtual)) {
	w, n, x := g.beginFused(name, " and a multiple of the block length")
	block := setUp()
	g.parts(n, func(count reg.Register, sums [4]reg.VecVirtual) {
		loop := g.Fresh("block")
		g.Label(loop)
		block(w, x, sums)
		g.ADDQ(operand.I32(size), w.base)
		g.ADDQ(operand.I32(4*length), x)
		g.SUBQ(operand.I32(length), count)
		g.JNZ(operand.LabelRef(loop))
	})
}

func (g *gen) setUpQ4K() func(w rowPtrs, x reg.Register, sums [4]reg.VecVirtual) {
	buf := g.AllocLocal(4 * 64)
	count := g.table("count", func(i int) float32 { return float32(i) })
	return func(w rowPtrs, x reg.Register, sums [4]reg.VecVirtual) {
		src := g.GP64()
		for r := range sums {
			g.LEAQ(w.at(r, 0), src)
			g.scalesK(src, buf.Offset(64*r))
		}
		for j := range 4 {
			var xs [4]reg.VecVirtual
			for i := range xs {
				xs[i] = g.LoadF32(at(x, 4*(64*j+16*i)), nil)
			}
			for r := range sums {
				// Entry q of a table is the value of code q; see lookUp.
				var idx, table [2]reg.VecVirtual
				for i := range table {
					table[i], idx[i] = g.ZMM(), g.ZMM()
					g.VMULPS_BCST(buf.Offset(64*r+4*(2*j+i)), count, table[i])
					g.VSUBPS_BCST(buf.Offset(64*r+32+4*(2*j+i)), table[i], table[i])
					g.VPMOVZXBD(w.at(r, 16+32*j+16*i), idx[i])
				}
				for half := range 2 {
					for i := range 2 {
						v := g.ZMM()
						g.VPERMPS(table[half], idx[i], v)
						g.VFMADD231PS(xs[2*half+i], v, sums[r])
						if half == 0 {
							g.VPSRLD(imm(4), idx[i], idx[i])
						}
					}
				}
			}
		}
	}
}

func (g *gen) setUpQ6K() func(w rowPtrs, x reg.Register, sums [4]reg.VecVirtual) {
	buf := g.AllocLocal(4 * 64)
	mask, top, offset := g.bytes(0x0f), g.bytes(0x30), g.bytes(32)
	return func(w rowPtrs, x reg.Register, sums [4]reg.VecVirtual) {
		src := g.GP64()
		for r := range sums {
			g.LEAQ(w.at(r, 0), src)
			g.sixteenScales(at(src, 192), g.half(at(src, 208)), buf.Offset(64*r))
		}
		for h := range 2 {
			for k := range 4 {
				for r := range sums {
					b := g.nibble(g.load(w.at(r, 64*h+k%2*32)), k/2, mask)
					g.VPOR(g.moveBits(g.load(w.at(r, 128+32*h)), 2*k, 4, top), b, b)
					g.VPSUBB(offset, b, b)
					g.expand(b, true, func(i int, v reg.VecVirtual) {
						g.VMULPS_BCST(buf.Offset(64*r+4*(8*h+2*k+i/16)), v, v)
						g.VFMADD231PS(at(x, 4*(128*h+32*k+i)), v, sums[r])
					})
				}
			}
		}
	}
}

func (g *gen) setUpQ8_0() func(w rowPtrs, x reg.Register, sums [4]reg.VecVirtual) {
	return func(w rowPtrs, x reg.Register, sums [4]reg.VecVirtual) {
		xs := [2]reg.VecVirtual{g.LoadF32(at(x, 0), nil), g.LoadF32(at(x, 64), nil)}
		for r := range sums {
			d := g.half(w.at(r, 0))
			for i := range xs {
				v := g.widen(w.at(r, 2+16*i), true)
				g.VMULPS(d, v, v)
				g.VFMADD231PS(xs[i], v, sums[r])
			}
		}
	}
}

func (g *gen) setUpQ5K() func(w rowPtrs, x reg.Register, sums [4]reg.VecVirtual) {
	buf := g.AllocLocal(4 * 64)
	mask, sixteen := g.bytes(0x0f), g.bytes(0x10)
	return func(w rowPtrs, x reg.Register, sums [4]reg.VecVirtual) {
		src := g.GP64()
		for r := range sums {
			g.LEAQ(w.at(r, 0), src)
			g.scalesK(src, buf.Offset(64*r))
		}
		for j := range 8 {
			for r := range sums {
				b := g.nibble(g.load(w.at(r, 48+j/2*32)), j%2, mask)
				g.VPOR(g.moveBits(g.load(w.at(r, 16)), j, 4, sixteen), b, b)
				g.expand(b, false, func(i int, v reg.VecVirtual) {
					g.VMULPS_BCST(buf.Offset(64*r+4*j), v, v)
					g.VSUBPS_BCST(buf.Offset(64*r+32+4*j), v, v)
					g.VFMADD231PS(at(x, 4*(32*j+i)), v, sums[r])
				})
			}
		}
	}
}
