//go:build !noasm

package kernel

import (
	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/tensor"
)

// matVecRowsAsm is an assembly product of one or two rows with one or four tokens;
// see the stubs for its contract. chunks counts whole chunks of 256 columns in
// formats with super-blocks, blocks of 32 columns in the others.
type matVecRowsAsm func(out *float32, stride int, w *byte, chunks int, q *int16, scale, sum *float32, batch int)

// registerI16Variants adds the assembly variants to the slots.
func registerI16Variants() {
	quantizeI16Slot.add(cpufeat.NEON, quantizeI16ByNEON)
	registerI16MatMul()
	for _, v := range []struct {
		dtype            tensor.DType
		level            cpufeat.Level
		r1x1, r2x1, r1x4 matVecRowsAsm
	}{
		{tensor.Q4_0, cpufeat.NEON, matVecQ4_0I16r1x1NEON, matVecQ4_0I16r2x1NEON, matVecQ4_0I16r1x4NEON},
		{tensor.Q5_0, cpufeat.NEON, matVecQ5_0I16r1x1NEON, matVecQ5_0I16r2x1NEON, matVecQ5_0I16r1x4NEON},
		{tensor.Q8_0, cpufeat.NEON, matVecQ8_0I16r1x1NEON, matVecQ8_0I16r2x1NEON, matVecQ8_0I16r1x4NEON},
		{tensor.Q4_K, cpufeat.NEON, matVecQ4KI16r1x1NEON, matVecQ4KI16r2x1NEON, matVecQ4KI16r1x4NEON},
		{tensor.Q5_K, cpufeat.NEON, matVecQ5KI16r1x1NEON, matVecQ5KI16r2x1NEON, matVecQ5KI16r1x4NEON},
		{tensor.Q6_K, cpufeat.NEON, matVecQ6KI16r1x1NEON, matVecQ6KI16r2x1NEON, matVecQ6KI16r1x4NEON},
		{tensor.Q4_0, cpufeat.DotProd, matVecQ4_0I16r1x1DotProd, matVecQ4_0I16r2x1DotProd, matVecQ4_0I16r1x4DotProd},
		{tensor.Q5_0, cpufeat.DotProd, matVecQ5_0I16r1x1DotProd, matVecQ5_0I16r2x1DotProd, matVecQ5_0I16r1x4DotProd},
		{tensor.Q8_0, cpufeat.DotProd, matVecQ8_0I16r1x1DotProd, matVecQ8_0I16r2x1DotProd, matVecQ8_0I16r1x4DotProd},
		{tensor.Q4_K, cpufeat.DotProd, matVecQ4KI16r1x1DotProd, matVecQ4KI16r2x1DotProd, matVecQ4KI16r1x4DotProd},
		{tensor.Q5_K, cpufeat.DotProd, matVecQ5KI16r1x1DotProd, matVecQ5KI16r2x1DotProd, matVecQ5KI16r1x4DotProd},
		{tensor.Q6_K, cpufeat.DotProd, matVecQ6KI16r1x1DotProd, matVecQ6KI16r2x1DotProd, matVecQ6KI16r1x4DotProd},
	} {
		f := i16Formats[v.dtype]
		f.matVec.add(v.level, f.matVecRows(v.r1x1, v.r2x1, v.r1x4))
	}
}

// matVecRows makes a kernel for any number of rows and tokens out of assembly that
// gives the same bits per row and token.
func (f *i16Format) matVecRows(r1x1, r2x1, r1x4 matVecRowsAsm) matVecI16Func {
	return func(out []float32, stride int, w []byte, rowBytes, rows int, x *I16, t0, t1 int) {
		steps := rowBytes / f.dtype.BlockBytes()
		for t := t0; t < t1; {
			one, two, tokens := r1x1, r2x1, 1
			if t1-t >= 4 {
				one, two, tokens = r1x4, nil, 4
			}
			to, q, scale, sum := out[(t-t0)*stride:], &x.Q[t*i16Chunk], &x.Scale[t], &x.Sum[t*16]
			for i := 0; i < rows; {
				if two != nil && rows-i >= 2 {
					two(&to[i], stride, &w[i*rowBytes], steps, q, scale, sum, x.Tokens)
					i += 2
				} else {
					one(&to[i], stride, &w[i*rowBytes], steps, q, scale, sum, x.Tokens)
					i++
				}
			}
			t += tokens
		}
	}
}

// quantizeI16ByNEON uses assembly for whole chunks and plain Go for a partial one.
// Nothing here reads I16.Planes: the products take words apart themselves.
func quantizeI16ByNEON(dst *I16, token int, x []float32) {
	chunks := len(x) / i16Chunk
	if chunks > 0 {
		quantizeI16NEON(&dst.Q[token*i16Chunk], &dst.Scale[token], &dst.Sum[token*16], &dst.Sum32[token*8], &x[0], chunks, dst.Tokens, dst.top())
	}
	quantizeChunksI16(dst, token, chunks, x[chunks*i16Chunk:])
}
