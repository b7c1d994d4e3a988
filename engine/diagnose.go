package engine

import (
	"fmt"

	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/quant"
)

// blame decides who is at fault for logits that are not finite: a damaged file,
// which ends the run; the reference or an unverified backend, which ends it too;
// or a backend that was certified, which is rejected. It returns nil if another
// backend has been loaded.
func (e *Engine) blame(bad error, position int) error {
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
	return e.reject(v, 0)
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
