// Package kerneltest is the harness of kernel tests: it runs a test at every
// CPU level, places vectors against unmapped pages with canaries on the other
// side, and compares in a way that NaN cannot pass.
//
// It does not import package kernel, so that package's own tests can use it.
package kerneltest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/internal/cpufeat"
)

// EachLevel runs f as a subtest at each CPU level, with use (kernel.Use) set to
// it. A level above the machine's, or above what APR_CPU allows, is skipped.
func EachLevel(t *testing.T, use func(cpufeat.Level) (restore func()), f func(t *testing.T)) {
	t.Helper()
	for _, l := range cpufeat.Levels() {
		t.Run(l.String(), func(t *testing.T) {
			if l > cpufeat.Best() {
				t.Skipf("this machine or %s stops at %s", cpufeat.EnvVar, cpufeat.Best())
			}
			defer use(l)()
			f(t)
		})
	}
}

// Rand returns a generator whose sequence depends only on the test's name.
func Rand(t testing.TB) *rand.Rand {
	var seed uint64 = 14695981039346656037 // FNV-1a
	for _, c := range []byte(t.Name()) {
		seed = (seed ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(seed, 1))
}

// Normal returns n normally distributed values from guarded memory.
func Normal(t testing.TB, rng *rand.Rand, n int, place Place) []float32 {
	x := Slice[float32](t, n, place)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

// SameBits fails unless got and want have the same length and bits; any NaN
// equals any other.
func SameBits(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) && !(got[i] != got[i] && want[i] != want[i]) {
			t.Fatalf("%s: [%d of %d] is %v (%#08x), want %v (%#08x)", what, i, len(got),
				got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

// Close fails unless each |got[i]-want[i]| <= tol(i). Where want is NaN or
// infinite, got must be the same. It returns the largest share of a tolerance
// that was used.
func Close(t testing.TB, what string, got []float32, want []float64, tol func(i int) float64) float64 {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	worst := 0.0
	for i := range got {
		g, w := float64(got[i]), want[i]
		if math.IsNaN(w) || math.IsInf(w, 0) {
			if !(g == w || math.IsNaN(g) && math.IsNaN(w)) {
				t.Fatalf("%s: [%d of %d] is %v, want %v", what, i, len(got), g, w)
			}
			continue
		}
		diff := math.Abs(g - w)
		if !(diff <= tol(i)) {
			t.Fatalf("%s: [%d of %d] is %v, want %v: off by %.3g, allowed %.3g", what, i, len(got), g, w, diff, tol(i))
		}
		if diff > 0 {
			worst = max(worst, diff/tol(i))
		}
	}
	return worst
}

// ULP is the distance between neighbouring float32 values at x.
func ULP(x float64) float64 {
	x = math.Abs(x)
	if x < 0x1p-126 {
		return 0x1p-149
	}
	_, e := math.Frexp(x)
	return math.Ldexp(1, e-24)
}
