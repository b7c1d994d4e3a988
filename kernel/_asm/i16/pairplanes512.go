package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// pairs512 is a block of each of two rows in a format whose 32 columns share a scale,
// times a token: dwords 4k and 4k+1 belong to groups 2k and 2k+1 of the first row,
// dwords 4k+2 and 4k+3 to those of the second. Half the conversions, multiplications
// and accumulators, then, of two vectors of 16 columns each.
type pairs512 struct{ sums, scale, min reg.VecVirtual }

// sum returns the instructions that make p.sums of the sums of 16 columns of two rows:
// exact integers, below 2^25 or, of weights in upper halves of bytes, 16 times that.
func (p pairs512) sum(isum []reg.VecVirtual) queue {
	odd := ZMM()
	return queue{
		func() { VSHUFPS(Imm(0x88), isum[1], isum[0], p.sums) },
		func() { VSHUFPS(Imm(0xdd), isum[1], isum[0], odd) },
		func() { VPADDD(odd, p.sums, p.sums) },
		func() { VCVTDQ2PS(p.sums, p.sums) },
	}
}

// addDecoding adds to acc, by token, the products with the blocks at w. Two tokens are
// multiplied while weights are decoded, two more while the sums of those are scaled:
// what is written in one piece waits for itself, as every pipe takes its instructions
// almost in their order.
func (p productsPlanes512) addDecoding(acc []reg.VecVirtual, f planes512, w [2]reg.GPVirtual) {
	var q queue
	decoders := [2]planes512{f, f.again()}
	var weights [2][4]reg.VecVirtual
	for r := range w {
		decoders[r].prepare(w[r])
	}
	decode := func(v int) {
		q.then(func() { f.index(v) })
		for r := range w {
			q.then(func() { weights[r][v] = decoders[r].vector(w[r], v) })
		}
	}
	decode(0)
	q.flush()
	var d, min [2]reg.VecVirtual
	for t := 0; t < len(acc); t += 2 {
		upper := [2][]reg.VecVirtual{p.begin(t, 2, false), p.begin(t+1, 2, false)} // by token and row
		lower := [2][]reg.VecVirtual{p.begin(t, 2, true), p.begin(t+1, 2, true)}
		for v := range 4 {
			if t == 0 && v < 3 {
				decode(v + 1)
			}
			for i := range upper {
				for plane, sums := range [][]reg.VecVirtual{upper[i], lower[i]} {
					x := ZMM()
					VMOVDQU64(Mem{Base: p.planes, Disp: planeBytes*(t+i) + planeLower*plane + 64*v}, x)
					for r := range w {
						VPDPBUSD(x, weights[r][v], sums[r])
					}
					q.next(2)
				}
			}
			if t == 0 {
				q.flush()
			}
		}
		q.flush()
		if t == 0 {
			d, min = f.header(w)
		}
		var each [2]queue
		for i := range each {
			each[i] = combinePlanes512(upper[i], lower[i])
			each[i].then(p.scaled(t+i, upper[i], [][]reg.VecVirtual{acc}, d[:], min[:])...)
		}
		for n := range each[0] {
			q.then(each[0][n], each[1][n])
		}
		q.next(14) // up to where both tokens have one register
	}
	q.flush()
}

// storePairs512 is storePlanes512 for pairs of rows.
func storePairs512(out, rows reg.GPVirtual, w []reg.GPVirtual, acc [][]reg.VecVirtual) {
	at, stride := GP64(), Load(Param("stride"), GP64())
	each := func(store func(v reg.VecVirtual)) {
		MOVQ(out, at)
		for t, v := range acc[0] {
			store(v)
			if t < len(acc[0])-1 {
				LEAQ(Mem{Base: at, Index: stride, Scale: 4}, at)
			}
		}
	}
	each(func(v reg.VecVirtual) {
		horizontalPairs512(v)
		VMOVSS(v.AsX(), Mem{Base: at})
	})
	if len(w) > 1 {
		CMPQ(rows, Imm(1))
		JEQ(LabelRef("done"))
		each(func(v reg.VecVirtual) { VEXTRACTPS(Imm(2), v.AsX(), Mem{Base: at, Disp: 4}) })
		MOVQ(w[1], w[0])
	}
	ADDQ(Imm(uint64(4*len(w))), out)
	SUBQ(Imm(uint64(len(w))), rows)
	JNZ(LabelRef("rows"))
	Label("done")
	VZEROUPPER()
	RET()
}

// horizontalPairs512 adds the 8 lanes of each row of v into lanes 0 and 2, in a fixed
// order.
func horizontalPairs512(v reg.VecVirtual) {
	u := ZMM()
	VEXTRACTF64X4(Imm(1), v, u.AsY())
	VADDPS(u.AsY(), v.AsY(), v.AsY())
	VEXTRACTF32X4(Imm(1), v.AsY(), u.AsX())
	VADDPS(u.AsX(), v.AsX(), v.AsX())
	VMOVSHDUP(v.AsX(), u.AsX())
	VADDPS(u.AsX(), v.AsX(), v.AsX())
}

// fillPairs512 writes the making of I16.Pairs from I16.Sum32.
func fillPairs512() {
	const name = "fillPairsAVX512"
	TEXT(name, attr.NOSPLIT, "func(pairs, sum32 *float32, chunks, batch int)")
	Pragma("noescape")
	Doc(name+" makes the pairs of chunks of one token from sum32. Chunks are batch", "apart in both; chunks is at least 1.")
	pairs := Load(Param("pairs"), GP64()).(reg.GPVirtual)
	from := Load(Param("sum32"), GP64()).(reg.GPVirtual)
	chunks := Load(Param("chunks"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	SHLQ(Imm(5), batch)
	index := dwordIndex("pairs", true, func(lane int) int { return lane/4*2 + lane%2 })

	Label("chunk")
	sums := ZMM()
	VMOVUPS(Mem{Base: from}, sums.AsY())
	VPERMPS(sums, index.get(), sums)
	VMOVUPS(sums, Mem{Base: pairs})
	ADDQ(batch, from)
	LEAQ(Mem{Base: pairs, Index: batch, Scale: 2}, pairs)
	DECQ(chunks)
	JNZ(LabelRef("chunk"))
	VZEROUPPER()
	RET()
}
