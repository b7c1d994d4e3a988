package kernel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/tensor"
)

// reportRates runs unit b.N times and reports work per nanosecond (so GB/s or
// GMAC/s) in the median and in the best tenth, which other load on the machine
// disturbs least. A unit should take far less than a scheduler's time slice.
func reportRates(b *testing.B, work int, what string, unit func(i int)) {
	var times []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		unit(i)
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(work)/float64(times[len(times)/10]), "best-"+what)
	b.ReportMetric(float64(work)/float64(times[len(times)/2]), "median-"+what)
}

// i16Big is a matrix of at least size bytes made of one random piece repeated.
func i16Big(d tensor.DType, cols, size int) tensor.Tensor {
	w := i16Matrix(rand.New(rand.NewPCG(1, 1)), d, 128, cols, "random")
	n := size/len(w.Data) + 1
	big := aligned[byte](len(w.Data)*n + 1)[1:]
	for o := 0; o < len(big); o += copy(big[o:], w.Data) {
	}
	w.Shape[0], w.Data = 128*n, big
	return w
}

// BenchmarkMatVecI16 reads weights from memory (a matrix of four times the
// last-level cache) and from the second-level cache.
func BenchmarkMatVecI16(b *testing.B) {
	for _, d := range i16Types() {
		for _, level := range i16Formats[d].matVec.Levels() {
			for _, from := range []struct {
				name string
				size int
				cols int
			}{{"memory", 128 << 20, 1536}, {"cache", 200 << 10, 1536}, {"memory", 128 << 20, 8960}, {"cache", 600 << 10, 8960}} {
				for _, batch := range []int{1, 2, 4} {
					b.Run(fmt.Sprintf("%s/%s/%s/cols=%d/tokens=%d", d, level, from.name, from.cols, batch), func(b *testing.B) {
						if level > cpufeat.Hardware() {
							b.Skipf("this CPU has no %s", level)
						}
						defer Use(level)()
						w := i16Big(d, from.cols, from.size)
						x, _ := i16Rows(rand.New(rand.NewPCG(1, 1)), batch, from.cols)
						out := make([]float32, 128*batch)
						strips := w.Rows() / 128
						reportRates(b, len(w.Data)/strips, "GB/s", func(i int) {
							r := i % strips * 128
							MatVecsI16(out, 128, w, r, r+128, x, 0, batch)
						})
					})
				}
			}
		}
	}
}

// BenchmarkMatMulI16 multiplies strips of 64 rows with a batch of tokens, as a
// worker does. BenchmarkPeakI16 is the limit.
func BenchmarkMatMulI16(b *testing.B) {
	const cols, strip = 1536, 64
	for _, d := range i16Types() {
		for _, level := range matMulI16Folded.Levels() {
			for _, tokens := range []int{8, 64, 512} {
				b.Run(fmt.Sprintf("%s/%s/tokens=%d", d, level, tokens), func(b *testing.B) {
					if level > cpufeat.Hardware() {
						b.Skipf("this CPU has no %s", level)
					}
					defer Use(level)()
					w := i16Big(d, cols, 2<<20)
					x, _ := i16RowsUpTo(I16Largest(d), rand.New(rand.NewPCG(1, 1)), tokens, cols)
					out := make([]float32, w.Rows()*tokens)
					var ws Workspace
					reportRates(b, strip*cols*tokens, "GMAC/s", func(i int) {
						r := i * strip % w.Rows()
						MatMulI16(out, w.Rows(), w, r, r+strip, x, 0, tokens, &ws)
					})
				})
			}
		}
	}
}
