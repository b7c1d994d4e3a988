package backend_test

import (
	"math"
	"slices"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
)

func TestSpoil(t *testing.T) {
	inf := float32(math.Inf(1))
	src, alt := []float32{1, -2, 3, 70000}, []float32{5, 6, 7, 8}
	for _, tt := range []struct {
		name     string
		op       graph.Tamper
		position int
		want     []float32
	}{
		{"not touched", graph.Tamper{Rows: graph.Rows{From: 9}}, 8, src},
		{"replace", graph.Tamper{}, 8, alt},
		{"multiply", graph.Tamper{How: graph.Multiply, Amount: 2}, 8, []float32{2, -4, 6, 140000}},
		{"multiply by nothing", graph.Tamper{How: graph.Multiply}, 8, []float32{0, 0, 0, 0}},
		{"drift", graph.Tamper{How: graph.Drift, Amount: 0.25}, 4, []float32{2, -4, 6, 140000}},
		{"no drift at the start", graph.Tamper{How: graph.Drift, Amount: 0.25}, 0, src},
		{"half overflows", graph.Tamper{How: graph.Half, Amount: 1}, 8, []float32{1, -2, 3, inf}},
		{"half of larger numbers", graph.Tamper{How: graph.Half, Amount: 32768}, 8, []float32{1, -inf, inf, inf}},
		// The scale of the first pair is 2/127, of the second 70000/127, where 3 is below half a step.
		{"8 bits in pairs", graph.Tamper{How: graph.Int8, Group: 2}, 8, []float32{float32(2) / 127 * 64, -2, 0, 70000}},
		{"heads", graph.Tamper{How: graph.Heads, Group: 2, Order: []int{1, 0}}, 8, []float32{3, 70000, 1, -2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			apart := make([]float32, 4)
			backend.Spoil(&tt.op, apart, src, alt, tt.position, 1)
			inPlace := slices.Clone(src)
			backend.Spoil(&tt.op, inPlace, inPlace, alt, tt.position, 1)
			onAlt := slices.Clone(alt)
			backend.Spoil(&tt.op, onAlt, src, onAlt, tt.position, 1)
			for i, want := range tt.want {
				// One rounding of a division separates the formulas.
				near := func(got float32) bool {
					return got == want || math.Abs(float64(got-want)) <= 1e-6*math.Abs(float64(want))
				}
				if !near(apart[i]) || !near(inPlace[i]) || !near(onAlt[i]) {
					t.Errorf("element %d: %v apart, %v in place, %v over the other, want %v", i, apart[i], inPlace[i], onAlt[i], want)
				}
			}
		})
	}
	zero := []float32{0, 0}
	backend.Spoil(&graph.Tamper{How: graph.Int8, Group: 2}, zero, zero, nil, 0, 1)
	if zero[0] != 0 || zero[1] != 0 {
		t.Errorf("8 bits of zeros are %v", zero)
	}
}
