package graph

import (
	"errors"
	"strings"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// tiny is a program of one layer that uses every operation.
func tiny(t *testing.T) *Program {
	t.Helper()
	b := NewBuilder("test", 10, 8, 64)
	x := b.Scale("scaled", b.Embed("embd", "embd.w"), 2)
	n := b.RMSNorm("norm", x, "norm.w", 8, 1e-5)
	q := b.Rope("q_rope", b.MatMul("q", n, "q.w", "q.b", 8), Rope{HeadDim: 4, InvFreq: []float64{1, 0.1}, Magnitude: 1})
	k := b.MatMul("k", n, "k.w", "", 4)
	v := b.MatMul("v", n, "v.w", "", 4)
	a := b.Attention("attn", q, b.KVCache(k, v, Cache{Heads: 1, HeadDim: 4}), 2, 0.5, 0)
	x = b.Add("sum", x, a)
	x = b.GatedAct("act", x, x, SiLU)
	b.Logits("output", x, "out.w", 0)
	p, err := b.Program()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// find returns the first operation of a type.
func find[T Op](p *Program) T {
	for _, op := range p.Ops {
		if o, ok := op.(T); ok {
			return o
		}
	}
	panic("no such operation")
}

func TestCheckRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(p *Program)
		says   string
	}{
		{"no operations", func(p *Program) { p.Ops = nil }, "logits"},
		{"no logits", func(p *Program) { p.Ops = p.Ops[:len(p.Ops)-1] }, "logits"},
		{"value read before it is written", func(p *Program) { p.Ops[1], p.Ops[2] = p.Ops[2], p.Ops[1] }, "rmsnorm"},
		{"value out of range", func(p *Program) { find[*Add](p).A = 99 }, "add"},
		{"value written twice", func(p *Program) { find[*Add](p).Out = 0 }, "add"},
		{"segment that does not divide", func(p *Program) { find[*RMSNorm](p).Segment = 3 }, "rmsnorm"},
		{"segment of zero", func(p *Program) { find[*RMSNorm](p).Segment = 0 }, "rmsnorm"},
		{"rope of zero width", func(p *Program) { find[*Rope](p).HeadDim = 0 }, "rope"},
		{"rope wider than a head", func(p *Program) { find[*Rope](p).InvFreq = make([]float64, 3) }, "rope"},
		{"no such cache", func(p *Program) { find[*KVStore](p).Layer = 1 }, "no cache 1"},
		{"cache of another width", func(p *Program) { p.Caches[0].HeadDim = 3 }, "kv-store"},
		{"heads that do not fit", func(p *Program) { find[*Attention](p).Heads = 3 }, "attention"},
		{"sum of different widths", func(p *Program) { find[*Add](p).B = find[*KVStore](p).K }, "add"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := tiny(t)
			tt.change(p)
			if err := p.Check(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want one that says %q", err, tt.says)
			}
		})
	}
}

type weights map[string]tensor.Tensor

func (w weights) Tensor(name string) (tensor.Tensor, bool) { t, ok := w[name]; return t, ok }

func TestCheckWeights(t *testing.T) {
	p := tiny(t)
	shapes := map[string][]int{
		"embd.w": {10, 8}, "norm.w": {8}, "q.w": {8, 8}, "q.b": {8}, "k.w": {4, 8}, "v.w": {4, 8}, "out.w": {10, 8},
	}
	all := func() weights {
		w := weights{}
		for name, shape := range shapes {
			w[name] = tensor.Tensor{Name: name, Shape: shape}
		}
		return w
	}
	if err := p.CheckWeights(all()); err != nil {
		t.Fatal(err)
	}
	for name := range shapes {
		w := all()
		delete(w, name)
		if err := p.CheckWeights(w); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
		w = all()
		w[name] = tensor.Tensor{Name: name, Shape: []int{7, 7}}
		if err := p.CheckWeights(w); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s of another shape: %v", name, err)
		}
	}
}
