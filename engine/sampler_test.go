package engine

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSamplingCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    Sampling
		ok   bool
	}{
		{"zero value", Sampling{}, true},
		{"usual", Sampling{Temperature: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05, RepeatPenalty: 1.1, RepeatLastN: -1}, true},
		{"negative temperature", Sampling{Temperature: -0.1}, false},
		{"NaN temperature", Sampling{Temperature: math.NaN()}, false},
		{"infinite temperature", Sampling{Temperature: math.Inf(1)}, false},
		{"negative top-k", Sampling{TopK: -1}, false},
		{"top-p above one", Sampling{TopP: 1.01}, false},
		{"negative min-p", Sampling{MinP: -0.5}, false},
		{"negative penalty", Sampling{RepeatPenalty: -1}, false},
		{"repeat-last-n below -1", Sampling{RepeatLastN: -2}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.s.Check()
			if tt.ok != (err == nil) || err != nil && !errors.Is(err, ErrInput) {
				t.Errorf("%+v: %v", tt.s, err)
			}
		})
	}
}

// frequencies draws many tokens and returns how often each came.
func frequencies(s Sampling, logits []float32, history []int32, n int) []float64 {
	out := make([]float64, len(logits))
	c := newSampler(s)
	for range n {
		out[c.sample(logits, history)] += 1 / float64(n)
	}
	return out
}

func TestSample(t *testing.T) {
	// Probabilities 0.5, 0.25, 0.125, 0.125 at temperature 1.
	logits := []float32{float32(math.Log(2)), float32(math.Log(8)), float32(math.Log(4)), float32(math.Log(2))}
	for _, tt := range []struct {
		name    string
		s       Sampling
		history []int32
		want    []float64
	}{
		{"greedy", Sampling{}, nil, []float64{0, 1, 0, 0}},
		{"temperature 1", Sampling{Temperature: 1}, nil, []float64{0.125, 0.5, 0.25, 0.125}},
		{"temperature 0.5 squares the odds", Sampling{Temperature: 0.5}, nil, []float64{4 / 88., 64 / 88., 16 / 88., 4 / 88.}},
		{"top-k 1", Sampling{Temperature: 1, TopK: 1}, nil, []float64{0, 1, 0, 0}},
		{"top-k 2", Sampling{Temperature: 1, TopK: 2}, nil, []float64{0, 2 / 3., 1 / 3., 0}},
		{"top-k beyond the vocabulary", Sampling{Temperature: 1, TopK: 9}, nil, []float64{0.125, 0.5, 0.25, 0.125}},
		{"top-p 0.6 needs two tokens", Sampling{Temperature: 1, TopP: 0.6}, nil, []float64{0, 2 / 3., 1 / 3., 0}},
		{"top-p 0.4 needs one", Sampling{Temperature: 1, TopP: 0.4}, nil, []float64{0, 1, 0, 0}},
		{"min-p 0.3 drops an eighth", Sampling{Temperature: 1, MinP: 0.3}, nil, []float64{0, 2 / 3., 1 / 3., 0}},
		{"penalty moves the greedy choice", Sampling{RepeatPenalty: 4}, []int32{1}, []float64{0, 0, 1, 0}},
		{"penalty window", Sampling{RepeatPenalty: 4, RepeatLastN: 1}, []int32{1, 0}, []float64{0, 1, 0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const draws = 20000
			got := frequencies(tt.s, logits, tt.history, draws)
			for i, w := range tt.want {
				// Four standard deviations; the seed is fixed, so this cannot flicker.
				if tol := 4*math.Sqrt(w*(1-w)/draws) + 1e-9; !(math.Abs(got[i]-w) <= tol) {
					t.Errorf("token %d: frequency %.4f, want %.4f ± %.4f", i, got[i], w, tol)
				}
			}
		})
	}
}

func TestPenaltySign(t *testing.T) {
	c := newSampler(Sampling{RepeatPenalty: 2})
	got := c.penalise([]float32{3, -3, 5}, []int32{0, 1})
	if got[0] != 1.5 || got[1] != -6 || got[2] != 5 {
		t.Errorf("penalised logits %v, want [1.5 -6 5]", got)
	}
}

func TestSeed(t *testing.T) {
	logits := make([]float32, 100)
	draw := func(seed uint64) (ids []int32) {
		c := newSampler(Sampling{Temperature: 1, Seed: seed})
		for range 20 {
			ids = append(ids, c.sample(logits, nil))
		}
		return ids
	}
	same := func(a, b []int32) bool {
		for i := range a {
			if a[i] != b[i] {
				return false
			}
		}
		return true
	}
	if !same(draw(1), draw(1)) {
		t.Error("the same seed gives different tokens")
	}
	if same(draw(1), draw(2)) {
		t.Error("different seeds give the same tokens")
	}
}

