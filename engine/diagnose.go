package engine

import (
	"fmt"

	"github.com/apr-engine/apr/quant"
)

// checkLogits refuses numbers that no working model computes. Weights are read
// once more to tell a damaged file from a broken executor; that costs a pass
// over the file, so it happens only after the fact.
func (m *Model) checkLogits(logits []float32) error {
	for i, l := range logits {
		if l-l != 0 { // NaN or infinite
			if bad := m.badWeights(); bad != nil {
				return bad
			}
			return fmt.Errorf("%w: the logit of token %d is %v", ErrInference, i, l)
		}
	}
	return nil
}

// badWeights names the first block whose scale is NaN or infinite; nil if there
// is none.
func (m *Model) badWeights() error {
	for _, t := range m.File.Tensors {
		if block, ok := quant.Validate(t.Type, t.Data); !ok {
			return fmt.Errorf("%w: %s: tensor %v: block %d holds NaN or infinity; the file is damaged, get it again", ErrLoad, m.Path, t, block)
		}
	}
	return nil
}
