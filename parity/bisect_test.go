package parity_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/tensor"
)

func bisect(t *testing.T, m testModel, faults ...fault.Fault) parity.Bisection {
	t.Helper()
	b, err := parity.Bisect(context.Background(), m.traced(t, "cpu-exact", tensor.F32), m.traced(t, "cpu", tensor.F16, faults...),
		parity.BisectCase{Program: m.program, Tokens: randomPrompt(m.program, 48), Decode: 8, MaxBatch: 24})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A fault in a known operation of a known layer is found there: at the value of
// the operation, or at the first that reads what it spoilt.
func TestBisectNamesTheOperation(t *testing.T) {
	m := bundledModel(t, "4m")
	qwen3 := synthModel(t, "tiny-qwen3-0.6b", 2)
	for _, tt := range []struct {
		fault string
		model testModel
		want  string
		early int // the first position that may differ
	}{
		{"nibble-order@2", m, "blk.2.attn_q", 0},
		{"scale-high-bits@1", m, "blk.1.attn_q", 0},
		{"q6k-high-bits@2", m, "blk.2.attn_v", 0},
		{"matrix-transposed@3", m, "blk.3.attn_out", 0},
		{"stale-row-block@2", m, "blk.2.ffn_out", 0},
		{"vocabulary-tile", m, "output", 0},
		{"vocabulary-tail", m, "output", 0},
		{"qkv-bias-missing@1", m, "blk.1.attn_q", 0},
		{"qk-norm-missing@1", qwen3, "blk.1.attn_q_normed", 0},
		{"batch-qk-norm-missing@0", qwen3, "blk.0.attn_q_normed", 0},
		{"rope-pairing@2", m, "blk.2.attn_q_rope", 1},
		{"rope-first-head-only@1", m, "blk.1.attn_q_rope", 1},
		{"rope-base@3", m, "blk.3.attn_q_rope", 1},
		{"rope-query-late@1", m, "blk.1.attn_q_rope", 0},
		{"rope-decode-late@1", m, "blk.1.attn_q_rope", 40},
		{"prefill-positions-restart@0", m, "blk.0.attn_q_rope", 24},
		{"gqa-head-map@2", m, "blk.2.attn", 0},
		{"softmax-scale-missing@3", m, "blk.3.attn", 1},
		{"mask-future@1", m, "blk.1.attn", 0},
		{"mask-self@1", m, "blk.1.attn", 1},
		{"kv-slot-late@2", m, "blk.2.attn", 0},
		{"cache-zero-rows@0", m, "blk.0.attn", 0},
		{"kv-drift@3", m, "blk.3.attn", 1},
		{"rms-epsilon@0", m, "blk.0.attn_norm", 0},
		{"residual-twice@1", m, "blk.1.l_out", 0},
		{"operation-dropped", m, "blk.3.l_out", 0},
		{"replay-operation-dropped", m, "blk.3.l_out", 40},
		{"stale-activations@2", m, "blk.2.attn_q", 0},
		{"silu-quick-gelu@1", m, "blk.1.ffn_act", 0},
		{"silu-steep@2", m, "blk.2.ffn_act", 0},
		{"gelu-for-silu@0", m, "blk.0.ffn_act", 0},
		{"gate-up-exchanged@3", m, "blk.3.ffn_act", 0},
		{"half-overflow@1", m, "blk.1.ffn_up", 0},
		{"int8-coarse-scale@1", qwen3, "blk.1.attn_norm", 0},
		{"one-nan", m, "logits (returned)", 0},
		{"previous-logits", m, "logits (returned)", 0},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			f, err := fault.Lookup(tt.fault)
			if err != nil {
				t.Fatal(err)
			}
			b := bisect(t, tt.model, f)
			if b.First < 0 {
				t.Fatalf("nothing found: %s", b.Reason)
			}
			got := b.Values[b.First]
			if got.Name != tt.want {
				t.Errorf("found %s, want %s (%s)", got.Name, tt.want, b.Reason)
			}
			if got.Position < tt.early {
				t.Errorf("at position %d, want %d or later", got.Position, tt.early)
			}
			if !strings.Contains(b.Reason, tt.want) || strings.Contains(b.Reason, "\n") {
				t.Errorf("reason %q", b.Reason)
			}
		})
	}
}

