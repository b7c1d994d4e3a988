package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/apr-engine/apr/kernel/_asm/lanes"
)

// mix adds up rows of values with weights of 16 bits: the bytes of two rows become pairs
// of words, 16 columns in a vector, so a pair of weights, read once, serves 32 columns.
func mix(g *lanes.Gen, n int) {
	g.Begin(name("Mix", n), "func(acc *float32, w *int16, step *float32, v *byte, pairs, blocks int, ahead *byte)",
		fmt.Sprintf("%s%s does, for %d queries and 2*pairs rows of blocks of Q8_0, with w and step of q8RoundWeights,", name("Mix", n), g.Suffix, n),
		fmt.Sprintf("acc[q*%d*blocks+%d*b+i] += float32(sum over p of w[(b*%d+q)*%d+p]*v[p][b][i])*step[b*%d+q], rounded once.", blockLen, blockLen, n, attnBlock, n),
		"pairs and blocks are positive. As many bytes from ahead on as are read are fetched into the cache; they need not exist.")
	acc, w, step, v, ahead, left := g.Arg("acc"), g.Arg("w"), g.Arg("step"), g.Arg("v"), g.Arg("ahead"), g.Arg("blocks")
	row, accStride := g.Arg("blocks"), g.Arg("blocks")
	g.IMUL3Q(operand.Imm(blockBytes), row, row)
	g.SHLQ(operand.Imm(7), accStride)
	// The words of 128 bits come out in turns: columns 0 to 3 low, 4 to 7 high.
	first := g.Vec()
	g.VMOVDQU32(g.Words("q8_first_columns", 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23), first)
	last := g.Vec()
	g.VMOVDQU32(g.Words("q8_last_columns", 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31), last)

	sums := make([][2]reg.VecVirtual, n)
	for q := range sums {
		sums[q] = [2]reg.VecVirtual{g.Vec(), g.Vec()}
	}
	block, loop := g.Fresh("block"), g.Fresh("pair")
	g.Label(block)
	for q := range sums {
		g.Clear(sums[q][0])
		g.Clear(sums[q][1])
	}
	at, weights, pairs := g.GP64(), g.GP64(), g.Arg("pairs")
	g.MOVQ(v, at)
	const center = 256 // of the short displacements
	g.LEAQ(operand.Mem{Base: w, Disp: center}, weights)
	g.Label(loop)
	a, b, low, high := g.Vec(), g.Vec(), g.Vec(), g.Vec()
	g.VPMOVSXBW(operand.Mem{Base: at, Disp: 2}, a)
	g.VPMOVSXBW(operand.Mem{Base: at, Index: row, Scale: 1, Disp: 2}, b)
	g.VPUNPCKLWD(b, a, low)
	g.VPUNPCKHWD(b, a, high)
	g.PREFETCHT0(operand.Mem{Base: ahead})
	g.ADDQ(operand.I32(64), ahead)
	for q := range sums {
		x := spread(g, operand.Mem{Base: weights, Disp: 2*attnBlock*q - center})
		g.VPDPWSSD(x, low, sums[q][0])
		g.VPDPWSSD(x, high, sums[q][1])
	}
	g.LEAQ(operand.Mem{Base: at, Index: row, Scale: 2}, at)
	g.ADDQ(operand.Imm(4), weights)
	g.DECQ(pairs)
	g.JNZ(operand.LabelRef(loop))

	for range (attnBlock*blockBytes - 64*attnBlock/2 + 63) / 64 { // a pair has a little more than a line
		g.PREFETCHT0(operand.Mem{Base: ahead})
		g.ADDQ(operand.I32(64), ahead)
	}
	g.MOVQ(acc, at)
	for q := range sums {
		x, y, scale := g.Vec(), g.Vec(), spread(g, word(step, q))
		g.VCVTDQ2PS(sums[q][0], x)
		g.VCVTDQ2PS(sums[q][1], y)
		for i, columns := range []reg.VecVirtual{first, last} {
			z, old, to := g.Vec(), g.Vec(), operand.Mem{Base: at, Disp: 4 * g.L * i}
			g.VMOVDQA32(columns, z)
			g.VPERMI2D(y, x, z)
			g.VMOVUPS(to, old)
			g.VFMADD231PS(scale, z, old)
			g.VMOVUPS(old, to)
		}
		if q+1 < n {
			g.ADDQ(accStride, at)
		}
	}
	g.ADDQ(operand.Imm(4*blockLen), acc)
	g.ADDQ(operand.Imm(blockBytes), v)
	g.ADDQ(operand.I32(2*attnBlock*n), w)
	g.ADDQ(operand.I32(4*n), step)
	g.DECQ(left)
	g.JNZ(operand.LabelRef(block))
	g.End()
}
