package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/tensor"
)

// Products of sums must give the bits of products of numbers, also where every sum is as
// large as can be; and they must be in use where they are meant to be.
func TestMatMulI16Crossed(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range i16Types() {
			for _, kind := range []string{"random", "ones", "zeros", "low"} {
				for _, cols := range i16ColumnsOf(d) {
					rng := rand.New(rand.NewPCG(10, uint64(cols)))
					const rows, tokens = 71, 27
					w := i16Matrix(rng, d, rows, cols, kind)
					x, _ := i16RowsUpTo(min(i16Max, math.MaxInt16-i16Formats[d].largest), rng, tokens, cols)
					crossed, plain := make([]float32, tokens*rows), make([]float32, tokens*rows)
					var ws Workspace
					MatMulI16(crossed, rows, w, 0, rows, x, 0, tokens, &ws)
					if got, want := ws.panels[0].crossed, matMulI16Folded.Active() == cpufeat.AVX512 && i16Formats[d].largest <= crossWeight; got != want {
						t.Fatalf("%s: panels are crossed: %v, want %v", d, got, want)
					}
					x.Cross = x.Cross[:0]
					MatMulI16(plain, rows, w, 0, rows, x, 0, tokens, &ws)
					if !slices.Equal(crossed, plain) {
						t.Errorf("%s, %s, %d columns: products of sums differ", d, kind, cols)
					}
				}
			}
		}
	})
}

// Activations that are too large for products of sums are multiplied all the same.
func TestMatMulI16NotCrossed(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range []tensor.DType{tensor.Q4_K, tensor.Q5_K} {
			rng := rand.New(rand.NewPCG(11, 11))
			const rows, tokens, cols = 32, 13, 256
			w := i16Matrix(rng, d, rows, cols, "ones")
			x, _ := i16Rows(rng, tokens, cols)
			want, size := i16Reference(t, w, x)
			got := make([]float32, tokens*rows)
			var ws Workspace
			MatMulI16(got, rows, w, 0, rows, x, 0, tokens, &ws)
			i16Compare(t, got, rows, want, size)
		}
	})
}

// No weight of a panel that is crossed may be larger than its format says, or sums would
// not fit 16 bits; nor so large that they do not fit 32 before they are flushed.
func TestI16Largest(t *testing.T) {
	if matMulI16Folded.Active() != cpufeat.AVX512 {
		t.Skip("sums are multiplied with AVX-512 alone, which this processor or build has not: runs in CI where its processor has it")
	}
	for _, d := range i16Types() {
		f, largest := i16Formats[d], 0
		p := newI16Panel()
		for _, kind := range []string{"random", "ones", "zeros", "low"} {
			w := i16Matrix(rand.New(rand.NewPCG(12, 12)), d, i16PanelRows, 256, kind)
			p.cols, p.flush = 256, f.flush
			f.unpack.active(p, w.Data, len(w.Data)/w.Rows(), i16PanelRows, f.blocksPerChunk)
			for _, pair := range p.w {
				for _, v := range pair {
					largest = max(largest, int(v[0]), -int(v[0]), int(v[1]), -int(v[1]))
				}
			}
		}
		if f.largest*p.flush*i16Max > math.MaxInt32 {
			t.Errorf("%s: %d columns with weights of %d are too many", d, p.flush, f.largest)
		}
		if largest > f.largest {
			t.Errorf("%s: a weight is %d, at most %d are expected", d, largest, f.largest)
		}
		if f.largest > crossWeight {
			continue
		}
		if x, _ := i16RowsUpTo(I16Largest(d), rand.New(rand.NewPCG(12, 12)), 5, 256); int(slices.Max(x.Q))+f.largest > math.MaxInt16 || int(slices.Min(x.Q))-f.largest < math.MinInt16 {
			t.Errorf("%s: activations from %d to %d", d, slices.Min(x.Q), slices.Max(x.Q))
		}
	}
}

func TestFillCross(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		if level := quantizeI16Slot.Active(); level != cpufeat.Generic && level != cpufeat.AVX512 {
			t.Skip("this level does not fill Cross, which only products with AVX-512 read: the other levels run beside it")
		}
		for _, cols := range []int{32, 256, 288, 1536} {
			t.Run(fmt.Sprint(cols), func(t *testing.T) {
				const tokens = planesTokens + 1
				x, rows := i16Rows(rand.New(rand.NewPCG(13, 13)), tokens, cols)
				var plain I16
				plain.Resize(tokens, cols)
				for tok, row := range rows {
					quantizeI16Generic(&plain, tok, row)
				}
				for c := range x.Chunks() {
					// The first numbers of a chunk are not used.
					from, to := x.crossAt(c, 0, 1), x.crossAt(c, tokens, 16)
					if !slices.Equal(x.Cross[from:to], plain.Cross[from:to]) {
						t.Errorf("chunk %d differs from plain Go", c)
					}
				}
			})
		}
	})
}
