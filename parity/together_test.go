package parity_test

import (
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// Sequences that are computed at once are compared with each by itself.
func TestProbeTogether(t *testing.T) {
	steps := []parity.Step{
		{History: prompt(40), Tokens: []int32{5}},
		{History: nil, Tokens: []int32{7}},
		{History: prompt(33), Tokens: []int32{9}},
	}
	several := func(change func(batch []backend.Span, l *backend.Logits)) *toy {
		return &toy{after: func(_ *toy, batch []backend.Span, l *backend.Logits) error {
			if len(batch) > 1 {
				change(batch, l)
			}
			return nil
		}}
	}
	judge := func(cand *toy) parity.Verdict {
		v := parity.ProbeTogether(t.Context(), source("cpu-exact", &toy{}), source("gpu", cand), toyCase(1), steps, parity.Standard())
		if n := cand.open.Load(); n != 0 {
			t.Errorf("%d sequences are left open", n)
		}
		return v
	}
	sound := &toy{noise: 0.01, plan: func(batch []backend.Span) []string {
		if len(batch) > 1 {
			return []string{"toy/together"}
		}
		return []string{"toy/alone"}
	}}
	v := judge(sound)
	if !v.Passed() || len(v.Positions) != 9 || len(v.Covered) != 2 {
		t.Errorf("a sound executor: %v %s, %d positions, covered %v", v.Status, v.Reason, len(v.Positions), v.Covered)
	}
	round := 0
	for name, change := range map[string]func(batch []backend.Span, l *backend.Logits){
		"rows swapped": func(_ []backend.Span, l *backend.Logits) { copy(l.Row(1), l.Row(2)) },
		"not a number": func(_ []backend.Span, l *backend.Logits) { l.Row(2)[3] = notANumber() },
		"short logits": func(_ []backend.Span, l *backend.Logits) { l.Data = l.Data[:2*l.Vocab] },
		"wrong later only": func(batch []backend.Span, l *backend.Logits) {
			if round++; round > 1 { // what the first step stored is wrong
				negate(l.Row(0))
			}
		},
	} {
		if v := judge(several(change)); v.Status != parity.Mismatch {
			t.Errorf("%s: %v %s", name, v.Status, v.Reason)
		}
	}
	steps[1].Tokens = nil
	if v := judge(&toy{}); v.Status != parity.NotMeasured {
		t.Errorf("a sequence without a token: %v", v.Status)
	}
}

// What several sequences hold alike the reference computes once, and each of them is
// judged.
func TestProbeTogetherWithOneText(t *testing.T) {
	same := parity.Step{History: prompt(40), Tokens: []int32{5}}
	steps := []parity.Step{same, {History: prompt(39), Tokens: []int32{5}}, same, same}
	for _, wrong := range []int{-1, 0, 1, 2, 3} {
		ref := &toy{}
		cand := &toy{noise: 0.01, after: func(_ *toy, batch []backend.Span, l *backend.Logits) error {
			if len(batch) > 1 && wrong >= 0 {
				negate(l.Row(wrong))
			}
			return nil
		}}
		v := parity.ProbeTogether(t.Context(), source("cpu-exact", ref), source("gpu", cand), toyCase(1), steps, parity.Standard())
		if v.Passed() != (wrong < 0) || v.Passed() && len(v.Positions) != 12 {
			t.Errorf("sequence %d wrong: %v %s, %d positions", wrong, v.Status, v.Reason, len(v.Positions))
		}
		// Two texts of 40 and 39 tokens, each in two steps, and three tokens more.
		if wrong < 0 && ref.steps != 2*(2+3) || ref.open.Load() != 0 || cand.open.Load() != 0 {
			t.Errorf("%d steps of the reference, %d and %d sequences left open", ref.steps, ref.open.Load(), cand.open.Load())
		}
	}
}