// Sound executors differ nowhere by more than the growth allows.
func TestBisectFindsNothingInSoundExecutors(t *testing.T) {
	for name, m := range map[string]testModel{
		"4m": bundledModel(t, "4m"), "28m": bundledModel(t, "28m"),
		"qwen2 with outliers": synthModel(t, "tiny-qwen2.5-1.5b", 2),
		"llama with outliers": synthModel(t, "tiny-llama-3.1-8b", 2),
		"qwen3":               synthModel(t, "tiny-qwen3-0.6b", 0),
		"gemma3":              synthModel(t, "tiny-gemma3-1b", 2),
	} {
		t.Run(name, func(t *testing.T) {
			b := bisect(t, m)
			if b.First >= 0 {
				t.Errorf("found %s", b.Reason)
			}
			used := 0.0
			for _, v := range b.Values {
				used = max(used, v.Error/(b.Growth.Factor*max(b.Growth.Floor, v.Input)))
			}
			t.Logf("%.0f %% of the allowed error used", 100*used)
			if used == 0 {
				t.Error("no value differs at all: nothing was compared")
			}
		})
	}
}

// A value that a backend does not trace is left out, and its consumers are not
// blamed for what it passes on.
func TestBisectWithUntracedValues(t *testing.T) {
	m := bundledModel(t, "4m")
	f, err := fault.Lookup("nibble-order@2")
	if err != nil {
		t.Fatal(err)
	}
	full := m.traced(t, "cpu", tensor.F16, f)
	fused := func(trace func(graph.Value, []float32)) (backend.Executor, error) {
		return full(func(v graph.Value, rows []float32) {
			if !strings.Contains(v.Name, "attn_q") && !strings.Contains(v.Name, "attn_k") && !strings.Contains(v.Name, "attn_v") {
				trace(v, rows)
			}
		})
	}
	b, err := parity.Bisect(context.Background(), m.traced(t, "cpu-exact", tensor.F32), fused,
		parity.BisectCase{Program: m.program, Tokens: randomPrompt(m.program, 20), MaxBatch: 64})
	if err != nil {
		t.Fatal(err)
	}
	if b.First < 0 || b.Values[b.First].Name != "blk.2.attn" {
		t.Errorf("found %q, want blk.2.attn, the first traced consumer", b.Reason)
	}
	for _, v := range b.Values {
		if strings.HasPrefix(v.Name, "blk.2.attn_q") && v.Rows[0] >= 0 {
			t.Errorf("%s has an error of %v and was not traced", v.Name, v.Rows[0])
		}
		if math.IsNaN(v.Error) || math.IsNaN(v.Growth) {
			t.Errorf("%s: error %v, growth %v", v.Name, v.Error, v.Growth)
		}
	}
}

func TestBisectFailures(t *testing.T) {
	m := bundledModel(t, "4m")
	sound := m.traced(t, "cpu-exact", tensor.F32)
	ok := parity.BisectCase{Program: m.program, Tokens: randomPrompt(m.program, 8), Decode: 6, MaxBatch: 64, Deadline: 5 * time.Second}
	bad := func(change func(*parity.BisectCase)) parity.BisectCase { c := ok; change(&c); return c }
	lookup := func(name string) fault.Fault {
		f, err := fault.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, tt := range []struct {
		name      string
		candidate parity.TraceLoader
		c         parity.BisectCase
	}{
		{"no tokens", sound, bad(func(c *parity.BisectCase) { c.Tokens, c.Decode = nil, 0 })},
		{"more decoded than given", sound, bad(func(c *parity.BisectCase) { c.Decode = 9 })},
		{"no batch", sound, bad(func(c *parity.BisectCase) { c.MaxBatch = 0 })},
		{"load fails", m.traced(t, "cpu", tensor.F16, lookup("qk-norm-missing")), ok},
		{"step fails", m.traced(t, "cpu", tensor.F16, lookup("device-lost")), ok},
		{"step hangs", m.traced(t, "cpu", tensor.F16, lookup("hang")), ok},
		{"step panics", m.traced(t, "cpu", tensor.F16, lookup("panic")), ok},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := parity.Bisect(context.Background(), sound, tt.candidate, tt.c)
			if !errors.Is(err, parity.ErrNotMeasured) {
				t.Errorf("error %v, want %v", err, parity.ErrNotMeasured)
			}
			if b.First >= 0 {
				t.Errorf("names %d although nothing was measured", b.First)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := parity.Bisect(ctx, sound, sound, ok); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v after cancellation", err)
	}
}
