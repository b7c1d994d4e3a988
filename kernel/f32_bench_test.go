package kernel

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// BenchmarkVector measures the kernels on vectors at the widths of a small
// model: its hidden size and its feed-forward size. All data is in L1 or L2.
func BenchmarkVector(b *testing.B) {
	for _, n := range []int{1536, 8960} {
		rng := rand.New(rand.NewPCG(1, 2))
		x, y, dst, h := make([]float32, n), make([]float32, n), make([]float32, n), make([]uint16, n)
		for i := range x {
			x[i], y[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64())
		}
		F32ToF16Slice(h, y)
		for _, c := range []struct {
			name  string
			bytes int // read and written for an element
			run   func()
		}{
			{"DotF32", 8, func() { DotF32(x, y) }},
			{"DotF16", 6, func() { DotF16(x, h) }},
			{"AxpyF32", 12, func() { AxpyF32(dst, 1e-9, x) }},
			{"AxpyF16", 10, func() { AxpyF16(dst, 1e-9, h) }},
			{"Add", 12, func() { Add(dst, x, y) }},
			{"RMSNorm", 16, func() { RMSNorm(dst, x, y, 1e-6) }},
			{"SiLUMul", 12, func() { SiLUMul(dst, x, y) }},
			{"GELUMul", 12, func() { GELUMul(dst, x, y) }},
			{"Softmax", 8, func() { copy(dst, x); Softmax(dst) }},
			{"RopeNeoX", 12, func() { RopeNeoX(dst, x[:n/2], y[:n/2]) }},
			{"RopeNorm", 12, func() { RopeNorm(dst, x[:n/2], y[:n/2]) }},
			{"F32ToF16", 6, func() { F32ToF16Slice(h, y) }},
			{"F16ToF32", 6, func() { F16ToF32Slice(dst, h) }},
		} {
			b.Run(fmt.Sprintf("%s/n=%d", c.name, n), func(b *testing.B) {
				clear(dst)
				b.SetBytes(int64(c.bytes * n))
				for b.Loop() {
					c.run()
				}
			})
		}
	}
}

// BenchmarkPeakF32 is the limit that BenchmarkMatMulF32 is compared with.
func BenchmarkPeakF32(b *testing.B) {
	flops := 0
	for b.Loop() {
		flops = PeakF32Flops(10000)
	}
	b.ReportMetric(float64(flops)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
}

// BenchmarkMatVecF32 multiplies strips of a matrix that no cache holds by one token.
func BenchmarkMatVecF32(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, d := range []tensor.DType{tensor.F16, tensor.BF16, tensor.Q4_K} {
		for _, cols := range []int{1536, 8960} {
			b.Run(fmt.Sprintf("%s/cols=%d", d, cols), func(b *testing.B) {
				const strip = 64
				piece := randomTensor(rng, d, strip, cols)
				strips := 128<<20/len(piece.Data) + 1
				w := tensor.Tensor{Name: "w", Type: d, Shape: []int{strips * strip, cols}, Data: bytes.Repeat(piece.Data, strips)}
				x, out := make([]float32, cols), make([]float32, w.Rows())
				var ws WorkspaceF32
				reportRates(b, len(piece.Data), "GB/s", func(i int) {
					r := i % strips * strip
					MatMulF32(out, w.Rows(), w, r, r+strip, x, 0, 1, &ws)
				})
			})
		}
	}
}
