package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// productsPlanes512 multiplies one chunk of some rows with tokens side by side.
type productsPlanes512 struct {
	planes, scale, sum reg.GPVirtual
	offset             bool
	pairs              bool
}

// begin sets the sums of the products of some rows with token t to where they begin: 0
// or, with the lower bytes, what takes the offset from the weights.
func (p productsPlanes512) begin(t, rows int, lower bool) (sums []reg.VecVirtual) {
	for range rows {
		z := ZMM()
		if lower && p.offset {
			VMOVDQU64(Mem{Base: p.planes, Disp: planeBytes*t + planeSums}, z)
		} else {
			VXORPS(z, z, z)
		}
		sums = append(sums, z)
	}
	return sums
}

// combinePlanes512 returns the instructions that put sums of products with upper bytes
// and those with lower bytes together.
func combinePlanes512(upper, lower []reg.VecVirtual) (q queue) {
	for _, z := range upper {
		q.then(func() { VPSLLD(Imm(8), z, z) })
	}
	for r, z := range upper {
		q.then(func() { VPADDD(lower[r], z, z) })
	}
	return q
}

// queue is instructions to be written between others, so that those that wait for each
// other are apart and all pipes have work.
type queue []func()

func (q *queue) then(list ...func()) { *q = append(*q, list...) }

// next writes n of them, if there are so many.
func (q *queue) next(n int) {
	for ; n > 0 && len(*q) > 0; n-- {
		f := (*q)[0]
		*q = (*q)[1:]
		f()
	}
}

func (q *queue) flush() { q.next(len(*q)) }

// addDecoded decodes blocks of two rows and then adds their products to acc, by row and token.
func (p productsPlanes512) addDecoded(acc [][]reg.VecVirtual, f planes512, w [2]reg.GPVirtual) {
	d, min := f.header(w)
	var weights [2][4]reg.VecVirtual
	for r := range w {
		weights[r] = decodePlanes512(f, w[r])
	}
	p.add(acc, weights[:], d[:], min[:])
}

func decodePlanes512(f planes512, block reg.GPVirtual) (weights [4]reg.VecVirtual) {
	f.prepare(block)
	for v := range weights {
		f.index(v)
		weights[v] = f.vector(block, v)
	}
	return weights
}

// add adds to acc, by row and token, the products with weights, by row and vector,
// times d less min, if there are any, times the sums of the columns. What is left to do
// with a token's sums is written between the products of the next one.
func (p productsPlanes512) add(acc [][]reg.VecVirtual, weights [][4]reg.VecVirtual, d, min []reg.VecVirtual) {
	var q queue
	for t := range acc[0] {
		sums, combine := p.sums(t, weights, &q)
		q.flush()
		q.then(combine...)
		if !p.pairs { // registers are short
			q.flush()
		}
		q.then(p.scaled(t, sums, acc, d, min)...)
	}
	q.flush()
}

// sums writes the products of weights with token t, with instructions of q between them.
// It returns where their sums will be, by row, after combine.
func (p productsPlanes512) sums(t int, weights [][4]reg.VecVirtual, q *queue) (sums []reg.VecVirtual, combine queue) {
	rows := len(weights)
	upper, lower := p.begin(t, rows, false), p.begin(t, rows, true)
	for v := range 4 {
		for _, plane := range []int{planeUpper, planeLower} {
			z := upper
			if plane == planeLower {
				z = lower
			}
			at := Mem{Base: p.planes, Disp: planeBytes*t + plane + 64*v}
			if rows == 1 {
				VPDPBUSD(at, weights[0][v], z[0])
			} else {
				x := ZMM()
				VMOVDQU64(at, x)
				for r := range rows {
					VPDPBUSD(x, weights[r][v], z[r])
				}
			}
			q.next(2)
		}
	}
	return upper, combinePlanes512(upper, lower)
}

// addAtOnce is addDecoded for one token: each vector of the activations is read once for
// both rows, and none of the weights is kept.
func (p productsPlanes512) addAtOnce(acc [][]reg.VecVirtual, f planes512, w [2]reg.GPVirtual) {
	d, min := f.header(w)
	upper, lower := p.begin(0, 2, false), p.begin(0, 2, true)
	decoders := [2]planes512{f, f.again()}
	for r := range w {
		decoders[r].prepare(w[r])
	}
	for v := range 4 {
		f.index(v)
		var weights [2]reg.VecVirtual
		for r := range w {
			weights[r] = decoders[r].vector(w[r], v)
		}
		for plane, sums := range [][]reg.VecVirtual{upper, lower} {
			x := ZMM()
			VMOVDQU64(Mem{Base: p.planes, Disp: planeLower*plane + 64*v}, x)
			for r := range w {
				VPDPBUSD(x, weights[r], sums[r])
			}
		}
	}
	q := combinePlanes512(upper, lower)
	q.then(p.scaled(0, upper, acc, d[:], min[:])...)
	q.flush()
}

// scaled returns the instructions that add one token's sums, by row, to acc: see add.
func (p productsPlanes512) scaled(t int, isum []reg.VecVirtual, acc [][]reg.VecVirtual, d, min []reg.VecVirtual) (q queue) {
	if p.pairs {
		scale := ZMM()
		pair := pairs512{ZMM(), d[0], min[0]}
		q.then(pair.sum(isum)...)
		q.then(func() {
			VBROADCASTSS(Mem{Base: p.scale, Disp: 4 * t}, scale)
			VMULPS(scale, pair.scale, scale)
		})
		q.then(func() { VFMADD231PS(scale, pair.sums, acc[0][t]) })
		q.then(func() { VFNMADD231PS(Mem{Base: p.sum, Disp: 64 * t}, pair.min, acc[0][t]) })
		return q
	}
	for r, s := range isum {
		q.then(func() { VCVTDQ2PS(s, s) })
		q.then(func() {
			both := ZMM()
			VMULPS_BCST(Mem{Base: p.scale, Disp: 4 * t}, d[r], both)
			VFMADD231PS(both, s, acc[r][t])
		})
	}
	return q
}
