//go:build !noasm

package kernel

import (
	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/tensor"
)

func init() {
	slotDotF32.add(cpufeat.NEON, dotF32NEON)
	slotAxpyF32.add(cpufeat.NEON, axpyF32NEON)
	slotDotF16.add(cpufeat.NEON, dotF16NEON)
	slotAxpyF16.add(cpufeat.NEON, axpyF16NEON)
	slotAdd.add(cpufeat.NEON, addNEON)
	slotMul.add(cpufeat.NEON, mulNEON)
	slotScale.add(cpufeat.NEON, scaleNEON)
	slotToF16.add(cpufeat.NEON, f32ToF16NEON)
	slotFromF16.add(cpufeat.NEON, f16ToF32NEON)

	slotRMSNorm.add(cpufeat.NEON, rmsNormWith(sumSquaresNEON, normScaleNEON))
	slotSiLUMul.add(cpufeat.NEON, siluMulNEON)
	slotGELUMul.add(cpufeat.NEON, geluMulNEON)
	slotMax.add(cpufeat.NEON, maxNEON)
	slotExpSub.add(cpufeat.NEON, expSubNEON)
	slotRopeNeoX.add(cpufeat.NEON, ropeNeoXNEON)
	slotRopeNorm.add(cpufeat.NEON, ropeNormWith(ropeNormNEON, 4))

	slotTile.add(cpufeat.NEON, tileWith(tile1NEON, tile2NEON))
	slotWeighted.add(cpufeat.NEON, weightedWith(weighted1NEON, weighted2NEON, weighted3NEON, weighted4NEON))
	slotScoresF16.add(cpufeat.NEON, scoresWith(scores1F16NEON, scores2F16NEON))
	slotScoresQ8.add(cpufeat.NEON, scoresWith(scores1Q8NEON, scores2Q8NEON))
	slotMixF16.add(cpufeat.NEON, mixWith(mix1F16NEON, mix2F16NEON, mix3F16NEON, mix4F16NEON))
	slotMixQ8.add(cpufeat.NEON, mixWith(mix1Q8NEON, mix2Q8NEON, mix3Q8NEON, mix4Q8NEON))
	slotSoftmaxRows.add(cpufeat.NEON, softmaxRowsWith(softmaxRowsNEON))

	for dtype, expand := range map[tensor.DType]func(dst []float32, src []byte){
		tensor.F32:  copyF32,
		tensor.F16:  dequantF16NEON,
		tensor.Q4_0: dequantQ4_0NEON,
		tensor.Q5_0: dequantQ5_0NEON,
		tensor.Q8_0: dequantQ8_0NEON,
		tensor.Q4_K: dequantQ4KNEON,
		tensor.Q5_K: dequantQ5KNEON,
		tensor.Q6_K: dequantQ6KNEON,
	} {
		dequantSlots[dtype].add(cpufeat.NEON, expand)
	}
	fusedSlots[tensor.F32].add(cpufeat.NEON, rowsWith(dot4F32NEON, false))
	fusedSlots[tensor.F16].add(cpufeat.NEON, rowsWith(dot4F16NEON, false))
	fusedSlots[tensor.Q8_0].add(cpufeat.NEON, rowsWith(dot4Q8_0NEON, true))
}
