package kernel

import (
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// Plain Go versions that expand their operands allocate nothing once they have run, however
// much longer the next block of keys is.
func TestScratchIsKept(t *testing.T) {
	const dim, queries = 128, 6
	var (
		weight, scores = make([]float32, queries*attnBlock), make([]float32, queries*attnBlock)
		q, acc         = make([]float32, queries*dim), make([]float32, queries*dim)
		rows16         = make([]uint16, attnBlock*dim)
		rows8          = make([]byte, attnBlock*CacheRowBytes(dim))
		x, out         = make([]float32, 2*matmulK), make([]float32, tileRows)
		rowBytes       = len(x) / tensor.Q4_K.BlockLen() * tensor.Q4_K.BlockBytes()
		w              = make([]byte, tileRows*rowBytes)
		fused          = rowsGeneric(tensor.Q4_K)
	)
	for _, tt := range []struct {
		name string
		run  func(n int)
	}{
		{"values in F16", func(n int) { mixF16Generic(acc, weight, rows16, n, queries, dim, nil) }},
		{"values in Q8_0", func(n int) { mixQ8Generic(acc, weight, rows8, n, queries, dim, nil) }},
		{"scores in F16", func(n int) { scoresF16Generic(scores, rows16, n, q, queries, dim, nil) }},
		{"scores in Q8_0", func(n int) { scoresQ8Generic(scores, rows8, n, q, queries, dim, nil) }},
		{"rows of Q4_K", func(n int) { fused(out, x, w, rowBytes) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := 1
			if got := testing.AllocsPerRun(attnBlock-1, func() { tt.run(n); n++ }); got != 0 {
				t.Errorf("%v allocations a call", got)
			}
		})
	}
}
