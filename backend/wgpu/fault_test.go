//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/cpu"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/synth"
	"github.com/apr-engine/apr/tensor"
)

// subject is a model that the gate judges this backend on.
type subject struct {
	name   string
	model  *engine.Model
	prompt []int32
	ref    parity.Source
}

// stepTokens is the tokens in a step, so that prompts take several.
const stepTokens = 32

func openSubject(t *testing.T, name, path string, prompt []int32) subject {
	t.Helper()
	m, err := engine.LoadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if prompt == nil {
		rng := rand.New(rand.NewPCG(3, 1))
		for range 96 {
			prompt = append(prompt, int32(rng.IntN(m.Program.Vocab)))
		}
	}
	b, err := backend.Find(cpu.ExactName)
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
	return subject{name, m, prompt, source(cpu.ExactName, exec)}
}

func source(name string, exec backend.Executor) parity.Source {
	return parity.Source{Backend: name, Open: func() (backend.Executor, error) { return exec, nil }}
}

func openBundled(t *testing.T, name string) subject {
	t.Helper()
	prompts := golden.Prompts(t, golden.Path(t, "testdata", "reference", name+".safetensors"))
	for _, p := range prompts {
		if len(p.IDs) == 200 {
			return openSubject(t, name, golden.Path(t, "models", name+".gguf"), p.IDs[:96])
		}
	}
	t.Fatal("no prompt of 200 tokens")
	return subject{}
}

func openSynthetic(t *testing.T, o synth.Options) subject {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := synth.Write(path, o); err != nil {
		t.Fatal(err)
	}
	return openSubject(t, o.Preset, path, nil)
}

func (s subject) parityCase() parity.Case {
	return parity.Case{Tokens: s.prompt, MaxBatch: stepTokens, Vocab: s.model.Program.Vocab, Context: s.model.Program.Context}
}

// judge probes the backend with faults.
func (s subject) judge(d backend.Device, faults ...fault.Fault) (parity.Verdict, error) {
	exec, err := fault.Wrap(d, faults...).Load(s.model.Program, s.model.File, backend.Options{KV: tensor.F16, MaxBatch: stepTokens})
	if err != nil {
		return parity.Verdict{}, err
	}
	defer exec.Close()
	p := patient()
	if len(faults) > 0 && faults[0].Name == "hang" {
		p.Probe.Deadline, p.Probe.DeadlineFactor = 300*time.Millisecond, 0
	}
	return parity.Probe(context.Background(), s.ref, source(Name, exec), s.parityCase(), p), nil
}

// patient is the standard policy for a CPU that plays the device, compiles each
// kernel when it first runs, and may have other work.
func patient() parity.Policy {
	p := parity.Standard()
	p.Probe.Deadline = 10 * time.Minute
	return p
}

// The gate validates the sound backend on the bundled models, far inside its
// limits: cosine 0.999 is asked of quantised weights.
func TestGateValidates(t *testing.T) {
	d := needAdapter(t)
	for _, name := range []string{"tiny-coder-4m-q4_k_m", "tiny-coder-28m-q4_k_m"} {
		if testing.Short() && name == "tiny-coder-28m-q4_k_m" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			v, err := openBundled(t, name).judge(d)
			if err != nil {
				t.Fatal(err)
			}
			worst, _ := v.Worst()
			if !v.Passed() || !(worst.Cosine >= 0.9999) {
				t.Errorf("verdict %v, worst cosine %v, want validated and at least 0.9999", v.Err(), worst.Cosine)
			}
			t.Logf("worst cosine %.7f", worst.Cosine)
		})
	}
}

// Every fault of the catalogue is rejected on this backend, on the first model
// that it can exist in: before the first token, or, what begins late, by the
// reference that follows.
func TestFaultsAreRejected(t *testing.T) {
	d := needAdapter(t)
	if testing.Short() {
		t.Skip("takes a minute: runs without -short, in CI and in scripts/gpu/check")
	}
	subjects := []subject{
		openBundled(t, "tiny-coder-4m-q4_k_m"),
		openSynthetic(t, synth.Options{Preset: "tiny-llama-3.1-8b", Quant: "q4_k_m"}),
		openSynthetic(t, synth.Options{Preset: "tiny-qwen3-0.6b", Quant: "q8_0", OutlierChannels: 2}),
		openSynthetic(t, synth.Options{Preset: "tiny-gemma3-1b", Quant: "q4_1"}),
	}
	for _, s := range subjects {
		v, err := s.judge(d)
		if err != nil || !v.Passed() {
			t.Fatalf("%s: sound backend: %v, %v", s.name, v.Err(), err)
		}
	}
	for _, f := range fault.All() {
		t.Run(f.Name, func(t *testing.T) {
			for _, s := range subjects {
				v, err := s.judge(d, f)
				if errors.Is(err, fault.ErrNotApplicable) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case v.Status == parity.NotMeasured:
					t.Errorf("%s: not measured: %v", s.name, v.Err())
				case v.Passed() && f.Late:
					s.stopped(t, d, f)
				case v.Passed():
					t.Errorf("%s: served", s.name)
				}
				return
			}
			t.Error("the fault applies to no model")
		})
	}
}

// stopped lets the engine generate past position 500 with a late fault, the
// reference following.
func (s subject) stopped(t *testing.T, d *device, f fault.Fault) {
	t.Helper()
	const prompt, generated = 470, 96
	o := engine.Options{Backend: Name, Device: d.Name(), MaxBatch: stepTokens, Gate: engine.GateOptions{
		Policy: patient(), Verify: engine.VerifyShadow, FaultSpec: f.Name,
		Fault: func(name string, d backend.Device) backend.Device {
			if name != Name {
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
		t.Errorf("%s: served, error %v", s.name, err)
	}
}
