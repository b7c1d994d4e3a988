package parity_test

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// Where the reference's cache rounds, a candidate may differ by as much as that moves the
// logits, and by little more; wherever the reference's answers come from.
func TestRounded(t *testing.T) {
	p, c := parity.Standard(), toyCase(40)
	references := map[string]func(exec backend.Executor) backend.Executor{
		"alone":  func(exec backend.Executor) backend.Executor { return exec },
		"memory": func(exec backend.Executor) backend.Executor { return parity.Remember(exec, toyVocab, 64<<20) },
		"ahead": func(exec backend.Executor) backend.Executor {
			a := parity.RunAhead(func() (backend.Executor, error) { return exec, nil }, 0, c, p)
			ahead, err := a.Open()
			if err != nil {
				t.Fatal(err)
			}
			return ahead
		},
	}
	for name, wrap := range references {
		for _, tc := range []struct {
			rounding, candidate float64 // relative errors; 99th percentiles are 2.5 times as large
			sound               bool
		}{
			{0, 0.02, false},
			{0.01, 0.02, true},
			{0.01, 0.05, false},
			{0.2, 0.35, false}, // the general limits stay
		} {
			ref := wrap(parity.Rounded(&toy{noise: tc.rounding}, &toy{}))
			v := parity.Probe(t.Context(), source("cpu-exact", ref), source("cpu", &toy{noise: tc.candidate}), c, p)
			if v.Passed() != tc.sound || !tc.sound && (v.Violation == nil || v.Status != parity.Mismatch) {
				t.Errorf("%s, rounding %g, candidate %g: %v %s", name, tc.rounding, tc.candidate, v.Status, v.Reason)
			}
			steps := []parity.Step{{History: prompt(20), Tokens: []int32{5}}, {Tokens: []int32{7}}}
			v = parity.ProbeTogether(t.Context(), source("cpu-exact", ref), source("cpu", &toy{noise: tc.candidate}), c, steps, p)
			if v.Passed() != tc.sound {
				t.Errorf("%s, rounding %g, candidate %g, two sequences: %v %s", name, tc.rounding, tc.candidate, v.Status, v.Reason)
			}
		}
	}
}

// Numbers that are not finite widen nothing: the reference is no measure then.
func TestRoundedNotFinite(t *testing.T) {
	for name, broken := range map[string][2]*toy{
		"rounded": {spoil(3, func(row []float32) { row[0] = notANumber() }), &toy{}},
		"plain":   {&toy{}, spoil(3, func(row []float32) { row[0] = notANumber() })},
	} {
		ref := parity.Rounded(broken[0], broken[1])
		v := parity.Probe(t.Context(), source("cpu-exact", ref), source("cpu", &toy{noise: 0.02}), toyCase(40), parity.Standard())
		if v.Passed() {
			t.Errorf("%s: %v %s", name, v.Status, v.Reason)
		}
	}
}

