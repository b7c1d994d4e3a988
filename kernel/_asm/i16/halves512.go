package main

import (
	"encoding/binary"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Layout of one chunk of one token in I16.Halves; package kernel asserts it. It has the
// offsets of I16.Planes.
const halfSums = 512 // [16]float32: sums of 32 columns, by halfGroups, twice

// halfGroups are the groups of 32 columns in the order in which their sums come out of the
// products with halves of bytes.
var halfGroups = [8]int{0, 4, 1, 5, 2, 6, 3, 7}

// k4Halves multiplies one token with Q4_K or Q5_K, whose 128 bytes of a block have two groups
// of 32 columns in the lower and upper halves of each 32. The bytes stay where they are but
// for one interleaving of eights of the two halves of the block. What belongs together is
// summed afterwards, as integers: that takes fewer instructions than bringing each weight
// to its group's lane, and none of those that only one or two of the pipes can do.
type k4Halves struct {
	fifth                bool
	low                  Mem
	shift, second        constant512 // of VPMULTISHIFTQB
	lowMask, highMask    constant512
	scaleIndex, minIndex constant512
	first                reg.OpmaskVirtual
	halves               [2]constant512 // of bytes
	bits                 [2]constant512 // for Q5_K: fifth bits of lower and upper halves
	sixteenth            constant512    // for Q4_K
}

func (f *k4Halves) name() string {
	if f.fifth {
		return "Q5K"
	}
	return "Q4K"
}

func (f *k4Halves) bytes() int {
	if f.fifth {
		return 176
	}
	return 144
}

func (f *k4Halves) paired() bool { return true }

func (f *k4Halves) constants(int) {
	// Header bytes 4 to 7 have scales, 8 to 11 minimums of groups 0 to 3, with the upper bits
	// of groups 4 to 7, of which 12 to 15 have the lower bits.
	rows := func(name string, b []byte) constant512 {
		c := newConstant512(name, append(b, b...), false)
		c.v = YMM()
		VMOVDQU(c.m, c.v)
		return c
	}
	f.low = bytesConst("k4lowtwice", append(k4Low, k4Low...))
	f.shift = rows("k4shifthalf", []byte{0, 8, 16, 24, 32, 40, 48, 56, 0, 8, 16, 24, 36, 44, 52, 60})
	f.second = rows("k4secondhalf", []byte{0, 0, 0, 0, 2, 10, 18, 26, 0, 0, 0, 0, 2, 10, 18, 26})
	f.lowMask = rows("k4lowmaskhalf", repeat(63, 4, 15, 4, 63, 4, 15, 4))
	f.highMask = rows("k4highmaskhalf", repeat(0, 4, 0x30, 4, 0, 4, 0x30, 4))
	dwords := func(name string, first int) constant512 {
		var b []byte
		for lane := range 16 {
			b = append(b, byte(16*(lane/8)+first+halfGroups[lane%8]), 0, 0, 0)
		}
		return newConstant512("k4half"+name, b, true)
	}
	f.scaleIndex, f.minIndex = dwords("scales", 0), dwords("mins", 8)
	bits := GP64()
	MOVQ(U64(0x1111111111111111), bits)
	f.first = K()
	KMOVQ(bits, f.first)
	f.halves[0] = newConstant512("k4lowerhalf", repeat(0x0f, 64), true)
	if f.fifth {
		for i, name := range []string{"fifthlower", "fifthupper"} {
			// Qword k has weights of group 2·(k/4) + 4·(k%2) + i; see halfPlanes.
			var b []byte
			for k := range 8 {
				b = binary.LittleEndian.AppendUint64(b, 1<<(2*(k/4)+4*(k%2)+i)<<24) // bit 4
			}
			f.bits[i] = newConstant512("bits"+name, b, true)
		}
		return
	}
	f.halves[1] = newConstant512("k4upperhalf", repeat(0xf0, 64), true)
	var factors []byte
	for lane := range 16 {
		factor := float32(1)
		if halfGroups[lane%8]%2 == 1 {
			factor = 1. / 16
		}
		factors = binary.LittleEndian.AppendUint32(factors, math.Float32bits(factor))
	}
	f.sixteenth = newConstant512("k4halfsixteenth", factors, true)
}

// header returns the instructions that decode the scales and minimums of two blocks, by
// halfGroups, those of the first in the lower eight lanes.
func (f *k4Halves) header(w [2]reg.GPVirtual) (scale, min reg.VecVirtual, q queue) {
	header, low, high, halves, floats := YMM(), YMM(), YMM(), YMM(), ZMM()
	q.then(
		func() {
			VMOVDQU32(Mem{Base: w[0]}, header.AsX())
			VINSERTI32X4(Imm(1), Mem{Base: w[1]}, header, header)
		},
		func() { VPSHUFB(f.low, header, low) },
		func() { VPSHUFD(Imm(0), header, halves) },
		func() { VPMULTISHIFTQB(low, f.second.v, high) },
		func() { VPMULTISHIFTQB(low, f.shift.v, low) },
		func() { VCVTPH2PS(halves, floats) }, // d, dmin, d, dmin, …
		func() { VPANDD(f.lowMask.v, low, low) },
		func() { VPTERNLOGD(Imm(0xf8), f.highMask.v, high, low) }, // low | high&mask
	)
	scale, min = ZMM(), ZMM()
	d, dmin := ZMM(), ZMM()
	q.then(
		func() { VPERMB_Z(low.AsZ(), f.scaleIndex.get(), f.first, scale) },
		func() { VPERMB_Z(low.AsZ(), f.minIndex.get(), f.first, min) },
		func() { VMOVSLDUP(floats, d) },
		func() { VMOVSHDUP(floats, dmin) },
		func() { VCVTDQ2PS(scale, scale) },
		func() { VCVTDQ2PS(min, min) },
		func() { VMULPS(d, scale, scale) },
		func() { VMULPS(dmin, min, min) },
	)
	if !f.fifth {
		q.then(func() { VMULPS(f.sixteenth.get(), scale, scale) })
	}
	return scale, min, q
}

// load loads a block and interleaves the eights of its two halves.
func (f *k4Halves) load(block reg.GPVirtual) (q, h [2]reg.VecVirtual) {
	levels := f.bytes() - 128
	for i := range q {
		q[i], h[i] = ZMM(), ZMM()
	}
	last := ZMM()
	VMOVDQU64(Mem{Base: block, Disp: levels}, q[0])
	VMOVDQU64(Mem{Base: block, Disp: levels + 64}, last)
	VPUNPCKHQDQ(last, q[0], q[1])
	VPUNPCKLQDQ(last, q[0], q[0])
	if f.fifth {
		VBROADCASTI64X4(Mem{Base: block, Disp: 16}, h[0])
		VPUNPCKHQDQ(h[0], h[0], h[1])
		VPUNPCKLQDQ(h[0], h[0], h[0])
	}
	return q, h
}

// vector returns the weights in lower (n = 0) or upper halves of the bytes of q, for which
// the lower ones have to be first. Upper halves of Q4_K stay where they are: 16 times as
// large, with scales 16 times smaller, they give the same.
func (f *k4Halves) vector(q, h reg.VecVirtual, n int) reg.VecVirtual {
	z := ZMM()
	if !f.fifth {
		VPANDD(f.halves[n].get(), q, z)
		return z
	}
	VGF2P8AFFINEQB(Imm(0), f.bits[n].get(), h, z)
	if n == 1 {
		VPSRLW(Imm(4), q, q)
	}
	VPTERNLOGD(Imm(0xf8), f.halves[0].get(), q, z)
	return z
}

// multiply returns the integer sums of the products of blocks with chunks of the activations:
// of groups 0 4 1 5 in dwords 0 to 3 and 4 to 7, of groups 2 6 3 7 in the others. If there is
// only one chunk it is for both blocks. Instructions of r, whose results are needed later,
// are written between the others.
func (f *k4Halves) multiply(blocks, chunks []reg.GPVirtual, r *queue) (sums []reg.VecVirtual) {
	var acc [2][2]reg.VecVirtual // by block and half of bytes
	var weights [2][2][2]reg.VecVirtual
	var q, h [2][2]reg.VecVirtual
	for b, block := range blocks {
		for n := range 2 {
			acc[b][n] = ZMM()
			VXORPS(acc[b][n], acc[b][n], acc[b][n])
		}
		q[b], h[b] = f.load(block)
	}
	decode := func(i, n int) {
		for b := range blocks {
			weights[b][i][n] = f.vector(q[b][i], h[b][i], n)
			r.next(1)
		}
	}
	for _, plane := range []int{planeUpper, planeLower} {
		for i := range 2 {
			for n := range 2 {
				if plane == planeUpper {
					decode(i, n)
				}
				x := ZMM()
				for b := range blocks {
					at := Mem{Base: chunks[b%len(chunks)], Disp: plane + 64*(2*i+n)}
					if len(chunks) == len(blocks) {
						VPDPBUSD(at, weights[b][i][n], acc[b][n])
						continue
					}
					if b == 0 {
						VMOVDQU64(at, x)
					}
					VPDPBUSD(x, weights[b][i][n], acc[b][n])
				}
			}
		}
		if plane == planeUpper {
			for b := range blocks {
				for n := range 2 {
					VPSLLD(Imm(8), acc[b][n], acc[b][n])
					r.next(1)
				}
			}
		}
	}
	r.flush()
	for b := range blocks {
		sum := ZMM()
		VSHUFPS(Imm(0x88), acc[b][1], acc[b][0], sum)
		VSHUFPS(Imm(0xdd), acc[b][1], acc[b][0], acc[b][0])
		VPADDD(acc[b][0], sum, sum)
		sums = append(sums, sum)
	}
	return sums
}

// merge makes sums of two blocks as multiply returns them those by halfGroups, as floats.
func (f *k4Halves) merge(a, b reg.VecVirtual) reg.VecVirtual {
	sum, odd := ZMM(), ZMM()
	VSHUFI32X4(Imm(0x88), b, a, sum)
	VSHUFI32X4(Imm(0xdd), b, a, odd)
	VPADDD(odd, sum, sum)
	VCVTDQ2PS(sum, sum)
	return sum
}

// matVecHalves512 writes the product of rows with one token, two rows at a time.
func matVecHalves512(f *k4Halves) {
	p := beginPlanes512(f, 1, false)
	w := [2]reg.GPVirtual{p.w, GP64()}
	ahead := aheadPlanes512(w[0], p.rowBytes, 1)

	Label("rows")
	// The second row; for a last one without a partner the same again.
	LEAQ(Mem{Base: w[0], Index: p.rowBytes, Scale: 1}, w[1])
	CMPQ(p.rows, Imm(1))
	CMOVQEQ(w[0], w[1])
	p.beginRows()
	acc := p.accumulators(2)

	Label("chunk")
	prefetch(ahead, 2*f.bytes(), 1)
	ADDQ(number(2*f.bytes()), ahead)
	scale, min, header := f.header(w)
	sums := f.multiply(w[:], []reg.GPVirtual{p.planes}, &header)
	sum, x := f.merge(sums[0], sums[1]), ZMM()
	VBROADCASTSS(Mem{Base: p.scale}, x)
	VMULPS(x, scale, scale)
	VFMADD231PS(scale, sum, acc[0][0])
	VFNMADD231PS(Mem{Base: p.planes, Disp: halfSums}, min, acc[0][0])
	for r := range w {
		ADDQ(number(f.bytes()), w[r])
	}
	p.nextChunk()
	DECQ(p.chunks)
	JNZ(LabelRef("chunk"))

	p.store(w[:], acc)
}

// matVecRowHalves512 writes the same for blocks of columns: see matVecRowPlanes512.
func matVecRowHalves512(f *k4Halves) {
	p := beginPlanes512(f, 1, true)
	w := [2]reg.GPVirtual{p.w, GP64()}
	next := GP64()

	Label("rows")
	p.beginRows()
	acc := p.accumulators(1)[0][0]
	add := func(planes reg.GPVirtual, scale, sum, x, min reg.VecVirtual) {
		VMULPS(x, scale, scale)
		VFMADD231PS(scale, sum, acc)
		VFNMADD231PS(Mem{Base: planes, Disp: halfSums}, min, acc)
	}
	multiply := func(blocks int) {
		prefetchBlock(w[0], p.rowBytes, blocks*f.bytes(), 1)
		scale, min, header := f.header(w)
		planes := []reg.GPVirtual{p.planes, next}[:blocks]
		sums := f.multiply(w[:blocks], planes, &header)
		sum := f.merge(sums[0], sums[blocks-1])
		x := ZMM()
		VBROADCASTSS(Mem{Base: p.scale}, x)
		if blocks == 1 {
			add(p.planes, scale, sum, x, min)
		} else {
			var second [3]reg.VecVirtual
			for i, v := range []reg.VecVirtual{scale, sum, min} {
				second[i] = ZMM()
				VEXTRACTF64X4(Imm(1), v, second[i].AsY())
			}
			add(p.planes, scale, sum, x, min)
			VBROADCASTSS(Mem{Base: p.scale, Index: p.batch, Scale: 4}, x)
			add(next, second[0], second[1], x, second[2])
		}
		for range blocks {
			p.nextChunk()
		}
		ADDQ(number(blocks*f.bytes()), w[0])
	}
	CMPQ(p.chunks, Imm(1))
	JEQ(LabelRef("single"))

	Label("pair")
	LEAQ(Mem{Base: w[0], Disp: f.bytes()}, w[1])
	LEAQ(Mem{Base: p.planes, Index: p.planeStep, Scale: 1}, next)
	multiply(2)
	SUBQ(Imm(2), p.chunks)
	CMPQ(p.chunks, Imm(1))
	JGT(LabelRef("pair"))
	JLT(LabelRef("sum"))

	Label("single")
	MOVQ(w[0], w[1])
	multiply(1)

	Label("sum")
	p.store(w[:1], [][]reg.VecVirtual{{acc}})
}

// horizontalHalves512 adds the 8 lanes of each row of v, by halfGroups, into dwords 0 and 8,
// in the order of horizontalPairs512.
func horizontalHalves512(v reg.VecVirtual) {
	u := ZMM()
	VMOVSHDUP(v, u)
	VADDPS(u, v, v)
	VSHUFF32X4(Imm(0xb1), v, v, u)
	VADDPS(u, v, v)
	VPERMILPD(Imm(0x55), v, u)
	VADDPS(u, v, v)
}

// storeHalves512 is storePlanes512 for halves of bytes.
func storeHalves512(out, rows reg.GPVirtual, w []reg.GPVirtual, acc [][]reg.VecVirtual) {
	v := acc[0][0]
	horizontalHalves512(v)
	VMOVSS(v.AsX(), Mem{Base: out})
	if len(w) > 1 {
		CMPQ(rows, Imm(1))
		JEQ(LabelRef("done"))
		VEXTRACTF32X4(Imm(2), v, v.AsX())
		VMOVSS(v.AsX(), Mem{Base: out, Disp: 4})
		MOVQ(w[1], w[0])
	}
	ADDQ(Imm(uint64(4*len(w))), out)
	SUBQ(Imm(uint64(len(w))), rows)
	JNZ(LabelRef("rows"))
	Label("done")
	VZEROUPPER()
	RET()
}

// fillHalves512 writes the making of I16.Halves from I16.Q and I16.Sum32.
func fillHalves512() {
	const name = "fillHalvesAVX512"
	TEXT(name, attr.NOSPLIT, "func(halves *int8, q *int16, sum32 *float32, chunks, batch int)")
	Pragma("noescape")
	Doc(name+" makes the halves of chunks of one token from q and sum32. Chunks are batch", "apart in all; chunks is at least 1.")
	halves := Load(Param("halves"), GP64()).(reg.GPVirtual)
	q := Load(Param("q"), GP64()).(reg.GPVirtual)
	sum32 := Load(Param("sum32"), GP64()).(reg.GPVirtual)
	chunks := Load(Param("chunks"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	step := GP64()
	IMUL3Q(U32(planeBytes), batch, step)
	SHLQ(Imm(5), batch) // of sum32
	half := ZMM()
	VPBROADCASTW(wordsConst("half", 4, func(int) int { return 128 }), half)
	order := dwordIndex("halfgroups", true, func(lane int) int { return halfGroups[lane%8] })

	Label("chunk")
	for _, plane := range []int{planeUpper, planeLower} {
		var natural [4]reg.VecVirtual // groups 2i and 2i+1
		for i := range natural {
			natural[i] = ZMM()
			for k := range 2 {
				words, bytes := ZMM(), YMM()
				VMOVDQU64(Mem{Base: q, Disp: 128*i + 64*k}, words)
				if plane == planeUpper {
					VPADDW(half, words, words)
					VPSRAW(Imm(8), words, words)
				}
				VPMOVWB(words, bytes)
				if k == 0 {
					VMOVDQA64(bytes.AsZ(), natural[i])
				} else {
					VINSERTI64X4(Imm(1), bytes, natural[i], natural[i])
				}
			}
		}
		for i, unpack := range []func(...Op){VPUNPCKLQDQ, VPUNPCKHQDQ} {
			a, b, z := ZMM(), ZMM(), ZMM()
			unpack(natural[2], natural[0], a)
			unpack(natural[3], natural[1], b)
			for n, halves128 := range []uint64{0x44, 0xee} { // of lower or of upper halves of bytes
				VSHUFI64X2(Imm(halves128), b, a, z)
				VMOVDQU64(z, Mem{Base: halves, Disp: plane + 64*(2*i+n)})
			}
		}
	}
	sums := ZMM()
	VMOVUPS(Mem{Base: sum32}, sums.AsY())
	VPERMPS(sums, order.get(), sums)
	VMOVUPS(sums, Mem{Base: halves, Disp: halfSums})
	ADDQ(step, halves)
	ADDQ(batch, sum32)
	SHLQ(Imm(4), batch) // of q
	ADDQ(batch, q)
	SHRQ(Imm(4), batch)
	DECQ(chunks)
	JNZ(LabelRef("chunk"))
	VZEROUPPER()
	RET()
}
