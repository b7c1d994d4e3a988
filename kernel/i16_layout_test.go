package kernel

import (
	"slices"
	"testing"

	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/kernel/kerneltest"
	"github.com/apr-engine/apr/tensor"
)

// Activations for some types give the bits of those for all that are rounded to the same
// limit, with these types and, more slowly, with others.
func TestI16For(t *testing.T) {
	kerneltest.EachLevel(t, Use, func(t *testing.T) {
		const rows, tokens, cols = 5, 7, 1536
		for _, types := range [][]tensor.DType{{tensor.Q4_K}, {tensor.Q6_K, tensor.Q5_K}, {tensor.Q5_0}, {tensor.Q8_0}, {tensor.Q4_K, tensor.Q4_0}, {tensor.F32}} {
			x := new(I16)
			x.For(types[0])
			x.For(types[1:]...)
			all, input := i16RowsUpTo(x.largest(), kerneltest.Rand(t), tokens, cols)
			x.Resize(tokens, cols)
			for i, row := range input {
				QuantizeI16(x, i, row)
			}
			for _, d := range i16Types() {
				w := i16Matrix(kerneltest.Rand(t), d, rows, cols, "random")
				want, got := make([]float32, tokens*rows), make([]float32, tokens*rows)
				MatVecsI16(want, rows, w, 0, rows, all, 0, tokens)
				MatVecsI16(got, rows, w, 0, rows, x, 0, tokens)
				if !slices.Equal(got, want) {
					t.Errorf("weights of %s times activations for %v differ from those times activations for all", d, types)
				}
			}
		}
	})
}

// Only what is read is filled.
func TestI16ForFills(t *testing.T) {
	if len(i16Formats[tensor.Q4_K].matVec.variants) == 1 || !slices.Contains(quantizeI16Slot.Levels(), cpufeat.AVX512) {
		t.Skip("planes and sums are for AVX-512 alone, which this processor or build has not: runs in CI where its processor has it")
	}
	for _, tc := range []struct {
		types                []tensor.DType
		planes, blocks, sums bool
	}{
		{nil, true, true, true},
		{[]tensor.DType{tensor.Q4_K, tensor.Q6_K}, true, false, true},
		{[]tensor.DType{tensor.Q6_K}, true, false, false},
		{[]tensor.DType{tensor.Q5_0, tensor.Q8_0}, false, true, true},
		{[]tensor.DType{tensor.Q8_0}, false, true, true},
		{[]tensor.DType{tensor.F16}, false, false, false},
		{[]tensor.DType{tensor.Q5_1, tensor.Q5_K}, true, true, true},
	} {
		x := new(I16)
		x.For(tc.types...)
		x.Resize(planesTokens+1, 512)
		if sums := len(x.Cross) > 0; sums != tc.sums || len(x.Planes)+len(x.Pairs)+len(x.BlockPlanes) > 0 {
			t.Errorf("many tokens for %v: sums %t, planes, pairs, block planes %d, %d, %d", tc.types, sums, len(x.Planes), len(x.Pairs), len(x.BlockPlanes))
		}
		x.Resize(planesTokens, 512)
		if planes, pairs, blocks := len(x.Planes) > 0, len(x.Pairs) > 0, len(x.BlockPlanes) > 0; planes != tc.planes || pairs != tc.planes || blocks != tc.blocks || len(x.Cross) > 0 {
			t.Errorf("few tokens for %v: planes %t, pairs %t, block planes %t, sums %t", tc.types, planes, pairs, blocks, len(x.Cross) > 0)
		}
	}
}

// Halves are filled for a token that is multiplied by itself, which needs no planes.
func TestI16ForHalves(t *testing.T) {
	if len(i16Formats[tensor.Q4_K].matVec.variants) == 1 || !slices.Contains(quantizeI16Slot.Levels(), cpufeat.AVX512) {
		t.Skip("halves are for AVX-512 alone, which this processor or build has not: runs in CI where its processor has it")
	}
	for _, tc := range []struct {
		types          []tensor.DType
		tokens         int
		planes, halves bool
	}{
		{nil, 1, true, true},
		{nil, 4, true, false},
		{[]tensor.DType{tensor.Q4_K, tensor.Q6_K}, 1, true, true},
		{[]tensor.DType{tensor.Q4_K, tensor.Q6_K}, 3, true, true},
		{[]tensor.DType{tensor.Q4_K, tensor.Q5_K}, 1, false, true},
		{[]tensor.DType{tensor.Q4_K, tensor.Q5_K}, 4, true, false},
		{[]tensor.DType{tensor.Q6_K}, 1, true, false},
		{[]tensor.DType{tensor.Q5_0}, 1, false, false},
	} {
		x := new(I16)
		x.For(tc.types...)
		x.Resize(tc.tokens, 512)
		if planes, halves := len(x.Planes) > 0, len(x.Halves) > 0; planes != tc.planes || halves != tc.halves {
			t.Errorf("%d tokens for %v: planes %t, halves %t", tc.tokens, tc.types, planes, halves)
		}
	}
}

// Every range of a batch's tokens gives the bits of the whole, whatever the batch was filled with.
func TestI16Ranges(t *testing.T) {
	kerneltest.EachLevel(t, Use, func(t *testing.T) {
		const rows = 5
		for _, d := range []tensor.DType{tensor.Q4_K, tensor.Q5_K, tensor.Q6_K, tensor.Q5_0} {
			for _, cols := range []int{768, 57 * 256} {
				w := i16Matrix(kerneltest.Rand(t), d, rows, cols, "random")
				for tokens := 1; tokens <= planesTokens; tokens++ {
					x, _ := i16Rows(kerneltest.Rand(t), tokens, cols)
					want := make([]float32, tokens*rows)
					MatVecsI16(want, rows, w, 0, rows, x, 0, tokens)
					for t0 := range tokens {
						for t1 := t0 + 1; t1 <= tokens; t1++ {
							got := make([]float32, (t1-t0)*rows)
							MatVecsI16(got, rows, w, 0, rows, x, t0, t1)
							if !slices.Equal(got, want[t0*rows:t1*rows]) {
								t.Errorf("%s, %d columns: tokens %d to %d of %d differ from those of all", d, cols, t0, t1, tokens)
							}
						}
					}
				}
			}
		}
	})
}
