package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// part is matmulK of package kernel: the elements whose products are summed in
// one register before they are added to the total.
const part = 1024

// fused writes products of some rows with one token that expand weights in
// registers. They add in the same order as expanding to memory and the tile
// kernel do, so the bits are the same; several rows at a time hide the latency of
// the chain of additions in each.
func (g *gen) fused() {
	shapes := []shape{fours}
	if g.Wide {
		shapes = []shape{pairs, widePairs} // half as wide, two chains of additions would be too slow
	}
	if g.Wide {
		shapes = append(shapes, few(2, 2), few(4, 2), few(4, 4))
	}
	for _, s := range shapes {
		g.fusedPlain("F32", s, 4, func(m operand.Mem, t *lanes.Tail) reg.VecVirtual { return g.LoadF32(m, t) })
		g.fusedPlain("F16", s, 2, func(m operand.Mem, t *lanes.Tail) reg.VecVirtual { return g.LoadF16(m, t) })
		if g.Wide {
			g.fusedPlain("BF16", s, 2, g.loadBF16)
		}
	}
	if !g.Wide {
		return // fewer registers: the way through a panel is as good
	}
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

// parts runs body, which must consume the elements counted in its argument and add to
// sums, by token and then one for each of two or four rows, for every part of rows of n
// elements. It returns the totals of each token.
func (g *gen) parts(n reg.Register, tokens, rows int, body func(count reg.Register, sums [][]reg.VecVirtual)) []reg.VecVirtual {
	totals := make([]reg.VecVirtual, tokens)
	for t := range totals {
		totals[t] = g.XMM()
		g.VPXOR(totals[t], totals[t], totals[t])
	}
	loop := g.Fresh("part")
	g.Label(loop)
	count := g.GP64()
	g.MOVQ(operand.I32(part), count)
	g.CMPQ(n, count)
	g.CMOVQLT(n, count)
	g.SUBQ(count, n)
	sums := make([][]reg.VecVirtual, tokens)
	for t := range sums {
		for range rows {
			sums[t] = append(sums[t], g.Zero())
		}
	}
	body(count, sums)
	for t, total := range totals {
		g.VADDPS(g.FoldRows(sums[t]), total, total)
	}
	g.TESTQ(n, n)
	g.JNZ(operand.LabelRef(loop))
	return totals
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

// shape is how a product goes through rows of a plain type.
type shape struct {
	prefix string // of function names
	rows   int    // multiplied at a time
	tokens int    // that are multiplied with them
	// ahead is how far beyond the last of these rows weights are fetched, in bytes.
	ahead int
	// idle is how many loads of a line of the vector, which is needed anyway, go with each
	// line of the weights of all rows.
	idle int
	// pageOnce asks for the first line of a page once for as many bytes as a page has; else
	// in every step, which costs a twentieth.
	pageOnce bool
}

// Pairs of rows have weights in the first-level cache beside the vector. A vector that does
// not fit comes from the second-level cache again for each pair; then it matters how far the
// core runs ahead of what it waits for, as loads that are not needed yet take the few places
// for misses from those that are. Loads that wait for the same line as the product fill its
// queue, so that it does not. Fetching further ahead makes up for it.
var (
	pairs     = shape{prefix: "dot2", rows: 2, tokens: 1, ahead: 4096, pageOnce: true}
	widePairs = shape{prefix: "dot2Wide", rows: 2, tokens: 1, ahead: 8192, idle: 16, pageOnce: true}
	fours     = shape{prefix: "dot4", rows: 4, tokens: 1, ahead: 2048}
)

// few is for several tokens, for which each vector of weights is expanded once.
func few(tokens, rows int) shape {
	return shape{prefix: fmt.Sprintf("dot%dx%d", rows, tokens), rows: rows, tokens: tokens, ahead: 4096, pageOnce: true}
}

const (
	pageAhead = 16384
	pageBytes = 4096
)

// fusedPlain writes the product for a type without blocks, elements of size bytes. Weights
// are fetched in the order of memory, a line for each row: rows follow each other, so that
// the next ones are on their way when these end. The first line of each page is fetched
// earlier (see prefetchPageAhead of the generator i16).
func (g *gen) fusedPlain(name string, s shape, size int, load func(operand.Mem, *lanes.Tail) reg.VecVirtual) {
	signature, does := "func(out, x *float32, w *byte, rowBytes, n, rows int)", "out[r] = sum over k in [0,n) of w[r][k]*x[k]"
	if s.tokens > 1 {
		signature = "func(out, x *float32, w *byte, rowBytes, n, rows, stride int)"
		does = fmt.Sprintf("out[t*stride+r] = sum over k in [0,n) of w[r][k]*x[t*n+k] for t in [0,%d),", s.tokens)
	}
	g.Begin(s.prefix+name, signature,
		fmt.Sprintf("%s%s%s does %s for r in [0,rows), rows rowBytes apart.", s.prefix, name, g.Suffix, does),
		fmt.Sprintf("n is positive, rows a positive multiple of %d.", s.rows))
	rows, out := g.Arg("rows"), g.Arg("out")
	first := rowPtrs{base: g.Arg("w"), stride: g.Arg("rowBytes")}
	if s.rows == 4 {
		first.stride3 = g.GP64()
		g.LEAQ(operand.Mem{Base: first.stride, Index: first.stride, Scale: 2}, first.stride3)
	}
	// tokens addresses floats of tokens that are so many apart.
	tokens := func(base reg.Register, apart string) (p rowPtrs) {
		p.base = base
		if s.tokens > 1 {
			p.stride = g.Arg(apart)
			g.SHLQ(imm(2), p.stride)
		}
		if s.tokens == 4 {
			p.stride3 = g.GP64()
			g.LEAQ(operand.Mem{Base: p.stride, Index: p.stride, Scale: 2}, p.stride3)
		}
		return p
	}
	loop := g.Fresh("rows")
	g.Label(loop)
	w, x, left, ahead := first, tokens(g.Arg("x"), "n"), g.Arg("n"), g.GP64()
	w.base = g.GP64()
	g.MOVQ(first.base, w.base)
	g.LEAQ(w.at(s.rows-1, s.ahead), ahead)
	totals := g.parts(left, s.tokens, s.rows, func(count reg.Register, sums [][]reg.VecVirtual) {
		g.chunk(s, w, x, ahead, count, sums, size, load)
	})
	to := tokens(out, "stride")
	for t, total := range totals {
		if s.rows == 4 {
			g.VMOVUPS(total, to.at(t, 0))
		} else {
			g.VMOVSD(total, to.at(t, 0))
		}
	}
	g.LEAQ(operand.Mem{Base: first.base, Index: first.stride, Scale: uint8(s.rows)}, first.base)
	g.ADDQ(operand.I32(4*s.rows), out)
	g.SUBQ(operand.I32(s.rows), rows)
	g.JNZ(operand.LabelRef(loop))
	g.End()
}

// chunk adds the products of count elements of each row.
func (g *gen) chunk(s shape, w, x rowPtrs, ahead, count reg.Register, sums [][]reg.VecVirtual, size int, load func(operand.Mem, *lanes.Tail) reg.VecVirtual) {
	fetchPage := func() {
		page := g.GP64()
		g.LEAQ(at(ahead, pageAhead-s.ahead), page)
		g.ANDQ(operand.I32(-pageBytes), page)
		g.PREFETCHT0(operand.Mem{Base: page})
	}
	step := func(u int, t *lanes.Tail) {
		xs := make([]reg.VecVirtual, s.tokens)
		for i := range xs {
			xs[i] = g.LoadF32(x.at(i, 4*g.L*u), t)
		}
		for r := range s.rows {
			weights := load(w.at(r, size*g.L*u), t)
			for i := range xs {
				g.VFMADD231PS(xs[i], weights, sums[i][r])
			}
		}
	}
	some := count
	loop := g.Fresh("page")
	g.Label(loop)
	if s.pageOnce {
		fetchPage()
		some = g.GP64()
		g.MOVQ(operand.I32(pageBytes/size/s.rows), some)
		g.CMPQ(count, some)
		g.CMOVQLT(count, some)
		g.SUBQ(some, count)
	}
	// rounds runs steps of a number of vectors as long as there are so many.
	rounds := func(vectors int, fetch bool) {
		done, loop := g.Fresh("done"), g.Fresh("loop")
		g.SUBQ(operand.I32(g.L*vectors), some)
		g.JLT(operand.LabelRef(done))
		g.Label(loop)
		if fetch {
			if !s.pageOnce {
				fetchPage()
			}
			for i := range s.rows {
				g.PREFETCHT0(at(ahead, 64*i))
			}
			g.ADDQ(operand.I32(64*s.rows), ahead)
			for range s.idle {
				g.MOVQ(x.at(0, 0), g.GP64())
			}
		}
		for u := range vectors {
			step(u, nil)
		}
		g.ADDQ(operand.I32(size*g.L*vectors), w.base)
		g.ADDQ(operand.I32(4*g.L*vectors), x.base)
		g.SUBQ(operand.I32(g.L*vectors), some)
		g.JGE(operand.LabelRef(loop))
		g.Label(done)
		g.ADDQ(operand.I32(g.L*vectors), some)
	}
	line := 64 / (size * g.L) // vectors in a cache line
	rounds(line, true)
	if line > 1 {
		rounds(1, false)
	}
	done := g.Fresh("done")
	g.TESTQ(some, some)
	g.JZ(operand.LabelRef(done))
	step(0, g.NewTail(some)) // only the last part has a tail
	g.Label(done)
	if s.pageOnce {
		g.TESTQ(count, count)
		g.JNZ(operand.LabelRef(loop))
	}
}

// fusedRows writes a product of four rows for a type with blocks; setUp loads constants and
// returns what to do with one block of each row.
func (g *gen) fusedRows(name string, length, size int, setUp func() func(w rowPtrs, x reg.Register, sums []reg.VecVirtual)) {
	g.Begin("dot4"+name, "func(out, x *float32, w *byte, rowBytes, n int)",
		"dot4"+name+g.Suffix+" does out[r] = sum over k in [0,n) of w[r][k]*x[k] for r in [0,4), rows rowBytes apart.",
		"n is positive and a multiple of the block length.")
	w := rowPtrs{g.Arg("w"), g.Arg("rowBytes"), g.GP64()}
	g.LEAQ(operand.Mem{Base: w.stride, Index: w.stride, Scale: 2}, w.stride3)
	n, x := g.Arg("n"), g.Arg("x")
	block := setUp()
	totals := g.parts(n, 1, 4, func(count reg.Register, sums [][]reg.VecVirtual) {
		loop := g.Fresh("block")
		g.Label(loop)
		block(w, x, sums[0])
		g.ADDQ(operand.I32(size), w.base)
		g.ADDQ(operand.I32(4*length), x)
		g.SUBQ(operand.I32(length), count)
		g.JNZ(operand.LabelRef(loop))
	})
	g.VMOVUPS(totals[0], operand.Mem{Base: g.Arg("out")})
	g.End()
}

func (g *gen) setUpQ4K() func(w rowPtrs, x reg.Register, sums []reg.VecVirtual) {
	buf := g.AllocLocal(4 * 64)
	count := g.table("count", func(i int) float32 { return float32(i) })
	return func(w rowPtrs, x reg.Register, sums []reg.VecVirtual) {
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

func (g *gen) setUpQ6K() func(w rowPtrs, x reg.Register, sums []reg.VecVirtual) {
	buf := g.AllocLocal(4 * 64)
	mask, top, offset := g.bytes(0x0f), g.bytes(0x30), g.bytes(32)
	return func(w rowPtrs, x reg.Register, sums []reg.VecVirtual) {
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

func (g *gen) setUpQ8_0() func(w rowPtrs, x reg.Register, sums []reg.VecVirtual) {
	return func(w rowPtrs, x reg.Register, sums []reg.VecVirtual) {
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

func (g *gen) setUpQ5K() func(w rowPtrs, x reg.Register, sums []reg.VecVirtual) {
	buf := g.AllocLocal(4 * 64)
	mask, sixteen := g.bytes(0x0f), g.bytes(0x10)
	return func(w rowPtrs, x reg.Register, sums []reg.VecVirtual) {
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
