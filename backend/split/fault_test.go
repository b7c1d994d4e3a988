package split_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/split"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/synth"
	"github.com/apr-engine/apr/tensor"
)

// subject is a model that the gate judges pairs on.
type subject struct {
	model  *engine.Model
	prompt []int32
	ref    parity.Source
}

func openSubject(t *testing.T, path string, prompt int) subject {
	t.Helper()
	m, err := engine.LoadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	_, exec := backendtest.Load(t, path, "cpu-exact", backend.Options{KV: tensor.F32})
	return subject{m, someTokens(prompt), source("cpu-exact", exec)}
}

func synthetic(t *testing.T, preset, quant string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := synth.Write(path, synth.Options{Preset: preset, Quant: quant}); err != nil {
		t.Fatal(err)
	}
	return path
}

func source(name string, exec backend.Executor) parity.Source {
	return parity.Source{Backend: name, Open: func() (backend.Executor, error) { return exec, nil }}
}

// gateStep is the tokens in a step of the probe, so that its prompt takes several.
const gateStep = 32

// judge probes a pair whose second half has faults.
func (s subject) judge(t *testing.T, second string, layers int, faults ...fault.Fault) (parity.Verdict, error) {
	t.Helper()
	host, err := first("cpu")
	if err != nil {
		t.Fatal(err)
	}
	gpu, err := first(second)
	if err != nil {
		t.Fatal(err)
	}
	exec, err := split.New(host, fault.Wrap(gpu, faults...), layers).Load(s.model.Program, s.model.File, backend.Options{KV: tensor.F16, MaxBatch: gateStep})
	if err != nil {
		return parity.Verdict{}, err
	}
	defer exec.Close()
	p := parity.Standard()
	if second != "cpu" {
		p.Probe.Deadline = time.Hour // a CPU that plays a device is no slow device
	}
	if len(faults) > 0 && faults[0].Name == "hang" {
		p.Probe.Deadline, p.Probe.DeadlineFactor = 2*time.Second, 0
	}
	c := parity.Case{Tokens: s.prompt, MaxBatch: gateStep, Vocab: s.model.Program.Vocab, Context: s.model.Program.Context}
	return parity.Probe(context.Background(), s.ref, source("cuda", exec), c, p), nil
}

// faint are faults that hardly change the logits when only last layers have them: the
// residual stream is large there, so what is added to its mean square has no weight,
// and the last layer of a random model attends nearly evenly. In whole models both are
// rejected (backend/cuda, backend/wgpu, parity/fault).
var faint = map[string]bool{"rms-epsilon": true, "rope-scaling-ignored": true}

// Every fault of the catalogue in the second half alone is rejected, in the first
// model whose last layers have what it spoils; the sound pair passes.
func TestFaultsAreRejected(t *testing.T) {
	subjects := []subject{
		openSubject(t, golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf"), 96),
		openSubject(t, synthetic(t, "tiny-llama-3.1-8b", "q4_k_m"), 96),
		openSubject(t, synthetic(t, "tiny-qwen3-0.6b", "q8_0"), 96),
		openSubject(t, synthetic(t, "tiny-gemma3-1b", "q4_1"), 96),
	}
	half := func(s subject) int { return s.model.Program.Layers() / 2 }
	for _, s := range subjects {
		if v, err := s.judge(t, "cpu", half(s)); err != nil || !v.Passed() {
			t.Fatalf("%s: the sound pair: %v, %v", s.model.Path, v.Err(), err)
		}
	}
	for _, f := range fault.All() {
		t.Run(f.Name, func(t *testing.T) {
			for _, s := range subjects {
				v, err := s.judge(t, "cpu", half(s), f)
				if errors.Is(err, fault.ErrNotApplicable) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case v.Status == parity.NotMeasured:
					t.Errorf("%s: not measured: %v", s.model.Path, v.Err())
				case v.Passed() && f.Late:
					t.Logf("passes a probe of %d tokens", len(s.prompt))
				case v.Passed():
					w, _ := v.Worst()
					if faint[f.Name] && w.Cosine >= 0.9999 {
						t.Logf("%s: no effect in its last layers, cosine %.6f", s.model.Path, w.Cosine)
						return
					}
					t.Errorf("%s: served with cosine %.6f", s.model.Path, w.Cosine)
				}
				return
			}
			t.Log("the last layers of no model have what it spoils")
		})
	}
}

// The same on the GPU backends with some of the faults: positions that single tokens
// have wrong, an operation left out, tokens that change places.
func TestFaultsOfGPUs(t *testing.T) {
	names := []string{"rope-decode-late", "operation-dropped", "batch-rows-swapped"}
	if emutest.Emulated() && os.Getenv("APR_LONG_TESTS") == "" {
		names = names[1:]
	}
	for _, gpu := range gpus {
		t.Run(gpu.name, func(t *testing.T) {
			need(t, gpu.name)
			s := openSubject(t, synthetic(t, "tiny-llama-3.1-8b", "q4_k_m"), 40)
			if v, err := s.judge(t, gpu.name, 1); err != nil || !v.Passed() {
				t.Fatalf("the sound pair: %v, %v", v.Err(), err)
			}
			for _, name := range names {
				f, err := fault.Lookup(name)
				if err != nil {
					t.Fatal(err)
				}
				v, err := s.judge(t, gpu.name, 1, f)
				if err != nil || v.Status != parity.Mismatch {
					t.Errorf("%s: %v, %v", name, v.Status, err)
				}
				t.Logf("%s: %s", name, v.Reason)
			}
		})
	}
}
