package engine

import (
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
	c := s.filter(logits)
	top, sum := c[0].p, 0.0
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

// filter returns the tokens that remain after top-k, top-p and min-p, with
// their logits, most probable first.
func (s *sampler) filter(logits []float32) []candidate {
	c := s.candidates[:0]
	for i, l := range logits {
		c = append(c, candidate{int32(i), float64(l)})
	}
	s.candidates = c
	slices.SortFunc(c, func(a, b candidate) int {
		switch {
		case a.p > b.p:
			return -1
		case a.p < b.p:
			return 1
		}
		return int(a.id - b.id)
	})
	if s.TopK > 0 && s.TopK < len(c) {
		c = c[:s.TopK]
	}
	if s.TopP > 0 && s.TopP < 1 {
		sum := 0.0
		for _, k := range c {
			sum += math.Exp(k.p - c[0].p)
		}
		kept := 0.0
		for i, k := range c {
			if kept += math.Exp(k.p - c[0].p); kept >= s.TopP*sum {
				c = c[:i+1]
				break
			}
		}
	}
	if s.MinP > 0 {
		floor := c[0].p + math.Log(s.MinP)
		for i, k := range c {
			if k.p < floor {
				c = c[:i]
				break
			}
		}
	}
	return c
}
