//go:build !noasm

package kernel

import (
	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

//go:generate go run -C _asm ./dequant

func init() {
	for _, r := range []struct {
		t            tensor.DType
		avx2, avx512 func(dst []float32, src []byte)
	}{
		{tensor.F32, copyF32, copyF32},
		{tensor.F16, dequantF16AVX2, dequantF16AVX512},
		{tensor.BF16, dequantBF16With(dequantBF16AVX2, 8), dequantBF16With(dequantBF16AVX512, 16)},
		{tensor.Q4_0, dequantQ4_0AVX2, dequantQ4_0AVX512},
		{tensor.Q4_1, dequantQ4_1AVX2, dequantQ4_1AVX512},
		{tensor.Q5_0, dequantQ5_0AVX2, dequantQ5_0AVX512},
		{tensor.Q5_1, dequantQ5_1AVX2, dequantQ5_1AVX512},
		{tensor.Q8_0, dequantQ8_0AVX2, dequantQ8_0AVX512},
		{tensor.Q2_K, dequantQ2KAVX2, dequantQ2KAVX512},
		{tensor.Q3_K, dequantQ3KAVX2, dequantQ3KAVX512},
		{tensor.Q4_K, dequantQ4KAVX2, dequantQ4KAVX512},
		{tensor.Q5_K, dequantQ5KAVX2, dequantQ5KAVX512},
		{tensor.Q6_K, dequantQ6KAVX2, dequantQ6KAVX512},
		{tensor.IQ4_NL, dequantIQ4NLAVX2, dequantIQ4NLAVX512},
		{tensor.IQ4_XS, dequantIQ4XSAVX2, dequantIQ4XSAVX512},
	} {
		dequantSlots[r.t].add(cpufeat.AVX2, r.avx2)
		dequantSlots[r.t].add(cpufeat.AVX512, r.avx512)
	}
	fusedSlots[tensor.F32].add(cpufeat.AVX2, plainRowsWith(dot4F32AVX2, dot4F32AVX2))
	fusedSlots[tensor.F16].add(cpufeat.AVX2, plainRowsWith(dot4F16AVX2, dot4F16AVX2))
	fusedSlots[tensor.F32].add(cpufeat.AVX512, plainRowsWith(dot2F32AVX512, dot2WideF32AVX512))
	fusedSlots[tensor.F16].add(cpufeat.AVX512, plainRowsWith(dot2F16AVX512, dot2WideF16AVX512))
	fusedSlots[tensor.BF16].add(cpufeat.AVX512, plainRowsWith(dot2BF16AVX512, dot2WideBF16AVX512))
	for _, v := range []struct {
		t      tensor.DType
		x4, x2 fewRowsFunc
	}{
		{tensor.F32, dot4x4F32AVX512, dot2x2F32AVX512},
		{tensor.F16, dot4x4F16AVX512, dot2x2F16AVX512},
		{tensor.BF16, dot4x4BF16AVX512, dot2x2BF16AVX512},
	} {
		one := fusedSlots[v.t].variants
		fewSlots[v.t].add(cpufeat.AVX512, fewRowsWith(v.x4, v.x2, one[len(one)-1].fn))
	}
	fusedSlots[tensor.Q8_0].add(cpufeat.AVX512, rowsWith(dot4Q8_0AVX512, true))
	fusedSlots[tensor.Q4_K].add(cpufeat.AVX512, rowsWith(dot4Q4KAVX512, true))
	fusedSlots[tensor.Q5_K].add(cpufeat.AVX512, rowsWith(dot4Q5KAVX512, true))
	fusedSlots[tensor.Q6_K].add(cpufeat.AVX512, rowsWith(dot4Q6KAVX512, true))
}

// dequantBF16With expands whole vectors with the assembly, the rest in plain Go.
func dequantBF16With(expand func(dst []float32, src []byte), lanes int) func(dst []float32, src []byte) {
	return func(dst []float32, src []byte) {
		n := len(dst) / lanes * lanes
		expand(dst[:n], src)
		for i := n; i < len(dst); i++ {
			dst[i] = quant.BF16ToF32(uint16(src[2*i]) | uint16(src[2*i+1])<<8)
		}
	}
}

// narrowBytes is how large a vector may be to stay in the first-level cache beside the
// weights that pass through it. A larger one comes from the next cache for each pair of rows.
const narrowBytes = 16 << 10

type plainRowsFunc func(out, x *float32, w *byte, rowBytes, n, rows int)

// plainRowsWith picks between functions for vectors that stay in the first-level cache and
// for others.
func plainRowsWith(narrow, wide plainRowsFunc) rowsFunc {
	return func(out, x []float32, w []byte, rowBytes int) {
		switch {
		case len(x) == 0:
			clear(out)
		case 4*len(x) <= narrowBytes:
			narrow(&out[0], &x[0], &w[0], rowBytes, len(x), len(out))
		default:
			wide(&out[0], &x[0], &w[0], rowBytes, len(x), len(out))
		}
	}
}

type fewRowsFunc func(out, x *float32, w *byte, rowBytes, n, rows, stride int)

// fewStrip is about how many bytes of weights are multiplied with some of the tokens before
// the next ones, so that those find them in the second-level cache.
const fewStrip = 128 << 10

// fewRowsWith serves any number of tokens with functions for four, for two and for one.
func fewRowsWith(x4, x2 fewRowsFunc, one rowsFunc) fewFunc {
	return func(out []float32, stride int, x []float32, n int, w []byte, rowBytes, rows int) {
		strip := max(1, fewStrip/(tileRows*rowBytes)) * tileRows
		for r := 0; r < rows; r += strip {
			some, at := min(strip, rows-r), w[r*rowBytes:]
			for t, tokens := 0, len(x)/n; t < tokens; {
				to, from := out[t*stride+r:], x[t*n:]
				switch left := tokens - t; {
				case left >= 4:
					x4(&to[0], &from[0], &at[0], rowBytes, n, some, stride)
					t += 4
				case left >= 2:
					x2(&to[0], &from[0], &at[0], rowBytes, n, some, stride)
					t += 2
				default:
					one(to[:some], from[:n], at, rowBytes)
					t++
				}
			}
		}
	}
}
