//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// What Plan says before a step is what Variants says after it, and steps of
// different kinds have different names.
func TestPlanIsWhatRuns(t *testing.T) {
	needAdapter(t)
	_, exec := backendtest.Load(t, golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf"), Name, backend.Options{KV: tensor.F16})
	seq, err := exec.NewSequence(256)
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	tokens := make([]int32, 100)
	seen := map[string]bool{}
	var all []string
	for _, tt := range []struct {
		n    int
		want backend.Want
		has  string
	}{
		{1, backend.Last, "attention/kv-F16/decode"},
		{5, backend.Last, "attention/kv-F16/few"},
		{20, backend.None, "attention/kv-F16/batch"},
		{100, backend.Last, "attention/kv-F16/batch/blocks"},
		{1, backend.Last, "attention/kv-F16/decode/blocks"},
	} {
		batch := []backend.Span{{Seq: seq, Tokens: tokens[:tt.n], Want: tt.want}}
		plan := exec.Plan(batch)
		if !slices.Contains(plan, tt.has) {
			t.Errorf("%d tokens: plan %v has no %s", tt.n, plan, tt.has)
		}
		if key := strings.Join(plan, " "); seen[key] {
			t.Errorf("%d tokens: the plan is that of another step", tt.n)
		} else {
			seen[key] = true
		}
		all = append(all, plan...)
		if err := exec.Step(batch, &backend.Logits{}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(all)
		all = slices.Compact(all)
		if got := exec.Variants(); !slices.Equal(got, all) {
			t.Errorf("%d tokens: variants %v, plans so far %v", tt.n, got, all)
		}
	}
	nodes := 0
	e := exec.(*executor)
	for i := range e.nodes {
		if e.nodes[i].run[one] != nil {
			nodes++
		}
	}
	layers := len(e.program.Caches)
	t.Logf("%d layers, %d kernels a token", layers, nodes)
	if most := 5*layers + 4; nodes > most {
		t.Errorf("%d kernels a token, want at most %d", nodes, most)
	}
}
