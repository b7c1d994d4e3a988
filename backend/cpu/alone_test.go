package cpu_test

import (
	"math"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/cpu"
	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/tensor"
)

// Single tokens have the same bits whatever the number of workers, at which each does the
// operations on the token by itself, and beside other sequences; before and behind the end of
// attention's first chunk, where heads are no longer shared out.
func TestOneTokenBits(t *testing.T) {
	models := backendtest.Architectures(t)
	models["quantised"] = small
	for name, path := range models {
		for _, exec := range []string{cpu.Name, cpu.ExactName} {
			t.Run(name+"/"+exec, func(t *testing.T) {
				for _, kv := range []tensor.DType{tensor.F16, tensor.F32} {
					want := oneByOne(t, path, exec, kv, 1, 1)
					for _, c := range []struct{ threads, sequences int }{{2, 1}, {3, 1}, {5, 1}, {2, 3}} {
						got := oneByOne(t, path, exec, kv, c.threads, c.sequences)
						for i, row := range want {
							for j, v := range row {
								if math.Float32bits(v) != math.Float32bits(got[i][j]) {
									t.Fatalf("%s cache, %d threads, %d sequences: step %d, logit %d is %v, want %v", kv, c.threads, c.sequences, i, j, got[i][j], v)
								}
							}
						}
					}
				}
			})
		}
	}
}

// oneByOne returns the logits of the first sequence after single tokens, of which some come
// after a prompt that almost fills a chunk of attention.
func oneByOne(t *testing.T, path, name string, kv tensor.DType, threads, sequences int) (rows [][]float32) {
	t.Helper()
	p, exec := backendtest.Load(t, path, name, backend.Options{KV: kv, Threads: threads})
	const singles = 6
	for _, prompt := range []int{0, min(kernel.AttentionChunk, p.Context) - singles/2} {
		total := min(prompt+singles, p.Context)
		tokens := make([]int32, total)
		for i := range tokens {
			tokens[i] = int32(i * 37 % min(250, p.Vocab))
		}
		var l backend.Logits
		var batch []backend.Span
		for range sequences {
			seq, err := exec.NewSequence(total)
			if err != nil {
				t.Fatal(err)
			}
			defer seq.Close()
			batch = append(batch, backend.Span{Seq: seq, Want: backend.Last})
			if prompt > 0 {
				if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[:prompt]}}, &l); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, token := range tokens[prompt:] {
			for i := range batch {
				batch[i].Tokens = []int32{token}
			}
			if err := exec.Step(batch, &l); err != nil {
				t.Fatal(err)
			}
			rows = append(rows, append([]float32(nil), l.Row(0)...))
		}
	}
	return rows
}
