package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/kernel/kerneltest"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// randomTensor makes a weight matrix of random bytes, whose half-precision
// scales are small and finite.
func randomTensor(rng *rand.Rand, d tensor.DType, rows, cols int) tensor.Tensor {
	n, err := tensor.Bytes(d, []int{rows, cols})
	if err != nil {
		panic(err)
	}
	w := tensor.Tensor{Name: "w", Type: d, Shape: []int{rows, cols}, Data: make([]byte, n)}
	fillBlocks(rng, d, w.Data)
	return w
}

func fillBlocks(rng *rand.Rand, d tensor.DType, b []byte) {
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	le := binary.LittleEndian
	for ; len(b) > 0; b = b[d.BlockBytes():] {
		switch d {
		case tensor.F32:
			le.PutUint32(b, math.Float32bits(float32(rng.NormFloat64())))
		case tensor.BF16:
			le.PutUint16(b, uint16(math.Float32bits(float32(rng.NormFloat64()))>>16))
		case tensor.F16:
			le.PutUint16(b, quant.F32ToF16(float32(rng.NormFloat64())))
		}
		for _, off := range halfOffsets[d] {
			le.PutUint16(b[off:], quant.F32ToF16(float32(rng.NormFloat64()*0.01)))
		}
	}
}

// matmulTypes are the types that Dequantize knows.
func matmulTypes() []tensor.DType {
	var out []tensor.DType
	for d := tensor.DType(0); d < 64; d++ {
		if dequantSlot(d) != nil {
			out = append(out, d)
		}
	}
	return out
}

// TestMatMulF32 compares with float64 sums over plain Go's dequantised weights.
func TestMatMulF32(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range matmulTypes() {
			t.Run(d.String(), func(t *testing.T) {
				rng := kerneltest.Rand(t)
				var ws WorkspaceF32
				for _, s := range []struct{ rows, blocks, tokens int }{{1, 1, 1}, {5, 2, 3}, {17, 3, 7}, {33, 9, 13}} {
					cols := s.blocks * d.BlockLen()
					if d.BlockLen() == 1 {
						cols = s.blocks * 37
					}
					w := randomTensor(rng, d, s.rows, cols)
					x := kerneltest.Normal(t, rng, s.tokens*cols, kerneltest.AtEnd)
					out := kerneltest.Slice[float32](t, s.tokens*s.rows, kerneltest.AtEnd)
					MatMulF32(out, s.rows, w, 0, s.rows, x, 0, s.tokens, &ws)
					want, size := matmul64(w, x, s.tokens)
					// Errors of 16 or more short sums with random signs; 3e-7 is five
					// units of 2⁻²⁴.
					kerneltest.Close(t, fmt.Sprint(s), out, want, func(i int) float64 { return size[i] * 3e-7 })
				}
			})
		}
	})
}

func matmul64(w tensor.Tensor, x []float32, tokens int) (out, size []float64) {
	rows, cols := w.Rows(), w.Cols()
	out, size = make([]float64, tokens*rows), make([]float64, tokens*rows)
	row := make([]float32, cols)
	for r := range rows {
		dequantSlots[w.Type].generic()(row, w.Row(r))
		for t := range tokens {
			for k, v := range row {
				p := float64(v) * float64(x[t*cols+k])
				out[t*rows+r] += p
				size[t*rows+r] += math.Abs(p)
			}
		}
	}
	return out, size
}

// TestMatMulF32Partition asks for a product as a whole and in every kind of
// part, and wants the same bits: for one type that is always dequantised and
// for all that one token meets in registers.
func TestMatMulF32Partition(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range matmulTypes() {
			if fusedSlots[d] == nil && d != tensor.Q4_0 {
				continue
			}
			t.Run(d.String(), func(t *testing.T) {
				if d.BlockLen() > 1 {
					partitions(t, d, matmulK+d.BlockLen(), 14)
					return
				}
				partitions(t, d, 2*matmulK+77, 14)
				partitions(t, d, 7*matmulK+77, 3) // a vector that is large for a first-level cache
			})
		}
	})
}

func partitions(t *testing.T, d tensor.DType, cols, tokens int) {
	const rows = 39
	rng := kerneltest.Rand(t)
	w := randomTensor(rng, d, rows, cols)
	x := kerneltest.Normal(t, rng, tokens*cols, kerneltest.AtEnd)
	want := make([]float32, tokens*rows)
	var ws WorkspaceF32
	MatMulF32(want, rows, w, 0, rows, x, 0, tokens, &ws)
	for _, dr := range []int{1, 2, 3, 4, 5, 9, 16, 39} {
		for dt := 1; dt <= tokens; dt++ {
			got := make([]float32, tokens*rows)
			for r := 0; r < rows; r += dr {
				for tok := 0; tok < tokens; tok += dt {
					MatMulF32(got, rows, w, r, min(r+dr, rows), x, tok, min(tok+dt, tokens), &ws)
				}
			}
			kerneltest.SameBits(t, fmt.Sprintf("%d columns, parts of %d rows, %d tokens", cols, dr, dt), got, want)
		}
	}
}

