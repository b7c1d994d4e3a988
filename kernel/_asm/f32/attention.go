package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// attnBlock is the distance of the scores of two queries, as in package kernel.
const attnBlock = 64

// cacheType is how keys and values are stored: in half precision, or in blocks of
// Q8_0, 32 bytes behind their scale.
type cacheType struct {
	suffix, element string
	q8              bool
}

var cacheTypes = []cacheType{{"F16", "uint16", false}, {"Q8", "byte", true}}

const (
	q8Len   = 32
	q8Bytes = 34
)

// attention writes the kernels that read a cache as it is, once for a group of
// queries. Each fetches ahead, into the first-level cache, as many bytes as it
// reads, from where it is told: keys and values are two streams that take turns,
// so the values of a block come while its keys are at work and the next keys while
// its values are.
func attention(g *lanes.Gen) {
	for _, c := range cacheTypes {
		for q := 1; q <= tileTokens(g); q++ {
			scores(g, q, c)
		}
		for q := 1; q <= 6; q++ {
			mix(g, q, c)
		}
	}
	softmaxRows(g)
}

// rowBytes turns dim into the bytes of a row.
func (c cacheType) rowBytes(g *lanes.Gen, dim reg.Register) {
	if !c.q8 {
		g.SHLQ(operand.Imm(1), dim)
		return
	}
	g.SHRQ(operand.Imm(5), dim)
	g.IMUL3Q(operand.Imm(q8Bytes), dim, dim)
}

// step is the number of vectors that kernels go on by at least: one, or a block.
func (c cacheType) step(g *lanes.Gen) int {
	if c.q8 {
		return q8Len / g.L
	}
	return 1
}

// bytes is the size of n elements, or of as much of a block of Q8_0, which has 34
// bytes for 32.
func (c cacheType) bytes(n int) int {
	if c.q8 {
		return n * q8Bytes / q8Len
	}
	return 2 * n
}

// load returns vector i of those that begin at m, widened. The product of a byte and
// its scale is exact in float32, so it does not matter that it is formed first.
func (c cacheType) load(g *lanes.Gen, m operand.Mem, i int, scale reg.VecVirtual) reg.VecVirtual {
	if !c.q8 {
		return g.LoadF16(m.Offset(2*g.L*i), nil)
	}
	at := g.L * i
	v := g.Vec()
	g.VPMOVSXBD(m.Offset(at/q8Len*q8Bytes+2+at%q8Len), v)
	g.VCVTDQ2PS(v, v)
	g.VMULPS(scale, v, v)
	return v
}

// scale broadcasts the scale of the block of Q8_0 at m; nil for other types.
func (c cacheType) scale(g *lanes.Gen, m operand.Mem) reg.VecVirtual {
	if !c.q8 {
		return nil
	}
	v := g.Vec()
	if g.Wide {
		g.VPBROADCASTW(m, v.AsY())
		g.VCVTPH2PS(v.AsY(), v)
	} else {
		g.VPBROADCASTW(m, v.AsX())
		g.VCVTPH2PS(v.AsX(), v)
	}
	return v
}

// fetch asks for the lines in the next bytes of the other stream and moves on.
func fetch(g *lanes.Gen, ahead reg.Register, bytes int) {
	for at := 0; at < bytes; at += 64 {
		g.PREFETCHT0(operand.Mem{Base: ahead, Disp: at})
	}
	g.ADDQ(operand.I32(bytes), ahead)
}

