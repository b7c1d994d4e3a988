package graph_test

import (
	"errors"
	"testing"

	"github.com/apr-engine/apr/graph"
)

func TestRowsTouches(t *testing.T) {
	for _, tt := range []struct {
		name             string
		rows             graph.Rows
		position, tokens int
		want             bool
	}{
		{"all", graph.Rows{}, 0, 1, true},
		{"before the first", graph.Rows{From: 5}, 4, 1, false},
		{"the first", graph.Rows{From: 5}, 5, 9, true},
		{"decode in a single step", graph.Rows{Steps: graph.DecodeSteps}, 3, 1, true},
		{"decode in a batch", graph.Rows{Steps: graph.DecodeSteps}, 3, 2, false},
		{"batch in a batch", graph.Rows{Steps: graph.BatchSteps}, 3, 2, true},
		{"batch in a single step", graph.Rows{Steps: graph.BatchSteps}, 3, 1, false},
	} {
		if got := tt.rows.Touches(tt.position, tt.tokens); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestMisplacePosition(t *testing.T) {
	for _, tt := range []struct {
		name            string
		op              graph.Misplace
		p, i, tokens, w int
	}{
		{"later", graph.Misplace{By: 2}, 7, 1, 4, 9},
		{"earlier", graph.Misplace{By: -1}, 7, 1, 4, 6},
		{"restart", graph.Misplace{Restart: true}, 7, 1, 4, 1},
		{"not touched", graph.Misplace{By: 2, Rows: graph.Rows{From: 8}}, 7, 1, 4, 7},
	} {
		if got := tt.op.Position(tt.p, tt.i, tt.tokens); got != tt.w {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.w)
		}
	}
}

// A program with a fault is checked like any other.
func TestCheckOfFaults(t *testing.T) {
	for _, tt := range []struct {
		name string
		op   func(in, other, out graph.ID) graph.Op // in and out are 8 wide, other 4
		ok   bool
	}{
		{"replace", func(in, _, out graph.ID) graph.Op { return &graph.Tamper{In: in, Alt: in, Out: out} }, true},
		{"replace by another width", func(in, other, out graph.ID) graph.Op { return &graph.Tamper{In: in, Alt: other, Out: out} }, false},
		{"replace by a value not there yet", func(in, _, out graph.ID) graph.Op { return &graph.Tamper{In: in, Alt: out, Out: out} }, false},
		{"other width", func(_, other, out graph.ID) graph.Op {
			return &graph.Tamper{In: other, Out: out, How: graph.Multiply}
		}, false},
		{"8 bits", func(in, _, out graph.ID) graph.Op {
			return &graph.Tamper{In: in, Out: out, How: graph.Int8, Group: 3}
		}, true},
		{"8 bits without a group", func(in, _, out graph.ID) graph.Op { return &graph.Tamper{In: in, Out: out, How: graph.Int8} }, false},
		{"heads", func(in, _, out graph.ID) graph.Op {
			return &graph.Tamper{In: in, Out: out, How: graph.Heads, Group: 4, Order: []int{1, 0}}
		}, true},
		{"too few heads", func(in, _, out graph.ID) graph.Op {
			return &graph.Tamper{In: in, Out: out, How: graph.Heads, Group: 4, Order: []int{0}}
		}, false},
		{"a head that is not there", func(in, _, out graph.ID) graph.Op {
			return &graph.Tamper{In: in, Out: out, How: graph.Heads, Group: 4, Order: []int{0, 2}}
		}, false},
		{"misplaced rotation", func(in, _, out graph.ID) graph.Op {
			return &graph.Misplace{Op: &graph.Rope{In: in, Out: out, HeadDim: 4, InvFreq: []float64{1, 0.1}}, By: 1}
		}, true},
		{"misplaced rotation of a wrong width", func(in, _, out graph.ID) graph.Op {
			return &graph.Misplace{Op: &graph.Rope{In: in, Out: out, HeadDim: 3}, By: 1}
		}, false},
		{"misplaced addition", func(in, _, out graph.ID) graph.Op {
			return &graph.Misplace{Op: &graph.Add{A: in, B: in, Out: out}, By: 1}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := graph.NewBuilder("test", 16, 8, 32)
			in := b.Embed("embed", "w")
			other := b.MatMul("narrow", in, "n", "", 4)
			b.Logits("logits", b.Scale("out", in, 1), "o", 0)
			p, err := b.Program()
			if err != nil {
				t.Fatal(err)
			}
			for i, op := range p.Ops {
				if s, ok := op.(*graph.Scale); ok {
					p.Ops[i] = tt.op(in, other, s.Out)
				}
			}
			if err := p.Check(); (err == nil) != tt.ok || err != nil && !errors.Is(err, graph.ErrInvalid) {
				t.Errorf("check: %v", err)
			}
		})
	}
}
