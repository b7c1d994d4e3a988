package cpu_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/cpu"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/model"
	"github.com/apr-engine/apr/tensor"
)

const small = "../../models/tiny-coder-4m-q4_k_m.gguf"

// cacheTokens is a text that fills more than one block of attention.
func cacheTokens() []int32 {
	tokens := make([]int32, 150)
	for i := range tokens {
		tokens[i] = int32(i * 37 % 4000)
	}
	return tokens
}

// stepped returns the logits of every token, computed in the given steps.
func stepped(t *testing.T, kv tensor.DType, tokens []int32, chunk int) (rows [][]float32) {
	t.Helper()
	_, exec := backendtest.Load(t, small, cpu.ExactName, backend.Options{KV: kv})
	seq, err := exec.NewSequence(len(tokens))
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	var l backend.Logits
	for at := 0; at < len(tokens); at += chunk {
		part := tokens[at:min(at+chunk, len(tokens))]
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: part, Want: backend.All}}, &l); err != nil {
			t.Fatal(err)
		}
		for i := range l.Rows() {
			rows = append(rows, append([]float32(nil), l.Row(i)...))
		}
	}
	return rows
}

// A cache of Q8_0 moves the logits by the rounding of its 8 bits, F16 by far less;
// both the same whatever the steps.
func TestCacheTypes(t *testing.T) {
	tokens := cacheTokens()
	want := stepped(t, tensor.F32, tokens, len(tokens))
	for _, tt := range []struct {
		kv           tensor.DType
		least, limit float64
	}{{tensor.F16, 1e-7, 1e-3}, {tensor.Q8_0, 1e-4, 2e-2}} {
		t.Run(tt.kv.String(), func(t *testing.T) {
			got := stepped(t, tt.kv, tokens, len(tokens))
			var diff, size float64
			for i, row := range want {
				for j, v := range row {
					diff += math.Pow(float64(got[i][j]-v), 2)
					size += float64(v) * float64(v)
				}
			}
			rel := math.Sqrt(diff / size)
			t.Logf("relative RMS to a float32 cache %.2g", rel)
			if !(rel >= tt.least && rel <= tt.limit) {
				t.Errorf("relative RMS %g, want between %g and %g", rel, tt.least, tt.limit)
			}
			if again := stepped(t, tt.kv, tokens, 7); fmt.Sprint(again) != fmt.Sprint(got) {
				t.Error("steps of 7 tokens give other logits than one step")
			}
		})
	}
}

// A type that a backend lacks is refused at load, by name.
func TestCacheTypeRefused(t *testing.T) {
	b, err := backend.Find(cpu.Name)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := b.Probe()
	if err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(small)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := model.Build(f.Metadata, f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := devices[0].Load(p, f, backend.Options{KV: tensor.Q4_K}); !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("%v, want ErrUnsupported", err)
	}
}

// Once its buffers have grown a step allocates nothing, whatever the cache.
func TestDecodeAllocations(t *testing.T) {
	for _, name := range []string{cpu.Name, cpu.ExactName} {
		for _, kv := range []tensor.DType{tensor.F16, tensor.F32, tensor.Q8_0} {
			for _, sequences := range []int{1, 4} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, kv, sequences), func(t *testing.T) {
					_, exec := backendtest.Load(t, small, name, backend.Options{KV: kv, Threads: 1 + sequences%2})
					var batch []backend.Span
					for range sequences {
						seq, err := exec.NewSequence(200)
						if err != nil {
							t.Fatal(err)
						}
						defer seq.Close()
						batch = append(batch, backend.Span{Seq: seq, Tokens: []int32{5}, Want: backend.Last})
					}
					var l backend.Logits
					step := func() {
						if err := exec.Step(batch, &l); err != nil {
							t.Fatal(err)
						}
					}
					for i := range batch { // more than one block of attention
						batch[i].Tokens = cacheTokens()[:66]
					}
					step()
					for i := range batch {
						batch[i].Tokens = batch[i].Tokens[:1]
					}
					step()
					if n := testing.AllocsPerRun(5, step); n != 0 {
						t.Errorf("%v allocations a step", n)
					}
				})
			}
		}
	}
}
