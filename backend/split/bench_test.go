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

// hostThreads are those that the host is measured with; 0 is one for each processor.
var hostThreads = []int{0, 8}

// Where the time of a token goes: the halves alone, each after a pause in which
// processors sleep or are busy, and in turns. What differs tells whether the CPU's work,
// the GPU's idling or the change between them costs.
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
	for _, gpu := range gpus {
		t.Run(gpu.name, func(t *testing.T) {
			need(t, gpu.name)
			second := &timed{Executor: loadOn(t, gpu.name, rest, f, 0)}
			for _, threads := range hostThreads {
				measureHalves(t, gpu.name, &timed{Executor: loadOn(t, "cpu", first, f, threads)}, second, threads)
			}
		})
	}
}

func measureHalves(t *testing.T, name string, host, second *timed, threads int) {
	const tokens = 60
	var rows, l backend.Logits
	a, b := newSequence(t, host, 12*tokens), newSequence(t, second, 12*tokens)
	onHost := func() {
		if err := host.Step([]backend.Span{{Seq: a, Tokens: []int32{1}, Want: backend.All}}, &rows); err != nil {
			t.Fatal(err)
		}
	}
	onSecond := func() {
		if err := second.Step([]backend.Span{{Seq: b, Tokens: []int32{1}, Want: backend.Last, Input: rows.Data}}, &l); err != nil {
			t.Fatal(err)
		}
	}
	round := func(what string, steps ...func()) {
		host.took, second.took = 0, 0
		start := time.Now()
		for range tokens {
			for _, s := range steps {
				s()
			}
		}
		t.Logf("%d threads, %-35s host %.2f ms, %s %.2f ms, all %.2f ms a token", threads, what, ms(host.took)/tokens, name, ms(second.took)/tokens, ms(time.Since(start))/tokens)
	}
	onHost()
	round("second alone", onSecond)
	round("host alone", onHost)
	round("second after a sleep", func() { time.Sleep(5 * time.Millisecond) }, onSecond)
	round("second after a busy wait", func() { busy(5 * time.Millisecond) }, onSecond)
	round("host after a sleep", func() { time.Sleep(time.Millisecond) }, onHost)
	round("host after a busy wait", func() { busy(time.Millisecond) }, onHost)
	round("in turns", onHost, onSecond)
	round("in turns with a pause after host", onHost, func() { time.Sleep(time.Millisecond) }, onSecond)
	round("in turns with a pause after second", onHost, onSecond, func() { time.Sleep(time.Millisecond) })
}

// busy keeps a processor busy for a while.
func busy(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func loadOn(t *testing.T, name string, p *graph.Program, f *gguf.File, threads int) backend.Executor {
	t.Helper()
	d, err := first(name)
	if err != nil {
		t.Fatal(err)
	}
	exec, err := d.Load(p, f, backend.Options{KV: tensor.F16, Threads: threads})
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
