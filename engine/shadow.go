package engine

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// ShadowAfter is the number of generated tokens from which on the reference
// follows a generation, unless VerifyShadow has it follow from the first.
const ShadowAfter = 256

// follower connects a generation with a shadow; a nil one follows nothing.
type follower struct {
	s      *Session
	exec   backend.Executor // of the shadow's reference
	shadow *parity.Shadow
}

// follow starts to follow the session if it is time to. The session must hold
// at least one token, whose logits come with the first call of token.
func (s *Session) follow(ctx context.Context, f *follower, generated, capacity int) (*follower, error) {
	e := s.e
	switch {
	case f != nil:
		return f, nil
	case e.options.Gate.Verify != VerifyShadow && generated < ShadowAfter:
		return f, nil
	}
	switch e.certified.How() {
	case parity.ByReference, parity.ByOverride:
		return f, nil
	}
	threads := e.gate.idleThreads(e.cand.name)
	source, err := e.gate.shadowReference(threads)
	if err != nil {
		return nil, fmt.Errorf("%w: the reference for verification: %w", ErrInference, err)
	}
	exec, err := source.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: the reference for verification: %w", ErrInference, err)
	}
	f = &follower{s: s, exec: exec}
	source.Open = func() (backend.Executor, error) { return exec, nil }
	held := s.tokens[:len(s.tokens)-1]
	f.shadow = parity.Follow(ctx, source, e.cand.source(), e.gate.parityCase(nil), held, capacity, e.gate.Policy, threads == 0)
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
		return f.s.e.violated(*v)
	}
	return nil
}

// finish waits for the reference to catch up, or ends it after an error.
func (f *follower) finish(err error) error {
	if f == nil {
		return err
	}
	var v parity.Verdict
	if err != nil {
		f.shadow.Stop()
	} else if v = f.shadow.Wait(); !v.Passed() {
		err = f.s.e.violated(v)
	}
	_ = f.exec.Close() // nothing of the answer depends on it
	return err
}

// violated ends serving with the loaded backend: tokens of it have left, so
// there is nothing to fall back to.
func (e *Engine) violated(v parity.Verdict) error {
	if e.certified.Allows(e.cand.exec) != nil {
		return fmt.Errorf("%w: %s was found wrong while it ran", ErrRejected, e.cand.name)
	}
	e.gate.Revoke(e.certified, e.cand.source(), v)
	reason := v.Reason
	if v.Status == parity.NotMeasured {
		reason = v.Err().Error()
	}
	e.decide(Decision{
		Backend: e.cand.name, Device: e.cand.device.Name(), Status: v.Status, Reason: reason,
		Line: refusedLine(e.cand.name, reason),
	})
	return fmt.Errorf("%w: %s was found wrong while it ran; the answer above is not to be trusted", ErrRejected, e.cand.name)
}

// idleThreads is how many CPUs the serving backend leaves idle.
func (g *gate) idleThreads(serving string) int {
	if slices.Contains(gpuChain, serving) {
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
	b, err := backend.Find(referenceBackend)
	if err != nil {
		return parity.Source{}, err
	}
	devices, err := b.Probe()
	if err != nil || len(devices) == 0 {
		return parity.Source{}, fmt.Errorf("%s: %w", referenceBackend, errNoDevice)
	}
	return parity.Source{
		Backend: referenceBackend, Device: devices[0].Name(), Identity: devices[0].Identity(),
		Open: func() (backend.Executor, error) {
			return devices[0].Load(g.m.Program, g.m.File, g.referenceOptions(threads))
		},
	}, nil
}
