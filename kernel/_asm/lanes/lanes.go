// Package lanes lets one generator write a kernel for several vector widths:
// loads, stores, tails, reductions and loops in terms of lanes of float32.
package lanes

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Gen writes functions for one level. Wide means AVX-512 (16 lanes), otherwise
// AVX2 with FMA and F16C (8 lanes).
type Gen struct {
	*build.Context
	Wide   bool
	L      int    // float32 lanes of a vector
	Suffix string // of function names

	names *names
}

// names are shared by the levels: data symbols already written, labels used.
type names struct {
	data   map[string]operand.Mem
	labels int
}

// Levels returns a generator for each level over one context.
func Levels(c *build.Context) []*Gen {
	n := &names{data: map[string]operand.Mem{}}
	return []*Gen{
		{Context: c, L: 8, Suffix: "AVX2", names: n},
		{Context: c, Wide: true, L: 16, Suffix: "AVX512", names: n},
	}
}

// Begin starts a function; Go loop and assumptions go into doc.
func (g *Gen) Begin(name, signature string, doc ...string) {
	g.Function(name + g.Suffix)
	g.Attributes(build.NOSPLIT)
	g.Pragma("noescape")
	g.Doc(doc...)
	g.SignatureExpr(signature)
}

// End returns from the function, leaving the upper halves clean for SSE code.
func (g *Gen) End() {
	g.VZEROUPPER()
	g.RET()
}

// Fresh returns a label that no other code uses.
func (g *Gen) Fresh(name string) string {
	g.names.labels++
	return fmt.Sprintf("%s%d", name, g.names.labels)
}

// Ptr loads the base pointer of a slice parameter.
func (g *Gen) Ptr(name string) reg.Register { return g.Context.Load(g.Param(name).Base(), g.GP64()) }

// Len loads the length of a slice parameter.
func (g *Gen) Len(name string) reg.Register { return g.Context.Load(g.Param(name).Len(), g.GP64()) }

// Arg loads a scalar integer or pointer parameter.
func (g *Gen) Arg(name string) reg.Register { return g.Context.Load(g.Param(name), g.GP64()) }

// Splat broadcasts a float32 parameter.
func (g *Gen) Splat(name string) reg.VecVirtual {
	b, err := g.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	v := g.Vec()
	g.VBROADCASTSS(b.Addr, v)
	return v
}

// Vec is a new vector register of the level's width.
func (g *Gen) Vec() reg.VecVirtual {
	if g.Wide {
		return g.ZMM()
	}
	return g.YMM()
}

// Zero is a new vector of zeros.
func (g *Gen) Zero() reg.VecVirtual {
	v := g.Vec()
	g.Clear(v)
	return v
}

// Clear sets v to zeros.
func (g *Gen) Clear(v reg.VecVirtual) {
	if g.Wide {
		g.VPXORD(v, v, v)
	} else {
		g.VPXOR(v, v, v)
	}
}

// Words is a read-only table of 32-bit words.
func (g *Gen) Words(name string, words ...uint32) operand.Mem {
	if m, ok := g.names.data[name]; ok {
		return m
	}
	m := g.StaticGlobal(name)
	g.DataAttributes(build.RODATA | build.NOPTR)
	for _, w := range words {
		g.AppendDatum(operand.U32(w))
	}
	g.names.data[name] = m
	return m
}

// Const broadcasts a constant.
func (g *Gen) Const(f float64) reg.VecVirtual { return g.ConstBits(math.Float32bits(float32(f))) }

// ConstBits broadcasts a constant given by its bits.
func (g *Gen) ConstBits(b uint32) reg.VecVirtual {
	v := g.Vec()
	g.VBROADCASTSS(g.Word(b), v)
	return v
}

// Word is one word in read-only memory.
func (g *Gen) Word(b uint32) operand.Mem { return g.Words(fmt.Sprintf("word_%08x", b), b) }

// maskTable has eight set words followed by eight clear ones; reading eight
// words at 8-n gives a mask of the first n lanes.
func (g *Gen) maskTable() operand.Mem {
	return g.Words("tail_mask", ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0),
		0, 0, 0, 0, 0, 0, 0, 0)
}

// Tail says which lanes of a vector exist: the first n, 0 < n < L.
type Tail struct {
	K    reg.Register // AVX-512: mask register
	Mask operand.Mem  // AVX2: mask in memory, so that it occupies no vector register
	n    reg.Register
}

