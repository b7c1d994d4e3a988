package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// RandomTokens returns n tokens of the vocabulary, always the same: a text for
// measuring where none is given.
func (m *Model) RandomTokens(n int) []int32 {
	rng := rand.New(rand.NewPCG(1, 2))
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(rng.IntN(m.Program.Vocab))
	}
	return tokens
}

// Measure compares one backend with the reference on the given tokens, at every
// position even after a violation, whatever certificates say. The verdict is
// remembered if it is one that serving would look up.
func Measure(ctx context.Context, m *Model, o Options, name string, tokens []int32) (parity.Verdict, error) {
	e, v, err := openMeasured(m, o, name)
	if e == nil || err != nil {
		return v, err
	}
	defer e.Close()
	c := e.gate.parityCase(tokens)
	c.Full, c.Roomy = true, e.gate.memory(e.cand)
	if e.gate.rounds(e.cand) {
		if v := e.gate.unrounded(ctx, e.cand, c, true); !v.Passed() {
			return v, ctx.Err()
		}
	}
	v = e.gate.Measure(ctx, e.cand.source(), c)
	return v, ctx.Err()
}

// openMeasured loads a backend and the reference to be compared. Without an engine
// the verdict says why there is nothing to compare.
func openMeasured(m *Model, o Options, name string) (*Engine, parity.Verdict, error) {
	v := parity.Verdict{Backend: name, Reference: referenceBackend}
	o.Backend = name
	e, err := Open(m, o)
	if errors.Is(err, backend.ErrNoDevice) {
		v.Reason, v.Absent = unavailable(name, absence(err)), true
		return nil, v, nil
	}
	if err != nil {
		if errors.Is(err, ErrInput) || o.Gate.Fault != nil {
			return nil, parity.Verdict{}, err
		}
		v.Reason = err.Error()
		return nil, v, nil
	}
	if err := e.gate.prepare(); err != nil {
		v.Reason = err.Error()
		return nil, v, e.Close()
	}
	if err := e.gate.identify(); err != nil {
		return nil, parity.Verdict{}, errors.Join(fmt.Errorf("%s: %w", m.Path, err), e.Close())
	}
	e.gate.Key.Options = e.gate.keyOptions(name)
	return e, v, nil
}

// rememberedLogits bounds what is kept of the reference's logits while several
// backends are compared with it, in bytes.
const rememberedLogits = 2 << 30

// MeasureContexts compares several backends with the reference at several lengths
// of context, on the text in tokens, which is repeated as often as it takes. The
// reference computes the text once for all of them. yield gets the verdict of each
// backend at each length, in order; those of a backend that all hold are remembered
// as one, so that what serves at such a length needs no further comparison. What
// cannot be done before the context's deadline is not measured.
func MeasureContexts(ctx context.Context, m *Model, o Options, names []string, tokens []int32, contexts []int, yield func(n int, v parity.Verdict) error) error {
	if len(tokens) == 0 || len(contexts) == 0 || slices.Min(contexts) < 1 {
		return fmt.Errorf("%w: no text or no context to compare at", ErrInput)
	}
	longest := slices.Max(contexts)
	if longest >= m.Program.Context {
		return fmt.Errorf("%w: a context of %d leaves no room for a token, the model's is %d", ErrInput, longest, m.Program.Context)
	}
	text := make([]int32, min(parity.ContextTokens(longest), m.Program.Context))
	for i := range text {
		text[i] = tokens[i%len(tokens)]
	}
	var memory *parity.Memory
	defer func() {
		if memory != nil {
			_ = memory.Close() // the reference is the CPU: nothing can fail
		}
	}()
	for _, name := range names {
		e, v, err := openMeasured(m, o, name)
		if err != nil {
			return err
		}
		if e == nil {
			if err := yield(0, v); err != nil {
				return err
			}
			continue
		}
		if memory == nil {
			if memory, err = e.gate.remembered(); err != nil {
				return errors.Join(err, e.Close())
			}
		}
		e.gate.Gate.Reference.Open = func() (backend.Executor, error) { return memory, nil }
		err = e.measureContexts(ctx, text, contexts, yield)
		if err := errors.Join(err, e.Close()); err != nil {
			return err
		}
	}
	return nil
}

// measureContexts is MeasureContexts for the loaded backend. What the function itself does
// is judged with a cache of F16 at the shortest length, as the rounding of one of Q8_0 would
// hide it; attention at the other lengths reads the cache that is to serve.
func (e *Engine) measureContexts(ctx context.Context, text []int32, contexts []int, yield func(n int, v parity.Verdict) error) error {
	c := e.gate.parityCase(text)
	c.Full = true
	if shortest := slices.Min(contexts); e.gate.rounds(e.cand) {
		short := c
		short.Tokens = text[:min(shortest, len(text))]
		if v := e.gate.unrounded(ctx, e.cand, short, true); !v.Passed() {
			return yield(shortest, v)
		}
	}
	return e.gate.MeasureContexts(ctx, e.cand.source(), c, contexts, yield)
}

// remembered loads a reference that outlives the engine.
func (g *gate) remembered() (*parity.Memory, error) {
	device, err := firstDevice(referenceBackend)
	if err != nil {
		return nil, err
	}
	exec, err := g.loadReference(device, g.threads())
	if err != nil {
		return nil, err
	}
	return parity.Remember(exec, g.m.Program.Vocab, rememberedLogits), nil
}
