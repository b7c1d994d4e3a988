package engine_test

import (
	"context"
	"errors"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity/fault"
)

func TestBisect(t *testing.T) {
	m, err := engine.LoadModel(golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	tokens := m.TextPrompt("package main\n\nimport \"fmt\"\n\nfunc main() {\n\tfmt.Println(1 + 2)\n}\n")
	b, err := engine.Bisect(context.Background(), m, engine.Options{}, "cpu", tokens)
	if err != nil || b.First >= 0 {
		t.Errorf("sound backend: %v, %s", err, b.Reason)
	}
	spec, err := fault.Parse("cpu:rope-base@2")
	if err != nil {
		t.Fatal(err)
	}
	o := engine.Options{Gate: engine.GateOptions{FaultSpec: "rope-base@2", Fault: func(name string, d backend.Device) backend.Device {
		return fault.Wrap(d, spec[name]...)
	}}}
	b, err = engine.Bisect(context.Background(), m, o, "cpu", tokens)
	if err != nil || b.First < 0 || b.Values[b.First].Name != "blk.2.attn_q_rope" {
		t.Errorf("faulty backend: %v, %s", err, b.Reason)
	}
	if b.Candidate != "cpu" || b.Reference != engine.ReferenceBackend {
		t.Errorf("compared %s with %s", b.Candidate, b.Reference)
	}
	if _, err := engine.Bisect(context.Background(), m, o, "none", tokens); !errors.Is(err, engine.ErrInput) {
		t.Errorf("unknown backend: %v", err)
	}
	if _, err := engine.Bisect(context.Background(), m, o, "cpu", nil); !errors.Is(err, engine.ErrInput) {
		t.Errorf("no tokens: %v", err)
	}
}