// Both executors move together, also where one of them fails.
func TestRoundedSteps(t *testing.T) {
	failing := func(message string) *toy {
		return &toy{before: func(_ *toy, batch []backend.Span) error {
			if batch[0].Tokens[0] == 9 {
				return errors.New(message)
			}
			return nil
		}}
	}
	for name, sides := range map[string][2]*toy{"rounded": {failing("first"), &toy{}}, "plain": {&toy{}, failing("second")}} {
		e := parity.Rounded(sides[0], sides[1])
		seq, err := e.NewSequence(10)
		if err != nil {
			t.Fatal(err)
		}
		var l backend.Logits
		step := func(want int, tokens ...int32) error {
			t.Helper()
			err := e.Step([]backend.Span{{Seq: seq, Tokens: tokens, Want: backend.Last}}, &l)
			if seq.Len() != want {
				t.Errorf("%s: %d tokens, want %d", name, seq.Len(), want)
			}
			return err
		}
		if err := step(2, 1, 2); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := step(2, 9, 2); err == nil {
			t.Errorf("%s: a step that fails on one side is none", name)
		}
		if err := step(3, 3); err != nil { // at the same position on both sides
			t.Errorf("%s: after an error: %v", name, err)
		}
		if err := seq.Truncate(1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := step(2, 4); err != nil {
			t.Errorf("%s: after truncation: %v", name, err)
		}
		for i, side := range sides {
			want := []string{"0+2/1", "2+2/1", "2+1/1", "1+1/1"}
			if i == 0 && name == "plain" { // it is not asked for what the other cannot do
				want = []string{"0+2/1", "2+1/1", "1+1/1"}
			}
			if got := strings.Join(side.log, " "); got != strings.Join(want, " ") {
				t.Errorf("%s, side %d: steps %s, want %s", name, i, got, want)
			}
		}
		if err := e.Step([]backend.Span{{Seq: &toySequence{}, Tokens: []int32{1}}}, &l); err == nil {
			t.Errorf("%s: a foreign sequence is accepted", name)
		}
		if err := seq.Close(); err != nil || sides[0].open.Load()+sides[1].open.Load() != 0 {
			t.Errorf("%s: %v, %d sequences are left open", name, err, sides[0].open.Load()+sides[1].open.Load())
		}
	}
}

// Two tokens between which rounding decides are a tie, though they are no near one.
func TestRoundedTie(t *testing.T) {
	best := func(first, second int, noise float64) *toy {
		return &toy{noise: noise, row: func(_ *toy, _ int, _ backend.Span, row []float32) {
			for i := range 10 {
				row[i] = 16
			}
			row[first], row[second] = 20.35, 20
		}}
	}
	judge := func(ref backend.Executor) parity.Verdict {
		return parity.Probe(t.Context(), source("cpu-exact", ref), source("cpu", best(6, 5, 0)), toyCase(40), parity.Standard())
	}
	if v := judge(best(5, 6, 0.03)); v.Passed() || v.Violation == nil || v.Violation.Metric != "argmax" {
		t.Errorf("a reference that is not known to round: %v %s", v.Status, v.Reason)
	}
	if v := judge(parity.Rounded(best(5, 6, 0.03), best(6, 5, 0))); !v.Passed() {
		t.Errorf("a reference that rounds: %v %s", v.Status, v.Reason)
	}
	if v := judge(parity.Rounded(best(5, 6, 0.03), best(5, 6, 0))); v.Passed() {
		t.Error("a reference whose rounding moves neither token: validated")
	}
}

// However much the cache's rounding moves the best logits, a candidate whose choice is far
// from a tie is wrong.
func TestRoundedTieEnds(t *testing.T) {
	p := parity.Standard()
	p.MaxKL, p.MaxPeak, p.PeakFloor, p.Tight = 100, 100, 100, nil // exchanging likely tokens breaks these by itself
	ranked := func(row []float32) []int {
		order := make([]int, len(row))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(row[b], row[a]) })
		return order
	}
	for _, tc := range []struct {
		moved bool    // the best at position 2, by 0.41 of the spread
		gap   float32 // between the best two at position 30, exchanged in the candidate
		sound bool
	}{
		{false, 0.04, true}, {false, 0.06, false}, {true, 0.06, true}, {true, 0.24, true}, {true, 0.26, false},
	} {
		side := func(raises, exchanges bool) *toy {
			return &toy{row: func(_ *toy, position int, _ backend.Span, row []float32) {
				order := ranked(row)
				spread := row[order[0]] - row[order[9]]
				switch {
				case position == 2 && raises:
					row[order[0]] += 0.7 * spread
				case position == 30:
					second := row[order[0]] - tc.gap*spread
					for _, i := range order[1:9] {
						row[i] = min(row[i], second)
					}
					row[order[1]] = second
					if exchanges {
						row[order[0]], row[order[1]] = row[order[1]], row[order[0]]
					}
				}
			}}
		}
		ref := parity.Rounded(side(tc.moved, false), side(false, false))
		v := parity.Probe(t.Context(), source("cpu-exact", ref), source("cpu", side(tc.moved, true)), toyCase(40), p)
		if v.Passed() != tc.sound || !tc.sound && (v.Violation == nil || v.Violation.Metric != "argmax") {
			t.Errorf("%+v: %v %s", tc, v.Status, v.Reason)
		}
	}
}
