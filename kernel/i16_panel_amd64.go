//go:build !noasm

package kernel

import (
	"cmp"
	"unsafe"

	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/tensor"
)

// The assembly knows these offsets (_asm/i16/gemm512.go).
var (
	_ [16384]byte = [unsafe.Offsetof(i16Panel{}.d)]byte{}
	_ [17408]byte = [unsafe.Offsetof(i16Panel{}.min)]byte{}
	_ [19456]byte = [unsafe.Offsetof(i16Panel{}.acc)]byte{}
	_ [20992]byte = [unsafe.Offsetof(i16Panel{}.rows)]byte{}
	_ [29184]byte = [unsafe.Offsetof(i16Panel{}.floats)]byte{}
	_ [30208]byte = [unsafe.Offsetof(i16Panel{}.cross)]byte{}
)

type (
	matMulI16Asm func(to, from *float32, toStep, fromStep int, p *int16, q *int16, scale, sum *float32, tokens, pairs, flushes, mins int)
	// The kernels for AVX-512 also ask for what lies from ahead on, and those for products
	// of sums take cross (tokens, crossStep/4).
	matMulAheadI16Asm   func(to, from *float32, toStep, fromStep int, p *int16, q *int16, scale, sum *float32, ahead *int16, tokens, pairs, flushes, mins int)
	matMulCrossedI16Asm func(to, from *float32, toStep, fromStep int, p *int16, q *int16, scale, sum *float32, cross *int32, crossStep int, ahead *int16, tokens, pairs, flushes, mins int)
	unpackI16Asm        func(p *int16, w *byte, rowBytes, rows int)
	// unpackBlocksI16Asm is for formats with blocks of 32 columns, of which a chunk
	// may have fewer than eight.
	unpackBlocksI16Asm func(p *int16, w *byte, rowBytes, rows, blocks int)
)

func registerI16MatMul() {
	fetchRows = func(w []byte, rowBytes, rows, bytes int) { fetch(&w[0], rowBytes, rows, bytes) }
	matMulI16Folded.add(cpufeat.AVX2, matMulI16With(matMulFoldedI16AVX2))
	matMulI16Grouped.add(cpufeat.AVX2, matMulI16With(matMulGroupedI16AVX2))
	matMulI16Folded.add(cpufeat.AVX512, matMulI16Crossed(matMulFoldedI16AVX512, matMulFoldedCrossedI16AVX512))
	matMulI16Grouped.add(cpufeat.AVX512, matMulI16Crossed(matMulGroupedI16AVX512, matMulGroupedCrossedI16AVX512))
	for _, f := range i16Formats {
		f.sums = f.largest <= crossWeight
	}
	for _, v := range []struct {
		dtype tensor.DType
		level cpufeat.Level
		asm   unpackBlocksI16Asm
	}{
		{tensor.Q4_0, cpufeat.AVX2, unpackQ4_0I16AVX2},
		{tensor.Q5_0, cpufeat.AVX2, unpackQ5_0I16AVX2},
		{tensor.Q8_0, cpufeat.AVX2, unpackQ8_0I16AVX2},
		{tensor.Q4_0, cpufeat.AVX512, unpackQ4_0I16AVX512},
		{tensor.Q4_1, cpufeat.AVX512, unpackQ4_1I16AVX512},
		{tensor.Q5_0, cpufeat.AVX512, unpackQ5_0I16AVX512},
		{tensor.Q5_1, cpufeat.AVX512, unpackQ5_1I16AVX512},
		{tensor.Q8_0, cpufeat.AVX512, unpackQ8_0I16AVX512},
		{tensor.IQ4_NL, cpufeat.AVX512, unpackIQ4NLI16AVX512},
	} {
		f := i16Formats[v.dtype]
		f.unpack.add(v.level, func(p *i16Panel, w []byte, rowBytes, rows, blocks int) {
			v.asm(&p.w[0][0][0], &w[0], rowBytes, rows, blocks)
			p.cross512(v.level, f.flush, f.sums)
		})
	}
	for _, v := range []struct {
		dtype tensor.DType
		level cpufeat.Level
		asm   unpackI16Asm
		// flush is other than the format's if weights are made smaller.
		flush int
	}{
		{tensor.Q4_K, cpufeat.AVX2, unpackQ4KI16AVX2, 0},
		{tensor.Q5_K, cpufeat.AVX2, unpackQ5KI16AVX2, 0},
		{tensor.Q6_K, cpufeat.AVX2, unpackQ6KI16AVX2, 0},
		{tensor.Q2_K, cpufeat.AVX512, unpackQ2KI16AVX512, 0},
		{tensor.Q3_K, cpufeat.AVX512, unpackQ3KI16AVX512, 0},
		{tensor.Q4_K, cpufeat.AVX512, unpackQ4KI16AVX512, 128},
		{tensor.Q5_K, cpufeat.AVX512, unpackQ5KI16AVX512, 64},
		{tensor.Q6_K, cpufeat.AVX512, unpackQ6KI16AVX512, 0},
		{tensor.IQ4_XS, cpufeat.AVX512, unpackIQ4XSI16AVX512, 0},
	} {
		f := i16Formats[v.dtype]
		flush := cmp.Or(v.flush, f.flush)
		f.unpack.add(v.level, func(p *i16Panel, w []byte, rowBytes, rows, _ int) {
			v.asm(&p.w[0][0][0], &w[0], rowBytes, rows) // rows are whole chunks of one block
			p.cross512(v.level, flush, f.sums)
		})
	}
}

// cross512 makes cross, if products of sums read it, at the level that has them, for sums
// of flush columns.
func (p *i16Panel) cross512(level cpufeat.Level, flush int, sums bool) {
	if level != cpufeat.AVX512 {
		return
	}
	p.flush = flush
	if sums {
		crossPanelAVX512(&p.w[0][0][0], flush/2, p.cols/flush)
		p.crossed = true
	}
}

// matMulI16Crossed multiplies sums where it is told what they take.
func matMulI16Crossed(plain matMulAheadI16Asm, crossed matMulCrossedI16Asm) matMulI16Func {
	return func(to []float32, toStep int, from []float32, fromStep int, p *i16Panel, q []int16, scale, sum []float32, cross []int32, ahead *int16, tokens, flush, mins int) {
		if len(cross) == 0 {
			plain(&to[0], &from[0], 4*toStep, 4*fromStep, &p.w[0][0][0], &q[0], &scale[0], &sum[0], ahead, tokens, flush/2, p.cols/flush, mins)
			return
		}
		crossed(&to[0], &from[0], 4*toStep, 4*fromStep, &p.w[0][0][0], &q[0], &scale[0], &sum[0], &cross[0], 4*(i16Chunk/flush), ahead, tokens, flush/2, p.cols/flush, mins)
	}
}

func matMulI16With(asm matMulI16Asm) matMulI16Func {
	return func(to []float32, toStep int, from []float32, fromStep int, p *i16Panel, q []int16, scale, sum []float32, _ []int32, _ *int16, tokens, flush, mins int) {
		asm(&to[0], &from[0], 4*toStep, 4*fromStep, &p.w[0][0][0], &q[0], &scale[0], &sum[0], tokens, flush/2, p.cols/flush, mins)
	}
}
