package cuda

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/cpu"
	"github.com/apr-engine/apr/driver/cuda/emutest"
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

// gateStep is the tokens in a step of the probe, so that its prompt takes several.
const gateStep = 32

func openSubject(t *testing.T, name, path string, prompt []int32) subject {
	t.Helper()
	m, err := engine.LoadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if prompt == nil {
		rng := rand.New(rand.NewPCG(3, 1))
		for range promptTokens() {
			prompt = append(prompt, int32(rng.IntN(m.Program.Vocab)))
		}
	}
	_, exec := backendtest.Load(t, path, cpu.ExactName, backend.Options{KV: tensor.F32})
	return subject{name, m, prompt, gateSource(cpu.ExactName, exec)}
}

// promptTokens is the length of prompts: shorter where kernels are emulated.
func promptTokens() int {
	if long() {
		return 96
	}
	return 40
}

func gateSource(name string, exec backend.Executor) parity.Source {
	return parity.Source{Backend: name, Open: func() (backend.Executor, error) { return exec, nil }}
}

func openBundled(t *testing.T, name string) subject {
	t.Helper()
	for _, p := range golden.Prompts(t, golden.Path(t, "testdata", "reference", name+".safetensors")) {
		if len(p.IDs) == 200 {
			return openSubject(t, name, golden.Path(t, "models", name+".gguf"), p.IDs[:promptTokens()])
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

// judge probes the backend with faults.
func (s subject) judge(t *testing.T, faults ...fault.Fault) (parity.Verdict, error) {
	t.Helper()
	exec, err := fault.Wrap(probe(t), faults...).Load(s.model.Program, s.model.File, backend.Options{KV: tensor.F16, MaxBatch: gateStep})
	if err != nil {
		return parity.Verdict{}, err
	}
	defer exec.Close()
	p := parity.Standard()
	if emutest.Emulated() {
		p.Probe.Deadline = time.Hour // the emulation is no slower device, it is none
	}
	if len(faults) > 0 && faults[0].Name == "hang" {
		p.Probe.Deadline, p.Probe.DeadlineFactor = 2*time.Second, 0
	}
	c := parity.Case{Tokens: s.prompt, MaxBatch: gateStep, Vocab: s.model.Program.Vocab, Context: s.model.Program.Context}
	return parity.Probe(context.Background(), s.ref, gateSource(Name, exec), c, p), nil
}

// The gate validates the sound backend, far inside its limits: cosine 0.999 is asked
// of quantised weights.
func TestGateValidates(t *testing.T) {
	names := []string{"tiny-coder-4m-q4_k_m"}
	if long() {
		names = append(names, "tiny-coder-28m-q4_k_m")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			v, err := openBundled(t, name).judge(t)
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

// sampled are the faults that the emulation tries: one of wrong positions, which
// single tokens alone have, and one of the program.
var sampled = map[string]bool{"rope-decode-late": true, "operation-dropped": true}

// Every fault of the catalogue is rejected on this backend, on the first model that
// it can exist in. What begins late may pass a probe; that the engine then stops is
// tested with the engine.
func TestFaultsAreRejected(t *testing.T) {
	subjects := []subject{openSynthetic(t, synth.Options{Preset: "tiny-llama-3.1-8b", Quant: "q4_k_m"})}
	if long() {
		subjects = append([]subject{openBundled(t, "tiny-coder-4m-q4_k_m")}, append(subjects,
			openSynthetic(t, synth.Options{Preset: "tiny-qwen3-0.6b", Quant: "q8_0", OutlierChannels: 2}),
			openSynthetic(t, synth.Options{Preset: "tiny-gemma3-1b", Quant: "q4_1"}))...)
	}
	for _, s := range subjects {
		v, err := s.judge(t)
		if err != nil || !v.Passed() {
			t.Fatalf("%s: sound backend: %v, %v", s.name, v.Err(), err)
		}
	}
	for _, f := range fault.All() {
		if !long() && !sampled[f.Name] {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			for _, s := range subjects {
				v, err := s.judge(t, f)
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
					t.Logf("%s: passes a probe of %d tokens", s.name, len(s.prompt))
				case v.Passed():
					t.Errorf("%s: served", s.name)
				}
				return
			}
			t.Error("the fault applies to no model")
		})
	}
}
