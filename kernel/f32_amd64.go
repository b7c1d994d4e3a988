//go:build !noasm

package kernel

import "github.com/apr-engine/apr/internal/cpufeat"

//go:generate go run -C _asm ./f32

func init() {
	slotDotF32.add(cpufeat.AVX2, dotF32AVX2)
	slotDotF32.add(cpufeat.AVX512, dotF32AVX512)
	slotAxpyF32.add(cpufeat.AVX2, axpyF32AVX2)
	slotAxpyF32.add(cpufeat.AVX512, axpyF32AVX512)
	slotDotF16.add(cpufeat.AVX2, dotF16AVX2)
	slotDotF16.add(cpufeat.AVX512, dotF16AVX512)
	slotAxpyF16.add(cpufeat.AVX2, axpyF16AVX2)
	slotAxpyF16.add(cpufeat.AVX512, axpyF16AVX512)
	slotAdd.add(cpufeat.AVX2, addAVX2)
	slotAdd.add(cpufeat.AVX512, addAVX512)
	slotMul.add(cpufeat.AVX2, mulAVX2)
	slotMul.add(cpufeat.AVX512, mulAVX512)
	slotScale.add(cpufeat.AVX2, scaleAVX2)
	slotScale.add(cpufeat.AVX512, scaleAVX512)
	slotToF16.add(cpufeat.AVX2, f32ToF16AVX2)
	slotToF16.add(cpufeat.AVX512, f32ToF16AVX512)
	slotFromF16.add(cpufeat.AVX2, f16ToF32AVX2)
	slotFromF16.add(cpufeat.AVX512, f16ToF32AVX512)

	slotRMSNorm.add(cpufeat.AVX2, rmsNormWith(sumSquaresAVX2, normScaleAVX2))
	slotRMSNorm.add(cpufeat.AVX512, rmsNormWith(sumSquaresAVX512, normScaleAVX512))
	slotSiLUMul.add(cpufeat.AVX2, siluMulAVX2)
	slotSiLUMul.add(cpufeat.AVX512, siluMulAVX512)
	slotGELUMul.add(cpufeat.AVX2, geluMulAVX2)
	slotGELUMul.add(cpufeat.AVX512, geluMulAVX512)
	slotMax.add(cpufeat.AVX2, maxAVX2)
	slotMax.add(cpufeat.AVX512, maxAVX512)
	slotExpSub.add(cpufeat.AVX2, expSubAVX2)
	slotExpSub.add(cpufeat.AVX512, expSubAVX512)
	slotSoftCap.add(cpufeat.AVX2, softCapWith(softCapAVX2, scaleAVX2))
	slotSoftCap.add(cpufeat.AVX512, softCapWith(softCapAVX512, scaleAVX512))
	slotRopeNeoX.add(cpufeat.AVX2, ropeNeoXAVX2)
	slotRopeNeoX.add(cpufeat.AVX512, ropeNeoXAVX512)
	slotRopeNorm.add(cpufeat.AVX2, ropeNormWith(ropeNormAVX2, 4))
	slotRopeNorm.add(cpufeat.AVX512, ropeNormWith(ropeNormAVX512, 8))

	slotTile.add(cpufeat.AVX2, tileWith(tile1AVX2, tile2AVX2, tile3AVX2))
	slotTile.add(cpufeat.AVX512, tileWith(tile1AVX512, tile2AVX512, tile3AVX512, tile4AVX512, tile5AVX512, tile6AVX512))
	slotWeighted.add(cpufeat.AVX2, weightedWith(weighted1AVX2, weighted2AVX2, weighted3AVX2, weighted4AVX2, weighted5AVX2, weighted6AVX2))
	slotWeighted.add(cpufeat.AVX512, weightedWith(weighted1AVX512, weighted2AVX512, weighted3AVX512, weighted4AVX512, weighted5AVX512, weighted6AVX512))

	slotScoresF16.add(cpufeat.AVX2, scoresWith(scores1F16AVX2, scores2F16AVX2, scores3F16AVX2))
	slotScoresF16.add(cpufeat.AVX512, scoresWith(scores1F16AVX512, scores2F16AVX512, scores3F16AVX512, scores4F16AVX512, scores5F16AVX512, scores6F16AVX512))
	slotScoresQ8.add(cpufeat.AVX2, scoresWith(scores1Q8AVX2, scores2Q8AVX2, scores3Q8AVX2))
	slotScoresQ8.add(cpufeat.AVX512, scoresWith(scores1Q8AVX512, scores2Q8AVX512, scores3Q8AVX512, scores4Q8AVX512, scores5Q8AVX512, scores6Q8AVX512))
	slotMixF16.add(cpufeat.AVX2, mixWith(mix1F16AVX2, mix2F16AVX2, mix3F16AVX2, mix4F16AVX2, mix5F16AVX2, mix6F16AVX2))
	slotMixF16.add(cpufeat.AVX512, mixWith(mix1F16AVX512, mix2F16AVX512, mix3F16AVX512, mix4F16AVX512, mix5F16AVX512, mix6F16AVX512))
	slotMixQ8.add(cpufeat.AVX2, mixWith(mix1Q8AVX2, mix2Q8AVX2, mix3Q8AVX2, mix4Q8AVX2, mix5Q8AVX2, mix6Q8AVX2))
	slotMixQ8.add(cpufeat.AVX512, mixWith(mix1Q8AVX512, mix2Q8AVX512, mix3Q8AVX512, mix4Q8AVX512, mix5Q8AVX512, mix6Q8AVX512))
	slotSoftmaxRows.add(cpufeat.AVX2, softmaxRowsWith(softmaxRowsAVX2))
	slotSoftmaxRows.add(cpufeat.AVX512, softmaxRowsWith(softmaxRowsAVX512))
	slotOuter.add(cpufeat.AVX512, outerWith(outer1AVX512, outer2AVX512, outer3AVX512, outer4AVX512, outer5AVX512, outer6AVX512))
	slotPromptSoftmax.add(cpufeat.AVX512, func(scores []float32, seen []uint64, largest, sum, out []float32, dim int, scale float32) {
		promptSoftmaxAVX512(&scores[0], &seen[0], &largest[0], &sum[0], &out[0], dim, len(seen), scale)
	})
	slotTranspose.add(cpufeat.AVX512, func(dst, src []float32, dim, rows int) { transposeBlockAVX512(&dst[0], &src[0], dim, rows) })

	slotPeak.add(cpufeat.AVX2, peakWith(peakAVX2, 8))
	slotPeak.add(cpufeat.AVX512, peakWith(peakAVX512, 16))
}

