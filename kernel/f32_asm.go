//go:build !noasm && (amd64 || arm64)

package kernel

import "unsafe"

// What turns assembly into the kernels of the slots, the same for all architectures.

func rmsNormWith(sum func(x []float32) float64, scale func(dst, x, weight []float32, s float32)) func(dst, x, weight []float32, eps float32) {
	return func(dst, x, weight []float32, eps float32) {
		x = x[:len(dst)]
		scale(dst, x, weight, rmsScale(sum(x), len(x), eps))
	}
}

// ropeNormWith rotates whole vectors (of the given number of pairs) with the
// assembly and the rest in plain Go, which rounds in the same way.
func ropeNormWith(rotate func(x, cos, sin []float32), pairs int) func(x, cos, sin []float32) {
	return func(x, cos, sin []float32) {
		n := len(cos) / pairs * pairs
		rotate(x, cos[:n], sin)
		ropeNormGeneric(x[2*n:], cos[n:], sin[n:])
	}
}

type tileFunc func(acc *float32, accStride int, w *float32, wStride, quads int, x *float32, xStride, n int)

// tileWith serves any number of tokens with tiles of 1, 2, … tokens, the
// largest as often as it fits.
func tileWith(tiles ...tileFunc) func(acc []float32, accStride int, w []float32, wStride, rows int, x []float32, xStride, tokens, n int) {
	return func(acc []float32, accStride int, w []float32, wStride, rows int, x []float32, xStride, tokens, n int) {
		quads := (rows + tileRows - 1) / tileRows
		if quads == 0 || n == 0 {
			return
		}
		for t := 0; t < tokens; {
			k := min(len(tiles), tokens-t)
			tiles[k-1](&acc[t*accStride], accStride, &w[0], wStride, quads, &x[t*xStride], xStride, n)
			t += k
		}
	}
}

type weightedFunc func(acc, weight, v *float32, n, dim int)

// weightedWith serves any number of queries with functions for 1, 2, … queries.
func weightedWith(funcs ...weightedFunc) func(acc, weight, v []float32, n, queries, dim int) {
	return func(acc, weight, v []float32, n, queries, dim int) {
		if n == 0 || dim == 0 {
			return
		}
		for q := 0; q < queries; {
			k := min(len(funcs), queries-q)
			funcs[k-1](&acc[q*dim], &weight[q*attnBlock], &v[0], n, dim)
			q += k
		}
	}
}

// copyF32 copies: both are little-endian as the files are. src may be unaligned.
func copyF32(dst []float32, src []byte) {
	if len(dst) > 0 {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&dst[0])), 4*len(dst)), src)
	}
}

// rowsWith serves any number of rows with a function for four. fetch says that the function
// does not ask for the next rows itself.
func rowsWith(f func(out, x *float32, w *byte, rowBytes, n int), fetch bool) rowsFunc {
	return func(out, x []float32, w []byte, rowBytes int) {
		if len(x) == 0 {
			clear(out)
			return
		}
		four := tileRows * rowBytes
		for r := 0; r < len(out); r += tileRows {
			at := r * rowBytes
			if fetch && at+2*four <= len(w) {
				fetchRows(w[at+four:], four, 1, four)
			}
			f(&out[r], &x[0], &w[at], rowBytes, len(x))
		}
	}
}
