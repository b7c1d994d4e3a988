package parity_test

import (
	"reflect"
	"testing"

	"github.com/apr-engine/apr/parity"
)

// A reference that remembers gives every candidate the verdict that it would have
// got alone, and computes nothing twice for those that agree with it.
func TestMemory(t *testing.T) {
	p := parity.Standard()
	ref := &toy{}
	m := parity.Remember(ref, toyVocab, 64<<20)
	for _, n := range []int{1, 20, 70, 400, 70} {
		c := toyCase(n)
		for i, cand := range []func() *toy{
			func() *toy { return &toy{noise: 0.01} }, func() *toy { return &toy{noise: 0.001} },
			func() *toy { return spoil(min(n, 30), negate) }, func() *toy { return spoil(n+7, negate) }, func() *toy { return &toy{} },
		} {
			want := parity.Probe(t.Context(), source("cpu-exact", &toy{}), source("gpu", cand()), c, p)
			before := m.Computed()
			got := parity.Probe(t.Context(), source("cpu-exact", m), source("gpu", cand()), c, p)
			if !reflect.DeepEqual(untimed(got), untimed(want)) {
				t.Errorf("%d tokens, candidate %d: %v %q at %d positions, want %v %q at %d", n, i, got.Status, got.Reason, len(got.Positions), want.Status, want.Reason, len(want.Positions))
			}
			if got.ReferenceCost.Tokens != want.ReferenceCost.Tokens || got.ReferenceCost.Time <= 0 {
				t.Errorf("cost %+v, want that of %+v", got.ReferenceCost, want.ReferenceCost)
			}
			if i > 0 && want.Passed() && m.Computed() != before {
				t.Errorf("%d tokens, candidate %d: %d tokens computed again", n, i, m.Computed()-before)
			}
		}
	}
	m.Forget()
	if ref.open.Load() != 0 {
		t.Errorf("%d sequences are left open", ref.open.Load())
	}
}

// What does not fit in memory is computed again.
func TestMemoryIsBounded(t *testing.T) {
	p, ref := parity.Standard(), &toy{}
	m := parity.Remember(ref, toyVocab, 100*4*toyVocab)
	want := map[int]parity.Verdict{}
	for range 2 {
		for _, n := range []int{80, 90, 300} {
			c := toyCase(n)
			c.Tokens[0] = int32(n) // texts that have nothing in common
			got := untimed(parity.Probe(t.Context(), source("cpu-exact", m), source("gpu", &toy{noise: 0.01}), c, p))
			if before, ok := want[n]; ok && !reflect.DeepEqual(got, before) {
				t.Errorf("%d tokens: %v %q, before %v", n, got.Status, got.Reason, before.Status)
			}
			if want[n] = got; !got.Passed() {
				t.Errorf("%d tokens: %v", n, got.Err())
			}
		}
	}
	if ref.open.Load() > 2 {
		t.Errorf("%d sequences are open", ref.open.Load())
	}
}
