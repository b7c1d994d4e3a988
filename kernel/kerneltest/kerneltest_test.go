package kerneltest

import (
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/internal/cpufeat"
)

// recorder is a testing.TB that notes failures instead of failing.
type recorder struct {
	testing.TB
	failed  []string
	cleanup []func()
}

func (r *recorder) Helper()                   {}
func (r *recorder) Name() string              { return "recorder" }
func (r *recorder) Cleanup(f func())          { r.cleanup = append(r.cleanup, f) }
func (r *recorder) Errorf(f string, a ...any) { r.failed = append(r.failed, fmt.Sprintf(f, a...)) }
func (r *recorder) Fatalf(f string, a ...any) { r.Errorf(f, a...); panic(r) }

// record runs f and returns what it failed with, cleaning up included.
func record(f func(t testing.TB)) string {
	r := &recorder{}
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(r) {
				panic(p)
			}
		}()
		f(r)
	}()
	for _, c := range r.cleanup {
		c()
	}
	return strings.Join(r.failed, "; ")
}

func TestComparisonsFail(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	one := func(int) float64 { return 1 }
	for _, c := range []struct {
		name string
		run  func(t testing.TB)
		fail bool
	}{
		{"close within", func(t testing.TB) { Close(t, "x", []float32{1.5}, []float64{1}, one) }, false},
		{"close beyond", func(t testing.TB) { Close(t, "x", []float32{2.5}, []float64{1}, one) }, true},
		{"close NaN got", func(t testing.TB) { Close(t, "x", []float32{nan}, []float64{1}, one) }, true},
		{"close NaN wanted", func(t testing.TB) { Close(t, "x", []float32{1}, []float64{math.NaN()}, one) }, true},
		{"close NaN both", func(t testing.TB) { Close(t, "x", []float32{nan}, []float64{math.NaN()}, one) }, false},
		{"close infinite", func(t testing.TB) { Close(t, "x", []float32{inf}, []float64{math.Inf(1)}, one) }, false},
		{"close wrong infinity", func(t testing.TB) { Close(t, "x", []float32{-inf}, []float64{math.Inf(1)}, one) }, true},
		{"close NaN tolerance", func(t testing.TB) { Close(t, "x", []float32{1}, []float64{2}, func(int) float64 { return math.NaN() }) }, true},
		{"close length", func(t testing.TB) { Close(t, "x", nil, []float64{1}, one) }, true},
		{"bits same", func(t testing.TB) { SameBits(t, "x", []float32{1, nan}, []float32{1, -nan}) }, false},
		{"bits of zero", func(t testing.TB) { SameBits(t, "x", []float32{0}, []float32{float32(math.Copysign(0, -1))}) }, true},
		{"bits NaN got", func(t testing.TB) { SameBits(t, "x", []float32{nan}, []float32{1}) }, true},
		{"bits length", func(t testing.TB) { SameBits(t, "x", []float32{1}, nil) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if failed := record(c.run); (failed != "") != c.fail {
				t.Errorf("failure %q, want one: %v", failed, c.fail)
			}
		})
	}
}

func TestULP(t *testing.T) {
	for _, c := range []struct{ x, want float64 }{
		{1, 0x1p-23}, {1.99, 0x1p-23}, {2, 0x1p-22}, {-1, 0x1p-23}, {0, 0x1p-149}, {0x1p-126, 0x1p-149}, {0x1p-140, 0x1p-149},
	} {
		if got := ULP(c.x); got != c.want {
			t.Errorf("ULP(%g) = %g, want %g", c.x, got, c.want)
		}
	}
}

func TestEachLevelRestores(t *testing.T) {
	var seen []cpufeat.Level
	active := cpufeat.Level(-1)
	t.Run("levels", func(t *testing.T) {
		EachLevel(t, func(l cpufeat.Level) func() {
			active = l
			return func() { active = -1 }
		}, func(t *testing.T) { seen = append(seen, active) })
	})
	if active != -1 {
		t.Errorf("level %v left active", active)
	}
	if want := slices.Index(cpufeat.Levels(), cpufeat.Best()) + 1; len(seen) != want || seen[0] != cpufeat.Generic {
		t.Errorf("ran at %v, want %d levels from generic", seen, want)
	}
}

// faults reports whether f touches memory that is not mapped.
func faults(f func()) (faulted bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { faulted = recover() != nil }()
	f()
	return false
}
