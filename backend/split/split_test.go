package split_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/apr-engine/apr/backend"
	_ "github.com/apr-engine/apr/backend/all" // the backends that are put together
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/split"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// pair is a backend of two others for the conformance suite, cut so that the second
// has so many layers.
type pair struct {
	host, second string
	layers       int
}

func (p pair) Name() string { return fmt.Sprintf("%s+%s-%d", p.host, p.second, p.layers) }

func (p pair) Probe() ([]backend.Device, error) {
	host, err := first(p.host)
	if err != nil {
		return nil, err
	}
	second, err := first(p.second)
	if err != nil {
		return nil, err
	}
	return []backend.Device{split.New(host, second, p.layers)}, nil
}

func first(name string) (backend.Device, error) {
	b, err := backend.Find(name)
	if err != nil {
		return nil, err
	}
	devices, err := b.Probe()
	if err != nil {
		return nil, err
	}
	return devices[0], nil
}

// register makes the pair a backend and returns its name.
func register(host, second string, layers int) string {
	p := pair{host, second, layers}
	backend.Register(p)
	return p.Name()
}

func TestMain(m *testing.M) { os.Exit(emutest.Main(m)) }

// need skips a test where a backend has no device; in CI that is a failure.
func need(t *testing.T, name string) {
	t.Helper()
	if name == "cuda" && testing.Short() {
		t.Skip("the race detector, which -short is for, does not follow the emulation's stacks: CI runs it without -short")
	}
	if _, err := first(name); err != nil {
		if os.Getenv("CI") != "" || !errors.Is(err, backend.ErrNoDevice) {
			t.Fatal(err)
		}
		t.Skipf("no device here; CI has one: %v", err)
	}
}

func layersOf(t *testing.T, path string) int {
	t.Helper()
	p, _ := backendtest.Load(t, path, "oracle", backend.Options{KV: tensor.F32})
	return p.Layers()
}

// all computes the logits of every token, a prompt in one step and then one by one.
func all(t *testing.T, path, name string, tokens []int32, prompt int) [][]float32 {
	t.Helper()
	_, exec := backendtest.Load(t, path, name, backend.Options{KV: tensor.F32})
	seq, err := exec.NewSequence(len(tokens))
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	var rows [][]float32
	for n := prompt; len(tokens) > 0; n = 1 {
		var l backend.Logits
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[:n], Want: backend.All}}, &l); err != nil {
			t.Fatal(err)
		}
		for i := range l.Rows() {
			rows = append(rows, l.Row(i))
		}
		tokens = tokens[n:]
	}
	return rows
}

func someTokens(n int) []int32 {
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(i*37%250 + 1)
	}
	return tokens
}

// Two halves on the same executor compute the bits of the whole, wherever every
// architecture is cut: nothing is lost on the way.
func TestHalvesAreTheWhole(t *testing.T) {
	paths := backendtest.Architectures(t)
	paths["quantised"] = golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf")
	tokens := someTokens(20)
	for model, path := range paths {
		t.Run(model, func(t *testing.T) {
			names := []string{"cpu-exact", "cpu", "oracle"}
			if testing.Short() {
				names = names[1:2]
			}
			for _, name := range names {
				want := all(t, path, name, tokens, 12)
				for n := 1; n < layersOf(t, path); n++ {
					for i, row := range all(t, path, register(name, name, n), tokens, 12) {
						if !slices.Equal(row, want[i]) {
							t.Fatalf("%s, the last %d layers apart: row %d differs by %.3g", name, n, i, golden.RelativeRMS(row, want[i]))
						}
					}
				}
			}
		})
	}
}

// gpus are the second halves with the difference allowed between steps of different
// sizes: backend/cuda and backend/wgpu say where it comes from. wgpu multiplies in
// half precision where the adapter is no software.
var gpus = []gpu{
	{"cuda", 0.015, 0.015},
	{"wgpu", 0.02, 5e-4},
}

// gpu is a second half.
type gpu struct {
	name            string
	batch, software float64
}

// limit is the difference allowed on the device at hand.
func (g gpu) limit(t *testing.T) float64 {
	t.Helper()
	need(t, g.name)
	if d, err := first(g.name); err == nil && backend.Describe(d).Software {
		return g.software
	}
	return g.batch
}

// The pair is an executor like any other: in chunks, sequences together, truncated,
// with bad requests refused.
func TestConformance(t *testing.T) {
	for _, gpu := range gpus {
		t.Run(gpu.name, func(t *testing.T) {
			limit := gpu.limit(t)
			backendtest.ConformanceOf(t, register("cpu-exact", gpu.name, 1), limit, "gemma3")
			if testing.Short() || gpu.name == "cuda" && emutest.Emulated() && os.Getenv("APR_LONG_TESTS") == "" {
				return // the emulation takes minutes for the other
			}
			backendtest.ConformanceOf(t, register("cpu", gpu.name, 2), limit, "quantised")
		})
	}
}

// Wherever the program is cut, logits and greedy tokens are those of other runtimes,
// and so is the residual stream after each layer, which both halves trace.
func TestReference(t *testing.T) {
	for _, gpu := range gpus {
		t.Run(gpu.name, func(t *testing.T) {
			limit := gpu.limit(t)
			limits := backendtest.Limits{Logits: limit, Hidden: limit, GreedyTies: 0.05}
			ref := backendtest.Bundled(t)[0]
			ref.Longest = 8
			layers := layersOf(t, ref.Model)
			cuts := []int{1, layers / 2, layers - 1}
			if testing.Short() {
				cuts = cuts[1:2]
			}
			for _, n := range cuts {
				t.Run(fmt.Sprintf("last %d of %d", n, layers), func(t *testing.T) {
					backendtest.RunReference(t, ref, register("cpu", gpu.name, n), limits)
				})
			}
		})
	}
}
