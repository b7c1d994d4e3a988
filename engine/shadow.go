package engine

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// ShadowAfter is the number of generated tokens from which on the reference
// follows a generation, unless VerifyShadow has it follow from the first.
const ShadowAfter = 256

// followBudget is the share of a generation's time that following may add unless
// VerifyShadow has it take what it needs.
const followBudget = 0.1

// follower connects a generation with a shadow; a nil one follows nothing.
type follower struct {
	s      *Session
	exec   backend.Executor // of the shadow's reference
	shadow *parity.Shadow
	budget float64
	sure   bool // every token will be judged, whatever that costs
	start  time.Time
	// What is followed, should the session move to another backend.
	cand  loaded
	cert  parity.Certified
	ended bool

	release func() // the model's weights, after closing exec
}

// follow starts to follow the session if it is time to. The session must hold
// at least one token, whose logits come with the first call of token.
func (s *Session) follow(ctx context.Context, f *follower, generated, capacity int) (*follower, error) {
	e := s.e
	if f != nil && f.cand.exec != s.exec {
		// Another backend has taken over. What the first one did is judged to its end.
		if err := f.finish(nil); err != nil {
			return f, err
		}
		f = nil
	}
	patient := e.options.Gate.Verify == VerifyShadow
	if f != nil || !patient && generated < ShadowAfter {
		return f, nil
	}
	switch e.certified.How() {
	case parity.ByReference, parity.ByOverride:
		return nil, nil
	}
	threads := e.gate.idleThreads(e.cand)
	source, err := e.gate.shadowReference(threads)
	if err != nil {
		return nil, fmt.Errorf("%w: the reference for verification: %w", ErrInference, err)
	}
	exec, err := source.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: the reference for verification: %w", ErrInference, err)
	}
	f = &follower{s: s, exec: exec, start: time.Now(), cand: e.cand, cert: e.certified, release: e.Model.hold()}
	source.Open = func() (backend.Executor, error) { return exec, nil }
	how := parity.Following{Turns: threads == 0}
	if !patient {
		f.budget = followBudget
		how.Budget = followBudget
	}
	f.sure = patient || how.Turns
	held := s.tokens[:len(s.tokens)-1]
	f.shadow = parity.Follow(ctx, source, e.cand.source(), e.gate.parityCase(nil), held, capacity, e.gate.Policy, how)
	return f, nil
}

// token hands over the session's last token and the logits after it, and
// reports a violation that has been found in the meantime.
func (f *follower) token(row []float32) error {
	if f == nil {
		return nil
	}
	f.shadow.Token(f.s.tokens[len(f.s.tokens)-1], row)
	if v := f.shadow.Broken(); v != nil {
		return f.s.e.violated(*v, f.cert, f.cand)
	}
	return nil
}

// covers reports whether every token will be judged before it is shown, so that
// its context needs no comparison of its own.
func (f *follower) covers() bool { return f != nil && f.sure }

// holds reports whether text waits until it has been judged.
func (f *follower) holds() bool { return f != nil && !f.shadow.Behind() }

// judged is how many positions may be shown: those that have been judged, or all
// where text does not wait.
func (f *follower) judged() int {
	if !f.holds() {
		return math.MaxInt
	}
	return f.shadow.Judged()
}

// finish waits for the reference to catch up, as long as the budget allows, or
// ends it after an error.
func (f *follower) finish(err error) error {
	if f == nil || f.ended {
		return err
	}
	f.ended = true
	if err != nil {
		f.shadow.Stop()
	} else {
		limit := time.Duration(f.budget * float64(time.Since(f.start)))
		v, complete := f.shadow.Wait(limit)
		if v.Status == parity.Mismatch || complete && !v.Passed() {
			err = f.s.e.violated(v, f.cert, f.cand)
		}
	}
	go func() {
		defer f.release()
		<-f.shadow.Done()
		_ = f.exec.Close() // nothing of the answer depends on it
	}()
	return err
}

// violated ends serving with a backend that has been found wrong: tokens of it
// have been used, so there is nothing to fall back to.
func (e *Engine) violated(v parity.Verdict, cert parity.Certified, c loaded) error {
	if cert.Allows(c.exec) != nil {
		return fmt.Errorf("%w: %s was found wrong while it ran", ErrRejected, c.name)
	}
	e.gate.Revoke(cert, c.source(), v)
	reason := v.Reason
	if v.Status == parity.NotMeasured {
		reason = v.Err().Error()
	}
	e.decide(Decision{
		Backend: c.name, Device: c.device.Name(), Status: v.Status, Reason: reason,
		Line: refusedLine(c.name, reason),
	})
	return fmt.Errorf("%w: %s was found wrong while it ran; the answer ends there", ErrRejected, c.name)
}

// idleThreads is how many CPUs the serving backend leaves idle.
func (g *gate) idleThreads(serving loaded) int {
	if slices.Contains(gpuChain, serving.name) && serving.part == "" {
		return max(1, runtime.NumCPU()-1) // one feeds the GPU
	}
	return max(0, runtime.NumCPU()-g.threads())
}

// shadowReference is a reference executor with so many threads, 0 for as many as
// serve.
func (g *gate) shadowReference(threads int) (parity.Source, error) {
	if threads == 0 {
		threads = g.threads()
	}
	device, err := firstDevice(referenceBackend)
	if err != nil {
		return parity.Source{}, err
	}
	return parity.Source{
		Backend: referenceBackend, Device: device.Name(), Identity: device.Identity(),
		Open: func() (backend.Executor, error) {
			return g.loadReference(device, threads)
		},
	}, nil
}
