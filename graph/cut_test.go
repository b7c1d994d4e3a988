package graph

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// stack is a program of some layers; shared says that the last one attends over
// the cache of the first, skip that it adds the embedding again.
func stack(t *testing.T, layers int, shared, skip bool) *Program {
	t.Helper()
	b := NewBuilder("test", 10, 8, 64)
	embedded := b.Embed("embd", "embd.w")
	x := embedded
	for i := range layers {
		name := func(s string) string { return string(rune('a'+i)) + "." + s }
		n := b.RMSNorm(name("norm"), x, name("norm.w"), 8, 1e-5)
		q := b.MatMul(name("q"), n, name("q.w"), "", 8)
		k, v := b.MatMul(name("k"), n, name("k.w"), "", 4), b.MatMul(name("v"), n, name("v.w"), "", 4)
		cache := b.KVCache(k, v, Cache{Heads: 1, HeadDim: 4, Window: i})
		if shared && i == layers-1 {
			cache = 0
		}
		x = b.Add(name("ffn_inp"), x, b.Attention(name("attn"), q, cache, 2, 0.5, 0))
		x = b.Add(name("l_out"), x, b.GatedAct(name("act"), x, x, SiLU))
		if skip && i == layers-1 {
			x = b.Add(name("skip"), x, embedded)
		}
	}
	b.Logits("output", b.RMSNorm("output_norm", x, "output_norm.w", 8, 1e-5), "out.w", 0)
	p, err := b.Program()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func kinds(p *Program) string {
	var list []string
	for _, op := range p.Ops {
		list = append(list, op.Kind())
	}
	return strings.Join(list, " ")
}

func reads(p *Program) (names []string) {
	for _, op := range p.Ops {
		names = append(names, op.Weights()...)
	}
	return names
}

// Both halves are programs, and together they have every operation, tensor and
// cache of the whole once.
func TestCut(t *testing.T) {
	p := stack(t, 4, false, false)
	before := kinds(p)
	for layers := 1; layers < 4; layers++ {
		first, rest, err := p.Cut(layers)
		if err != nil {
			t.Fatal(err)
		}
		if first.Layers() != layers || rest.Layers() != 4-layers || rest.Caches[0].Window != layers {
			t.Errorf("after %d: %v and %v", layers, first.Caches, rest.Caches)
		}
		whole := strings.TrimSuffix(kinds(first), " output") + strings.TrimPrefix(kinds(rest), "input")
		if whole != before {
			t.Errorf("after %d: %s\nwant %s", layers, whole, before)
		}
		if got := slices.Concat(reads(first), reads(rest)); !slices.Equal(got, reads(p)) {
			t.Errorf("after %d: tensors %v", layers, got)
		}
		// What crosses is the sum at the end of a layer, under its name on both sides.
		name := string(rune('a'+layers-1)) + ".l_out"
		out := first.Values[first.Ops[len(first.Ops)-1].Inputs()[0]].Name
		if in := rest.Values[rest.Ops[0].Output()].Name; in != name || out != name {
			t.Errorf("after %d: %s goes out and %s comes in, want %s", layers, out, in, name)
		}
		if first.InWidth() != 0 || first.OutWidth() != 8 || rest.InWidth() != 8 || rest.OutWidth() != 10 {
			t.Errorf("after %d: widths %d to %d, %d to %d", layers, first.InWidth(), first.OutWidth(), rest.InWidth(), rest.OutWidth())
		}
	}
	if kinds(p) != before || p.Ops[10].Inputs()[0] == 0 {
		t.Error("the whole program has changed")
	}
	// A half is cut again as the whole is.
	_, rest, err := p.Cut(1)
	if err != nil {
		t.Fatal(err)
	}
	middle, last, err := rest.Cut(2)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(kinds(middle), "input rmsnorm") || !strings.HasSuffix(kinds(middle), " output") || last.Layers() != 1 {
		t.Errorf("the middle is %s, the end has %d layers", kinds(middle), last.Layers())
	}
}

// An injected fault goes with its operation.
func TestCutTampered(t *testing.T) {
	p := stack(t, 2, false, false)
	for i, op := range p.Ops {
		if s, ok := op.(*KVStore); ok && s.Layer == 1 {
			p.Ops[i] = &Misplace{Op: s, By: 3}
		}
	}
	_, rest, err := p.Cut(1)
	if err != nil {
		t.Fatal(err)
	}
	m := find[*Misplace](rest)
	if s := m.Op.(*KVStore); s.Layer != 0 || m.By != 3 || rest.Values[s.K].Name != "b.k" {
		t.Errorf("misplaced by %d in layer %d: %s", m.By, s.Layer, rest.Values[s.K].Name)
	}
}

func TestCutRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		p      *Program
		layers int
		says   string
	}{
		{"no layer", stack(t, 3, false, false), 0, "after 0 of 3 layers"},
		{"all layers", stack(t, 3, false, false), 3, "after 3 of 3 layers"},
		{"shared cache", stack(t, 3, true, false), 1, "reads the cache of an earlier one"},
		{"embedding needed twice", stack(t, 3, false, true), 1, "embd, a.l_out are needed on both sides"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := tt.p.Cut(tt.layers)
			if !errors.Is(err, ErrCut) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want one that says %q", err, tt.says)
			}
		})
	}
}