// NewTail makes a tail of the number of lanes in n, which stays unchanged.
func (g *Gen) NewTail(n reg.Register) *Tail {
	t := &Tail{n: n}
	r := g.GP64()
	if g.Wide {
		g.MOVQ(operand.I32(-1), r)
		g.BZHIQ(n, r, r)
		t.K = g.K()
		g.KMOVW(r.As32(), t.K)
		return t
	}
	g.LEAQ(g.maskTable().Offset(32), r)
	neg := g.GP64()
	g.MOVQ(n, neg)
	g.NEGQ(neg)
	t.Mask = operand.Mem{Base: r, Index: neg, Scale: 4}
	return t
}

// LoadF32 loads a vector; lanes beyond the tail become zero and are not read.
func (g *Gen) LoadF32(m operand.Mem, t *Tail) reg.VecVirtual {
	v := g.Vec()
	g.LoadInto(v, m, t)
	return v
}

// LoadInto is LoadF32 into a given register.
func (g *Gen) LoadInto(v reg.VecVirtual, m operand.Mem, t *Tail) {
	switch {
	case t == nil:
		g.VMOVUPS(m, v)
	case g.Wide:
		g.VMOVUPS_Z(m, t.K, v)
	default:
		g.VMOVUPS(t.Mask, v)
		g.VMASKMOVPS(m, v, v)
	}
}

// StoreF32 stores a vector; lanes beyond the tail are not written.
func (g *Gen) StoreF32(v reg.VecVirtual, m operand.Mem, t *Tail) {
	switch {
	case t == nil:
		g.VMOVUPS(v, m)
	case g.Wide:
		g.VMOVUPS(v, t.K, m)
	default:
		mask := g.Vec()
		g.VMOVUPS(t.Mask, mask)
		g.VMASKMOVPS(v, mask, m)
	}
}

// LoadF16 loads IEEE halves and widens them.
func (g *Gen) LoadF16(m operand.Mem, t *Tail) reg.VecVirtual {
	v := g.Vec()
	switch {
	case t == nil:
		g.VCVTPH2PS(m, v)
	case g.Wide:
		h := g.YMM()
		g.VMOVDQU16_Z(m, t.K, h)
		g.VCVTPH2PS(h, v)
	default:
		// AVX2 cannot mask 16-bit lanes: collect the halves on the stack.
		buf := g.AllocLocal(16)
		x := g.XMM()
		g.VPXOR(x, x, x)
		g.VMOVDQU(x, buf)
		g.copyHalves(m, buf, t.n)
		g.VCVTPH2PS(buf, v)
	}
	return v
}

// StoreF16 rounds to IEEE halves, to nearest even, and stores them.
func (g *Gen) StoreF16(v reg.VecVirtual, m operand.Mem, t *Tail) {
	switch {
	case t == nil:
		g.VCVTPS2PH(operand.Imm(0), v, m)
	case g.Wide:
		h := g.YMM()
		g.VCVTPS2PH(operand.Imm(0), v, h)
		g.VMOVDQU16(h, t.K, m)
	default:
		buf := g.AllocLocal(16)
		g.VCVTPS2PH(operand.Imm(0), v, buf)
		g.copyHalves(buf, m, t.n)
	}
}

func (g *Gen) copyHalves(from, to operand.Mem, n reg.Register) {
	src, dst, i, h := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.LEAQ(from, src)
	g.LEAQ(to, dst)
	g.XORQ(i, i)
	loop := g.Fresh("halves")
	g.Label(loop)
	g.MOVWLZX(operand.Mem{Base: src, Index: i, Scale: 2}, h.As32())
	g.MOVW(h.As16(), operand.Mem{Base: dst, Index: i, Scale: 2})
	g.INCQ(i)
	g.CMPQ(i, n)
	g.JLT(operand.LabelRef(loop))
}

// ClearBeyond zeroes the lanes of v beyond the tail.
func (g *Gen) ClearBeyond(v reg.VecVirtual, t *Tail) {
	switch {
	case t == nil:
	case g.Wide:
		g.VMOVAPS_Z(v, t.K, v)
	default:
		g.VANDPS(t.Mask, v, v)
	}
}

// TakeBeyond replaces the lanes of v beyond the tail by those of other.
func (g *Gen) TakeBeyond(v, other reg.VecVirtual, t *Tail) {
	switch {
	case t == nil:
	case g.Wide:
		g.VBLENDMPS(v, other, t.K, v)
	default:
		mask := g.Vec()
		g.VMOVUPS(t.Mask, mask)
		g.VBLENDVPS(mask, v, other, v)
	}
}

// At is a position in a loop: element index plus an offset of whole vectors.
type At struct {
	index reg.Register
	elems int
}

// F32 addresses the vector in an array of float32.
func (a At) F32(base reg.Register) operand.Mem {
	return operand.Mem{Base: base, Index: a.index, Scale: 4, Disp: 4 * a.elems}
}

