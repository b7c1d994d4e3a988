package engine

import (
	"math"
	"slices"

	"github.com/apr-engine/apr/kernel"
)

// few is how many tokens a nucleus is looked for in first: most have no more.
const few = 64

// nucleus returns the most probable tokens that have TopP of the probability together,
// in their order.
func (s *sampler) nucleus(logits []float32) []candidate {
	s.probabilities = append(s.probabilities[:0], logits...)
	kernel.Softmax(s.probabilities)
	probability := func(k candidate) float64 { return float64(s.probabilities[k.id]) }
	c := s.largest(logits, min(few, len(logits)))
	n, ok := most(c, probability, s.TopP)
	if !ok && len(c) < len(logits) {
		c = s.likely(logits)
		n, _ = most(c, probability, s.TopP)
	}
	return c[:n]
}

// A class of tokens is what the first classBits of their keys say: the logit's sign,
// exponent and first digits.
const classBits = 12

// likely returns, in their order, at least the tokens that have TopP of the probability
// together: all of as many classes, so that no others need be put in order.
func (s *sampler) likely(logits []float32) []candidate {
	s.masses = slices.Grow(s.masses[:0], 1<<classBits)[:1<<classBits]
	clear(s.masses)
	for i, l := range logits {
		s.masses[key(l)>>(32-classBits)] += float64(s.probabilities[i])
	}
	// Sums in another order differ by less than 1e-16 a token: with this margin, what
	// most adds up in order reaches TopP too.
	const margin = 1e-9
	last, sum := 0, 0.0
	for ; last < len(s.masses)-1; last++ {
		if sum += s.masses[last]; sum >= s.TopP+margin {
			break
		}
	}
	s.ranks = s.ranks[:0]
	for i, l := range logits {
		if k := key(l); int(k>>(32-classBits)) <= last {
			s.ranks = append(s.ranks, uint64(k)<<32|uint64(i))
		}
	}
	s.sortRanks()
	s.candidates = s.candidates[:0]
	for _, r := range s.ranks {
		id := int32(uint32(r))
		s.candidates = append(s.candidates, candidate{id, float64(logits[id])})
	}
	return s.candidates
}

// key of a logit: the larger the logit, the smaller the key. Keys of equal logits are
// equal, and NaN comes last.
func key(l float32) uint32 {
	b := math.Float32bits(l)
	switch {
	case l != l:
		return math.MaxUint32
	case l == 0: // of either sign
		return math.MaxInt32
	case int32(b) < 0:
		return b
	}
	return math.MaxInt32 - b
}

// sortRanks sorts ranks by their upper halves; equal ones keep their order. It counts
// digits: comparing the tokens of a whole vocabulary takes many times as long.
func (s *sampler) sortRanks() {
	const digit = 11
	s.spare = slices.Grow(s.spare[:0], len(s.ranks))[:len(s.ranks)]
	for shift := 32; shift < 64; shift += digit {
		var ends [1 << digit]int32 // first how many, then where the next of them goes
		for _, r := range s.ranks {
			ends[r>>shift&(1<<digit-1)]++
		}
		at := int32(0)
		for d, n := range ends {
			ends[d] = at
			at += n
		}
		for _, r := range s.ranks {
			d := r >> shift & (1<<digit - 1)
			s.spare[ends[d]] = r
			ends[d]++
		}
		s.ranks, s.spare = s.spare, s.ranks
	}
}
