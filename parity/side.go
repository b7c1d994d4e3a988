package parity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
)

// errDeadline marks a call that did not come back in time.
var errDeadline = errors.New("no answer")

// side is one executor in a comparison, with a sequence of its own.
type side struct {
	exec    backend.Executor
	seq     backend.Sequence
	cost    *Cost
	vocab   int
	logits  backend.Logits
	rows    []float32       // memory for logits
	covered map[string]bool // planned by the steps that ran
	// limit is how long a step of so many tokens may take.
	limit func(tokens int) time.Duration
	// stuck says that a call never returned: the executor must not be used again.
	stuck bool
}

// open loads the executor if need be and gives it a fresh sequence.
func (s *side) open(ctx context.Context, source Source, capacity int) error {
	start := time.Now()
	return s.guard(ctx, loadDeadline, func() error {
		exec, err := source.Open()
		if err != nil {
			return err
		}
		s.cost.Setup += time.Since(start)
		s.exec = exec
		s.seq, err = exec.NewSequence(capacity)
		return err
	})
}

// loadDeadline bounds loading: reading a large file from a slow disk is no hang.
const loadDeadline = 10 * time.Minute

// close frees the sequence; one whose executor is stuck is left alone.
func (s *side) close() {
	if s.seq != nil && !s.stuck {
		_ = s.guard(context.Background(), time.Second, func() error { return s.seq.Close() })
		s.forget() // the executor may keep the pointer
	}
}

// forget lets go of the memory for logits.
func (s *side) forget() { s.logits, s.rows = backend.Logits{}, nil }

// guard runs a call on a goroutine of its own, so that neither a panic nor a
// hang of an executor reaches the caller.
func (s *side) guard(ctx context.Context, limit time.Duration, call func() error) error {
	if s.stuck {
		return errDeadline
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- fmt.Errorf("panic: %v", v)
			}
		}()
		done <- call()
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		s.stuck = true
		return fmt.Errorf("%w after %v", errDeadline, limit)
	case <-ctx.Done():
		// A step cannot be interrupted, and the caller may use the executor next.
		select {
		case <-done:
		case <-timer.C:
			s.stuck = true
		}
		return ctx.Err()
	}
}

// step extends the sequence and checks everything about the answer but its
// numbers. The rows are valid until the next step.
func (s *side) step(ctx context.Context, tokens []int32, want backend.Want) error {
	span := backend.Span{Seq: s.seq, Tokens: tokens, Want: want}
	s.blank(span.Rows())
	var names []string
	var before, after int
	start := time.Now()
	err := s.guard(ctx, s.limit(len(tokens)), func() error {
		before = s.seq.Len()
		batch := []backend.Span{span}
		names = slices.Clone(s.exec.Plan(batch))
		err := s.exec.Step(batch, &s.logits)
		after = s.seq.Len()
		return err
	})
	s.cost.Time += time.Since(start)
	if c, ok := s.exec.(interface{ cost() time.Duration }); ok {
		s.cost.Time += c.cost()
		s.cost.Ahead += c.cost()
	}
	s.cost.Tokens += len(tokens)
	s.cost.Steps++
	if err != nil {
		return err
	}
	for _, n := range names {
		s.covered[n] = true
	}
	if after != before+len(tokens) {
		return fmt.Errorf("a step of %d tokens moved the sequence from %d to %d", len(tokens), before, after)
	}
	if rows := span.Rows(); rows > 0 && (s.logits.Vocab != s.vocab || len(s.logits.Data) != rows*s.vocab) {
		return fmt.Errorf("%d logits of width %d, want %d rows of %d", len(s.logits.Data), s.logits.Vocab, rows, s.vocab)
	}
	return nil
}

var notANumber = float32(math.NaN())

// blank makes room for a step's logits and fills it with NaN: what the executor does
// not write must not pass for a result, least of all for the one of the step before,
// so it gets no more room than that.
func (s *side) blank(rows int) {
	n := rows * s.vocab
	s.rows = slices.Grow(s.rows[:0], n)[:n]
	shareOut(rows, func(i int, _ *[]float64) {
		row := s.rows[i*s.vocab:][:s.vocab]
		for i := range row {
			row[i] = notANumber
		}
	})
	s.logits = backend.Logits{Data: s.rows[:0:n]}
}

// plan asks which kernels a step would use.
func (s *side) plan(ctx context.Context, tokens []int32, want backend.Want) (names []string, err error) {
	err = s.guard(ctx, s.limit(0), func() error {
		names = slices.Clone(s.exec.Plan([]backend.Span{{Seq: s.seq, Tokens: tokens, Want: want}}))
		return nil
	})
	return names, err
}

func (s *side) truncate(ctx context.Context, n int) error {
	return s.guard(ctx, s.limit(0), func() error { return s.seq.Truncate(n) })
}

// names lists a set, sorted.
func names(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
