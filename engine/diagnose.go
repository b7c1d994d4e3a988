package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/quant"
)

// blame decides who is at fault for logits that are not finite: a damaged file,
// which ends the run; the reference or an unverified backend, which ends it too;
// or a backend that was certified, which is rejected. took is how long the step was. It
// returns nil if another backend has been loaded.
func (e *Engine) blame(bad error, position int, took time.Duration) error {
	if damaged := e.Model.badWeights(); damaged != nil {
		return damaged
	}
	switch e.certified.How() {
	case parity.ByReference, parity.ByOverride:
		return bad
	}
	v := parity.Verdict{
		Status: parity.Mismatch, Backend: e.cand.name,
		Reason: fmt.Sprintf("NaN or infinity in the logits at position %d", position),
	}
	e.gate.Revoke(e.certified, e.cand.source(), v)
	return e.reject(v, took)
}

// failed decides what follows from a call of the loaded backend that failed: a
// request that no backend can serve ends with the error, and so does the
// reference or an unverified backend; another one is rejected. Its certificate
// stays, for a device that was lost may come back. took is how long the call was. It
// returns nil if another backend has been loaded.
func (e *Engine) failed(what string, err error, took time.Duration) error {
	wrapped := fmt.Errorf("%w: %w", ErrInference, err)
	if errors.Is(err, backend.ErrContextFull) || errors.Is(err, backend.ErrToken) {
		return wrapped
	}
	switch e.certified.How() {
	case parity.ByReference, parity.ByOverride:
		return wrapped
	}
	return e.reject(parity.Verdict{Status: parity.Mismatch, Backend: e.cand.name, Reason: fmt.Sprintf("%s: %v", what, err)}, took)
}

// leastStepTime is how long a GPU may take over a token of a batch; slower ones
// are of no use.
const leastStepTime = 100 * time.Millisecond

// stepLimit is how long the loaded backend may take over a step; 0 for as long as
// it likes, which the CPU may: nothing of it can hang.
func (e *Engine) stepLimit(tokens int) time.Duration {
	if !slices.Contains(gpuChain, e.cand.name) {
		return 0
	}
	limit := max(e.gate.Policy.Probe.Deadline, time.Duration(tokens)*leastStepTime)
	return limit * time.Duration(e.cand.patience())
}

// plan asks which kernels a step will use.
func (c loaded) plan(batch []backend.Span) (names []string, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return c.exec.Plan(batch), nil
}

// badWeights names the first block whose scale is NaN or infinite; nil if there
// is none. Weights are read once more to tell a damaged file from a broken
// executor; that costs a pass over the file, so it happens only after the fact.
func (m *Model) badWeights() error {
	for _, t := range m.File.Tensors {
		if block, ok := quant.Validate(t.Type, t.Data); !ok {
			return fmt.Errorf("%w: %s: tensor %v: block %d holds NaN or infinity; the file is damaged, get it again", ErrLoad, m.Path, t, block)
		}
	}
	return nil
}