func softCapWith(capped func(x []float32, s, limit float32), scaled func(dst, x []float32, s float32)) func(x []float32, s, limit float32) {
	return func(x []float32, s, limit float32) {
		if limit == 0 {
			scaled(x, x, s)
			return
		}
		capped(x, s/limit, limit)
	}
}

type outerFunc func(out *float32, outStride int, a *float32, aStride int, b *float32, bStride, n, width, add int)

// outerWith serves any number of queries with functions for 1, 2, … queries.
func outerWith(funcs ...outerFunc) func(out []float32, outStride int, a []float32, aStride int, b []float32, bStride, n, width, queries int, add bool) {
	return func(out []float32, outStride int, a []float32, aStride int, b []float32, bStride, n, width, queries int, add bool) {
		added := 0
		if add {
			added = 1
		}
		for q := 0; q < queries; {
			k := min(len(funcs), queries-q)
			funcs[k-1](&out[q*outStride], outStride, &a[q*aStride], aStride, &b[0], bStride, n, width, added)
			q += k
		}
	}
}

// peakVectors is the number of multiply-adds of a vector in one iteration.
const peakVectors = 12

func peakWith(run func(iterations int) float32, lanes int) func(int) int {
	return func(iterations int) int {
		if iterations <= 0 {
			return 0
		}
		run(iterations)
		return iterations * peakVectors * lanes * 2
	}
}
