package split_test

import (
	"os"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/model"
	"github.com/apr-engine/apr/tensor"
)

// benchEnv names a model to measure the halves of.
const benchEnv = "APR_SPLIT_BENCH"

// timed adds up how long a half's steps take.
type timed struct {
	backend.Executor
	took time.Duration
}

func (e *timed) Step(batch []backend.Span, l *backend.Logits) error {
	start := time.Now()
	err := e.Executor.Step(batch, l)
	e.took += time.Since(start)
	return err
}

// Where the time of a token goes: the halves in turn, and the second one after the
// host has slept as long, which tells whether the CPU's work or the GPU's idling costs.
func TestSpeedOfHalves(t *testing.T) {
	path := os.Getenv(benchEnv)
	if path == "" {
		t.Skip("a measurement that nothing can fail: set " + benchEnv + " to a model on a GPU (docs/executors.md)")
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
	first, rest, err := p.Cut(p.Layers() / 2)
	if err != nil {
		t.Fatal(err)
	}
	host := &timed{Executor: loadOn(t, "cpu", first, f)}
	for _, gpu := range gpus {
		t.Run(gpu.name, func(t *testing.T) {
			need(t, gpu.name)
			second := &timed{Executor: loadOn(t, gpu.name, rest, f)}
			const tokens = 60
			a, b := newSequence(t, host, 3*tokens), newSequence(t, second, 3*tokens)
			var rows, l backend.Logits
			round := func(what string, before func()) {
				host.took, second.took = 0, 0
				for range tokens {
					before()
					if err := second.Step([]backend.Span{{Seq: b, Tokens: []int32{1}, Want: backend.Last, Input: rows.Data}}, &l); err != nil {
						t.Fatal(err)
					}
				}
				t.Logf("%-22s host %.2f ms, %s %.2f ms a token", what, ms(host.took)/tokens, gpu.name, ms(second.took)/tokens)
			}
			run := func() {
				if err := host.Step([]backend.Span{{Seq: a, Tokens: []int32{1}, Want: backend.All}}, &rows); err != nil {
					t.Fatal(err)
				}
			}
			run()
			round("second alone", func() {})
			round("after a pause", func() { time.Sleep(5 * time.Millisecond) })
			round("in turns", run)
		})
	}
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func loadOn(t *testing.T, name string, p *graph.Program, f *gguf.File) backend.Executor {
	t.Helper()
	d, err := first(name)
	if err != nil {
		t.Fatal(err)
	}
	exec, err := d.Load(p, f, backend.Options{KV: tensor.F16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Close() })
	return exec
}

func newSequence(t *testing.T, e backend.Executor, n int) backend.Sequence {
	t.Helper()
	s, err := e.NewSequence(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
