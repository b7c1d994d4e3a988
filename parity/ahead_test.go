package parity_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// untimed removes what differs from run to run.
func untimed(v parity.Verdict) parity.Verdict {
	v.ReferenceCost, v.CandidateCost = parity.Cost{}, parity.Cost{}
	return v
}

// A reference that ran ahead gives the same verdict as one that did not, and
// has nothing left to compute of the prompt; a second candidate gets its answers too.
func TestAhead(t *testing.T) {
	for _, n := range []int{1, 20, 70, 400} {
		c, p := toyCase(n), parity.Standard()
		for _, cand := range []func() *toy{func() *toy { return &toy{noise: 0.01} }, func() *toy { return spoil(min(n, 30), negate) }} {
			want := parity.Probe(t.Context(), source("cpu-exact", &toy{}), source("gpu", cand()), c, p)
			ref := &toy{}
			a := parity.RunAhead(func() (backend.Executor, error) { return ref, nil }, 0, c, p)
			settled(t, ref, n)
			a.Halt()
			before := ref.steps
			begun := len(ref.log)
			from := parity.Source{Backend: "cpu-exact", Open: a.Open}
			for range 2 {
				got := parity.Probe(t.Context(), from, source("gpu", cand()), c, p)
				if !reflect.DeepEqual(untimed(got), untimed(want)) {
					t.Errorf("%d tokens: %v %q at %d positions, want %v %q at %d", n, got.Status, got.Reason, len(got.Positions), want.Status, want.Reason, len(want.Positions))
				}
				if got.ReferenceCost.Tokens != want.ReferenceCost.Tokens || got.ReferenceCost.Time <= 0 {
					t.Errorf("cost %+v, want that of %+v", got.ReferenceCost, want.ReferenceCost)
				}
				// What is checked in batches is all that is left.
				if want.Passed() && ref.steps != before {
					if at := position(t, ref.log[begun]); at < min(n, 256) {
						t.Errorf("%d tokens: computes from position %d after running ahead", n, at)
					}
				}
			}
			a.Forget()
			if ref.open.Load() != 0 {
				t.Errorf("%d sequences are left open", ref.open.Load())
			}
			if got := parity.Probe(t.Context(), from, source("gpu", cand()), c, p); !reflect.DeepEqual(untimed(got), untimed(want)) {
				t.Errorf("after forgetting: %v, %s", got.Status, got.Reason)
			}
		}
	}
}

// position is where a step in a toy's log begins.
func position(t *testing.T, line string) (at int) {
	t.Helper()
	if _, err := fmt.Sscanf(line, "%d+", &at); err != nil {
		t.Fatal(err)
	}
	return at
}

// settled waits until a toy has taken all the steps ahead of a probe that it can.
func settled(t *testing.T, ref *toy, prompt int) {
	t.Helper()
	steps := (min(prompt, 256) + 31) / 32
	for deadline := time.Now().Add(time.Minute); ref.count.Load() < int64(steps); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d steps, want %d", ref.count.Load(), steps)
		}
	}
}

// Interrupted at any point it gives the same verdict.
func TestAheadIsInterrupted(t *testing.T) {
	c, p := toyCase(250), parity.Standard()
	want := parity.Probe(t.Context(), source("cpu-exact", &toy{}), source("gpu", &toy{noise: 0.01}), c, p)
	for stop := range 8 {
		reached := make(chan struct{})
		ref := &toy{}
		ref.before = func(r *toy, _ []backend.Span) error {
			if r.steps == stop+1 {
				close(reached)
			}
			time.Sleep(time.Millisecond)
			return nil
		}
		a := parity.RunAhead(func() (backend.Executor, error) { return ref, nil }, 0, c, p)
		<-reached
		got := parity.Probe(t.Context(), parity.Source{Backend: "cpu-exact", Open: a.Open}, source("gpu", &toy{noise: 0.01}), c, p)
		if !reflect.DeepEqual(untimed(got), untimed(want)) {
			t.Errorf("interrupted in step %d: %v %s", stop+1, got.Status, got.Reason)
		}
	}
}

// A reference that fails ahead of the probe fails in it.
func TestAheadFails(t *testing.T) {
	for name, open := range map[string]func() (backend.Executor, error){
		"open": func() (backend.Executor, error) { return nil, errors.New("broken") },
		"step": func() (backend.Executor, error) {
			return &toy{before: func(*toy, []backend.Span) error { return errors.New("broken") }}, nil
		},
		"panic": func() (backend.Executor, error) {
			return &toy{before: func(*toy, []backend.Span) error { panic("boom") }}, nil
		},
	} {
		a := parity.RunAhead(open, 0, toyCase(20), parity.Standard())
		v := parity.Probe(t.Context(), parity.Source{Backend: "cpu-exact", Open: a.Open}, source("gpu", &toy{}), toyCase(20), parity.Standard())
		if v.Status != parity.NotMeasured {
			t.Errorf("%s: %v, %s", name, v.Status, v.Reason)
		}
	}
}
