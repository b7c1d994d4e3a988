package parity_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

func TestProbePasses(t *testing.T) {
	for _, tt := range []struct {
		name      string
		prompt    int
		positions int // prompt and continuation, without those of the resumed batch
	}{
		{"one token", 1, 72},
		{"short", 20, 72},
		{"longer than a batch", 70, 94},
		{"longer than what is judged one by one", 400, 256 + 1 + 24},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// A noise of 1 % of the logits' spread is that of a sound GPU.
			cand := &toy{noise: 0.01}
			v := probe(t, cand, toyCase(tt.prompt))
			if !v.Passed() {
				t.Fatalf("%v: %s", v.Status, v.Reason)
			}
			seen := map[int]bool{}
			for _, p := range v.Positions {
				if p.Phase != parity.Resume {
					if seen[p.Index] {
						t.Errorf("position %d is judged twice", p.Index)
					}
					seen[p.Index] = true
				}
			}
			if len(seen) != tt.positions || !seen[0] || !seen[v.Context-1] || !seen[tt.prompt-1] {
				t.Errorf("%d positions of %d judged, want %d with the first and the last", len(seen), v.Context, tt.positions)
			}
			if v.Context != max(72, tt.prompt+24) {
				t.Errorf("the verdict is about %d tokens", v.Context)
			}
			if cand.open.Load() != 0 {
				t.Errorf("%d sequences are left open", cand.open.Load())
			}
		})
	}
}

// The probe drives what generation drives: batches of the same size, then
// single tokens, from an empty sequence.
func TestProbeSteps(t *testing.T) {
	cand := &toy{}
	if v := probe(t, cand, toyCase(70)); !v.Passed() {
		t.Fatal(v.Reason)
	}
	want := []string{"0+32/2", "32+32/2", "64+6/2", "70+1/1", "71+1/1", "72+1/1"}
	if !slices.Equal(cand.log[:len(want)], want) {
		t.Errorf("steps are %q, want %q", cand.log[:len(want)], want)
	}
	if last := cand.log[len(cand.log)-2:]; !slices.Equal(last, []string{"62+27/2", "89+5/2"}) {
		t.Errorf("the last steps are %q, want a batch from position 62 and a few tokens", last)
	}
}

// Both sides are fed what the reference finds most probable, so that a
// different choice in a near tie does not steer the probe.
func TestProbeFollowsReference(t *testing.T) {
	ref := &toy{}
	flips := 0
	cand := &toy{row: func(_ *toy, position int, _ backend.Span, row []float32) {
		// Make the second-best token the best, by a hair, in some positions.
		if position%5 == 3 {
			best, second := topTwo(row)
			row[best], row[second] = row[second]+0.01, row[best]
			flips++
		}
	}}
	p := parity.Standard()
	// The toy's best tokens are far apart, so nothing but the cosine is to decide.
	p.NearTie, p.MaxKL, p.MaxP999, p.MaxPeak, p.PeakFloor = 0.9, 10, 10, 10, 10
	v := parity.Probe(t.Context(), source("cpu-exact", ref), source("gpu", cand), toyCase(10), p)
	if !v.Passed() || flips == 0 {
		t.Fatalf("%v after %d flips: %s", v.Status, flips, v.Reason)
	}
	held := make([]int32, 0, 128)
	exact := &toy{}
	row := make([]float32, toyVocab)
	for i, pos := range v.Positions {
		if pos.Phase == parity.Resume {
			break
		}
		if pos.Index != i {
			t.Fatalf("position %d follows %d others", pos.Index, i)
		}
		if i >= 10 {
			exact.logits(held, row)
			best, _ := topTwo(row)
			if pos.Token != int32(best) {
				t.Fatalf("position %d was fed %d, the reference's choice is %d", i, pos.Token, best)
			}
		}
		held = append(held, pos.Token)
	}
}

func topTwo(row []float32) (best, second int) {
	for i, x := range row {
		if x > row[best] {
			best = i
		}
	}
	second = (best + 1) % len(row)
	for i, x := range row {
		if i != best && x > row[second] {
			second = i
		}
	}
	return best, second
}

