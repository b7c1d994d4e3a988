package cuda

import (
	"fmt"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/cpu"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// Steps of few tokens, whose arithmetic is float32 and 16-bit integers, agree with
// the reference executor closely; those of many, in f16, as f16 lets them.
func TestAgainstReference(t *testing.T) {
	for _, tt := range []struct {
		model string
		kv    tensor.DType
		chunk int
		limit float64 // relative RMS error of the worst row
	}{
		{"llama-gqa", tensor.F32, 1, 2e-5},
		{"llama-gqa", tensor.F32, 5, 2e-5},
		{"llama-gqa", tensor.F32, 40, conformance},
		{"llama-gqa", tensor.F16, 1, 5e-3},
		{"llama-gqa", tensor.F16, 40, conformance},
	} {
		t.Run(fmt.Sprintf("%s/kv-%s/steps of %d", tt.model, tt.kv, tt.chunk), func(t *testing.T) {
			path := golden.Path(t, "testdata", "architectures", tt.model+".gguf")
			want := rowsOf(t, path, cpu.ExactName, backend.Options{KV: tensor.F32}, 40)
			got := rowsOf(t, path, Name, backend.Options{KV: tt.kv}, tt.chunk)
			worst := 0.0
			for i := range want {
				e := golden.RelativeRMS(got[i], want[i])
				if !(e <= worst) {
					worst = e
				}
			}
			t.Logf("worst row %.3g (limit %.3g)", worst, tt.limit)
			if !(worst <= tt.limit) {
				t.Errorf("worst row differs by %.3g (limit %.3g)", worst, tt.limit)
			}
		})
	}
}

// rowsOf computes the logits of 40 tokens in steps of a size.
func rowsOf(t *testing.T, path, name string, o backend.Options, chunk int) [][]float32 {
	t.Helper()
	p, exec := backendtest.Load(t, path, name, o)
	seq, err := exec.NewSequence(64)
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	var rows [][]float32
	for len(rows) < 40 {
		tokens := make([]int32, min(chunk, 40-len(rows)))
		for i := range tokens {
			tokens[i] = int32((len(rows) + i) * 37 % p.Vocab)
		}
		var l backend.Logits
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens, Want: backend.All}}, &l); err != nil {
			t.Fatal(err)
		}
		for i := range tokens {
			rows = append(rows, l.Row(i))
		}
	}
	return rows
}
