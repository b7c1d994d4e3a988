package cuda

import (
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/cpu"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/model"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/synth"
	"github.com/apr-engine/apr/tensor"
)

// What the CPU has, this backend has: a new architecture or tensor type fails here
// until it is done or its refusal is written down.

// Every architecture that is registered is among the models of the conformance suite,
// and this backend takes all of these.
func TestEveryArchitecture(t *testing.T) {
	seen := map[string]bool{}
	for name, path := range backendtest.Architectures(t) {
		f, err := gguf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		arch, _ := f.Metadata.String("general.architecture")
		seen[arch] = true
		p, err := model.Build(f.Metadata, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range []tensor.DType{tensor.F16, tensor.F32} {
			if err := supported(p, f, backend.Options{KV: kv}); err != nil {
				t.Errorf("%s with a cache of %s: %v", name, kv, err)
			}
		}
	}
	if have, want := slices.Sorted(maps.Keys(seen)), model.Architectures(); !slices.Equal(have, want) {
		t.Errorf("the conformance suite has %v, registered are %v", have, want)
	}
}

// refused are the tensor types that the CPU multiplies with and this backend does not.
var refused = map[tensor.DType]bool{}

// typed are weights whose matrices are random ones of another type.
type typed struct {
	graph.Weights
	matrices map[string]tensor.Tensor
}

func (w typed) Tensor(name string) (tensor.Tensor, bool) {
	if t, ok := w.matrices[name]; ok {
		return t, true
	}
	return w.Weights.Tensor(name)
}

// withType replaces every matrix of a program by random numbers of a type, about as
// large as those of a model.
func withType(p *graph.Program, w graph.Weights, dtype tensor.DType) typed {
	out := typed{w, map[string]tensor.Tensor{}}
	matrices, _ := tensors(p, w)
	for i, m := range matrices {
		random := func(large float64) testMatrix {
			return randomMatrix(rand.New(rand.NewPCG(uint64(dtype), uint64(i))), dtype, m.Rows(), m.Cols(), large)
		}
		const first = 0.01
		sum := 0.0
		for _, v := range random(first).values {
			sum += float64(v) * float64(v)
		}
		want := 1 / math.Sqrt(float64(m.Cols()))
		m.Type, m.Data = dtype, random(first*want/math.Sqrt(sum/float64(m.Elements()))).raw
		out.matrices[m.Name] = m
	}
	return out
}

// Every tensor type that the CPU multiplies with runs a whole model here, prompt and
// single tokens, within what rounding allows, on kernels that were made for it.
func TestEveryTensorType(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := synth.Write(path, synth.Options{Preset: "tiny-llama-3.2-1b", Quant: "f32", Layers: 1, VocabSize: 512}); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := model.Build(f.Metadata, f)
	if err != nil {
		t.Fatal(err)
	}
	exact, err := backend.Find(cpu.ExactName)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := exact.Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range quant.Formats() {
		t.Run(format.Type.String(), func(t *testing.T) {
			w := withType(p, f, format.Type)
			want, err := reference[0].Load(p, w, backend.Options{KV: tensor.F32, MaxBatch: 32})
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			got, err := probe(t).Load(p, w, backend.Options{KV: tensor.F32, MaxBatch: 32})
			if refused[format.Type] {
				if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), format.Type.String()) {
					t.Errorf("error %v, want a refusal of %s", err, format.Type)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			for i, limit := range []float64{4e-3, 2e-4} { // a prompt of 10 tokens, in f16; one, in 16-bit integers
				n := []int{10, 1}[i]
				e := golden.RelativeRMS(logitsOf(t, got, n), logitsOf(t, want, n))
				t.Logf("%d tokens: relative error %.2g (limit %.2g)", n, e, limit)
				if !(e <= limit) {
					t.Errorf("%d tokens: relative error %.2g, limit %.2g", n, e, limit)
				}
			}
			for _, name := range got.Variants() {
				if strings.Contains(name, "matmul/") && (strings.Contains(name, "plain") || !strings.Contains(name, format.Type.String())) {
					t.Errorf("variant %s", name)
				}
			}
		})
	}
}

// logitsOf steps a new sequence by n tokens and returns the last one's logits.
func logitsOf(t *testing.T, exec backend.Executor, n int) []float32 {
	t.Helper()
	seq, err := exec.NewSequence(n)
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(i*37%256 + 1)
	}
	var l backend.Logits
	if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens, Want: backend.Last}}, &l); err != nil {
		t.Fatal(err)
	}
	return l.Row(0)
}

// Models whose widths are odd multiples of 32: the rounded numbers of a token then do
// not end where 16 bytes could be read at once.
func TestOddWidths(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := synth.Write(path, synth.Options{Preset: "tiny-qwen2.5-0.5b", Quant: "q8_0", Layers: 1, VocabSize: 512}); err != nil {
		t.Fatal(err)
	}
	p, reference := backendtest.Load(t, path, cpu.ExactName, backend.Options{KV: tensor.F32})
	_, exec := backendtest.Load(t, path, Name, backend.Options{KV: tensor.F32})
	if width := p.Values[0].Width; width/32%2 != 1 {
		t.Fatalf("the model is %d wide, want an odd multiple of 32", width)
	}
	for n := 1; n <= fewTokens; n++ {
		if e := golden.RelativeRMS(logitsOf(t, exec, n), logitsOf(t, reference, n)); !(e <= 2e-4) {
			t.Errorf("%d tokens: relative error %.2g", n, e)
		}
	}
}