// F16 addresses the vector in an array of halves.
func (a At) F16(base reg.Register) operand.Mem {
	return operand.Mem{Base: base, Index: a.index, Scale: 2, Disp: 2 * a.elems}
}

// Each runs body for all of n elements: unrolled rounds (u counts vectors in a
// round), then single vectors, then a tail.
func (g *Gen) Each(n reg.Register, unroll int, body func(u int, at At, t *Tail)) {
	i, left := g.GP64(), g.GP64()
	g.XORQ(i, i)
	g.MOVQ(n, left)
	rounds := []int{1}
	if unroll > 1 {
		rounds = []int{unroll, 1}
	}
	for _, r := range rounds {
		loop, done := g.Fresh("loop"), g.Fresh("next")
		g.SUBQ(operand.I32(r*g.L), left)
		g.JLT(operand.LabelRef(done))
		g.Label(loop)
		for u := range r {
			body(u, At{i, u * g.L}, nil)
		}
		g.ADDQ(operand.I32(r*g.L), i)
		g.SUBQ(operand.I32(r*g.L), left)
		g.JGE(operand.LabelRef(loop))
		g.Label(done)
		g.ADDQ(operand.I32(r*g.L), left)
	}
	done := g.Fresh("done")
	g.TESTQ(left, left)
	g.JZ(operand.LabelRef(done))
	body(0, At{i, 0}, g.NewTail(left))
	g.Label(done)
}

// Upper is the upper half of v.
func (g *Gen) Upper(v reg.VecVirtual) reg.VecVirtual {
	if g.Wide {
		h := g.YMM()
		g.VEXTRACTF64X4(operand.Imm(1), v, h)
		return h
	}
	h := g.XMM()
	g.VEXTRACTF128(operand.Imm(1), v, h)
	return h
}

// Lower is the lower half of v, in the same register.
func (g *Gen) Lower(v reg.VecVirtual) reg.Register {
	if g.Wide {
		return v.AsY()
	}
	return v.AsX()
}

// Fold reduces v to four lanes with op (say VADDPS), overwriting v.
func (g *Gen) Fold(v reg.VecVirtual, op func(...operand.Op)) reg.Register {
	if g.Wide {
		h := g.YMM()
		g.VEXTRACTF64X4(operand.Imm(1), v, h)
		op(h, v.AsY(), v.AsY())
	}
	h := g.XMM()
	if g.Wide {
		g.VEXTRACTF32X4(operand.Imm(1), v.AsY(), h) // reaches registers 16 to 31
	} else {
		g.VEXTRACTF128(operand.Imm(1), v.AsY(), h)
	}
	op(h, v.AsX(), v.AsX())
	return v.AsX()
}

// FoldAll reduces v to its lowest lane.
func (g *Gen) FoldAll(v reg.VecVirtual, op func(...operand.Op)) reg.Register {
	x := g.Fold(v, op)
	s := g.XMM()
	g.VPERMILPS(operand.Imm(0x0e), x, s)
	op(s, x, x)
	g.VPERMILPS(operand.Imm(0x01), x, s)
	op(s, x, x)
	return x
}

// VMOVDQU32OrDQU loads a full vector of integers.
func (g *Gen) VMOVDQU32OrDQU(m operand.Mem, v reg.VecVirtual) {
	if g.Wide {
		g.VMOVDQU32(m, v)
	} else {
		g.VMOVDQU(m, v)
	}
}

// LoadHalfVec loads L/2 lanes into the lower half of v.
func (g *Gen) LoadHalfVec(m operand.Mem, v reg.VecVirtual) {
	if g.Wide {
		g.VMOVUPS(m, v.AsY())
	} else {
		g.VMOVUPS(m, v.AsX())
	}
}

// FoldRows returns the sums of the lanes of two or four vectors, in the order of the
// vectors, which it overwrites; of two vectors in the lower half, twice. A vector's sum has
// the same bits beside one other and beside three.
func (g *Gen) FoldRows(a []reg.VecVirtual) reg.Register {
	pair := func(p, q reg.VecVirtual) {
		h := g.Vec()
		g.VUNPCKHPS(q, p, h)
		g.VUNPCKLPS(q, p, p)
		g.VADDPS(h, p, p)
	}
	pair(a[0], a[1])
	other := a[0]
	if len(a) == 4 {
		pair(a[2], a[3])
		other = a[2]
	}
	h := g.Vec()
	g.VUNPCKHPD(other, a[0], h)
	g.VUNPCKLPD(other, a[0], a[0])
	g.VADDPS(h, a[0], a[0])
	return g.Fold(a[0], g.VADDPS)
}
