package parity_test

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// toyVocab is large enough that a tile of 64 logits is a small share.
const toyVocab = 4096

// toy is an executor of a make-believe model: the logits of a position are
// pseudo-random numbers that depend on all tokens up to it, so that anything
// wrong with tokens, positions or the cache shows at once. The hooks make it
// wrong.
type toy struct {
	noise  float64 // relative, of every logit
	vocab  int     // toyVocab if 0
	before func(t *toy, batch []backend.Span) error
	row    func(t *toy, position int, span backend.Span, row []float32)
	after  func(t *toy, batch []backend.Span, l *backend.Logits) error
	plan   func(batch []backend.Span) []string
	steps  int
	log    []string // one line a step
	open   atomic.Int32
	count  atomic.Int64 // steps, for other goroutines
}

type toySequence struct {
	t        *toy
	tokens   []int32
	capacity int
}

func (s *toySequence) Len() int      { return len(s.tokens) }
func (s *toySequence) Capacity() int { return s.capacity }
func (s *toySequence) Close() error  { s.t.open.Add(-1); return nil }
func (s *toySequence) Truncate(n int) error {
	if n > len(s.tokens) {
		return errors.New("too many")
	}
	s.tokens = s.tokens[:n]
	return nil
}

func (t *toy) NewSequence(capacity int) (backend.Sequence, error) {
	t.open.Add(1)
	return &toySequence{t: t, capacity: capacity}, nil
}

func (t *toy) Close() error       { return nil }
func (t *toy) Variants() []string { return nil }

func (t *toy) Plan(batch []backend.Span) []string {
	if t.plan != nil {
		return t.plan(batch)
	}
	if len(batch[0].Tokens) > 1 {
		return []string{"toy/batch"}
	}
	return []string{"toy/decode"}
}

func (t *toy) Step(batch []backend.Span, l *backend.Logits) error {
	t.steps++
	t.count.Add(1)
	for _, s := range batch {
		t.log = append(t.log, fmt.Sprintf("%d+%d/%d", s.Seq.Len(), len(s.Tokens), s.Want))
	}
	if t.before != nil {
		if err := t.before(t, batch); err != nil {
			return err
		}
	}
	n := 0
	for _, s := range batch {
		n += s.Rows()
	}
	if n > 0 {
		l.Resize(n, cmp.Or(t.vocab, toyVocab))
	}
	n = 0
	for _, s := range batch {
		seq := s.Seq.(*toySequence)
		for i, token := range s.Tokens {
			seq.tokens = append(seq.tokens, token)
			if s.Want == backend.All || s.Want == backend.Last && i == len(s.Tokens)-1 {
				t.logits(seq.tokens, l.Row(n))
				if t.row != nil {
					t.row(t, len(seq.tokens)-1, s, l.Row(n))
				}
				n++
			}
		}
	}
	if t.after != nil {
		return t.after(t, batch, l)
	}
	return nil
}

// logits of the last of the tokens: a bell curve with a few likely tokens.
func (t *toy) logits(tokens []int32, row []float32) {
	seed := uint64(14695981039346656037)
	for _, id := range tokens {
		seed = (seed ^ uint64(id+1)) * 1099511628211
	}
	rng := rand.New(rand.NewPCG(seed, 7))
	for i := range row {
		row[i] = float32(rng.NormFloat64())
	}
	for i := range 12 {
		row[rng.IntN(len(row))] += float32(4 + i)
	}
	if t.noise > 0 {
		noise := rand.New(rand.NewPCG(seed, uint64(t.steps)))
		for i := range row {
			row[i] += float32(t.noise * noise.NormFloat64())
		}
	}
}

func source(name string, exec backend.Executor) parity.Source {
	return parity.Source{Backend: name, Device: "toy", Identity: "toy 1", Open: func() (backend.Executor, error) { return exec, nil }}
}

func prompt(n int) []int32 {
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(i*37+11) % toyVocab
	}
	return tokens
}

func toyCase(n int) parity.Case {
	return parity.Case{Tokens: prompt(n), MaxBatch: 32, Vocab: toyVocab, Context: 1024}
}

// probe judges a candidate against a sound toy with the standard policy, but
// with little patience: enough for a busy machine, little enough for a test that
// hangs.
func probe(t testing.TB, candidate backend.Executor, c parity.Case) parity.Verdict {
	t.Helper()
	p := parity.Standard()
	p.Probe.Deadline = 3 * time.Second
	p.Probe.DeadlineFactor = 1
	return parity.Probe(t.Context(), source("cpu-exact", &toy{}), source("gpu", candidate), c, p)
}

func notANumber() float32 { return float32(math.NaN()) }

// spoil returns a toy whose rows are changed at positions from first on.
func spoil(first int, change func(row []float32)) *toy {
	return &toy{row: func(_ *toy, position int, _ backend.Span, row []float32) {
		if position >= first {
			change(row)
		}
	}}
}
