package engine

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/apr-engine/apr/kernel"
)

// Sampling says how the next token is chosen from the logits. The zero value
// is greedy. Filters apply in llama.cpp's order: penalty, top-k, top-p, min-p,
// temperature.
type Sampling struct {
	Temperature   float64 // 0 chooses the largest logit
	TopK          int     // keep the k largest; 0 keeps all
	TopP          float64 // keep the smallest set with this probability; 0 or 1 keeps all
	MinP          float64 // keep tokens at least this share of the most probable; 0 keeps all
	RepeatPenalty float64 // divide (multiply if negative) logits of recent tokens; 0 or 1 for none
	RepeatLastN   int     // how many recent tokens are penalised; 0 means 64, −1 all
	Seed          uint64
}

// Check refuses values outside their range, naming the option.
func (s Sampling) Check() error {
	for _, c := range []struct {
		name     string
		v        float64
		low, top float64
	}{
		{"temperature", s.Temperature, 0, 1e6},
		{"top-k", float64(s.TopK), 0, math.MaxInt32},
		{"top-p", s.TopP, 0, 1},
		{"min-p", s.MinP, 0, 1},
		{"repeat-penalty", s.RepeatPenalty, 0, 1e6},
		{"repeat-last-n", float64(s.RepeatLastN), -1, math.MaxInt32},
	} {
		if !(c.v >= c.low && c.v <= c.top) {
			return fmt.Errorf("%w: %s is %v, want %v to %v", ErrInput, c.name, c.v, c.low, c.top)
		}
	}
	return nil
}

// sampler chooses tokens. It keeps its memory between calls.
type sampler struct {
	Sampling
	rng        *rand.Rand
	candidates []candidate
	penalised  []float32

	probabilities []float32

	// What likely keeps: the probability of each class, and key and number of a token in
	// one word, twice for sorting.
	masses       []float64
	ranks, spare []uint64
}

type candidate struct {
	id int32
	p  float64 // a logit first, then a probability
}

func newSampler(s Sampling) *sampler {
	const stream = 0x9e3779b97f4a7c15 // any constant: PCG wants a second word
	return &sampler{Sampling: s, rng: rand.New(rand.NewPCG(s.Seed, stream))}
}

// sample returns the next token. history holds all tokens so far. The logits
// are finite and are not changed.
func (s *sampler) sample(logits []float32, history []int32) int32 {
	logits = s.penalise(logits, history)
	if s.Temperature == 0 {
		return int32(kernel.ArgMax(logits))
	}
	if s.TopK == 0 && s.MinP == 0 && (s.TopP == 0 || s.TopP == 1) {
		return s.any(logits)
	}
	c := s.filter(logits)
	top, sum := math.Inf(-1), 0.0
	for _, k := range c {
		top = max(top, k.p)
	}
	for i := range c {
		c[i].p = math.Exp((c[i].p - top) / s.Temperature)
		sum += c[i].p
	}
	x := s.rng.Float64() * sum
	for _, k := range c {
		if x -= k.p; x < 0 {
			return k.id
		}
	}
	return c[len(c)-1].id
}

// any returns one of all tokens.
func (s *sampler) any(logits []float32) int32 {
	top := logits[kernel.ArgMax(logits)]
	s.probabilities = slices.Grow(s.probabilities[:0], len(logits))[:len(logits)]
	for i, l := range logits {
		s.probabilities[i] = float32((float64(l) - float64(top)) / s.Temperature)
	}
	kernel.Softmax(s.probabilities)
	x, last := s.rng.Float64(), 0
	for i, p := range s.probabilities {
		if p == 0 {
			continue
		}
		if x -= float64(p); x < 0 {
			return int32(i)
		}
		last = i // rounding can leave the sum below x
	}
	return int32(last)
}

