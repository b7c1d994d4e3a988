package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// together is the number of positions whose scores are formed at once: two vectors of
// them share each word of a query that is loaded, as more than two loads a cycle are
// not to be had.
const together = 32

// triple is the number of queries whose sums, of two bytes and two vectors of positions,
// fit the registers beside the keys.
const triple = 3

// scores multiplies the bytes of keys with those of queries. Lanes are positions: four
// columns of 16 keys are gathered in a vector, for all queries, and nothing is added up
// across lanes. VPDPBUSD takes the keys as unsigned, 128 too large; the offset that comes
// with a query's block takes that back.
func scores(g *lanes.Gen, n int) {
	g.Begin(name("Scores", n), "func(scores *float32, k *byte, groups int, q *int32, blocks int, ahead *byte)",
		fmt.Sprintf("%s%s does, for %d queries as q8RoundQueries leaves them and 32*groups rows of blocks of Q8_0,", name("Scores", n), g.Suffix, n),
		fmt.Sprintf("scores[t*%d+p] = sum over blocks b of float32(sum over i of k[p][b][i]*q[t][b][i])*scale(q[t][b])*scale(k[p][b]).", attnBlock),
		"groups and blocks are positive. As many bytes from ahead on as are read are fetched into the cache; they need not exist.")
	s := &scorer{Gen: g, n: n, out: g.Arg("scores"), ahead: g.Arg("ahead")}
	k, stride := g.Arg("k"), g.Arg("blocks")
	g.IMUL3Q(operand.Imm(blockBytes), stride, stride)
	groups := g.AllocLocal(8) // there are too few registers
	count := g.Arg("groups")
	g.MOVQ(count, groups)
	s.scales = g.AllocLocal(2 * together)
	group, loop := g.Fresh("group"), g.Fresh("block")
	s.rows = newGrid(g, k, stride, together)
	g.Label(group)
	s.q = g.Arg("q")
	left := g.Arg("blocks")
	zero := g.Zero()
	for t := range n {
		for v := range together / g.L {
			g.VMOVUPS(zero, s.score(t, v))
		}
	}
	g.Label(loop)
	s.block()
	g.ADDQ(operand.I32(together*blockBytes), s.ahead)
	for _, p := range s.rows.at {
		g.ADDQ(operand.Imm(blockBytes), p)
	}
	g.ADDQ(operand.I32(4*queryWords*n), s.q)
	g.DECQ(left)
	g.JNZ(operand.LabelRef(loop))
	for _, p := range s.rows.at { // a row has gone by; 31 more
		g.SUBQ(stride, p)
	}
	for i := range s.rows.at {
		for range together / 8 {
			g.LEAQ(operand.Mem{Base: s.rows.at[i], Index: stride, Scale: 8}, s.rows.at[i])
		}
	}
	g.ADDQ(operand.I32(4*together), s.out)
	g.DECQ(groups)
	g.JNZ(operand.LabelRef(group))
	g.End()
}

type scorer struct {
	*lanes.Gen
	n             int
	out, q, ahead reg.Register
	rows          *grid
	scales        operand.Mem
}

func (s *scorer) score(t, v int) operand.Mem { return word(s.out, attnBlock*t+s.L*v) }

// block adds a block of 32 columns to all scores.
func (s *scorer) block() {
	for r := range together {
		h := s.GP32()
		s.MOVWLZX(s.rows.row(r), h)
		s.MOVW(h.As16(), s.scales.Offset(2*r))
	}
	keys := [2][]reg.VecVirtual{s.transposed(0), s.transposed(16)}
	// The lines of the other stream are asked for one by one.
	lines, passes := together*blockBytes/64, (s.n+triple-1)/triple
	fetch := func(turn int) {
		turns := passes * planeWords
		for at := turn * lines / turns; at < (turn+1)*lines/turns; at++ {
			s.PREFETCHT0(operand.Mem{Base: s.ahead, Disp: 64 * at})
		}
	}
	var upper, lower [triple][2]reg.VecVirtual // the same for all triples
	for i := range upper {
		upper[i] = [2]reg.VecVirtual{s.Vec(), s.Vec()}
		lower[i] = [2]reg.VecVirtual{s.Vec(), s.Vec()}
	}
	q, scale := s.Vec(), s.Vec()
	for from := 0; from < s.n; from += triple {
		many := min(triple, s.n-from)
		for i := range many {
			for v := range 2 {
				s.Clear(upper[i][v])
				s.VPBROADCASTD(word(s.q, 2*planeWords*s.n+from+i), lower[i][v])
			}
		}
		for c := range planeWords {
			fetch(from/triple*planeWords + c)
			for i := range many {
				at := 2*planeWords*(from+i) + c
				s.VPBROADCASTD(word(s.q, at), q)
				s.VPDPBUSD(q, keys[0][c], upper[i][0])
				s.VPDPBUSD(q, keys[1][c], upper[i][1])
				s.VPBROADCASTD(word(s.q, at+planeWords), q)
				s.VPDPBUSD(q, keys[0][c], lower[i][0])
				s.VPDPBUSD(q, keys[1][c], lower[i][1])
			}
		}
		for v := range 2 {
			s.VCVTPH2PS(s.scales.Offset(2*s.L*v), scale)
			for i := range many {
				sum := upper[i][v]
				s.VPSLLD(operand.Imm(8), sum, sum)
				s.VPADDD(lower[i][v], sum, sum)
				s.VCVTDQ2PS(sum, sum)
				s.VMULPS_BCST(word(s.q, (2*planeWords+1)*s.n+from+i), sum, sum)
				s.VFMADD213PS(s.score(from+i, v), scale, sum)
				s.VMOVUPS(sum, s.score(from+i, v))
			}
		}
	}
}

// transposed returns eight vectors: four columns each of the keys of 16 rows, in the
// order of rows.
func (s *scorer) transposed(first int) []reg.VecVirtual {
	// 32 bytes each of rows r and r+4, and the same eight rows on.
	var x [8]reg.VecVirtual
	for i := range x {
		x[i] = s.Vec()
		r := first + i%4 + i/4*8
		s.VBROADCASTI64X4(s.rows.row(r).Offset(2), x[i])
		s.VINSERTI64X4(operand.Imm(1), s.rows.row(r+4).Offset(2), x[i], x[i])
		s.VPXORD_BCST(s.Word(0x80808080), x[i], x[i])
	}
	// Within 128 bits: words of four rows, so that x[4h+c] has words c and c+4 of rows 8h
	// to 8h+3 and of rows 8h+4 to 8h+7.
	for h := range 2 {
		four := x[4*h:]
		a, b, c, d := s.Vec(), s.Vec(), s.Vec(), s.Vec()
		s.VPUNPCKLDQ(four[1], four[0], a) // rows 0, 1, columns 0, 1
		s.VPUNPCKHDQ(four[1], four[0], b)
		s.VPUNPCKLDQ(four[3], four[2], c)
		s.VPUNPCKHDQ(four[3], four[2], d)
		s.VPUNPCKLQDQ(c, a, four[0])
		s.VPUNPCKHQDQ(c, a, four[1])
		s.VPUNPCKLQDQ(d, b, four[2])
		s.VPUNPCKHQDQ(d, b, four[3])
	}
	out := make([]reg.VecVirtual, 8)
	for c := range 4 {
		out[c], out[c+4] = s.Vec(), s.Vec()
		s.VSHUFI64X2(operand.Imm(0x88), x[4+c], x[c], out[c])
		s.VSHUFI64X2(operand.Imm(0xdd), x[4+c], x[c], out[c+4])
	}
	return out
}
