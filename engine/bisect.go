package engine

import (
	"context"
	"fmt"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/parity"
)

// bisectTokens is the most positions that a bisection compares: faults that
// need more are rare, and every value of every position is held for the table.
const bisectTokens = 96

// bisectDecode is how many of them are decoded one by one.
const bisectDecode = 16

// Bisect compares a backend with the reference value by value, both in trace
// mode, and names the first value that differs. The last tokens are fed one by
// one, so that faults of single steps show; a longer text is cut.
func Bisect(ctx context.Context, m *Model, o Options, name string, tokens []int32) (parity.Bisection, error) {
	if len(tokens) == 0 {
		return parity.Bisection{First: -1}, fmt.Errorf("%w: the prompt is empty", ErrInput)
	}
	tokens = tokens[:min(len(tokens), bisectTokens)]
	maxBatch := o.MaxBatch
	if maxBatch == 0 {
		maxBatch = backend.DefaultMaxBatch
	}
	g := newGate(m, o, maxBatch)
	defer g.release()
	loader := func(name string, wrap bool) (parity.TraceLoader, error) {
		b, err := backend.Find(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInput, err)
		}
		device, err := o.find(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrBackend, name, err)
		}
		opts := g.referenceOptions(g.threads())
		if wrap {
			if device, err = g.place(name, device); err != nil {
				return nil, fmt.Errorf("%w: %s: %w", ErrBackend, name, err)
			}
			opts = backendOptions(name, o, maxBatch)
		}
		return func(trace func(graph.Value, []float32)) (backend.Executor, error) {
			opts.Trace = trace
			return device.Load(m.Program, m.File, opts)
		}, nil
	}
	reference, err := loader(referenceBackend, false)
	if err != nil {
		return parity.Bisection{First: -1}, err
	}
	candidate, err := loader(name, true)
	if err != nil {
		return parity.Bisection{First: -1}, err
	}
	b, err := parity.Bisect(ctx, reference, candidate, parity.BisectCase{
		Program: m.Program, Tokens: tokens, Decode: min(bisectDecode, len(tokens)/2), MaxBatch: maxBatch,
	})
	b.Reference, b.Candidate = referenceBackend, name
	return b, err
}
