package fault

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/apr-engine/apr/backend"
)

// executor is what a fault of the executor wraps.
type executor struct {
	backend.Executor
	vocab int
}

// spoiling is an executor that changes the tokens that go in, the logits that
// come out, or neither and fails.
type spoiling struct {
	backend.Executor
	before func(batch []backend.Span) []backend.Span
	after  func(batch []backend.Span, l *backend.Logits)
}

func (s *spoiling) Step(batch []backend.Span, l *backend.Logits) error {
	run := batch
	if s.before != nil {
		run = s.before(batch)
	}
	if err := s.Executor.Step(run, l); err != nil {
		return err
	}
	if s.after != nil && l != nil {
		s.after(batch, l)
	}
	return nil
}

// afterStep makes a wrap function from one that spoils logits. state is made
// for each executor.
func afterStep(state func(e executor) func(batch []backend.Span, l *backend.Logits)) func(executor) backend.Executor {
	return func(e executor) backend.Executor {
		return &spoiling{Executor: e.Executor, after: state(e)}
	}
}

// rows is the number of logit rows that a batch asks for.
func rows(batch []backend.Span) int {
	n := 0
	for _, s := range batch {
		n += s.Rows()
	}
	return n
}

// tile is the number of logits that one group of threads computes.
const tile = 64

// executorFaults are bugs round the computation: what goes in, what comes out,
// and whether anything does.
var executorFaults = []Fault{
	{
		Name:    "batch-rows-swapped",
		Summary: "the last two tokens of a batch change places",
		Report:  "issue of the gate: batch rows swapped; users.md 8, 9: parallel sequences corrupt",
		wrap: func(e executor) backend.Executor {
			return &spoiling{Executor: e.Executor, before: swapTokens}
		},
	},
	{
		Name:    "previous-logits",
		Summary: "a step returns the logits of the step before",
		Report:  "issue of the gate: logits of the previous step returned; parity-gate.md §4: stale state",
		wrap: afterStep(func(executor) func([]backend.Span, *backend.Logits) {
			var last []float32
			return func(batch []backend.Span, l *backend.Logits) {
				if rows(batch) == 0 {
					return
				}
				now := slices.Clone(l.Row(l.Rows() - 1))
				// Within a batch each row is that of the row before.
				copy(l.Data[l.Vocab:], l.Data[:len(l.Data)-l.Vocab])
				if last != nil {
					copy(l.Row(0), last)
				}
				last = now
			}
		}),
	},
	{
		Name:    "one-nan",
		Summary: "one logit of a step in eight is not a number",
		Report:  "issue of the gate: one NaN; STYLE C: NaN slips through comparisons",
		wrap: afterStep(func(executor) func([]backend.Span, *backend.Logits) {
			step := 0
			return func(batch []backend.Span, l *backend.Logits) {
				if step++; step%8 == 3 && rows(batch) > 0 {
					row := l.Row(l.Rows() - 1)
					row[len(row)/3] = float32(math.NaN())
				}
			}
		}),
	},
	{
		Name:    "infinite-logit",
		Summary: "one logit is infinite",
		Report:  "parity-gate.md §4: FP16 overflow to infinity (#3602)",
		wrap: afterStep(func(executor) func([]backend.Span, *backend.Logits) {
			return func(batch []backend.Span, l *backend.Logits) {
				for i := range rows(batch) {
					l.Row(i)[l.Vocab/5] = float32(math.Inf(-1))
				}
			}
		}),
	},
	{
		Name:    "racing-tile",
		Summary: "in one step of twenty a random tile of 64 logits is overwritten by another tile",
		Report:  "users.md 16: operation tests pass, generation degrades; a race between kernels (toshllm #42)",
		Late:    true,
		wrap: afterStep(func(executor) func([]backend.Span, *backend.Logits) {
			rng, step := rand.New(rand.NewPCG(16, 42)), 0
			return func(batch []backend.Span, l *backend.Logits) {
				if step++; step%20 != 13 || rows(batch) == 0 || l.Vocab < 2*tile {
					return
				}
				row := l.Row(l.Rows() - 1)
				tiles := l.Vocab / tile
				to := rng.IntN(tiles)
				from := (to + 1 + rng.IntN(tiles-1)) % tiles
				copy(row[to*tile:(to+1)*tile], row[from*tile:])
			}
		}),
	},
	{
		Name:    "frozen-logits",
		Summary: "every step returns the logits of the first",
		Report:  "parity-gate.md §4: the identical number for different prompts was the clue (#3602)",
		wrap: afterStep(func(executor) func([]backend.Span, *backend.Logits) {
			var first []float32
			return func(batch []backend.Span, l *backend.Logits) {
				if rows(batch) == 0 {
					return
				}
				if first == nil {
					first = slices.Clone(l.Row(0))
				}
				for i := range l.Rows() {
					copy(l.Row(i), first)
				}
			}
		}),
	},
	{
		Name:    "zero-logits",
		Summary: "every logit is zero, as from a kernel that never ran",
		Report:  "users.md 17: no tokens at all and decode reports success (yzma #324)",
		wrap: afterStep(func(executor) func([]backend.Span, *backend.Logits) {
			return func(_ []backend.Span, l *backend.Logits) { clear(l.Data) }
		}),
	},
	{
		Name:    "short-logits",
		Summary: "the last logits of every row are missing",
		Report:  "issue of the gate: short logits; parity-gate.md §1: unequal length fails closed",
		wrap: afterStep(func(executor) func([]backend.Span, *backend.Logits) {
			return func(_ []backend.Span, l *backend.Logits) {
				if len(l.Data) > 0 {
					l.Data = l.Data[:len(l.Data)-1]
				}
			}
		}),
	},
	{
		Name:    "late-token",
		Summary: "from position 500 on, the best logit falls below all others",
		Report:  "users.md 25: first question right, later garbage",
		Late:    true,
		wrap: afterStep(func(executor) func([]backend.Span, *backend.Logits) {
			return func(batch []backend.Span, l *backend.Logits) {
				row := 0
				for _, s := range batch {
					first := s.Seq.Len() - s.Rows() // Len counts this step already
					for i := range s.Rows() {
						if first+i >= 500 {
							demote(l.Row(row))
						}
						row++
					}
				}
			}
		}),
	},
	{
		Name:    "device-lost",
		Summary: "the fourth step fails",
		Report:  "users.md 18: three code paths fall back silently; parity-gate.md A8: an error in the probe passed",
		wrap: func(e executor) backend.Executor {
			return &failing{Executor: e.Executor, at: 4, fail: func(<-chan struct{}) error { return ErrLost }}
		},
	},
	{
		Name:    "panic",
		Summary: "the fourth step panics",
		Report:  "DESIGN §3: a driver may crash",
		wrap: func(e executor) backend.Executor {
			return &failing{Executor: e.Executor, at: 4, fail: func(<-chan struct{}) error { panic("injected fault: panic in a step") }}
		},
	},
	{
		Name:    "hang",
		Summary: "the fourth step does not return until the executor is closed",
		Report:  "DESIGN §3: drivers hang",
		wrap: func(e executor) backend.Executor {
			return &failing{Executor: e.Executor, at: 4, fail: func(closed <-chan struct{}) error { <-closed; return ErrLost }}
		},
	},
}

