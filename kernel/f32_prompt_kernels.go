package kernel

import "math"

// slotOuter multiplies matrices along their common side:
//
//	out[q*outStride+i] = Σ_p a[q*aStride+p]·b[p*bStride+i]
//
// or adds that to out, for q in [0,queries), i in [0,width), p in [0,n) ascending from
// zero. width is a multiple of 16. Grouping queries changes no bit.
var slotOuter = newSlot("f32/outer", outerGeneric)

// slotPromptSoftmax makes one step of an online softmax for each row of 64 scores: see
// promptSoftmaxGeneric. dim is a multiple of 16.
var slotPromptSoftmax = newSlot("f32/prompt-softmax", promptSoftmaxGeneric)

// slotTranspose sets dst[i*attnBlock+p] = src[p*dim+i] for p in [0,rows), i in [0,dim).
// rows, at most attnBlock, and dim are multiples of 16.
var slotTranspose = newSlot("f32/transpose", transposeGeneric)

func outerGeneric(out []float32, outStride int, a []float32, aStride int, b []float32, bStride, n, width, queries int, add bool) {
	for q := range queries {
		for i := range width {
			var s float32
			for p := range n {
				s += a[q*aStride+p] * b[p*bStride+i]
			}
			if add {
				s += out[q*outStride+i]
			}
			out[q*outStride+i] = s
		}
	}
}

// promptSoftmaxGeneric replaces the scores in the bits of seen, times scale, by their
// exponentials relative to the largest so far and the others by 0, and rescales what
// was summed relative to the largest before.
func promptSoftmaxGeneric(scores []float32, seen []uint64, largest, sum, out []float32, dim int, scale float32) {
	exp := func(x float32) float32 { return float32(math.Exp(float64(x))) }
	for r, bits := range seen {
		row, m := scores[r*attnBlock:][:attnBlock], largest[r]
		for i := range row {
			row[i] *= scale
			if bits>>i&1 != 0 && row[i] > m {
				m = row[i]
			}
		}
		top := finiteMax(m)
		shrink := exp(largest[r] - top)
		var total float32
		for i := range row {
			if bits>>i&1 == 0 {
				row[i] = 0
				continue
			}
			row[i] = exp(row[i] - top)
			total += row[i]
		}
		largest[r], sum[r] = m, sum[r]*shrink+total
		for i := range dim {
			out[r*dim+i] *= shrink
		}
	}
}

func transposeGeneric(dst, src []float32, dim, rows int) {
	for p := range rows {
		for i := range dim {
			dst[i*attnBlock+p] = src[p*dim+i]
		}
	}
}

func init() {
	// n is one of selfTestLengths; a partial group of queries takes part with each.
	registerCheck(slotOuter, fewULP*4, func(f func(out []float32, outStride int, a []float32, aStride int, b []float32, bStride, n, width, queries int, add bool), r *selfTestRNG, n int) (got []float32) {
		const width, most = 80, 8
		a, b := r.floats(most*(n+1)), r.floats(n*width)
		for queries := 1; queries <= most; queries++ {
			for _, add := range []bool{false, true} {
				out := r.floats(queries * width)
				f(out, width, a, n+1, b, width, n, width, queries, add)
				got = append(got, out...)
			}
		}
		return got
	})
	registerCheck(slotPromptSoftmax, fewULP*4, func(f func(scores []float32, seen []uint64, largest, sum, out []float32, dim int, scale float32), r *selfTestRNG, n int) []float32 {
		const rows, dim = 5, 32
		scores, out := withSpecials(r.floats(rows*attnBlock)), r.floats(rows*dim)
		inf := float32(math.Inf(-1))
		scores[2*attnBlock+3] = inf
		// Specials unseen, one of a row seen, nothing seen, everything, only -Inf.
		seen := []uint64{1<<63 | 1<<n>>1&^(1<<5|1<<8|1<<11|1<<14|1<<17|1<<20), 1 << 40, 1 << 3, ^uint64(0), 0}
		largest, sum := []float32{inf, 1, inf, 0, -1}, r.floats(rows)
		sum[0], sum[2] = 0, 0
		f(scores, seen, largest, sum, out, dim, 0.3)
		return append(append(append(scores, largest...), sum...), out...)
	})
	registerCheck(slotTranspose, exact, func(f func(dst, src []float32, dim, rows int), r *selfTestRNG, n int) []float32 {
		const dim = 48
		rows := min(attnBlock, (n+15)/16*16)
		dst := make([]float32, dim*attnBlock)
		f(dst, r.floats(rows*dim), dim, rows)
		return dst
	})
}
