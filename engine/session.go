package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/parity"
)

// Session is one conversation: a sequence and the tokens in its cache. Every
// step goes through it, and it takes none that the parity gate has not admitted.
type Session struct {
	e        *Engine
	capacity int
	seq      backend.Sequence // of exec; nil before the first use
	exec     backend.Executor
	tokens   []int32       // in the cache
	coming   []int32       // after the present step, as far as it is known
	followed bool          // the reference judges each token before it is shown
	first    bool          // only the first token of an answer is asked for so far
	moving   time.Duration // spent on computing tokens again on another backend
	logits   *backend.Logits
}

// NewSession returns an empty session with room for capacity tokens.
func (e *Engine) NewSession(capacity int) (*Session, error) {
	if capacity <= 0 {
		return nil, fmt.Errorf("%w: context of %d tokens", ErrInput, capacity)
	}
	return &Session{e: e, capacity: capacity, logits: new(backend.Logits)}, nil
}

// Close frees the cache.
func (s *Session) Close() error {
	if s.seq == nil {
		return nil
	}
	return s.seq.Close()
}

// Tokens returns the tokens whose keys and values are cached. The slice must
// not be changed.
func (s *Session) Tokens() []int32 { return s.tokens }

// Capacity is the number of tokens the session has room for.
func (s *Session) Capacity() int { return s.capacity }

// Prefill makes the cache hold exactly tokens, reusing the longest common
// prefix, and returns the logits after the last one and how many tokens were
// computed. The logits are valid until the next call.
func (s *Session) Prefill(ctx context.Context, tokens []int32) (logits []float32, computed int, err error) {
	if err := s.checkPrompt(tokens); err != nil {
		return nil, 0, err
	}
	if err := s.open(ctx, tokens); err != nil {
		return nil, 0, err
	}
	common := 0
	for common < min(len(s.tokens), len(tokens)-1) && s.tokens[common] == tokens[common] {
		common++
	}
	if err := s.Truncate(common); err != nil {
		return nil, 0, err
	}
	for rest := tokens[common:]; len(rest) > 0; {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		n := min(len(rest), s.e.maxBatch)
		want := backend.None
		if n == len(rest) {
			want = backend.Last
		}
		s.coming = rest[n:]
		err := s.extend(ctx, rest[:n], want)
		s.coming = nil
		if err != nil {
			return nil, 0, err
		}
		rest = rest[n:]
	}
	return s.logits.Row(0), len(tokens) - common, nil
}

func (s *Session) checkPrompt(tokens []int32) error {
	switch {
	case len(tokens) == 0:
		return fmt.Errorf("%w: the prompt is empty", ErrInput)
	case len(tokens) > s.Capacity():
		return fmt.Errorf("%w: the prompt has %d tokens, the context has room for %d (see --ctx)", ErrInput, len(tokens), s.Capacity())
	}
	return s.checkTokens(tokens)
}

// checkTokens refuses what no backend can compute, before one is blamed for it.
func (s *Session) checkTokens(tokens []int32) error {
	vocab := s.e.Model.Program.Vocab
	for i, id := range tokens {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("%w: token id %d (number %d) is outside the vocabulary of %d", ErrInput, id, i+1, vocab)
		}
	}
	return nil
}

// Truncate forgets the tokens from position n on.
func (s *Session) Truncate(n int) error {
	if n > len(s.tokens) {
		return fmt.Errorf("cannot keep %d of %d tokens", n, len(s.tokens))
	}
	if s.seq != nil {
		if err := s.seq.Truncate(n); err != nil {
			return err
		}
	}
	s.tokens = s.tokens[:n]
	return nil
}

// Extend appends tokens (at most one batch) and returns logits: of the last
// token, or of every token. They are valid until the next call.
func (s *Session) Extend(ctx context.Context, tokens []int32, want backend.Want) (*backend.Logits, error) {
	if err := s.checkTokens(tokens); err != nil {
		return nil, err
	}
	if err := s.open(ctx, slices.Concat(s.tokens, tokens)); err != nil {
		return nil, err
	}
	if err := s.extend(ctx, tokens, want); err != nil {
		return nil, err
	}
	return s.logits, nil
}

// open makes sure that the engine's backend is certified, on these tokens if it
// has not been judged yet, and that the session's sequence is the backend's.
func (s *Session) open(ctx context.Context, tokens []int32) error {
	if s.exec != nil && s.exec == s.e.cand.exec && s.e.ready(s.first) {
		return nil
	}
	if err := s.e.certify(ctx, tokens, s.first); err != nil {
		return err
	}
	return s.move(ctx, tokens)
}