// scores is the tile kernel for keys as they are stored: the same sums in the same
// order.
func scores(g *lanes.Gen, queries int, c cacheType) {
	name := fmt.Sprintf("scores%d%s", queries, c.suffix)
	g.Begin(name, "func(scores *float32, k *"+c.element+", quads int, q *float32, dim int, ahead *"+c.element+")",
		fmt.Sprintf("%s%s does scores[t*%d+p] = sum over i in [0,dim) of k[p*dim+i]*q[t*dim+i] for p in [0,4*quads), t in [0,%d).", name, g.Suffix, attnBlock, queries),
		"quads is positive and dim a multiple of 16, or of 32 for Q8_0. As many bytes from ahead on are fetched into the cache; they need not exist.")
	out, k, quads, q, ahead := g.Arg("scores"), g.Arg("k"), g.Arg("quads"), g.Arg("q"), g.Arg("ahead")
	stride, stride3, qStride, q3, left := g.Arg("dim"), g.GP64(), g.Arg("dim"), g.GP64(), g.GP64()
	c.rowBytes(g, stride)
	g.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	g.SHLQ(operand.Imm(2), qStride)

	quad := g.Fresh("quad")
	g.Label(quad)
	sums := make([][4]reg.VecVirtual, queries)
	for t := range sums {
		for r := range 4 {
			sums[t][r] = g.Zero()
		}
	}
	if queries > 3 { // as in tile
		g.LEAQ(operand.Mem{Base: qStride, Index: qStride, Scale: 2}, q3)
		g.ADDQ(q, q3)
	}
	row := func(r int) operand.Mem {
		if r == 3 {
			return operand.Mem{Base: k, Index: stride3, Scale: 1}
		}
		return strided(k, stride, r)
	}
	step := func(vectors int) {
		for i := range vectors {
			query := func(t int) operand.Mem {
				return strided([]reg.Register{q, q3}[t/3], qStride, t%3).Offset(4 * g.L * i)
			}
			if g.Wide {
				scoresKeysHeld(g, sums, c, row, query, i)
			} else {
				scoresKeyByKey(g, sums, c, row, query, i)
			}
		}
		lanes := vectors * g.L
		fetch(g, ahead, 4*c.bytes(lanes))
		g.ADDQ(operand.I32(c.bytes(lanes)), k)
		g.ADDQ(operand.I32(4*lanes), q)
		if queries > 3 {
			g.ADDQ(operand.I32(4*lanes), q3)
		}
	}
	loop := g.Fresh("loop")
	g.MOVQ(qStride, left)
	g.Label(loop)
	step(c.step(g))
	g.SUBQ(operand.I32(4*c.step(g)*g.L), left)
	g.JNZ(operand.LabelRef(loop))
	g.SUBQ(qStride, q)
	g.ADDQ(stride3, k) // a row has gone by
	for t := range sums {
		g.VMOVUPS(g.FoldRows(sums[t][:]), operand.Mem{Base: out, Disp: 4 * attnBlock * t})
	}
	g.ADDQ(operand.Imm(16), out)
	g.DECQ(quads)
	g.JNZ(operand.LabelRef(quad))
	g.End()
}

func scoresKeysHeld(g *lanes.Gen, sums [][4]reg.VecVirtual, c cacheType, row, query func(int) operand.Mem, i int) {
	var keys [4]reg.VecVirtual
	for r := range keys {
		keys[r] = c.load(g, row(r), i, c.scale(g, row(r)))
	}
	for s := range sums {
		v := g.LoadF32(query(s), nil)
		for r := range keys {
			g.VFMADD231PS(v, keys[r], sums[s][r])
		}
	}
}

// scoresKeyByKey is for few registers: queries of blocks of Q8_0 stay in memory, where
// the scale needs a register.
func scoresKeyByKey(g *lanes.Gen, sums [][4]reg.VecVirtual, c cacheType, row, query func(int) operand.Mem, i int) {
	qs := make([]operand.Op, len(sums))
	for s := range sums {
		qs[s] = query(s)
		if !c.q8 {
			qs[s] = g.LoadF32(query(s), nil)
		}
	}
	for r := range 4 {
		v := c.load(g, row(r), i, c.scale(g, row(r)))
		for s := range sums {
			g.VFMADD231PS(qs[s], v, sums[s][r])
		}
	}
}

