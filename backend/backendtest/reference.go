// Package backendtest is the conformance suite that every backend's test calls.
package backendtest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/model"
	_ "github.com/apr-engine/apr/model/all" // the models of the suite
	"github.com/apr-engine/apr/tensor"
)

// Reference is a model file with another runtime's results for it.
type Reference struct {
	Name    string
	Model   string // path
	Results string // path
	// Longest leaves out longer prompts; 0 for none.
	Longest int
}

// Bundled are the references that are part of the repository.
func Bundled(t testing.TB) []Reference {
	var refs []Reference
	for _, name := range []string{"tiny-coder-4m-q4_k_m", "tiny-coder-28m-q4_k_m"} {
		refs = append(refs, Reference{Name: name, Model: golden.Path(t, "models", name+".gguf"), Results: golden.Path(t, "testdata", "reference", name+".safetensors")})
	}
	return refs
}

// Shared are the references in the shared folder; the test is skipped without it.
func Shared(t testing.TB) []Reference {
	return []Reference{
		{Name: "student-f16", Model: golden.Shared(t, "models", "student-f16.gguf"), Results: golden.Shared(t, "models", "ref", "student_ref_public.safetensors")},
		{Name: "student-q8_0", Model: golden.Shared(t, "models", "student-q8_0.gguf"), Results: golden.Shared(t, "models", "ref", "student_q8_0_ref_public.safetensors")},
	}
}

// RunArchitectures compares with the results that llama.cpp and, for the
// architectures that its measured version lacks, ik_llama.cpp compute for the
// tiny random models. The latter's value cache is half precision, which alone
// moves the logits of the others by 3e-4 to 7e-4.
func RunArchitectures(t *testing.T, backendName string) {
	RunArchitecturesWithin(t, backendName, Limits{Logits: 1e-5})
}

// RunArchitecturesWithin is RunArchitectures with limits for results that were
// computed with a float32 cache.
func RunArchitecturesWithin(t *testing.T, backendName string, float32Cache Limits) {
	halfCache := Limits{Logits: max(2e-3, float32Cache.Logits), GreedyTies: max(0.02, float32Cache.GreedyTies)}
	for name, path := range Architectures(t) {
		limits := float32Cache
		if strings.HasPrefix(name, "qwen3") || strings.HasPrefix(name, "gemma3") {
			limits = halfCache
		}
		RunReference(t, Reference{Name: name, Model: path, Results: strings.TrimSuffix(path, ".gguf") + ".safetensors"}, backendName, limits)
	}
}

// Limits bound the difference from the reference.
type Limits struct {
	Logits float64 // relative RMS error of the logits after the prompt
	Hidden float64 // the same for the residual stream after each layer
	// GreedyTies allows a different greedy token where the reference's own margin
	// is below this; 0 wants all 64 tokens equal.
	GreedyTies float32
}

// Load opens a model file and loads it on the named backend.
func Load(t testing.TB, path, backendName string, o backend.Options) (*graph.Program, backend.Executor) {
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
	b, err := backend.Find(backendName)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := b.Probe()
	if err != nil || len(devices) == 0 {
		t.Fatalf("probe: %v, %v", devices, err)
	}
	exec, err := devices[0].Load(p, f, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Close(); devices[0].Close() })
	return p, exec
}

// With -short, which is for the race detector, prompts of up to shortPrompt
// tokens are compared and so many greedy tokens.
const (
	shortPrompt = 32
	shortGreedy = 8
)

// RunReference compares logits, hidden states and greedy continuations with the
// reference, for every prompt.
func RunReference(t *testing.T, ref Reference, backendName string, limits Limits) {
	var hidden map[string][]float32
	o := backend.Options{KV: tensor.F32, Trace: func(v graph.Value, rows []float32) {
		if hidden != nil && hasHidden(v.Name) {
			hidden[v.Name] = append(hidden[v.Name][:0], rows[len(rows)-v.Width:]...)
		}
	}}
	_, traced := Load(t, ref.Model, backendName, o)
	o.Trace = nil
	p, exec := Load(t, ref.Model, backendName, o)
	for _, prompt := range golden.Prompts(t, ref.Results) {
		if ref.Longest > 0 && len(prompt.IDs) > ref.Longest {
			continue
		}
		if testing.Short() {
			if len(prompt.IDs) > shortPrompt {
				continue
			}
			prompt.Greedy = prompt.Greedy[:shortGreedy]
		}
		t.Run(fmt.Sprintf("%s/%s-%d", ref.Name, prompt.Name, len(prompt.IDs)), func(t *testing.T) {
			hidden = map[string][]float32{}
			var logits backend.Logits
			prefill(t, traced, prompt.IDs, len(prompt.IDs), &logits).Close()
			for row, want := range prompt.Hidden {
				name := hiddenName(p, row)
				if e := golden.RelativeRMS(hidden[name], want); !(e <= limits.Hidden) {
					t.Errorf("%s: relative error %.3g (limit %.3g)", name, e, limits.Hidden)
				}
			}
			hidden = nil
			seq := prefill(t, exec, prompt.IDs, len(prompt.IDs)+len(prompt.Greedy), &logits)
			defer seq.Close()
			e := golden.RelativeRMS(logits.Row(0), prompt.Logits)
			t.Logf("logits: relative error %.3g of %.3g", e, limits.Logits)
			if !(e <= limits.Logits) {
				t.Errorf("logits: relative error %.3g (limit %.3g)", e, limits.Logits)
			}
			compareGreedy(t, exec, seq, &logits, prompt, limits)
		})
	}
}

// hiddenName is the value that corresponds to a row of Prompt.Hidden.
func hiddenName(p *graph.Program, row int) string {
	switch {
	case row == 0:
		return "token_embd"
	case row <= len(p.Caches):
		return fmt.Sprintf("blk.%d.l_out", row-1)
	}
	return "output_norm"
}

func hasHidden(name string) bool {
	return name == "token_embd" || name == "output_norm" || strings.HasSuffix(name, ".l_out")
}

func prefill(t *testing.T, exec backend.Executor, ids []int32, capacity int, logits *backend.Logits) backend.Sequence {
	t.Helper()
	seq, err := exec.NewSequence(capacity)
	if err != nil {
		t.Fatal(err)
	}
	for len(ids) > 0 {
		n := min(len(ids), 256)
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: ids[:n], Want: backend.Last}}, logits); err != nil {
			t.Fatal(err)
		}
		ids = ids[n:]
	}
	return seq
}

// compareGreedy decodes one token at a time, feeding the reference's tokens, so
// that one difference does not turn into sixty.
func compareGreedy(t *testing.T, exec backend.Executor, seq backend.Sequence, logits *backend.Logits, prompt golden.Prompt, limits Limits) {
	for i, want := range prompt.Greedy {
		got := argmax(logits.Row(0))
		if got != want && !(prompt.GreedyGap[i] < limits.GreedyTies) {
			t.Errorf("greedy token %d is %d, want %d (margin %.3g)", i, got, want, prompt.GreedyGap[i])
		}
		if i == len(prompt.Greedy)-1 {
			return
		}
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: []int32{want}, Want: backend.Last}}, logits); err != nil {
			t.Fatal(err)
		}
	}
}

func argmax(x []float32) int32 {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return int32(best)
}