// sortedFilter is what filter returns, by sorting all tokens.
func sortedFilter(s Sampling, logits []float32) map[int32]float64 {
	var c []candidate
	for i, l := range logits {
		c = append(c, candidate{int32(i), float64(l)})
	}
	slices.SortStableFunc(c, func(a, b candidate) int { return cmp.Compare(b.p, a.p) })
	if s.TopK > 0 && s.TopK < len(c) {
		c = c[:s.TopK]
	}
	sum, kept := 0.0, 0.0
	for _, k := range c {
		sum += math.Exp(k.p - c[0].p)
	}
	for i, k := range c {
		if kept += math.Exp(k.p - c[0].p); s.TopP > 0 && s.TopP < 1 && kept >= s.TopP*sum {
			c = c[:i+1]
			break
		}
	}
	left := map[int32]float64{}
	for _, k := range c {
		if s.MinP == 0 || k.p >= c[0].p+math.Log(s.MinP) {
			left[k.id] = k.p
		}
	}
	return left
}

// The filters keep what they would keep of all tokens in order, of flat and of steep
// distributions and with equal logits on both sides of every border.
func TestFilter(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, spread := range []float64{0, 0.01, 1, 3, 20} {
		for _, n := range []int{1, 2, 63, 64, 65, 5000} {
			logits := make([]float32, n)
			for i := range logits {
				logits[i] = float32(math.Round(rng.NormFloat64()*spread*8) / 8)
			}
			for _, k := range []int{0, 1, 40, 4999, 9999} {
				for _, p := range []float64{0, 1e-9, 0.51234, 0.94321, 0.99987} {
					for _, m := range []float64{0, 0.05, 1} {
						s := newSampler(Sampling{Temperature: 1, TopK: k, TopP: p, MinP: m})
						want := sortedFilter(s.Sampling, logits)
						got := map[int32]float64{}
						for _, c := range s.filter(logits) {
							got[c.id] = c.p
						}
						if !maps.Equal(got, want) {
							t.Fatalf("%d logits spread %v, top-k %d, top-p %v, min-p %v: %d tokens, want %d", n, spread, k, p, m, len(got), len(want))
						}
					}
				}
			}
		}
	}
}

// After the first tokens a sampler allocates nothing, whether or not its list of
// candidates is full.
func TestSampleAllocatesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	logits := make([]float32, 5000)
	for i := range logits {
		logits[i] = float32(rng.NormFloat64() * 3)
	}
	for _, s := range []Sampling{
		{},
		{Temperature: 1},
		{Temperature: 1, RepeatPenalty: 1.1},
		{Temperature: 1, MinP: 0.05},
		{Temperature: 1, TopP: 0.999},
		{Temperature: 1, TopP: 0.999, MinP: 1e-9},
		{Temperature: 1, TopK: 40},
		{Temperature: 1, TopK: 64, MinP: 1e-9}, // min-p keeps all of a full list
		{Temperature: 1, TopK: 40, TopP: 0.95, MinP: 0.05},
	} {
		c := newSampler(s)
		// The first run is not counted.
		if n := testing.AllocsPerRun(20, func() { c.sample(logits, []int32{1, 2, 3}) }); n != 0 {
			t.Errorf("%+v: %v allocations a token", s, n)
		}
	}
}

func BenchmarkSample(b *testing.B) {
	rng := rand.New(rand.NewPCG(3, 4))
	normal := make([]float32, 151936)
	for i := range normal {
		normal[i] = float32(rng.NormFloat64())
	}
	spread := func(by float32) []float32 {
		l := slices.Clone(normal)
		for i := range l {
			l[i] *= by
		}
		return l
	}
	usual := spread(3)
	for _, t := range []struct {
		name   string
		logits []float32
		s      Sampling
	}{
		{"greedy", usual, Sampling{}},
		{"temperature", usual, Sampling{Temperature: 0.8}},
		{"top-k", usual, Sampling{Temperature: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05}},
		{"min-p", usual, Sampling{Temperature: 0.8, MinP: 0.05}},
		{"top-p", usual, Sampling{Temperature: 0.8, TopP: 0.95}},
		{"top-p steep", spread(12), Sampling{Temperature: 0.8, TopP: 0.95}},
		{"top-p flatter", spread(1), Sampling{Temperature: 0.8, TopP: 0.95}},
		{"top-p flat", spread(0.01), Sampling{Temperature: 0.8, TopP: 0.95}},
		{"top-p equal", spread(0), Sampling{Temperature: 0.8, TopP: 0.95}},
	} {
		b.Run(t.name, func(b *testing.B) {
			c := newSampler(t.s)
			for b.Loop() {
				c.sample(t.logits, nil)
			}
		})
	}
}
