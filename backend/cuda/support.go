package cuda

import (
	"fmt"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// maxHead is the longest attention head that the plain kernel takes.
const maxHead = 512

// supported refuses, before anything is loaded, what the kernels cannot do; the
// error names the tensor, operation or option.
func supported(p *graph.Program, w graph.Weights, o backend.Options) error {
	if o.KV != tensor.F16 && o.KV != tensor.F32 {
		return fmt.Errorf("%w: KV cache of type %s (want F16 or F32)", backend.ErrUnsupported, o.KV)
	}
	for i, op := range p.Ops {
		for _, name := range op.Weights() {
			t, ok := w.Tensor(name)
			if !ok {
				return fmt.Errorf("%w: tensor %s is missing", graph.ErrInvalid, name)
			}
			if isVector(op, name) {
				if _, ok := quant.Lookup(t.Type); !ok {
					return fmt.Errorf("%w: tensor %v", backend.ErrUnsupported, t)
				}
				continue // converted to float32
			}
			if _, err := packedRowBytes(t.Type, t.Cols()); err != nil {
				return fmt.Errorf("%w: tensor %v: %w", backend.ErrUnsupported, t, err)
			}
		}
		if m, ok := op.(*graph.Misplace); ok {
			op = m.Op
		}
		if err := supportedOp(p, op); err != nil {
			return fmt.Errorf("operation %d (%s): %w", i, op.Kind(), err)
		}
	}
	return nil
}

func supportedOp(p *graph.Program, op graph.Op) error {
	switch o := op.(type) {
	case *graph.Embed, *graph.Input, *graph.RMSNorm, *graph.MatMul, *graph.Rope, *graph.KVStore, *graph.GatedAct, *graph.Add, *graph.Scale, *graph.Logits, *graph.Tamper:
	case *graph.Attention:
		if d := p.Caches[o.Layer].HeadDim; d > maxHead {
			return fmt.Errorf("%w: heads of %d elements (at most %d)", backend.ErrUnsupported, d, maxHead)
		}
	default:
		return fmt.Errorf("%w: operation %T", backend.ErrUnsupported, op)
	}
	return nil
}
