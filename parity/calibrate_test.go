package parity_test

import (
	"context"
	"errors"
	"testing"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/tensor"
)

func calibrationModel(t *testing.T) parity.CalibrationModel {
	m := bundledModel(t, "4m")
	return parity.CalibrationModel{Name: "4m", Program: m.program, Weights: m.weights, Prompts: [][]int32{randomPrompt(m.program, 20), randomPrompt(m.program, 9)}}
}

// Noise grows in the order of the arithmetics' coarseness, and there is none
// between batches of different sizes.
func TestCalibrate(t *testing.T) {
	m := calibrationModel(t)
	before := len(m.Program.Ops)
	table, err := parity.Calibrate(context.Background(), m, parity.Arithmetics())
	if err != nil {
		t.Fatal(err)
	}
	noise := map[string]parity.Noise{}
	for _, n := range table {
		noise[n.Arithmetic] = n
		if n.Model != "4m" || n.Positions != 29 {
			t.Errorf("%s: model %q, %d positions", n.Arithmetic, n.Model, n.Positions)
		}
		if !(n.MaxP99 <= n.MaxP999 && n.MaxP999 <= n.MaxPeak && n.MinCosine <= 1) {
			t.Errorf("%s: %+v", n.Arithmetic, n)
		}
	}
	if n := noise["single steps"]; n.MaxPeak != 0 {
		t.Errorf("single steps differ by %v", n.MaxPeak)
	}
	order := []string{"float64 sums (oracle)", "half-precision cache", "half-precision activations", "8-bit activations, one scale for 32"}
	for i := 1; i < len(order); i++ {
		if a, b := noise[order[i-1]].MaxRMS, noise[order[i]].MaxRMS; !(a > 0 && a < b) {
			t.Errorf("%s: %.3g, %s: %.3g", order[i-1], a, order[i], b)
		}
	}
	if len(m.Program.Ops) != before {
		t.Error("the model's program was changed")
	}
}

func TestCalibrateFails(t *testing.T) {
	m := calibrationModel(t)
	for _, tt := range []struct {
		name string
		a    parity.Arithmetic
	}{
		{"unknown backend", parity.Arithmetic{Name: "x", Backend: "none", KV: tensor.F32, Batch: 8}},
		{"unsupported cache", parity.Arithmetic{Name: "x", Backend: "cpu", KV: tensor.Q4_0, Batch: 8}},
		{"not finite", parity.Arithmetic{Name: "x", Backend: "cpu-exact", KV: tensor.F32, Batch: 8, Rounding: &graph.Tamper{How: graph.Half, Amount: 1e9}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, err := parity.Calibrate(context.Background(), m, []parity.Arithmetic{tt.a})
			if tt.name == "not finite" {
				// It is measured, and as bad as can be.
				if err != nil || table[0].MinCosine != 0 {
					t.Errorf("%v, %+v", err, table)
				}
				return
			}
			if !errors.Is(err, parity.ErrNotMeasured) {
				t.Errorf("error %v, want %v", err, parity.ErrNotMeasured)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := parity.Calibrate(ctx, m, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v after cancellation", err)
	}
}

func TestNoiseMerge(t *testing.T) {
	a := parity.Noise{Model: "m", Arithmetic: "a", Positions: 2, MinCosine: 0.9, MinClose: 1, MaxKL: 1, MaxPeak: 3, Flips: 1, MaxMargin: 0.1}
	b := parity.Noise{Model: "n", Arithmetic: "a", Positions: 3, MinCosine: 0.8, MinClose: 0.5, MaxKL: 0.5, MaxPeak: 4, Flips: 2, MaxMargin: 0.05}
	got := parity.Noise{}.Merge(a).Merge(b).Merge(parity.Noise{})
	want := parity.Noise{Positions: 5, MinCosine: 0.8, MinClose: 0.5, MaxKL: 1, MaxPeak: 4, Flips: 3, MaxMargin: 0.1}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
