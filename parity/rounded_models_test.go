package parity_test

import (
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/tensor"
)

// The fast path with a cache of Q8_0 is sound on real models and random tokens, beside what
// that cache does to the reference. The log has the figures of docs/executors.md.
func TestRoundedModels(t *testing.T) {
	for name, path := range map[string]func(t testing.TB, elem ...string) string{
		"tiny-coder-4m-q4_k_m": golden.Path, "tiny-coder-28m-q4_k_m": golden.Path, "student-q8_0": golden.Shared,
	} {
		t.Run(name, func(t *testing.T) {
			m := openModel(t, path(t, "models", name+".gguf"))
			load := func(backendName string, kv tensor.DType) backend.Executor {
				exec, err := findDevice(t, backendName).Load(m.program, m.weights, backend.Options{KV: kv, Threads: 2, MaxBatch: 64})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { exec.Close() })
				return exec
			}
			judge := func(kv tensor.DType, reference backend.Executor) parity.Verdict {
				c := parity.Case{Tokens: randomPrompt(m.program, 121), MaxBatch: 64, Vocab: m.program.Vocab, Context: m.program.Context}
				v := parity.Probe(t.Context(), source("cpu-exact", reference), source("cpu", load("cpu", kv)), c, parity.Standard())
				if !v.Passed() {
					t.Errorf("%s: %v %s", kv, v.Status, v.Reason)
				}
				return v
			}
			half := judge(tensor.F16, load("cpu-exact", tensor.F32))
			coarse := judge(tensor.Q8_0, parity.Rounded(load("cpu-exact", tensor.Q8_0), load("cpu-exact", tensor.F32)))
			if coarse.CacheRounding == nil || coarse.CacheRounding.MaxP99 < worstP99(half) {
				t.Fatalf("the cache is said to round by %+v, less than F16 and the fast path together: %g", coarse.CacheRounding, worstP99(half))
			}
			t.Logf("99th percentiles: Q8_0 alone %.3f, cpu beside it %.3f, cpu with F16 %.4f; ten best moved by %.3f of their spread",
				coarse.CacheRounding.MaxP99, worstP99(coarse), worstP99(half), coarse.CacheRounding.NearTie)
		})
	}
}

func worstP99(v parity.Verdict) (worst float64) {
	for _, p := range v.Positions {
		worst = max(worst, p.P99)
	}
	return worst
}
