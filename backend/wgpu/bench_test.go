//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"os"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// BenchmarkStep times steps of some sizes at some depths. APR_WGPU_BENCH names
// another model than the smaller bundled one.
func BenchmarkStep(b *testing.B) {
	needAdapter(b)
	path := os.Getenv("APR_WGPU_BENCH")
	if path == "" {
		path = golden.Path(b, "models", "tiny-coder-4m-q4_k_m.gguf")
	}
	_, exec := backendtest.Load(b, path, Name, backend.Options{KV: tensor.F16})
	tokens := make([]int32, 512)
	for i := range tokens {
		tokens[i] = int32(i)
	}
	for _, tt := range []struct{ depth, n int }{{0, 1}, {0, 4}, {0, 64}, {0, 512}, {512, 1}, {8192, 1}} {
		b.Run(fmt.Sprintf("depth=%d/tokens=%d", tt.depth, tt.n), func(b *testing.B) {
			seq, err := exec.NewSequence(tt.depth + tt.n)
			if err != nil {
				b.Skip(err)
			}
			defer seq.Close()
			var l backend.Logits
			step := func(n int, want backend.Want) {
				if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[:n], Want: want}}, &l); err != nil {
					b.Fatal(err)
				}
			}
			for seq.Len() < tt.depth {
				step(min(512, tt.depth-seq.Len()), backend.None)
			}
			step(tt.n, backend.Last)
			b.ResetTimer()
			for range b.N {
				if err := seq.Truncate(tt.depth); err != nil {
					b.Fatal(err)
				}
				step(tt.n, backend.Last)
			}
			b.ReportMetric(float64(tt.n*b.N)/b.Elapsed().Seconds(), "tok/s")
		})
	}
}