// ErrLost is the error of an injected device failure.
var ErrLost = errors.New("injected fault: device lost")

// swapTokens exchanges the last two tokens of each span that has two, with the rows
// that come with them.
func swapTokens(batch []backend.Span) []backend.Span {
	swapped := slices.Clone(batch)
	for i, s := range batch {
		if n := len(s.Tokens); n > 1 {
			t := slices.Clone(s.Tokens)
			t[n-1], t[n-2] = t[n-2], t[n-1]
			swapped[i].Tokens = t
			if width := len(s.Input) / n; width > 0 {
				swapped[i].Input = slices.Concat(s.Input[:(n-2)*width], s.Input[(n-1)*width:], s.Input[(n-2)*width:(n-1)*width])
			}
		}
	}
	return swapped
}

// demote moves a row's largest number below its smallest.
func demote(row []float32) {
	best, least := 0, row[0]
	for i, v := range row {
		if v > row[best] {
			best = i
		}
		least = min(least, v)
	}
	row[best] = least - 1
}

// failing is an executor whose step number at does not succeed.
type failing struct {
	backend.Executor
	at, step int
	fail     func(closed <-chan struct{}) error
	once     sync.Once
	closed   chan struct{}
	mu       sync.Mutex
}

func (f *failing) signal() chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed == nil {
		f.closed = make(chan struct{})
	}
	return f.closed
}

func (f *failing) Step(batch []backend.Span, l *backend.Logits) error {
	if f.step++; f.step >= f.at {
		return f.fail(f.signal())
	}
	return f.Executor.Step(batch, l)
}

// Close ends a hanging step too.
func (f *failing) Close() error {
	f.once.Do(func() { close(f.signal()) })
	return f.Executor.Close()
}
