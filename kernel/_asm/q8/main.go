// Command q8 writes the assembly of attention with a cache of Q8_0 in integers,
// q8_amd64.s in package kernel.
package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

const (
	attnBlock = 64 // as in package kernel
	queries   = 8  // the most of one pass

	blockLen   = 32 // a block of Q8_0: a half-precision scale and so many bytes
	blockBytes = 34

	// Words of a query's block of 32 columns: upper bytes, lower bytes, then, behind
	// those of all queries, its offset and its scale.
	planeWords = 8
	queryWords = 2*planeWords + 2

	magicBits = 0x4b400000 // 1.5·2^23: added to a small number, leaves its integer in the low bits
	tinyBits  = 0x0d800000 // 2^-100
	infBits   = 0x7f800000
	nanBits   = 0x7fc00000
)

func main() {
	c := build.NewContext()
	c.ConstraintExpr("!noasm")
	g := lanes.Levels(c)[1]
	roundQueries(g)
	tops(g)
	exps(g)
	roundWeights(g)
	for n := 1; n <= queries; n++ {
		scores(g, n)
		mix(g, n)
	}
	lanes.Write(c, "q8")
}

// spread broadcasts the word at m.
func spread(g *lanes.Gen, m operand.Mem) reg.VecVirtual {
	v := g.Vec()
	g.VPBROADCASTD(m, v)
	return v
}

func word(base reg.Register, i int) operand.Mem { return operand.Mem{Base: base, Disp: 4 * i} }

// grid addresses rows that follow each other at a stride: rows 8i to 8i+7 hang on
// pointer i.
type grid struct {
	at                      []reg.Register
	one, three, five, seven reg.Register // multiples of the stride
}

func newGrid(g *lanes.Gen, base, stride reg.Register, rows int) *grid {
	r := &grid{one: stride, three: g.GP64(), five: g.GP64(), seven: g.GP64()}
	g.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, r.three)
	g.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 4}, r.five)
	g.LEAQ(operand.Mem{Base: r.three, Index: stride, Scale: 4}, r.seven)
	for i := 0; i < rows; i += 8 {
		p := base
		if i > 0 {
			p = g.GP64()
			g.LEAQ(operand.Mem{Base: r.at[len(r.at)-1], Index: stride, Scale: 8}, p)
		}
		r.at = append(r.at, p)
	}
	return r
}

func (r *grid) row(i int) operand.Mem {
	m := operand.Mem{Base: r.at[i/8]}
	switch i % 8 {
	case 1, 2, 4:
		m.Index, m.Scale = r.one, uint8(i%8)
	case 3, 6:
		m.Index, m.Scale = r.three, uint8(i%8/3)
	case 5:
		m.Index, m.Scale = r.five, 1
	case 7:
		m.Index, m.Scale = r.seven, 1
	}
	return m
}

func name(op string, n int) string { return fmt.Sprintf("q8%s%d", op, n) }