// penalise returns logits with the repeat penalty (Keskar et al. 2019, eq. 5,
// with the sign rule of the llama family) applied once to each recent token.
func (s *sampler) penalise(logits []float32, history []int32) []float32 {
	if s.RepeatPenalty == 0 || s.RepeatPenalty == 1 || len(history) == 0 {
		return logits
	}
	n := s.RepeatLastN
	switch {
	case n == 0:
		n = 64
	case n < 0 || n > len(history):
		n = len(history)
	}
	s.penalised = append(s.penalised[:0], logits...)
	for _, id := range history[len(history)-min(n, len(history)):] {
		l := logits[id]
		if l > 0 {
			s.penalised[id] = l / float32(s.RepeatPenalty)
		} else {
			s.penalised[id] = l * float32(s.RepeatPenalty)
		}
	}
	return s.penalised
}

// filter returns the tokens that remain after top-k, top-p and min-p, with their
// logits. Each of the three keeps the first of the tokens in the order of before, so
// that no more of them need be put in order than are kept: sorting a vocabulary of
// 150,000 takes ten times as long as a GPU's step.
func (s *sampler) filter(logits []float32) []candidate {
	nucleus := s.TopP > 0 && s.TopP < 1
	var c []candidate
	switch {
	case s.TopK > 0 && s.TopK < len(logits):
		c = s.largest(logits, s.TopK)
		if nucleus {
			sum := 0.0
			for _, k := range c {
				sum += math.Exp(k.p - c[0].p)
			}
			n, _ := most(c, func(k candidate) float64 { return math.Exp(k.p-c[0].p) / sum }, s.TopP)
			c = c[:n]
		}
	case nucleus:
		c = s.nucleus(logits)
	default:
		return s.above(logits)
	}
	if s.MinP > 0 {
		least, n := c[0].p+math.Log(s.MinP), 1
		for n < len(c) && c[n].p >= least {
			n++
		}
		c = c[:n]
	}
	return c
}

// most is how many of the first candidates have the given share of the probability
// together; ok is false if all of them have less.
func most(c []candidate, probability func(candidate) float64, share float64) (n int, ok bool) {
	sum := 0.0
	for i, k := range c {
		if sum += probability(k); sum >= share {
			return i + 1, true
		}
	}
	return len(c), false
}

// above returns all tokens that MinP keeps, in the order of the vocabulary.
func (s *sampler) above(logits []float32) []candidate {
	least := math.Inf(-1)
	if s.MinP > 0 {
		least = float64(logits[kernel.ArgMax(logits)]) + math.Log(s.MinP)
	}
	s.candidates = s.candidates[:0]
	for i, l := range logits {
		if float64(l) >= least {
			s.candidates = append(s.candidates, candidate{int32(i), float64(l)})
		}
	}
	return s.candidates
}

// largest returns the n tokens with the largest logits, in their order; of equal ones
// the first of the vocabulary come first.
func (s *sampler) largest(logits []float32, n int) []candidate {
	h := s.candidates[:0]
	for i, l := range logits[:n] {
		h = append(h, candidate{int32(i), float64(l)})
	}
	s.candidates = h
	for i := n / 2; i >= 0; i-- {
		sink(h, i)
	}
	least := h[0].p // of those that are kept
	for i, l := range logits[n:] {
		if float64(l) <= least { // an equal one comes later in the vocabulary
			continue
		}
		if c := (candidate{int32(n + i), float64(l)}); before(c, h[0]) < 0 {
			h[0] = c
			sink(h, 0)
			least = h[0].p
		}
	}
	slices.SortFunc(h, before)
	return h
}

// before orders tokens by their logits, NaN last, equal ones by the vocabulary.
func before(a, b candidate) int {
	if a.p > b.p {
		return -1
	}
	if c := cmp.Compare(b.p, a.p); c != 0 {
		return c
	}
	return cmp.Compare(a.id, b.id)
}

// sink restores a heap whose root comes last in the order of before, where only the
// candidate i may be too near the root. Package container/heap would allocate.
func sink(h []candidate, i int) {
	for {
		last := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(h) && before(h[child], h[last]) > 0 {
				last = child
			}
		}
		if last == i {
			return
		}
		h[i], h[last] = h[last], h[i]
		i = last
	}
}
