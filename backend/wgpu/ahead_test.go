//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"slices"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// TestAhead: commands recorded ahead give the logits that others give, are used while
// the steps stay alike, and go when they do not fit or their sequence ends.
func TestAhead(t *testing.T) {
	needAdapter(t)
	path := golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf")
	_, loaded := backendtest.Load(t, path, Name, backend.Options{KV: tensor.F16})
	e := loaded.(*executor)
	open := func() backend.Sequence {
		t.Helper()
		s, err := e.NewSequence(16)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	step := func(want backend.Want, tokens []int32, seqs ...backend.Sequence) []float32 {
		t.Helper()
		var batch []backend.Span
		for _, s := range seqs {
			batch = append(batch, backend.Span{Seq: s, Tokens: tokens, Want: want})
		}
		var l backend.Logits
		if err := e.Step(batch, &l); err != nil {
			t.Fatal(err)
		}
		return l.Data
	}
	tokens := []int32{5, 9, 700, 3, 44, 5}
	var want [][]float32 // by position; each sequence decodes for the first time
	for n := range tokens {
		s := open()
		for i := range n {
			step(backend.None, tokens[i:i+1], s)
		}
		want = append(want, step(backend.Last, tokens[n:n+1], s))
		if e.ahead.rec != nil {
			t.Fatal("something is recorded ahead after one step")
		}
		s.Close()
	}
	s := open()
	for n := range tokens {
		if got := step(backend.Last, tokens[n:n+1], s); !slices.Equal(got, want[n]) {
			t.Fatalf("logits at position %d differ from those without commands recorded ahead", n)
		}
		if ahead := e.ahead.rec != nil; ahead != (n > 0) {
			t.Fatalf("after %d steps: recorded ahead %v", n+1, ahead)
		}
	}
	// Another sequence, then both, then several tokens: none fits what was recorded.
	other := open()
	if got := step(backend.Last, tokens[:1], other); !slices.Equal(got, want[0]) {
		t.Error("the first logits of another sequence differ")
	}
	step(backend.Last, tokens[1:2], other)
	step(backend.Last, tokens[2:3], other)
	step(backend.Last, tokens[:1], s, other)
	step(backend.Last, tokens[:3], other)
	step(backend.Last, tokens[:1], s)
	step(backend.Last, tokens[:1], s)
	if e.ahead.rec == nil {
		t.Fatal("nothing is recorded ahead")
	}
	s.Close()
	if e.ahead.rec != nil {
		t.Error("commands of a closed sequence are kept")
	}
	step(backend.Last, tokens[:1], other)
}
