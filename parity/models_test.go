package parity_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/apr-engine/apr/backend"
	_ "github.com/apr-engine/apr/backend/cpu"
	_ "github.com/apr-engine/apr/backend/oracle"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/model"
	_ "github.com/apr-engine/apr/model/all"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/synth"
	"github.com/apr-engine/apr/tensor"
)

// testModel is a model file opened for comparisons of executors.
type testModel struct {
	program *graph.Program
	weights graph.Weights
}

func openModel(t testing.TB, path string) testModel {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	p, err := model.Build(f.Metadata, f)
	if err != nil {
		t.Fatal(err)
	}
	return testModel{p, f}
}

func bundledModel(t testing.TB, size string) testModel {
	return openModel(t, golden.Path(t, "models", "tiny-coder-"+size+"-q4_k_m.gguf"))
}

func synthModel(t testing.TB, preset string, outliers int) testModel {
	t.Helper()
	path := filepath.Join(t.TempDir(), preset+".gguf")
	if err := synth.Write(path, synth.Options{Preset: preset, Quant: "q4_k_m", OutlierChannels: outliers}); err != nil {
		t.Fatal(err)
	}
	return openModel(t, path)
}

// randomPrompt has tokens from the whole vocabulary.
func randomPrompt(p *graph.Program, n int) []int32 {
	rng := rand.New(rand.NewPCG(7, 11))
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(rng.IntN(p.Vocab))
	}
	return tokens
}

func findDevice(t testing.TB, name string) backend.Device {
	t.Helper()
	b, err := backend.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := b.Probe()
	if err != nil || len(devices) == 0 {
		t.Fatalf("probe: %v", err)
	}
	return devices[0]
}

// traced loads a model on a backend, with faults, for a bisection.
func (m testModel) traced(t testing.TB, backendName string, kv tensor.DType, faults ...fault.Fault) parity.TraceLoader {
	d := fault.Wrap(findDevice(t, backendName), faults...)
	return func(trace func(graph.Value, []float32)) (backend.Executor, error) {
		return d.Load(m.program, m.weights, backend.Options{KV: kv, Threads: 2, MaxBatch: 64, Trace: trace})
	}
}
