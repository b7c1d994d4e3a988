package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// ReferenceBackend is the backend that all others are compared with.
const ReferenceBackend = referenceBackend

// Measurable lists the backends of this build that can be compared with the
// reference, in the order of the chain.
func Measurable() []string {
	names := chainFor(false)
	for _, n := range backend.Names() {
		if n != referenceBackend && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == referenceBackend })
}

// Measure compares one backend with the reference on the given tokens, at every
// position even after a violation, whatever certificates say. The verdict is
// remembered if it is one that serving would look up.
func Measure(ctx context.Context, m *Model, o Options, name string, tokens []int32) (parity.Verdict, error) {
	o.Backend = name
	e, err := Open(m, o)
	if errors.Is(err, backend.ErrNoDevice) {
		return parity.Verdict{Backend: name, Reference: referenceBackend, Reason: unavailable(name, absence(err)), Absent: true}, nil
	}
	if err != nil {
		if errors.Is(err, ErrInput) || o.Gate.Fault != nil {
			return parity.Verdict{}, err
		}
		return parity.Verdict{Backend: name, Reference: referenceBackend, Reason: err.Error()}, nil
	}
	defer e.Close()
	if err := e.gate.prepare(); err != nil {
		return parity.Verdict{Backend: name, Reference: referenceBackend, Reason: err.Error()}, nil
	}
	if err := e.gate.identify(); err != nil {
		return parity.Verdict{}, fmt.Errorf("%s: %w", m.Path, err)
	}
	e.gate.Key.Options = e.gate.keyOptions(name)
	c := e.gate.parityCase(tokens)
	c.Full = true
	v := e.gate.Measure(ctx, e.cand.source(), c)
	return v, ctx.Err()
}
