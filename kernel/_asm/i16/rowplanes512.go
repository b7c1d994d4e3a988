package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// matVecRowPlanes512 writes matVecPlanes512 for one token and blocks of columns: the
// two blocks that are decoded together are neighbours in one row instead of the same
// block of two rows. One stream of memory is faster than two that are a long row apart,
// which cannot be fetched in the order of memory when a row goes on elsewhere. Sums are
// formed in the same order.
func matVecRowPlanes512(f planes512) {
	p := beginPlanes512(f, 1, true)
	w := [2]reg.GPVirtual{p.w, GP64()}
	ahead := Load(Param("ahead"), GP64()).(reg.GPVirtual)
	ADDQ(p.w, ahead)

	Label("rows")
	p.beginRows()
	acc := p.accumulators(1)
	multiply := func(blocks int) {
		prefetchStrip(ahead, blocks*f.bytes())
		d, min := f.header(w)
		for i, block := range w[:blocks] {
			weights := [][4]reg.VecVirtual{decodePlanes512(f, block)}
			productsPlanes512{p.planes, p.scale, p.sum, f.offset(), false}.add(acc, weights, d[i:i+1], min[i:i+1])
			p.nextChunk()
		}
		ADDQ(number(blocks*f.bytes()), w[0])
	}
	CMPQ(p.chunks, Imm(1))
	JEQ(LabelRef("single"))

	Label("pair")
	LEAQ(Mem{Base: w[0], Disp: f.bytes()}, w[1])
	multiply(2)
	SUBQ(Imm(2), p.chunks)
	CMPQ(p.chunks, Imm(1))
	JGT(LabelRef("pair"))
	JLT(LabelRef("sum"))

	Label("single")
	MOVQ(w[0], w[1])
	multiply(1)

	Label("sum")
	p.store(w[:1], acc)
}
