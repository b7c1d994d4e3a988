//go:build !noasm

package kernel

import (
	"unsafe"

	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/tensor"
)

// The assembly knows these offsets (_asm/neon/c/i16_panel.h).
var (
	_ [16384]byte = [unsafe.Offsetof(i16Panel{}.d)]byte{}
	_ [17408]byte = [unsafe.Offsetof(i16Panel{}.min)]byte{}
)

type matMulI16Asm func(to, from *float32, toStep, fromStep int, p *int16, q *int16, scale, sum *float32, pairs, flushes, mins int)

func registerI16MatMul() {
	matMulI16Folded.add(cpufeat.NEON, matMulI16With(matMulFoldedI16x1NEON, matMulFoldedI16x4NEON))
	matMulI16Grouped.add(cpufeat.NEON, matMulI16With(matMulGroupedI16x1NEON, matMulGroupedI16x4NEON))
	for dtype, asm := range map[tensor.DType]func(p *int16, w *byte, rowBytes, rows, blocks int){
		tensor.Q4_0: unpackQ4_0I16NEON,
		tensor.Q5_0: unpackQ5_0I16NEON,
		tensor.Q8_0: unpackQ8_0I16NEON,
	} {
		i16Formats[dtype].unpack.add(cpufeat.NEON, func(p *i16Panel, w []byte, rowBytes, rows, blocks int) {
			asm(&p.w[0][0][0], &w[0], rowBytes, rows, blocks)
		})
	}
	for dtype, asm := range map[tensor.DType]func(p *int16, w *byte, rowBytes, rows int){
		tensor.Q4_K: unpackQ4KI16NEON,
		tensor.Q5_K: unpackQ5KI16NEON,
		tensor.Q6_K: unpackQ6KI16NEON,
	} {
		i16Formats[dtype].unpack.add(cpufeat.NEON, func(p *i16Panel, w []byte, rowBytes, rows, _ int) {
			asm(&p.w[0][0][0], &w[0], rowBytes, rows) // rows are whole chunks of one block
		})
	}
}

// matMulI16With makes a product with any number of tokens out of assembly for one
// and for four, which give the same bits per token.
func matMulI16With(x1, x4 matMulI16Asm) matMulI16Func {
	return func(to []float32, toStep int, from []float32, fromStep int, p *i16Panel, q []int16, scale, sum []float32, _ []int32, _ *int16, tokens, flush, mins int) {
		for t := 0; t < tokens; {
			product, n := x1, 1
			if tokens-t >= 4 {
				product, n = x4, 4
			}
			s := &p.min[0][0] // not read: without minimums the sums may have ended
			if mins > 0 {
				s = &sum[t*mins]
			}
			product(&to[t*toStep], &from[t*fromStep], toStep, fromStep, &p.w[0][0][0], &q[t*i16Chunk], &scale[t], s, flush/2, p.cols/flush, mins)
			t += n
		}
	}
}
