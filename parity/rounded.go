package parity

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/apr-engine/apr/backend"
)

// Rounded is a reference whose cache rounds keys and values coarsely, as one of Q8_0
// does, beside one of the same program whose cache does not. It answers as the first; the
// second shows what the rounding alone does to the logits, and that is what a sound
// executor with such a cache may differ by, too. For rounding is not continuous: where two
// executors differ by a part in a thousand before it, one value in twenty or so goes to
// the other neighbour, and each is a whole step away then. Policy.CacheRounding has the
// limits that follow from it.
func Rounded(rounded, plain backend.Executor) backend.Executor {
	return &roundedExecutor{Executor: rounded, plain: plain}
}

type roundedExecutor struct {
	backend.Executor
	plain  backend.Executor
	logits backend.Logits // of plain
	most   Limits
}

// rounding is implemented by references that know how far their own cache moves the
// logits: the largest errors that it has made so far.
type rounding interface{ rounding() Limits }

func (e *roundedExecutor) rounding() Limits { return e.most }

func (e aheadExecutor) rounding() Limits { return roundingOf(e.a.exec) }
func (m *Memory) rounding() Limits       { return roundingOf(m.exec) }

// roundingOf is nothing for a reference whose cache is not known to round.
func roundingOf(reference backend.Executor) Limits {
	if r, ok := reference.(rounding); ok {
		return r.rounding()
	}
	return Limits{}
}

// roundedSequence is a sequence on both sides.
type roundedSequence struct {
	backend.Sequence
	plain backend.Sequence
}

func (s *roundedSequence) Truncate(n int) error {
	return errors.Join(s.Sequence.Truncate(n), s.plain.Truncate(n))
}

func (s *roundedSequence) Close() error { return errors.Join(s.Sequence.Close(), s.plain.Close()) }

func (e *roundedExecutor) NewSequence(capacity int) (backend.Sequence, error) {
	rounded, err := e.Executor.NewSequence(capacity)
	if err != nil {
		return nil, err
	}
	plain, err := e.plain.NewSequence(capacity)
	if err != nil {
		return nil, errors.Join(err, rounded.Close())
	}
	return &roundedSequence{rounded, plain}, nil
}

// sides are the batches that are a batch on each side; a foreign sequence is nil on both.
func (e *roundedExecutor) sides(batch []backend.Span) (rounded, plain []backend.Span) {
	rounded, plain = slices.Clone(batch), slices.Clone(batch)
	for i, span := range batch {
		rounded[i].Seq, plain[i].Seq = nil, nil
		if s, ok := span.Seq.(*roundedSequence); ok {
			rounded[i].Seq, plain[i].Seq = s.Sequence, s.plain
		}
	}
	return rounded, plain
}

func (e *roundedExecutor) Plan(batch []backend.Span) []string {
	rounded, _ := e.sides(batch)
	return e.Executor.Plan(rounded)
}

func (e *roundedExecutor) Step(batch []backend.Span, l *backend.Logits) error {
	rounded, plain := e.sides(batch)
	rows := 0
	for i, span := range rounded {
		if span.Seq == nil {
			return fmt.Errorf("sequence of type %T is not this executor's", batch[i].Seq)
		}
		rows += span.Rows()
	}
	if err := e.plain.Step(plain, &e.logits); err != nil {
		return err
	}
	if err := e.Executor.Step(rounded, l); err != nil {
		for i, span := range plain {
			err = errors.Join(err, span.Seq.Truncate(rounded[i].Seq.Len()))
		}
		return err
	}
	for i, m := range compareAll(rows, func(i int) (reference, candidate []float32) { return e.logits.Row(i), l.Row(i) }) {
		if m.ReferenceFinite && m.CandidateFinite { // or else nothing can be judged anyway
			e.most = Limits{
				NearTie: max(e.most.NearTie, bestMoved(l.Row(i), e.logits.Row(i))),
				MaxP99:  max(e.most.MaxP99, m.P99), MaxP999: max(e.most.MaxP999, m.P999), MaxPeak: max(e.most.MaxPeak, m.Peak),
			}
		}
	}
	return nil
}

// bestMoved is the largest difference of the ten best logits from those of another row, as a
// share of their spread: a margin between two of them changes by twice that at most.
func bestMoved(row, other []float32) float64 {
	best := top(row)
	most, spread := 0.0, float64(row[best[0]])-float64(row[best[len(best)-1]])
	if spread == 0 {
		return 0
	}
	for _, id := range best {
		most = max(most, math.Abs(float64(row[id])-float64(other[id])))
	}
	return most / spread
}

// UseThreads implements backend.Sharing where the executors do.
func (e *roundedExecutor) UseThreads(n int) {
	for _, exec := range []backend.Executor{e.Executor, e.plain} {
		if sharing, ok := exec.(backend.Sharing); ok {
			sharing.UseThreads(n)
		}
	}
}

func (e *roundedExecutor) Close() error { return errors.Join(e.Executor.Close(), e.plain.Close()) }
