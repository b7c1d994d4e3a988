package engine

import (
	"time"

	"github.com/apr-engine/apr/parity"
)

// StartTimes is how long it took until the serving backend could begin.
type StartTimes struct {
	Find time.Duration // to find its device, and to try its driver where that is done
	Load time.Duration // to compile the program and the kernels for it and to upload the weights
	Gate time.Duration // to be admitted by the parity gate, after Load
	// Reference is what the reference has computed for the first probe, Wait how much of
	// it the gate has waited for: the rest ran while the backend was loaded. Candidate is
	// the backend's part of the probe, Compare the rest of Gate. All are 0 with a
	// certificate.
	Reference, Wait, Candidate, Compare time.Duration
	// Later is the rest of the comparison, between an answer's first token and its
	// second; 0 if Gate is all of it.
	Later time.Duration
}

// judged splits the time of the probe that the verdict is of.
func (s *StartTimes) judged(took time.Duration, v parity.Verdict) {
	s.Gate = took
	if len(v.Positions) == 0 {
		return
	}
	ref, cand := v.ReferenceCost, v.CandidateCost
	s.Reference, s.Wait, s.Candidate = ref.Time, ref.Setup+ref.Time-ref.Ahead, cand.Setup+cand.Time
	s.Compare = max(took-s.Wait-s.Candidate, 0)
}

// StartTimes says where the time before the first token went.
func (e *Engine) StartTimes() StartTimes { return e.start }
