package kernel

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/kernel/kerneltest"
	"github.com/apr-engine/apr/tensor"
)

// guarded returns a copy of s against an unmapped page.
func guarded[T any](t *testing.T, s []T, place kerneltest.Place) []T {
	out := kerneltest.Slice[T](t, len(s), place)
	copy(out, s)
	return out
}

// Neither weights, activations nor results may be touched outside their slices:
// a weight matrix can end with its file, and a file with its last page.
func TestI16Guarded(t *testing.T) {
	kerneltest.EachLevel(t, Use, func(t *testing.T) {
		for _, place := range []kerneltest.Place{kerneltest.AtEnd, kerneltest.AtStart} {
			for _, d := range i16Types() {
				for _, cols := range []int{256, 768, 320, 480, 96} {
					if cols%d.BlockLen() != 0 {
						continue
					}
					for _, rows := range []int{17, 1} {
						t.Run(fmt.Sprintf("%s/%d×%d/place%d", d, rows, cols, place), func(t *testing.T) { checkGuarded(t, d, rows, cols, place) })
					}
				}
			}
		}
	})
}

func checkGuarded(t *testing.T, d tensor.DType, rows, cols int, place kerneltest.Place) {
	const tokens = 15
	rng := kerneltest.Rand(t)
	w := i16Matrix(rng, d, rows, cols, "random")
	w.Data = guarded(t, w.Data, place)
	plain, raw := i16RowsUpTo(I16Largest(d), rng, tokens, cols)
	x := &I16{Tokens: tokens, Cols: cols, limit: plain.limit, Cross: guarded(t, plain.Cross, place), Q: guarded(t, plain.Q, place), Scale: guarded(t, plain.Scale, place),
		Sum: guarded(t, plain.Sum, place), Sum32: guarded(t, plain.Sum32, place)}
	for tok := range tokens {
		QuantizeI16(x, tok, guarded(t, raw[tok], place))
	}
	want, size := i16Reference(t, w, x)
	got := kerneltest.Slice[float32](t, tokens*rows, place)
	MatVecsI16(got, rows, w, 0, rows, x, 0, tokens)
	i16Compare(t, got, rows, want, size)
	clear(got)
	var ws Workspace
	MatMulI16(got, rows, w, 0, rows, x, 0, tokens, &ws)
	i16Compare(t, got, rows, want, size)
}

// The same for rows that are multiplied in blocks of columns, by one token, two and four.
func TestI16WideGuarded(t *testing.T) {
	kerneltest.EachLevel(t, Use, func(t *testing.T) {
		for _, place := range []kerneltest.Place{kerneltest.AtEnd, kerneltest.AtStart} {
			for _, d := range []tensor.DType{tensor.Q4_K, tensor.Q5_K, tensor.Q6_K} {
				const rows, tokens, cols = 3, 7, 57 * 256
				rng := kerneltest.Rand(t)
				w := i16Matrix(rng, d, rows, cols, "random")
				w.Data = guarded(t, w.Data, place)
				x, _ := i16Rows(rng, tokens, cols)
				x.Q, x.Scale, x.Sum, x.Planes, x.Halves, x.Pairs = guarded(t, x.Q, place), guarded(t, x.Scale, place), guarded(t, x.Sum, place), guarded(t, x.Planes, place), guarded(t, x.Halves, place), guarded(t, x.Pairs, place)
				want, size := i16Reference(t, w, x)
				got := kerneltest.Slice[float32](t, tokens*rows, place)
				MatVecsI16(got, rows, w, 0, rows, x, 0, tokens)
				i16Compare(t, got, rows, want, size)
			}
		}
	})
}

// Each level must have the kernels it is meant to have: a variant that is not
// registered would leave every comparison passing.
func TestI16Variants(t *testing.T) {
	if len(i16Formats[tensor.Q4_K].matVec.variants) == 1 {
		t.Skip("built without assembly")
	}
	has := func(s switchable, l cpufeat.Level) {
		for _, v := range s.Levels() {
			if v == l {
				return
			}
		}
		t.Errorf("%s has no %s variant", s.Name(), l)
	}
	common := []tensor.DType{tensor.Q4_0, tensor.Q5_0, tensor.Q8_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K}
	if runtime.GOARCH == "arm64" {
		for _, d := range common {
			has(i16Formats[d].matVec, cpufeat.NEON)
			has(i16Formats[d].matVec, cpufeat.DotProd)
			has(i16Formats[d].unpack, cpufeat.NEON)
		}
		for _, s := range []switchable{quantizeI16Slot, matMulI16Folded, matMulI16Grouped} {
			has(s, cpufeat.NEON)
		}
		return
	}
	for _, s := range []switchable{quantizeI16Slot, matMulI16Folded, matMulI16Grouped} {
		has(s, cpufeat.AVX512)
		has(s, cpufeat.AVX2)
	}
	for _, d := range i16Types() {
		has(i16Formats[d].matVec, cpufeat.AVX512)
		has(i16Formats[d].unpack, cpufeat.AVX512)
	}
	for _, d := range common {
		has(i16Formats[d].matVec, cpufeat.AVX2)
		has(i16Formats[d].unpack, cpufeat.AVX2)
	}
}
