package cuda

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// TestBenchDecode times whole steps of one token a sequence behind contexts of any
// length, without a prompt and without the gate: what lies in the caches is made up.
//
//	APR_CUDA_BENCH=1 APR_CUDA_MODEL=7b.gguf ./cuda.test -test.run TestBenchDecode -test.v
func TestBenchDecode(t *testing.T) {
	needBench(t)
	path := os.Getenv("APR_CUDA_MODEL")
	steps := 60
	if path == "" || emutest.Emulated() {
		path, steps = golden.Path(t, "testdata", "architectures", "qwen2.gguf"), 2
	}
	_, exec := backendtest.Load(t, path, Name, backend.Options{KV: tensor.F16})
	e := exec.(*executor)
	for _, s := range []struct{ sequences, depth int }{{1, 0}, {1, 8192}, {8, 0}, {8, 8192}, {2, 0}, {3, 0}, {4, 0}, {16, 0}, {32, 0}, {32, 2048}} {
		us := benchSteps(t, e, s.sequences, s.depth, steps)
		t.Logf("%2d sequences, depth %4d: %8.1f µs a step, %8.1f tok/s", s.sequences, s.depth, us, float64(s.sequences)*1e6/us)
	}
}

// benchSteps is the median time of a step in microseconds.
func benchSteps(t *testing.T, e *executor, sequences, depth, steps int) float64 {
	t.Helper()
	var batch []backend.Span
	for range sequences {
		seq, err := e.NewSequence(depth + steps)
		if err != nil {
			t.Fatal(err)
		}
		s := seq.(*kvSequence)
		err = e.c.Do(func() error {
			// Every key and value is 2^-4 or so in F16, and none is broken.
			if err := e.c.Fill(s.data, 0x2c, int64(s.capacity)*e.kvPosition(), e.stream); err != nil {
				return err
			}
			return e.c.Wait(e.stream)
		})
		if err != nil {
			t.Fatal(err)
		}
		s.length = depth
		batch = append(batch, backend.Span{Seq: seq, Tokens: []int32{1}, Want: backend.Last})
	}
	var l backend.Logits
	var times []float64
	for range steps {
		start := time.Now()
		if err := e.Step(batch, &l); err != nil {
			t.Fatal(err)
		}
		times = append(times, float64(time.Since(start).Nanoseconds())/1e3)
	}
	for _, span := range batch {
		if err := span.Seq.Close(); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(times)
	return times[len(times)/2]
}
