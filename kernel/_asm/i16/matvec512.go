package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// batches are the numbers of tokens a matrix-vector kernel is written for.
var batches = []int{1, 2, 4}

func matVecs512() {
	for _, tokens := range batches {
		for _, f := range []func() planes512{newQ4KPlanes, newQ5KPlanes, newQ6KPlanes} {
			if k4, ok := f().(*k4Planes); ok && tokens == 1 {
				matVecHalves512(&k4Halves{fifth: k4.fifth})
				matVecRowHalves512(&k4Halves{fifth: k4.fifth})
				continue
			}
			for _, block := range []bool{false, true} {
				if tokens == 1 && block {
					matVecRowPlanes512(f())
				} else {
					matVecPlanes512(f(), tokens, block)
				}
			}
		}
		for _, f := range blockPlanesFormats512() {
			matVecBlockPlanes512(f, tokens, false)
		}
		for _, f := range blockPlanesFormats512() {
			if tokens > 1 {
				matVecBlockPlanes512(f, tokens, true)
			}
		}
	}
	for _, f := range []func() folded512{newQ2K512, newQ3K512, newIQ4XS512} {
		for _, tokens := range batches {
			matVecFolded512(f(), tokens)
		}
	}
}

// kquants512 are the formats with super-blocks.
var kquants512 = []func() folded512{newQ2K512, newQ3K512, newQ4K512, newQ5K512, newQ6K512, newIQ4XS512}

// folded512 writes the decoding of one chunk of 256 weights of a format whose
// sub-block scales are folded into the integers.
type folded512 interface {
	name() string
	bytes() int
	// mins is the number of minimums of a chunk: 0, 8 or 16.
	mins() int
	// constants loads what stays in registers during the whole function.
	constants()
	// chunk decodes what a chunk at p needs once: d, a vector of d, and, where
	// there are minimums, min: 16 lanes of dmin × m.
	chunk(p reg.GPVirtual) (d, min reg.VecVirtual)
	// vectors calls use with each of the 8 vectors of 32 folded weights.
	vectors(p reg.GPVirtual, use func(j int, w reg.VecVirtual))
}

// prefetchAhead is how far before use weights are fetched, in bytes, by the number of
// tokens they are multiplied with. For one token 4 KiB leave a tenth to a fourth of one
// core's bandwidth unused here (Zen 5). Two tokens want more of the first-level cache for
// themselves: 8 KiB cost a fifth to two fifths there. Of two rows that are read together
// half as many bytes are ahead of each, which with four tokens is too late at 4 KiB.
func prefetchAhead(tokens int) int {
	if tokens == 2 {
		return 4096
	}
	return 8192
}

// prefetchPageAhead is how far before use the first line of a page is fetched: the
// walk through the page tables, and the hardware's prefetcher, which begins anew in
// each page, are then done when the other lines are asked for. Without that one core
// gets a third less (Zen 5, a mapped file); any distance from 12 to 64 KiB does.
const prefetchPageAhead = 16384

// prefetch fetches bytes, and their page earlier, for a number of tokens.
func prefetch(p reg.GPVirtual, bytes, tokens int) {
	prefetchPage(Mem{Base: p, Disp: prefetchPageAhead})
	for o := 0; o < bytes; o += 64 {
		PREFETCHT0(Mem{Base: p, Disp: prefetchAhead(tokens) + o})
	}
}

// prefetchPage fetches the first line of the page of m.
func prefetchPage(m Mem) {
	page := GP64()
	LEAQ(m, page)
	ANDQ(I32(-4096), page)
	PREFETCHT0(Mem{Base: page})
}

// matVecFolded512 writes the product of rows with tokens side by side. Rows are
// contiguous, so one pointer walks through all of them.
func matVecFolded512(f folded512, tokens int) {
	name := fmt.Sprintf("matVec%sI16x%dAVX512", f.name(), tokens)
	TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rows, chunks int, q *int16, scale, sum *float32, batch int)")
	Pragma("noescape")
	matVecDoc512(name, tokens)
	out := Load(Param("out"), GP64()).(reg.GPVirtual)
	stride := Load(Param("stride"), GP64()).(reg.GPVirtual)
	w := Load(Param("w"), GP64()).(reg.GPVirtual)
	rows := Load(Param("rows"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	SHLQ(Imm(2), stride)
	scaleStep, sumStep, qStep := GP64(), GP64(), GP64()
	MOVQ(batch, scaleStep)
	SHLQ(Imm(2), scaleStep)
	MOVQ(scaleStep, sumStep)
	SHLQ(Imm(4), sumStep)
	MOVQ(sumStep, qStep)
	SHLQ(Imm(3), qStep)
	f.constants()

	Label("row")
	chunks := Load(Param("chunks"), GP64()).(reg.GPVirtual)
	q := Load(Param("q"), GP64()).(reg.GPVirtual)
	scale := Load(Param("scale"), GP64()).(reg.GPVirtual)
	sum := Load(Param("sum"), GP64()).(reg.GPVirtual)
	acc := make([]reg.VecVirtual, tokens)
	isum := make([]reg.VecVirtual, tokens)
	for t := range tokens {
		acc[t], isum[t] = ZMM(), ZMM()
		VPXORD(acc[t], acc[t], acc[t])
	}

	Label("chunk")
	prefetch(w, f.bytes(), tokens)
	d, min := f.chunk(w)
	f.vectors(w, func(j int, words reg.VecVirtual) {
		for t := range tokens {
			if j == 0 {
				VPXORD(isum[t], isum[t], isum[t])
			}
			VPDPWSSD(Mem{Base: q, Disp: 512*t + 64*j}, words, isum[t])
		}
	})
	for t := range tokens {
		VCVTDQ2PS(isum[t], isum[t])
		both := ZMM()
		VMULPS_BCST(Mem{Base: scale, Disp: 4 * t}, d, both)
		VFMADD231PS(both, isum[t], acc[t])
		if f.mins() > 0 {
			VFNMADD231PS(Mem{Base: sum, Disp: 64 * t}, min, acc[t])
		}
	}
	ADDQ(number(f.bytes()), w)
	ADDQ(qStep, q)
	ADDQ(scaleStep, scale)
	ADDQ(sumStep, sum)
	DECQ(chunks)
	JNZ(LabelRef("chunk"))

	at := GP64()
	MOVQ(out, at)
	for t := range tokens {
		horizontalSum512(acc[t])
		VMOVSS(acc[t].AsX(), Mem{Base: at})
		if t < tokens-1 {
			ADDQ(stride, at)
		}
	}
	ADDQ(number(4), out)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

func matVecDoc512(name string, tokens int) {
	Doc(name+" multiplies rows of chunks contiguous blocks with", fmt.Sprintf("%d token(s): out[t*stride+i]. q, scale and sum point to the first token;", tokens),
		"chunks of activations are batch tokens apart. rows and chunks are at least 1.")
}

// horizontalSum512 adds the 16 lanes of v into its lane 0, in a fixed order.
func horizontalSum512(v reg.VecVirtual) {
	u := ZMM()
	VEXTRACTF64X4(Imm(1), v, u.AsY())
	VADDPS(u.AsY(), v.AsY(), v.AsY())
	VEXTRACTF32X4(Imm(1), v.AsY(), u.AsX())
	VADDPS(u.AsX(), v.AsX(), v.AsX())
	VPERMILPD(Imm(1), v.AsX(), u.AsX())
	VADDPS(u.AsX(), v.AsX(), v.AsX())
	VMOVSHDUP(v.AsX(), u.AsX())
	VADDSS(u.AsX(), v.AsX(), v.AsX())
}
