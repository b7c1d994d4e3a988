package cpu_test

import (
	"fmt"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/cpu"
	"github.com/apr-engine/apr/kernel/kerneltest"
	"github.com/apr-engine/apr/tensor"
)

// deepSteps returns the logits of some steps of one or three tokens of several
// sequences of different lengths, behind contexts of more than one chunk of attention.
func deepSteps(t *testing.T, kv tensor.DType, threads int) (rows [][]float32) {
	t.Helper()
	_, exec := backendtest.Load(t, small, cpu.Name, backend.Options{KV: kv, Threads: threads})
	var batch []backend.Span
	var l backend.Logits
	for _, depth := range []int{1100, 520, 30} {
		seq, err := exec.NewSequence(depth + 10)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { seq.Close() })
		tokens := make([]int32, depth)
		for i := range tokens {
			tokens[i] = int32(i * 37 % 4000)
		}
		for at := 0; at < depth; at += 256 {
			if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[at:min(at+256, depth)]}}, nil); err != nil {
				t.Fatal(err)
			}
		}
		batch = append(batch, backend.Span{Seq: seq, Tokens: []int32{5, 6, 7}, Want: backend.All})
	}
	for _, n := range []int{3, 1, 1} {
		for i := range batch {
			batch[i].Tokens = batch[i].Tokens[:n]
		}
		if err := exec.Step(batch, &l); err != nil {
			t.Fatal(err)
		}
		for i := range l.Rows() {
			rows = append(rows, append([]float32(nil), l.Row(i)...))
		}
	}
	return rows
}

// The chunks of a long context may be computed by any worker and in any order.
func TestChunksOfAnyWorker(t *testing.T) {
	for _, kv := range []tensor.DType{tensor.F16, tensor.Q8_0} {
		want := deepSteps(t, kv, 1)
		for _, threads := range []int{2, 3, 7} {
			t.Run(fmt.Sprintf("%s/threads=%d", kv, threads), func(t *testing.T) {
				for i, row := range deepSteps(t, kv, threads) {
					kerneltest.SameBits(t, fmt.Sprintf("logits %d", i), row, want[i])
				}
			})
		}
	}
}
