//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"slices"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/tensor"
)

// A step that is timed computes what it computes otherwise, also after steps that
// recorded the next ahead, and every product counts its weights once a step.
func TestProfile(t *testing.T) {
	d := needAdapter(t)
	p, w := opsProgram(t, smallSizes)
	x, err := d.Load(p, w, backend.Options{KV: tensor.F32})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	e := x.(*executor)
	if !e.gpu.Features.Timestamps {
		t.Skip("the adapter tells no times inside a pass")
	}
	seq, err := e.NewSequence(16)
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	var l backend.Logits
	run := func() []float32 {
		if err := seq.Truncate(0); err != nil {
			t.Fatal(err)
		}
		for token := range int32(4) {
			if err := e.Step([]backend.Span{{Seq: seq, Tokens: []int32{token}, Want: backend.Last}}, &l); err != nil {
				t.Fatal(err)
			}
		}
		return slices.Clone(l.Data)
	}
	plain := run()
	e.SetProfile(true)
	if timed := run(); !slices.Equal(timed, plain) {
		t.Error("timed steps give other logits")
	}
	list := e.Profile()
	weights, calls := 0.0, 0
	for _, o := range list {
		if o.Time < 0 || o.Calls%4 != 0 {
			t.Errorf("%s: %v in %d calls of four steps", o.Name, o.Time, o.Calls)
		}
		weights, calls = weights+o.Bytes, calls+o.Calls
	}
	if weights == 0 || calls == 0 {
		t.Errorf("%d dispatches of %g bytes", calls, weights)
	}
	e.SetProfile(false)
	if list := e.Profile(); list != nil {
		t.Errorf("without a profile there are %d times", len(list))
	}
	if again := run(); !slices.Equal(again, plain) {
		t.Error("steps after a profile give other logits")
	}
}
