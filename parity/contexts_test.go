package parity_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

func contexts(ctx context.Context, ref, cand backend.Executor, c parity.Case, lengths ...int) (list []parity.Verdict, err error) {
	err = parity.ProbeContexts(ctx, source("cpu-exact", ref), source("gpu", cand), c, lengths, parity.Standard(), func(n int, v parity.Verdict) error {
		list = append(list, v)
		return nil
	})
	return list, err
}

func longCase(n int) parity.Case {
	c := toyCase(parity.ContextTokens(n))
	c.Context, c.Full = 0, true
	return c
}

// Each length is judged in the steps that serve, and at the end of them.
func TestContexts(t *testing.T) {
	cand, ref := &toy{noise: 0.01}, &toy{}
	list, err := contexts(t.Context(), ref, cand, longCase(1000), 64, 1000)
	if err != nil || len(list) != 2 || !list[0].Passed() || !list[1].Passed() {
		t.Fatalf("%v, %v", err, list)
	}
	if list[0].Context != 64+256 || list[1].Context != 1000+256 {
		t.Errorf("contexts %d and %d", list[0].Context, list[1].Context)
	}
	at := slices.Index(cand.log, "0+32/0")
	if at != 0 || cand.log[1] != "32+32/1" || cand.log[2] != "64+1/1" {
		t.Errorf("the first steps are %q", cand.log[:3])
	}
	// The second length begins at a whole batch, as a prompt of that length does.
	served := slices.Index(cand.log, "992+8/1")
	if served < 0 || cand.log[served+1] != "1000+1/1" || !slices.Contains(cand.log, "320+32/0") {
		t.Errorf("no whole batches up to 1000: %q", cand.log)
	}
	for _, v := range list {
		phases := map[parity.Phase]int{}
		for _, p := range v.Positions {
			phases[p.Phase]++
		}
		if phases[parity.Served] != 1 || phases[parity.Decode] != 24 || phases[parity.Later] != 32 || phases[parity.Resume] < 32+24 {
			t.Errorf("positions %v", phases)
		}
	}
	// The reference takes every token once.
	computed := 0
	for _, line := range ref.log {
		var from, n, want int
		if _, err := fmt.Sscanf(line, "%d+%d/%d", &from, &n, &want); err != nil || from != computed {
			t.Fatalf("reference step %s after %d tokens (%v)", line, computed, err)
		}
		computed += n
	}
	if computed != 1256 || ref.open.Load() != 0 || cand.open.Load() != 0 {
		t.Errorf("%d tokens computed, %d and %d sequences left", computed, ref.open.Load(), cand.open.Load())
	}
}

// A second candidate needs no further computation.
func TestContextsOfSeveralCandidates(t *testing.T) {
	m := parity.Remember(&toy{}, toyVocab, 64<<20)
	for i := range 3 {
		list, err := contexts(t.Context(), m, &toy{noise: 0.01}, longCase(600), 64, 90, 91, 600)
		if err != nil || len(list) != 4 {
			t.Fatal(err)
		}
		for _, v := range list {
			if !v.Passed() {
				t.Errorf("candidate %d: %v", i, v.Err())
			}
		}
	}
	if m.Computed() != 856 {
		t.Errorf("%d tokens computed, want 856", m.Computed())
	}
}

// A fault is found at the lengths where it is.
func TestContextsFindFaults(t *testing.T) {
	for first, want := range map[int]string{
		0: "mismatch mismatch mismatch", 70: "mismatch mismatch mismatch", 400: "validated mismatch mismatch",
		1000: "validated validated mismatch", 1200: "validated validated mismatch",
	} {
		list, err := contexts(t.Context(), &toy{}, spoil(first, negate), longCase(1000), 64, 400, 1000)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range list {
			got = append(got, v.Status.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("a fault from %d on: %v, want %s", first, got, want)
		}
	}
	// An executor that fails is not used any more.
	cand := &toy{before: func(t *toy, batch []backend.Span) error {
		if batch[0].Seq.Len() > 200 {
			return fmt.Errorf("lost")
		}
		return nil
	}}
	list, err := contexts(t.Context(), &toy{}, cand, longCase(1000), 64, 400, 1000)
	if err != nil || list[0].Status != parity.Mismatch || list[1].Status != parity.NotMeasured || !strings.Contains(list[2].Reason, "not reached") || !strings.Contains(list[0].Reason, "lost") {
		t.Errorf("%v, %v", err, list)
	}
}

// What takes too long is not measured, and what there is no text for is refused.
func TestContextsAreBounded(t *testing.T) {
	slow := &toy{before: func(*toy, []backend.Span) error { time.Sleep(2 * time.Millisecond); return nil }}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	list, err := contexts(ctx, slow, &toy{}, longCase(60_000), 64, 60_000)
	if err != nil || !list[0].Passed() || !list[1].TooLong() || list[1].Passed() {
		t.Errorf("%v, %v", err, list)
	}
	for name, lengths := range map[string][]int{"none": nil, "zero": {0}, "too long": {64, 5000}} {
		if _, err := contexts(t.Context(), &toy{}, &toy{}, longCase(1000), lengths...); err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
}

// What was compared at a length of context serves there without a further probe.
func TestContextsAreCertified(t *testing.T) {
	gate := func() *parity.Gate {
		return &parity.Gate{
			Reference: source("cpu-exact", &toy{}), Policy: parity.Standard(), Store: &parity.Store{Dir: t.TempDir()},
			Key: parity.Key{Model: "m", Program: "p", Build: "b", Options: "o"},
		}
	}
	none := func(int, parity.Verdict) error { return nil }
	g, cand := gate(), &toy{}
	if err := g.MeasureContexts(t.Context(), source("gpu", cand), longCase(1000), []int{64, 1000}, none); err != nil {
		t.Fatal(err)
	}
	steps := cand.steps
	cert, v := g.Certify(t.Context(), source("gpu", cand), toyCase(70))
	if cert.Allows(cand) != nil || !v.Cached || cert.Context() != 1256 || cand.steps != steps || cert.Missing([]string{"toy/batch", "toy/decode"}) != "" {
		t.Errorf("%v, context %d, %d steps more", v.Err(), cert.Context(), cand.steps-steps)
	}
	// One wrong length spoils all, whatever comes after.
	for _, renew := range []bool{false, true} {
		g, g.Renew = gate(), renew
		cand = &toy{row: func(_ *toy, at int, _ backend.Span, row []float32) {
			if at == 300 {
				negate(row)
			}
		}}
		if err := g.MeasureContexts(t.Context(), source("gpu", cand), longCase(1000), []int{64, 1000}, none); err != nil {
			t.Fatal(err)
		}
		g.Renew = false
		if cert, v := g.Certify(t.Context(), source("gpu", cand), toyCase(70)); cert.Allows(cand) == nil || !v.Cached || v.Status != parity.Mismatch {
			t.Errorf("renew %v: %v", renew, v.Err())
		}
	}
}
