package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// certify makes sure that the loaded backend may serve, judging it on tokens if
// it has not been judged, and goes down the chain until one passes. With promptFirst
// these tokens are enough; what comes after them is judged by the next call without.
func (e *Engine) certify(ctx context.Context, tokens []int32, promptFirst bool) error {
	defer e.setAside(e.now())()
	for !e.ready(promptFirst) {
		if e.certified.Pending() {
			if err := e.complete(ctx); err != nil {
				return err
			}
			continue
		}
		start := e.now()
		cert, v := e.gate.certify(ctx, e.cand, tokens, promptFirst && e.replaceable())
		took := e.now().Sub(start)
		if err := ctx.Err(); err != nil {
			return err
		}
		if cert.Allows(e.cand.exec) == nil {
			e.validate += took
			e.start.judged(took, v)
			e.certified, e.unsaid = cert, &v
			if !cert.Pending() {
				e.accept()
			}
			return nil
		}
		if err := e.reject(v, took); err != nil {
			return err
		}
	}
	return nil
}

// replaceable reports whether a backend may be replaced: not what was asked for by
// name, so such a one is judged whole before it answers at all.
func (e *Engine) replaceable() bool { return e.requested == "auto" && e.options.Device == "" }

// ready reports whether the loaded backend may serve: anything, or with promptFirst
// at least the tokens that it has been judged on.
func (e *Engine) ready(promptFirst bool) bool {
	return e.certified.Allows(e.cand.exec) == nil && (promptFirst || !e.certified.Pending())
}

// complete judges the rest of a backend whose prompt alone has been judged.
func (e *Engine) complete(ctx context.Context) error {
	start := e.now()
	v := e.gate.complete(ctx, e.certified, e.cand)
	took := e.now().Sub(start)
	if err := ctx.Err(); err != nil {
		return err
	}
	if !v.Passed() {
		return e.reject(v, took)
	}
	e.validate += took
	e.start.Later = took
	e.accept()
	return nil
}

// accept records that the loaded backend serves, unless that is known.
func (e *Engine) accept() {
	if e.unsaid == nil {
		return
	}
	v := *e.unsaid
	e.unsaid = nil
	d := Decision{Backend: e.cand.name, Device: e.cand.device.Name(), Accepted: true, Status: v.Status, Basis: e.certified.How()}
	// A run that was told to stay on the CPU and does so has nothing to report.
	if !e.options.NoGPU || len(e.decisions) > 0 {
		d.Line = acceptedLine(e.cand.name, e.cand.api(), e.cand.part)
	}
	if v.Override {
		d.Line = overrideLine(e.cand.name, e.options.Gate.overrideReason())
	}
	e.decide(d)
}

// setAside has the time from start until the function it returns is called count as no
// part of an answer, once where one such stretch lies in another.
func (e *Engine) setAside(start time.Time) func() {
	before := e.aside
	return func() { e.aside = before + e.now().Sub(start) }
}

// reject drops the loaded backend, on whose failure took was spent, and loads the next.
// A backend that was asked for by name is not replaced.
func (e *Engine) reject(v parity.Verdict, took time.Duration) error {
	defer e.setAside(e.now().Add(-took))()
	e.rejected += took
	e.certified.Abandon()
	e.certified, e.unsaid, e.beyond = parity.Certified{}, nil, false
	if v.Status == parity.NotMeasured {
		// A damaged file spoils the reference too; then no backend is at fault.
		if bad := e.Model.badWeights(); bad != nil {
			return bad
		}
	}
	d := Decision{Backend: e.cand.name, Device: e.cand.device.Name(), Status: v.Status, Reason: v.Err().Error()}
	if v.Status == parity.Mismatch {
		d.Reason = v.Reason
	}
	if !e.replaceable() || len(e.chain) == 0 {
		d.Line = refusedLine(e.cand.name, d.Reason)
		e.decide(d)
		return fmt.Errorf("%w: %s was asked for by name and is not replaced", ErrRejected, e.cand.name)
	}
	d.Line = rejectedLine(e.cand.name, d.Reason)
	e.decide(d)
	old := e.cand
	err := e.loadNext()
	_ = old.close() // it is not used any more, whatever it says
	return err
}

// admit makes sure that a step has been judged: its kernels, and a context as
// long as it makes. It reports whether the step may run on the loaded backend; if
// not, another one has been loaded and must be brought up to the same tokens.
// coming are tokens that follow the step's, as far as they are known, and
// followed says that the reference judges each token before it is shown.
func (e *Engine) admit(ctx context.Context, batch []backend.Span, history, coming []int32, capacity int, followed bool) (ok bool, err error) {
	if err := e.certified.Allows(e.cand.exec); err != nil {
		return false, err
	}
	end := len(history) + len(batch[0].Tokens)
	names, err := e.cand.plan(batch)
	if err != nil {
		return false, e.failed("plan", err, 0)
	}
	unknown := e.certified.Missing(names) != ""
	longer := end > e.certified.Context() && !followed && !e.beyond
	if !unknown && !longer {
		return true, nil
	}
	step := parity.Step{History: history, Tokens: batch[0].Tokens, Want: batch[0].Want, Next: coming}
	start := e.now()
	defer e.setAside(start)()
	v := parity.Verdict{}
	if longer {
		step.Reach = reach(end+len(coming), capacity)
		v = e.gate.extend(ctx, e.certified, e.cand, step, false)
		if v.TooLong() {
			e.leaveUnjudged(v)
			step.Reach = 0
		}
	}
	if unknown && (!longer || v.TooLong()) {
		v = e.gate.extend(ctx, e.certified, e.cand, step, true)
	}
	took := e.now().Sub(start)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if v.Passed() || v.TooLong() {
		e.validate += took
		return true, nil
	}
	return false, e.reject(v, took)
}

// leastReach is the shortest context that is judged after the first probe.
const leastReach = 128

// reach is up to which position a context of end tokens is judged: the next
// power of two, so that the cost of all comparisons is that of the last one
// twice, but no more than the session can hold.
func reach(end, capacity int) int {
	n := leastReach
	for n < end {
		n *= 2
	}
	return max(end, min(n, capacity))
}

// leaveUnjudged says that the context is longer than can be compared in
// reasonable time. The backend goes on, and counts as unverified from here.
func (e *Engine) leaveUnjudged(v parity.Verdict) {
	e.beyond = true
	e.decide(Decision{
		Backend: e.cand.name, Device: e.cand.device.Name(), Accepted: true, Status: v.Status, Basis: e.certified.How(), Reason: v.Reason,
		Line: unjudgedLine(e.cand.name, e.certified.Context(), v.Reason),
	})
}