// mix adds weighted values of some positions to the sums of a fixed number of
// queries. Those of a stretch of dim stay in registers while the positions go by,
// each a chain of fused multiply-adds that begins with zero, so grouping queries
// changes no bit.
func mix(g *lanes.Gen, queries int, c cacheType) {
	name := fmt.Sprintf("mix%d%s", queries, c.suffix)
	g.Begin(name, "func(acc, weight *float32, v *"+c.element+", n, dim int, ahead *"+c.element+")",
		fmt.Sprintf("%s%s does acc[q*dim+i] += sum over p in [0,n), ascending, of weight[q*%d+p]*v[p*dim+i] for q in [0,%d), i in [0,dim).", name, g.Suffix, attnBlock, queries),
		"n is positive and dim a multiple of 16, or of 32 for Q8_0. As many bytes from ahead on are fetched into the cache; they need not exist.")
	// As many vectors at a time as there are registers for, then what is left.
	most := 2
	if g.Wide {
		most = 4
	}
	sums := make([][]reg.VecVirtual, queries) // the same in all stretches
	for q := range sums {
		for range most {
			sums[q] = append(sums[q], g.Vec())
		}
	}
	m := &mixer{Gen: g, cacheType: c, sums: sums,
		acc: g.Arg("acc"), v: g.Arg("v"), ahead: g.Arg("ahead"), accStride: g.Arg("dim"), row: g.Arg("dim")}
	left := g.Arg("dim")
	g.SHLQ(operand.Imm(2), m.accStride)
	c.rowBytes(g, m.row)
	least := c.step(g)
	for _, vectors := range []int{max(most, least), least} {
		next, loop := g.Fresh("next"), g.Fresh("stretch")
		n := vectors * g.L
		g.SUBQ(operand.I32(n), left)
		g.JLT(operand.LabelRef(next))
		g.Label(loop)
		for from := 0; from < vectors; from += most {
			m.stretch(from, min(vectors, from+most))
		}
		g.ADDQ(operand.I32(4*n), m.acc)
		g.ADDQ(operand.I32(c.bytes(n)), m.v)
		g.SUBQ(operand.I32(n), left)
		g.JGE(operand.LabelRef(loop))
		g.Label(next)
		g.ADDQ(operand.I32(n), left)
		if vectors == least {
			break
		}
	}
	g.End()
}

// mixer holds what the stretches of one mix kernel share; strides are in bytes.
type mixer struct {
	*lanes.Gen
	cacheType
	sums                          [][]reg.VecVirtual // by query
	acc, v, ahead, accStride, row reg.Register
}

// stretch adds up vectors [from,to) of those at v.
func (m *mixer) stretch(from, to int) {
	vectors := to - from
	for q := range m.sums {
		for i := range vectors {
			m.Clear(m.sums[q][i])
		}
	}
	weight, at, n := m.Arg("weight"), m.GP64(), m.Arg("n")
	m.MOVQ(m.v, at)
	loop := m.Fresh("position")
	m.Label(loop)
	base := operand.Mem{Base: at}
	vs := make([]reg.VecVirtual, vectors)
	var scale reg.VecVirtual
	for i := range vs {
		if first := (from + i) * m.L; m.q8 && (i == 0 || first%q8Len == 0) {
			scale = m.scale(m.Gen, base.Offset(first/q8Len*q8Bytes))
		}
		vs[i] = m.load(m.Gen, base, from+i, scale)
	}
	fetch(m.Gen, m.ahead, m.bytes(vectors*m.L))
	for q := range m.sums {
		b := m.Vec()
		m.VBROADCASTSS(operand.Mem{Base: weight, Disp: 4 * attnBlock * q}, b)
		for i := range vs {
			m.VFMADD231PS(vs[i], b, m.sums[q][i])
		}
	}
	m.ADDQ(m.row, at)
	m.ADDQ(operand.Imm(4), weight)
	m.DECQ(n)
	m.JNZ(operand.LabelRef(loop))
	m.MOVQ(m.acc, at)
	for q := range m.sums {
		for i, s := range m.sums[q][:vectors] {
			to := operand.Mem{Base: at, Disp: 4 * m.L * (from + i)}
			m.VADDPS(to, s, s)
			m.VMOVUPS(s, to)
		}
		if q+1 < len(m.sums) {
			m.ADDQ(m.accStride, at)
		}
	}
}
