package parity_test

import (
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// TestSoftwareIsWaitedFor: a renderer in software gets more time for a step than a
// device, and a hang ends all the same.
func TestSoftwareIsWaitedFor(t *testing.T) {
	p := parity.Standard()
	p.Probe.Deadline, p.Probe.DeadlineFactor = 100*time.Millisecond, 0
	c := parity.Case{Tokens: []int32{1, 2, 3, 4}, MaxBatch: 4, Vocab: toyVocab}
	for _, test := range []struct {
		software bool
		takes    time.Duration
		want     parity.Status
	}{
		{false, 3 * time.Second, parity.Mismatch},
		{true, 150 * time.Millisecond, parity.Validated},
		{true, 3 * time.Second, parity.Mismatch},
	} {
		a := source("gpu", &toy{before: func(*toy, []backend.Span) error { time.Sleep(test.takes); return nil }})
		a.Software = test.software
		if v := parity.Probe(t.Context(), source("cpu-exact", &toy{}), a, c, p); v.Status != test.want {
			t.Errorf("software %v, a step takes %v: %s, %s", test.software, test.takes, v.Status, v.Reason)
		}
	}
}
