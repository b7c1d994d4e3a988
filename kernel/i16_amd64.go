//go:build !noasm

package kernel

import (
	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/tensor"
)

//go:generate go -C _asm/i16 run . -part matvec_avx512 -out ../../i16_matvec_avx512_amd64.s -stubs ../../i16_matvec_avx512_amd64.go -pkg kernel
//go:generate go -C _asm/i16 run . -part matmul_avx512 -out ../../i16_matmul_avx512_amd64.s -stubs ../../i16_matmul_avx512_amd64.go -pkg kernel
//go:generate go -C _asm/i16 run . -part unpack_avx512 -out ../../i16_unpack_avx512_amd64.s -stubs ../../i16_unpack_avx512_amd64.go -pkg kernel
//go:generate go -C _asm/i16 run . -part matvec_avx2 -out ../../i16_matvec_avx2_amd64.s -stubs ../../i16_matvec_avx2_amd64.go -pkg kernel
//go:generate go -C _asm/i16 run . -part matmul_avx2 -out ../../i16_matmul_avx2_amd64.s -stubs ../../i16_matmul_avx2_amd64.go -pkg kernel
//go:generate go -C _asm/i16 run . -part unpack_avx2 -out ../../i16_unpack_avx2_amd64.s -stubs ../../i16_unpack_avx2_amd64.go -pkg kernel
//go:generate go -C _asm/i16 run . -part quantize_avx512 -out ../../i16_quantize_avx512_amd64.s -stubs ../../i16_quantize_avx512_amd64.go -pkg kernel
//go:generate go -C _asm/i16 run . -part quantize_avx2 -out ../../i16_quantize_avx2_amd64.s -stubs ../../i16_quantize_avx2_amd64.go -pkg kernel

// quantizeI16Asm quantises whole chunks of one token.
type quantizeI16Asm func(q *int16, scale, sum, sum32, x *float32, chunks, batch int, top float32)

// quantizeI16With uses assembly for whole chunks and plain Go for a partial one.
func quantizeI16With(asm quantizeI16Asm) quantizeI16Func {
	return func(dst *I16, token int, x []float32) {
		chunks := len(x) / i16Chunk
		if chunks > 0 {
			asm(&dst.Q[token*i16Chunk], &dst.Scale[token], &dst.Sum[token*16], &dst.Sum32[token*8], &x[0], chunks, dst.Tokens, dst.top())
		}
		quantizeChunksI16(dst, token, chunks, x[chunks*i16Chunk:])
	}
}

// quantizeI16PlanesAVX512 makes the planes, or what is there for many tokens, too.
func quantizeI16PlanesAVX512(dst *I16, token int, x []float32) {
	quantizeI16With(quantizeI16AVX512)(dst, token, x)
	if len(dst.Cross) > 0 {
		fillCrossAVX512(&dst.Cross[0], &dst.Q[token*i16Chunk], token, dst.Chunks(), dst.Tokens)
	}
	if len(dst.BlockPlanes) > 0 {
		fillBlockPlanesAVX512(&dst.BlockPlanes[token].Upper[0][0], &dst.Q[token*i16Chunk], dst.Chunks(), dst.Tokens)
	}
	if len(dst.Halves) > 0 {
		fillHalvesAVX512(&dst.Halves[token].Upper[0][0], &dst.Q[token*i16Chunk], &dst.Sum32[token*8], dst.Chunks(), dst.Tokens)
	}
	if len(dst.Planes) > 0 {
		fillPlanesAVX512(&dst.Planes[token].Upper[0][0], &dst.Q[token*i16Chunk], dst.Chunks(), dst.Tokens)
		fillPairsAVX512(&dst.Pairs[token*16], &dst.Sum32[token*8], dst.Chunks(), dst.Tokens)
	}
}

// matVecI16Asm is an assembly product of rows with a fixed number of tokens;
// see the stubs for its contract. chunks counts whole chunks of 256 columns in
// formats with super-blocks, blocks of 32 columns in the others.
type matVecI16Asm func(out *float32, stride int, w *byte, rows, chunks int, q *int16, scale, sum *float32, batch int)

// registerI16Variants adds the assembly variants to the slots.
func registerI16Variants() {
	quantizeI16Slot.add(cpufeat.AVX2, quantizeI16With(quantizeI16AVX2))
	quantizeI16Slot.add(cpufeat.AVX512, quantizeI16PlanesAVX512)
	registerI16MatMul()
	for _, v := range []struct {
		dtype tensor.DType
		level cpufeat.Level
		// For 1, 2 and 4 tokens; nil where a level has only the first.
		x1, x2, x4 matVecI16Asm
	}{
		{tensor.Q4_0, cpufeat.AVX2, matVecQ4_0I16x1AVX2, nil, nil},
		{tensor.Q5_0, cpufeat.AVX2, matVecQ5_0I16x1AVX2, nil, nil},
		{tensor.Q8_0, cpufeat.AVX2, matVecQ8_0I16x1AVX2, nil, nil},
		{tensor.Q4_K, cpufeat.AVX2, matVecQ4KI16x1AVX2, nil, nil},
		{tensor.Q5_K, cpufeat.AVX2, matVecQ5KI16x1AVX2, nil, nil},
		{tensor.Q6_K, cpufeat.AVX2, matVecQ6KI16x1AVX2, nil, nil},
		{tensor.Q2_K, cpufeat.AVX512, matVecQ2KI16x1AVX512, matVecQ2KI16x2AVX512, matVecQ2KI16x4AVX512},
		{tensor.Q3_K, cpufeat.AVX512, matVecQ3KI16x1AVX512, matVecQ3KI16x2AVX512, matVecQ3KI16x4AVX512},
		{tensor.IQ4_XS, cpufeat.AVX512, matVecIQ4XSI16x1AVX512, matVecIQ4XSI16x2AVX512, matVecIQ4XSI16x4AVX512},
	} {
		f := i16Formats[v.dtype]
		f.matVec.add(v.level, f.matVecTiles(v.x1, v.x2, v.x4))
	}
	registerI16Planes()
}

// matVecTiles makes a kernel for any number of tokens out of assembly for 1, 2
// and 4, which give the same bits per token.
func (f *i16Format) matVecTiles(x1, x2, x4 matVecI16Asm) matVecI16Func {
	return func(out []float32, stride int, w []byte, rowBytes, rows int, x *I16, t0, t1 int) {
		steps, sums := rowBytes/f.dtype.BlockBytes(), x.Sum
		if !f.folded {
			sums = x.Sum32
		}
		perToken := len(sums) / len(x.Scale)
		for t := t0; t < t1; {
			product, n := x1, 1
			switch {
			case x4 != nil && t1-t >= 4:
				product, n = x4, 4
			case x2 != nil && t1-t >= 2:
				product, n = x2, 2
			}
			product(&out[(t-t0)*stride], stride, &w[0], rows, steps, &x.Q[t*i16Chunk], &x.Scale[t], &sums[t*perToken], x.Tokens)
			t += n
		}
	}
}
