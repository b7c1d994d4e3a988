package split_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/split"
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/model"
	"github.com/apr-engine/apr/tensor"
)

// frail is a device whose executors fail where a test wants it.
type frail struct {
	backend.Device
	load, sequence, step error
	closed               *int // executors and sequences that were closed
}

type frailExecutor struct {
	backend.Executor
	d *frail
}

type counted struct {
	backend.Sequence
	closed *int
}

func (c counted) Close() error { *c.closed++; return c.Sequence.Close() }

func (d *frail) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	if d.load != nil {
		return nil, d.load
	}
	exec, err := d.Device.Load(p, w, o)
	return &frailExecutor{exec, d}, err
}

func (e *frailExecutor) NewSequence(n int) (backend.Sequence, error) {
	if e.d.sequence != nil {
		return nil, e.d.sequence
	}
	s, err := e.Executor.NewSequence(n)
	if err != nil {
		return nil, err
	}
	return counted{s, e.d.closed}, nil
}

func (e *frailExecutor) Step(batch []backend.Span, l *backend.Logits) error {
	if e.d.step != nil {
		return e.d.step
	}
	plain := slices.Clone(batch)
	for i := range plain {
		plain[i].Seq = plain[i].Seq.(counted).Sequence
	}
	return e.Executor.Step(plain, l)
}

func (e *frailExecutor) Close() error { *e.d.closed++; return e.Executor.Close() }

func qwen2(t *testing.T) (*graph.Program, *gguf.File) {
	t.Helper()
	f, err := gguf.Open(backendtest.Architectures(t)["qwen2"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	p, err := model.Build(f.Metadata, f)
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}

// When either half refuses or fails, the other one is left as it was, or closed.
func TestFailures(t *testing.T) {
	p, f := qwen2(t)
	boom := errors.New("boom")
	for _, half := range []string{"host", "second"} {
		t.Run(half, func(t *testing.T) {
			var closed int
			device := func(h string) *frail {
				d, err := first("cpu")
				if err != nil {
					t.Fatal(err)
				}
				return &frail{Device: d, closed: &closed}
			}
			host, second := device("host"), device("second")
			bad := map[string]*frail{"host": host, "second": second}[half]
			pair := split.New(host, second, 1)

			bad.load = boom
			if _, err := pair.Load(p, f, backend.Options{KV: tensor.F16}); !errors.Is(err, boom) {
				t.Errorf("load: %v", err)
			}
			if want := map[string]int{"host": 1, "second": 0}[half]; closed != want {
				t.Errorf("load: %d executors closed, want %d", closed, want)
			}
			bad.load = nil
			exec, err := pair.Load(p, f, backend.Options{KV: tensor.F16})
			if err != nil {
				t.Fatal(err)
			}

			closed, bad.sequence = 0, boom
			if _, err := exec.NewSequence(8); !errors.Is(err, boom) {
				t.Errorf("sequence: %v", err)
			}
			if want := map[string]int{"host": 1, "second": 0}[half]; closed != want {
				t.Errorf("sequence: %d closed, want %d", closed, want)
			}
			bad.sequence = nil
			seq, err := exec.NewSequence(8)
			if err != nil {
				t.Fatal(err)
			}

			// A step that failed can be made again, with the same result.
			want := all(t, backendtest.Architectures(t)["qwen2"], "cpu", someTokens(5), 2)
			tokens := someTokens(5)
			var l backend.Logits
			if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[:2]}}, nil); err != nil {
				t.Fatal(err)
			}
			bad.step = boom
			if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[2:], Want: backend.Last}}, &l); !errors.Is(err, boom) || seq.Len() != 2 {
				t.Errorf("step: %v, %d tokens held", err, seq.Len())
			}
			bad.step = nil
			if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[2:], Want: backend.Last}}, &l); err != nil || seq.Len() != 5 {
				t.Errorf("step: %v, %d tokens held", err, seq.Len())
			}
			if len(want) != 5 || l.Rows() != 1 {
				t.Errorf("%d rows, want the last of %d", l.Rows(), len(want))
			}
			closed = 0
			if err := errors.Join(seq.Close(), exec.Close()); err != nil || closed != 4 {
				t.Errorf("close: %v, %d of 4 closed", err, closed)
			}
		})
	}
}

// Where a program cannot be cut it is refused before anything is loaded.
func TestRefusals(t *testing.T) {
	p, f := qwen2(t)
	for _, layers := range []int{0, -1, p.Layers(), p.Layers() + 1} {
		d, err := first("cpu")
		if err != nil {
			t.Fatal(err)
		}
		_, err = split.New(d, d, layers).Load(p, f, backend.Options{KV: tensor.F16})
		if !errors.Is(err, backend.ErrUnsupported) || !errors.Is(err, graph.ErrCut) {
			t.Errorf("%d layers: %v", layers, err)
		}
	}
}

// The identity changes with the devices and with the place of the cut, and the
// second device's own can be read off it.
func TestIdentity(t *testing.T) {
	d, err := first("cpu")
	if err != nil {
		t.Fatal(err)
	}
	e, err := first("oracle")
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := split.New(d, e, 1).Identity(), split.New(d, e, 2).Identity(), split.New(e, e, 1).Identity()
	if a == b || a == c || split.Identity(a) != e.Identity() || split.Identity(d.Identity()) != d.Identity() {
		t.Errorf("identities\n%s\n%s\n%s", a, b, c)
	}
}

// A GPU that is lost in the middle of a step is lost for good, as by itself.
func TestLost(t *testing.T) {
	need(t, "cuda")
	_, exec := backendtest.Load(t, backendtest.Architectures(t)["qwen2"], register("cpu", "cuda", 1), backend.Options{KV: tensor.F16})
	seq, err := exec.NewSequence(40)
	if err != nil {
		t.Fatal(err)
	}
	emutest.Set(t, "fail code", int64(cuda.IllegalAddress))
	emutest.Set(t, "fail after", 12)
	for i := range 40 {
		if err = exec.Step([]backend.Span{{Seq: seq, Tokens: []int32{int32(i)}, Want: backend.Last}}, new(backend.Logits)); err != nil {
			break
		}
	}
	if !errors.Is(err, backend.ErrLost) {
		t.Fatalf("error %v", err)
	}
	if again := exec.Step([]backend.Span{{Seq: seq, Tokens: []int32{1}}}, nil); !errors.Is(again, backend.ErrLost) {
		t.Errorf("a step after it: %v", again)
	}
}