// move gives the session a sequence of the engine's present backend that holds
// the same tokens as before. A backend that has no room for it is replaced;
// next are the tokens to judge another one on.
func (s *Session) move(ctx context.Context, next []int32) error {
	start, aside, before := s.e.now(), s.e.aside, s.moving
	defer func() { s.moving = before + s.e.now().Sub(start) - (s.e.aside - aside) }()
	for s.exec != s.e.cand.exec {
		// The old sequence went with its backend.
		asked := s.e.now()
		seq, err := newSequence(s.e.cand.exec, s.capacity)
		if err != nil {
			took := s.e.now().Sub(asked)
			if err := s.e.failed(fmt.Sprintf("a context of %d tokens", s.capacity), err, took); err != nil {
				return err
			}
			if err := s.e.certify(ctx, next, s.first); err != nil {
				return err
			}
			continue
		}
		held := s.tokens
		s.seq, s.exec, s.tokens = seq, s.e.cand.exec, nil
		for len(held) > 0 {
			n := min(len(held), s.e.maxBatch)
			if err := s.extend(ctx, held[:n], backend.None); err != nil {
				return err
			}
			held = held[n:]
		}
	}
	return nil
}

// newSequence turns a panic of a backend into an error.
func newSequence(exec backend.Executor, capacity int) (seq backend.Sequence, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return exec.NewSequence(capacity)
}

// extend runs one step: the only place where an executor computes for anybody
// but the gate.
func (s *Session) extend(ctx context.Context, tokens []int32, want backend.Want) error {
	for {
		if err := s.move(ctx, slices.Concat(s.tokens, tokens)); err != nil {
			return err
		}
		batch := []backend.Span{{Seq: s.seq, Tokens: tokens, Want: want}}
		ok, err := s.e.admit(ctx, batch, s.tokens, s.coming, s.capacity, s.followed)
		if err != nil {
			return err
		}
		if ok {
			position, start := len(s.tokens), s.e.now()
			err := s.step(s.e.certified, batch)
			took := s.e.now().Sub(start)
			if err == nil {
				bad := s.notFinite(want)
				if bad == nil {
					return nil
				}
				// Nothing of this step has left: take it back and go on with another
				// backend, if this one is to blame and may be replaced.
				s.tokens = s.tokens[:position]
				err = s.e.blame(bad, position, took)
			} else {
				err = s.e.failed(fmt.Sprintf("step of %s at position %d", count(len(tokens)), position), err, took)
			}
			if err != nil {
				return err
			}
		}
		if err := s.e.certify(ctx, slices.Concat(s.tokens, tokens), s.first); err != nil {
			return err
		}
	}
}

func count(tokens int) string {
	if tokens == 1 {
		return "1 token"
	}
	return fmt.Sprintf("%d tokens", tokens)
}

// notFinite looks for logits that no working model computes.
func (s *Session) notFinite(want backend.Want) error {
	if want == backend.None {
		return nil
	}
	if kernel.Finite(s.logits.Data) {
		return nil
	}
	for i, l := range s.logits.Data {
		if l-l != 0 { // NaN or infinite
			return fmt.Errorf("%w: the logit of token %d is %v", ErrInference, i%s.logits.Vocab, l)
		}
	}
	return nil
}

// step takes the permission to serve: without one there is nothing to pass.
func (s *Session) step(cert parity.Certified, batch []backend.Span) error {
	if err := cert.Allows(s.exec); err != nil {
		return err
	}
	if err := s.run(batch); err != nil {
		return err
	}
	s.tokens = append(s.tokens, batch[0].Tokens...)
	return nil
}

// run steps the executor. A panic is an error; so is a GPU that does not answer.
// What a step that hangs may still write is not looked at again.
func (s *Session) run(batch []backend.Span) error {
	exec, logits := s.exec, s.logits
	step := func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v", v)
			}
		}()
		return exec.Step(batch, logits)
	}
	limit := s.e.stepLimit(len(batch[0].Tokens))
	if limit == 0 {
		return step()
	}
	done := make(chan error, 1)
	go func() { done <- step() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		// The step still holds them; whoever serves next gets others.
		s.logits, s.seq, s.exec = new(backend.Logits), nil, nil
		return fmt.Errorf("no answer after %v", limit)
	}
}
