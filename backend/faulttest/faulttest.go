// Package faulttest judges a backend as the parity gate does before it lets it serve:
// sound, and with every fault of the catalogue injected. GPU backends' tests call it.
package faulttest

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/golden"
	_ "github.com/apr-engine/apr/model/all" // the models of subjects
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/synth"
	"github.com/apr-engine/apr/tensor"
)

// reference is the backend that others are compared with.
const reference = "cpu-exact"

// MaxBatch is the tokens in a step, so that prompts take several.
const MaxBatch = 32

// Gate is a backend and how it is judged.
type Gate struct {
	Name   string         // in the registry
	Device backend.Device // sound
	// Deadline is for a step; longer than the standard one where a CPU plays the
	// device. HangDeadline is the same for the fault that hangs.
	Deadline, HangDeadline time.Duration
	Prompt                 int // tokens that subjects are judged on, at most 200
	// Decode, if not 0, is how many single tokens follow the prompt, instead of the
	// policy's many, where kernels are emulated.
	Decode int
}

// Subject is a model that a backend is judged on.
type Subject struct {
	Name   string
	model  *engine.Model
	prompt []int32
	ref    parity.Source
}

// Bundled is a model of the repository with a prompt of its reference results.
func (g Gate) Bundled(t *testing.T, name string) Subject {
	t.Helper()
	for _, p := range golden.Prompts(t, golden.Path(t, "testdata", "reference", name+".safetensors")) {
		if len(p.IDs) == 200 {
			return g.open(t, name, golden.Path(t, "models", name+".gguf"), p.IDs[:g.Prompt])
		}
	}
	t.Fatalf("%s: no prompt of 200 tokens", name)
	return Subject{}
}

// Synthetic is a random model with a random prompt.
func (g Gate) Synthetic(t *testing.T, o synth.Options) Subject {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := synth.Write(path, o); err != nil {
		t.Fatal(err)
	}
	return g.open(t, o.Preset, path, nil)
}

func (g Gate) open(t *testing.T, name, path string, prompt []int32) Subject {
	t.Helper()
	m, err := engine.LoadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if prompt == nil {
		rng := rand.New(rand.NewPCG(3, 1))
		for range g.Prompt {
			prompt = append(prompt, int32(rng.IntN(m.Program.Vocab)))
		}
	}
	b, err := backend.Find(reference)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := b.Probe()
	if err != nil {
		t.Fatal(err)
	}
	exec, err := devices[0].Load(m.Program, m.File, backend.Options{KV: tensor.F32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Close() })
	return Subject{name, m, prompt, source(reference, exec)}
}

func source(name string, exec backend.Executor) parity.Source {
	return parity.Source{Backend: name, Open: func() (backend.Executor, error) { return exec, nil }}
}

// Judge probes the backend with faults, as the gate does at first, before a token that they spoil.
func (g Gate) Judge(s Subject, faults ...fault.Fault) (parity.Verdict, error) {
	exec, err := fault.Wrap(g.Device, faults...).Load(s.model.Program, s.model.File, backend.Options{KV: tensor.F16, MaxBatch: MaxBatch})
	if err != nil {
		return parity.Verdict{}, err
	}
	defer exec.Close()
	p := g.policy()
	if len(faults) > 0 && faults[0].Name == "hang" {
		p.Probe.Deadline, p.Probe.DeadlineFactor = g.HangDeadline, 0
	}
	c := parity.Case{Tokens: s.prompt, MaxBatch: MaxBatch, Vocab: s.model.Program.Vocab, Context: s.model.Program.Context}
	return parity.Probe(context.Background(), s.ref, source(g.Name, exec), c, p), nil
}

func (g Gate) policy() parity.Policy {
	p := parity.Standard()
	p.Probe.Deadline = g.Deadline
	if g.Decode > 0 {
		p.Probe.DecodeSteps, p.Probe.MinPositions = g.Decode, 0
	}
	return p
}

// Validates wants the sound backend to pass, far inside the gate's limits: cosine 0.999
// is asked of quantised weights, 0.9999 here.
func (g Gate) Validates(t *testing.T, s Subject) {
	t.Helper()
	v, err := g.Judge(s)
	if err != nil {
		t.Fatal(err)
	}
	worst, _ := v.Worst()
	if !v.Passed() || !(worst.Cosine >= 0.9999) {
		t.Errorf("%s: verdict %v, worst cosine %v, want validated and at least 0.9999", s.Name, v.Err(), worst.Cosine)
	}
	t.Logf("%s: worst cosine %.7f", s.Name, worst.Cosine)
}

// Rejects wants every fault to be rejected on the first subject that it can exist in:
// by the first comparison or, what begins late, by the reference that follows.
func (g Gate) Rejects(t *testing.T, faults []fault.Fault, subjects ...Subject) {
	for _, s := range subjects {
		v, err := g.Judge(s)
		if err != nil || !v.Passed() {
			t.Fatalf("%s: sound backend: %v, %v", s.Name, v.Err(), err)
		}
	}
	for _, f := range faults {
		t.Run(f.Name, func(t *testing.T) { g.rejects(t, f, subjects) })
	}
}

func (g Gate) rejects(t *testing.T, f fault.Fault, subjects []Subject) {
	for _, s := range subjects {
		v, err := g.Judge(s, f)
		if errors.Is(err, fault.ErrNotApplicable) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case v.Status == parity.NotMeasured:
			t.Errorf("%s: not measured: %v", s.Name, v.Err())
		case v.Passed() && f.Late:
			g.stopped(t, s, f)
		case v.Passed():
			t.Errorf("%s: served", s.Name)
		default:
			t.Logf("%s: %s", s.Name, v.Reason)
		}
		return
	}
	t.Error("the fault applies to no model")
}

// stopped lets the engine generate past position 500 with a late fault, the
// reference following.
func (g Gate) stopped(t *testing.T, s Subject, f fault.Fault) {
	t.Helper()
	const prompt, generated = 470, 96
	o := engine.Options{Backend: g.Name, Device: g.Device.Name(), MaxBatch: MaxBatch, Gate: engine.GateOptions{
		Policy: g.policy(), Verify: engine.VerifyShadow, FaultSpec: f.Name,
		Fault: func(name string, d backend.Device) backend.Device {
			if name != g.Name {
				return d
			}
			return fault.Wrap(d, f)
		},
	}}
	e, err := engine.Open(s.model, o)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	session, err := e.NewSession(prompt + generated)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	var tokens []int32
	for len(tokens) < prompt {
		tokens = append(tokens, s.prompt...)
	}
	_, err = session.Generate(context.Background(), engine.Request{Prompt: tokens[:prompt], MaxTokens: generated, IgnoreEOS: true})
	if !errors.Is(err, engine.ErrRejected) {
		t.Errorf("%s: served, error %v", s.Name, err)
		return
	}
	t.Logf("%s: passes a probe of %d tokens; then: %v", s.Name, len(s.prompt), err)
}