// TestFusedRows compares with float64 at lengths over a part, with the weights
// against an unmapped page.
func TestFusedRows(t *testing.T) {
	const rows = 3 * tileRows
	eachLevel(t, func(t *testing.T) {
		for d, s := range fusedSlots {
			if s == nil {
				continue
			}
			d := tensor.DType(d)
			t.Run(d.String(), func(t *testing.T) {
				rng := kerneltest.Rand(t)
				for _, blocks := range []int{1, 2, 3, 4, 5, 8, 9, 15, 17, 31, 33, 100, 1024, 1025, 1030, 6145, 8960} {
					cols := blocks * d.BlockLen()
					if cols > 9000 {
						continue
					}
					for _, place := range bothPlaces {
						n, _ := d.RowBytes(cols)
						data := kerneltest.Slice[byte](t, rows*n, place)
						fillBlocks(rng, d, data)
						x, out := kerneltest.Normal(t, rng, cols, place), kerneltest.Slice[float32](t, rows, place)
						s.active(out, x, data, n)
						want, size := matmul64(tensor.Tensor{Type: d, Shape: []int{rows, cols}, Data: data}, x, 1)
						kerneltest.Close(t, fmt.Sprint(cols), out, want, func(i int) float64 { return size[i] * 3e-7 })
					}
				}
			})
		}
	})
}

// TestFewRows compares a few tokens with one at a time, at the ends of what may be read, and
// wants the same bits and nothing written between the results.
func TestFewRows(t *testing.T) {
	const rows, stride = 5 * tileRows, 5*tileRows + 3
	eachLevel(t, func(t *testing.T) {
		for d, s := range fewSlots {
			if s == nil || s.level != fusedSlots[d].level {
				continue
			}
			d := tensor.DType(d)
			t.Run(d.String(), func(t *testing.T) {
				rng := kerneltest.Rand(t)
				for _, cols := range []int{1, 15, 16, 31, 33, 100, 1024, 1030, 6145} {
					for tokens := 1; tokens <= FewTokens; tokens++ {
						for _, place := range bothPlaces {
							n, _ := d.RowBytes(cols)
							data := kerneltest.Slice[byte](t, rows*n, place)
							fillBlocks(rng, d, data)
							x := kerneltest.Normal(t, rng, tokens*cols, place)
							got, want := kerneltest.Slice[float32](t, (tokens-1)*stride+rows, place), make([]float32, (tokens-1)*stride+rows)
							for i := range want {
								want[i], got[i] = 7, 7
							}
							for tok := range tokens {
								fusedSlots[d].active(want[tok*stride:][:rows], x[tok*cols:][:cols], data, n)
							}
							s.active(got, stride, x, cols, data, n, rows)
							kerneltest.SameBits(t, fmt.Sprintf("%d columns, %d tokens", cols, tokens), got, want)
						}
					}
				}
			})
		}
	})
}

// TestMatMulF32Long checks the accuracy of the longest sums in use and that
// many tokens (more than one round of panelTokens) work.
func TestMatMulF32Long(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		var ws WorkspaceF32
		w := randomTensor(rng, tensor.F32, 6, 8960)
		x := kerneltest.Normal(t, rng, 7*8960, kerneltest.AtEnd)
		out := make([]float32, 7*6)
		MatMulF32(out, 6, w, 0, 6, x, 0, 7, &ws)
		want, size := matmul64(w, x, 7)
		// Seen: below 1e-8 of Σ|w·x| with 16 lanes; plain Go sums in 8.
		used := kerneltest.Close(t, "long", out, want, func(i int) float64 { return size[i] * 1e-7 })
		t.Logf("used %.3f of the tolerance", used)

		w = randomTensor(rng, tensor.F16, 5, 64)
		tokens := 2*panelTokens + 3
		x = kerneltest.Normal(t, rng, tokens*64, kerneltest.AtEnd)
		out = make([]float32, tokens*5)
		MatMulF32(out, 5, w, 0, 5, x, 0, tokens, &ws)
		want, size = matmul64(w, x, tokens)
		kerneltest.Close(t, "tokens", out, want, func(i int) float64 { return size[i] * 3e-7 })
	})
}

func TestMatMulF32NaN(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		const rows, cols, tokens = 6, 100, 8
		rng := kerneltest.Rand(t)
		var ws WorkspaceF32
		w := randomTensor(rng, tensor.F32, rows, cols)
		out := make([]float32, tokens*rows)
		for k := range cols {
			bad := k % tokens
			x := make([]float32, tokens*cols)
			x[bad*cols+k] = float32(math.NaN())
			MatMulF32(out, rows, w, 0, rows, x, 0, tokens, &ws)
			for i, v := range out {
				if isNaN := v != v; isNaN != (i/rows == bad) {
					t.Fatalf("NaN in token %d at %d: token %d row %d is %v", bad, k, i/rows, i%rows, v)
				}
			}
		}
	})
}

func BenchmarkMatMulF32(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, d := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q8_0, tensor.Q4_K, tensor.Q6_K} {
		for _, tokens := range []int{1, 4, 64, 512} {
			b.Run(fmt.Sprintf("%s/tokens=%d", d, tokens), func(b *testing.B) {
				const rows, cols = 1024, 1536
				w := randomTensor(rng, d, rows, cols)
				x := make([]float32, tokens*cols)
				for i := range x {
					x[i] = float32(rng.NormFloat64())
				}
				out := make([]float32, tokens*rows)
				var ws WorkspaceF32
				for b.Loop() {
					MatMulF32(out, rows, w, 0, rows, x, 0, tokens, &ws)
				}
				ns := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
				b.ReportMetric(2*rows*cols*float64(tokens)/ns, "GFLOP/s")
				b.ReportMetric(float64(len(w.Data))/ns, "GB/s")
			})
		}
	}
}