// Whatever a candidate does wrong is a rejection with a reason.
func TestProbeRejects(t *testing.T) {
	at := func(step int, do func() error) *toy {
		return &toy{before: func(t *toy, _ []backend.Span) error {
			if t.steps == step {
				return do()
			}
			return nil
		}}
	}
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for _, tt := range []struct {
		name, reason string
		cand         backend.Executor
	}{
		{"error in the prompt", "step of 20 tokens at position 0: broken", at(1, func() error { return errors.New("broken") })},
		{"error while decoding", "decode step at position 22: broken", at(4, func() error { return errors.New("broken") })},
		{"panic", "decode step at position 20: panic: boom", at(2, func() error { panic("boom") })},
		{"hang", "decode step at position 21: no answer after", at(3, func() error { <-release; return nil })},
		{"NaN in one logit", "NaN or infinity in the logits at position 30", spoil(30, func(row []float32) { row[4095] = notANumber() })},
		{"infinity", "NaN or infinity in the logits at position 0", spoil(0, func(row []float32) { row[0] = -1 / zero() })},
		{"short logits", "logits of width 4096, want 20 rows", &toy{after: func(_ *toy, _ []backend.Span, l *backend.Logits) error {
			l.Data = l.Data[:len(l.Data)-1]
			return nil
		}}},
		{"no logits", "0 logits of width", &toy{after: func(_ *toy, _ []backend.Span, l *backend.Logits) error { *l = backend.Logits{}; return nil }}},
		{"wrong width", "want 20 rows of 4096", &toy{after: func(_ *toy, _ []backend.Span, l *backend.Logits) error { l.Vocab = 2048; return nil }}},
		{"zero logits", "cosine vs cpu-exact = 0.000000 (< 0.99) at position 0", spoil(0, func(row []float32) { clear(row) })},
		{"sequence does not grow", "moved the sequence from 0 to 19", &toy{after: func(_ *toy, batch []backend.Span, _ *backend.Logits) error {
			s := batch[0].Seq.(*toySequence)
			s.tokens = s.tokens[:len(s.tokens)-1]
			return nil
		}}},
		{"sequence refuses to be cut", "truncate: no", &stubborn{toy{}}},
		{"cannot start", "cannot start: no memory", noMemory{}},
		{"announced kernel never runs", "kernel toy/phantom was announced and never ran", &toy{plan: func(batch []backend.Span) []string {
			if batch[0].Seq.Len() == 0 && batch[0].Want == backend.Last && !planned(batch) {
				return []string{"toy/phantom"}
			}
			return []string{"toy"}
		}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := probe(t, tt.cand, toyCase(20))
			if v.Status != parity.Mismatch || !strings.Contains(v.Reason, tt.reason) {
				t.Errorf("%v: %q, want a mismatch with %q", v.Status, v.Reason, tt.reason)
			}
			if !errors.Is(v.Err(), parity.ErrMismatch) {
				t.Errorf("error is %v", v.Err())
			}
		})
	}
}

func zero() float32 { return 0 }

// planCalls counts asks, so that a plan can change its mind.
var planCalls int

func planned(_ []backend.Span) bool { planCalls++; return planCalls > 1 }

// stubborn refuses to truncate.
type stubborn struct{ toy }

func (s *stubborn) NewSequence(n int) (backend.Sequence, error) {
	return &uncut{toySequence{t: &s.toy, capacity: n}}, nil
}

func (s *stubborn) Step(batch []backend.Span, l *backend.Logits) error {
	inner := slices.Clone(batch)
	inner[0].Seq = &batch[0].Seq.(*uncut).toySequence
	return s.toy.Step(inner, l)
}

type uncut struct{ toySequence }

func (*uncut) Truncate(int) error { return errors.New("no") }

type noMemory struct{}

func (noMemory) NewSequence(int) (backend.Sequence, error)  { return nil, errors.New("no memory") }
func (noMemory) Plan([]backend.Span) []string               { return nil }
func (noMemory) Step([]backend.Span, *backend.Logits) error { return nil }
func (noMemory) Close() error                               { return nil }
func (noMemory) Variants() []string                         { return nil }

// A reference that fails leaves the candidate unjudged, which is no pass.
func TestReferenceFails(t *testing.T) {
	for name, ref := range map[string]*toy{
		"error": {before: func(*toy, []backend.Span) error { return errors.New("broken") }},
		"panic": {before: func(*toy, []backend.Span) error { panic("boom") }},
		"NaN":   spoil(5, func(row []float32) { row[1] = notANumber() }),
		"short": {after: func(_ *toy, _ []backend.Span, l *backend.Logits) error { l.Data = l.Data[:1]; return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			v := parity.Probe(t.Context(), source("cpu-exact", ref), source("gpu", &toy{}), toyCase(20), parity.Standard())
			if v.Status != parity.NotMeasured || v.Passed() || !strings.Contains(v.Reason, "reference cpu-exact") {
				t.Errorf("%v: %q, want not measured because of the reference", v.Status, v.Reason)
			}
			if !errors.Is(v.Err(), parity.ErrNotMeasured) {
				t.Errorf("error is %v", v.Err())
			}
		})
	}
}

func TestProbeWithoutTokens(t *testing.T) {
	if v := probe(t, &toy{}, toyCase(0)); v.Status != parity.NotMeasured {
		t.Errorf("%v, want not measured", v.Status)
	}
}

func TestProbeCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cand := &toy{before: func(t *toy, _ []backend.Span) error {
		if t.steps == 3 {
			cancel()
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	}}
	v := parity.Probe(ctx, source("cpu-exact", &toy{}), source("gpu", cand), toyCase(20), parity.Standard())
	if v.Status != parity.NotMeasured {
		t.Errorf("%v: %s, want not measured", v.Status, v.Reason)
	}
}

// With Full a probe goes on, so that a table shows every position.
func TestProbeFull(t *testing.T) {
	c := toyCase(20)
	c.Full = true
	v := probe(t, spoil(10, func(row []float32) {
		for i := range row {
			row[i] = -row[i]
		}
	}), c)
	if v.Status != parity.Mismatch || v.Violation == nil || v.Violation.Position != 10 {
		t.Fatalf("%v: %+v", v.Status, v.Violation)
	}
	if n := len(v.Positions); n != 72+32 {
		t.Errorf("%d positions, want all 104", n)
	}
}
