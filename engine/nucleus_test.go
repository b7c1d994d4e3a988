package engine

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apr-engine/apr/kernel"
)

// sortedNucleus is what nucleus returns, by sorting all tokens: NaN last, equal ones by
// the vocabulary.
func sortedNucleus(logits []float32, share float64) []candidate {
	p := slices.Clone(logits)
	kernel.Softmax(p)
	var c []candidate
	for i, l := range logits {
		c = append(c, candidate{int32(i), float64(l)})
	}
	slices.SortStableFunc(c, func(a, b candidate) int { return cmp.Compare(b.p, a.p) })
	sum := 0.0
	for i, k := range c {
		if sum += float64(p[k.id]); sum >= share {
			return c[:i+1]
		}
	}
	return c
}

// A nucleus is the one of all tokens in order, and in that order, down to the last token:
// then the token that is drawn does not depend on how it was found.
func TestNucleus(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	normal := func(spread float64) func(int) float32 {
		return func(int) float32 { return float32(rng.NormFloat64() * spread) }
	}
	inf := float32(math.Inf(1))
	for _, d := range []struct {
		name  string
		logit func(i int) float32
	}{
		{"equal", func(int) float32 { return -1.5 }},
		{"flat", normal(0.001)},
		{"flat beside 4", func(int) float32 { return 4 + float32(rng.NormFloat64()*1e-5) }}, // two classes
		{"random", normal(1)},
		{"usual", normal(3)},
		{"steep", normal(30)},
		{"one peak", func(i int) float32 {
			if i == 41 {
				return 90
			}
			return float32(rng.NormFloat64())
		}},
		{"ties", func(int) float32 { return float32(rng.IntN(5)) / 4 }},
		{"zeros of both signs", func(int) float32 { return float32(math.Copysign(0, rng.NormFloat64())) }},
		{"two values in classes far apart", func(int) float32 { return []float32{-20, 1e-30}[rng.IntN(2)] }},
		{"masked", func(i int) float32 {
			if i%3 > 0 {
				return -inf
			}
			return float32(rng.NormFloat64())
		}},
		{"nothing", func(int) float32 { return -inf }},
		{"a NaN", func(i int) float32 {
			if i == 17 {
				return float32(math.NaN())
			}
			return float32(rng.NormFloat64())
		}},
		{"NaN and infinities", func(int) float32 {
			return []float32{float32(math.NaN()), -float32(math.NaN()), inf, -inf, 0, 1}[rng.IntN(6)]
		}},
	} {
		t.Run(d.name, func(t *testing.T) {
			for _, n := range []int{1, 2, few - 1, few, few + 1, 1000, 20011} {
				logits := make([]float32, n)
				for i := range logits {
					logits[i] = d.logit(i)
				}
				s := newSampler(Sampling{Temperature: 1})
				for _, share := range []float64{1e-9, 0.1, 0.51234, 0.94321, 0.99987, math.Nextafter(1, 0)} {
					s.TopP = share
					got, want := s.nucleus(logits), sortedNucleus(logits, share)
					same := func(a, b candidate) bool { return a.id == b.id && cmp.Compare(a.p, b.p) == 0 }
					if !slices.EqualFunc(got, want, same) {
						t.Fatalf("%v of %d tokens: %d, want %d", share, n, len(got), len(want))
					}
				}
			}
		})
	}
}

// Keys order logits as before does.
func TestKey(t *testing.T) {
	inf := float32(math.Inf(1))
	order := []float32{inf, math.MaxFloat32, 1, 0.99, math.SmallestNonzeroFloat32, 0, -math.SmallestNonzeroFloat32, -1, -math.MaxFloat32, -inf, float32(math.NaN())}
	for i := 1; i < len(order); i++ {
		if a, b := key(order[i-1]), key(order[i]); a >= b {
			t.Errorf("the key of %v is %#x, that of %v %#x", order[i-1], a, order[i], b)
		}
	}
	if minus := float32(math.Copysign(0, -1)); key(minus) != key(0) {
		t.Errorf("the zeros have keys %#x and %#x", key(minus), key(0))
	}
	if other := math.Float32frombits(0xffc00001); key(other) != key(float32(math.NaN())) {
		t.Errorf("another NaN has another key")
	}
}
