package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// ExtendTogether appends a token to each of several sessions in one step and
// returns the logits after each, in the order of the sessions, valid until the
// next call. Weights are read once for all of them. The step is admitted by the
// parity gate like any other.
func (e *Engine) ExtendTogether(ctx context.Context, sessions []*Session, tokens []int32) (*backend.Logits, error) {
	if len(sessions) == 0 || len(sessions) != len(tokens) || len(sessions) > e.maxBatch {
		return nil, fmt.Errorf("%w: %d tokens for %d sessions, want one each and at most %d", ErrInput, len(tokens), len(sessions), e.maxBatch)
	}
	for i, s := range sessions {
		if s.e != e || slices.Contains(sessions[:i], s) {
			return nil, fmt.Errorf("%w: session %d is another engine's or there twice", ErrInput, i)
		}
		if err := s.checkTokens(tokens[i : i+1]); err != nil {
			return nil, err
		}
	}
	for {
		l, err := e.stepTogether(ctx, sessions, tokens)
		if l != nil || err != nil {
			return l, err
		}
		if err := e.certify(ctx, slices.Concat(sessions[0].tokens, tokens[:1]), false); err != nil {
			return nil, err
		}
	}
}

// stepTogether makes one try. Neither logits nor an error say that the backend has
// been replaced.
func (e *Engine) stepTogether(ctx context.Context, sessions []*Session, tokens []int32) (*backend.Logits, error) {
	batch := make([]backend.Span, len(sessions))
	steps := make([]parity.Step, len(sessions))
	for i, s := range sessions {
		text := slices.Concat(s.tokens, tokens[i:i+1])
		if err := s.open(ctx, text); err != nil {
			return nil, err
		}
		batch[i] = backend.Span{Seq: s.seq, Tokens: tokens[i : i+1], Want: backend.Last}
		// What a session's context needs by itself.
		if ok, err := e.admit(ctx, batch[i:i+1], s.tokens, nil, s.capacity, s.followed); !ok || err != nil {
			return nil, err
		}
		steps[i] = parity.Step{History: s.tokens, Tokens: batch[i].Tokens, Want: backend.Last}
	}
	for _, s := range sessions {
		if s.exec != e.cand.exec {
			return nil, nil // a later session has changed the backend
		}
	}
	if ok, err := e.admitTogether(ctx, batch, steps); !ok || err != nil {
		return nil, err
	}
	first := sessions[0]
	if err := e.certified.Allows(first.exec); err != nil {
		return nil, err
	}
	position := len(first.tokens)
	start := e.now()
	err := first.run(batch)
	took := e.now().Sub(start)
	if err != nil {
		return nil, e.failed(fmt.Sprintf("step of %d sequences", len(batch)), err, took)
	}
	if bad := first.notFinite(backend.Last); bad != nil {
		for i, s := range sessions {
			if err := s.seq.Truncate(len(steps[i].History)); err != nil {
				return nil, err
			}
		}
		return nil, e.blame(bad, position, took)
	}
	for i, s := range sessions {
		s.tokens = append(s.tokens, tokens[i])
	}
	return first.logits, nil
}

// admitTogether makes sure that the kernels of a step of several sequences have
// been probed.
func (e *Engine) admitTogether(ctx context.Context, batch []backend.Span, steps []parity.Step) (bool, error) {
	names, err := e.cand.plan(batch)
	if err != nil {
		return false, e.failed("plan", err, 0)
	}
	if e.certified.Missing(names) == "" {
		return true, nil
	}
	start := e.now()
	defer e.setAside(start)()
	v := e.gate.extendTogether(ctx, e.certified, e.cand, steps)
	took := e.now().Sub(start)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if !v.Passed() {
		return false, e.reject(v, took)
	}
	e.validate += took
	return true, nil
}
