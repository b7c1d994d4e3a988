package cuda

import (
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// A program that begins with rows runs as the same graphs as one that begins with
// tokens: replayed for other rows, with every operation in it, and the values of the
// whole program's last layer.
func TestProgramBeginsWithRows(t *testing.T) {
	p, f := qwen2(t)
	first, rest, err := p.Cut(p.Layers() - 1)
	if err != nil {
		t.Fatal(err)
	}
	o := backend.Options{KV: tensor.F32, MaxBatch: 64}
	exec, err := probe(t).Load(rest, f, o)
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Close()
	e := exec.(*executor)
	for name := range e.weights {
		if name == "token_embd.weight" || name == "blk.0.attn_q.weight" {
			t.Errorf("%s is on the device", name)
		}
	}
	host := hostExecutor(t, first, f, o)
	_, whole := backendtest.Load(t, golden.Path(t, "testdata", "architectures", "qwen2.gguf"), "cpu-exact", o)

	seqs := [3]backend.Sequence{}
	for i, x := range []backend.Executor{host, exec, whole} {
		if seqs[i], err = x.NewSequence(40); err != nil {
			t.Fatal(err)
		}
		defer seqs[i].Close()
	}
	var rows, got, want backend.Logits
	before := 0
	if emutest.Emulated() {
		before = emutest.Count(t, "graph launches")
	}
	// Many tokens come last: their keys and values are rounded to f16, for later steps too.
	for at, n := range []int{3, 1, 8, 1, 20} {
		tokens := make([]int32, n)
		for i := range tokens {
			tokens[i] = int32(11*at + i)
		}
		for _, step := range []error{
			host.Step([]backend.Span{{Seq: seqs[0], Tokens: tokens, Want: backend.All}}, &rows),
			exec.Step([]backend.Span{{Seq: seqs[1], Tokens: tokens, Want: backend.Last, Input: rows.Data}}, &got),
			whole.Step([]backend.Span{{Seq: seqs[2], Tokens: tokens, Want: backend.Last}}, &want),
		} {
			if step != nil {
				t.Fatal(step)
			}
		}
		limit := 1e-5
		if n > fewTokens {
			limit = conformance
		}
		if e := golden.RelativeRMS(got.Row(0), want.Row(0)); !(e <= limit) {
			t.Errorf("step %d of %d tokens: the logits differ by %.3g (limit %.3g)", at, n, e, limit)
		}
	}
	if emutest.Emulated() {
		if n := emutest.Count(t, "graph launches") - before; n != 4 {
			t.Errorf("%d steps ran as graphs, want the 4 of few tokens", n)
		}
	}
	// Rows that are missing are refused, and tokens cannot take their place.
	if err := exec.Step([]backend.Span{{Seq: seqs[1], Tokens: []int32{1}}}, nil); err == nil || seqs[1].Len() != 33 {
		t.Errorf("a step without rows: %v, %d tokens held", err, seqs[1].Len())
	}
}

func hostExecutor(t *testing.T, p *graph.Program, w graph.Weights, o backend.Options) backend.Executor {
	t.Helper()
	b, err := backend.Find("cpu-exact")
	if err != nil {
		t.Fatal(err)
	}
	devices, err := b.Probe()
	if err != nil {
		t.Fatal(err)
	}
	exec, err := devices[0].Load(p, w, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Close() })
	return exec
}
