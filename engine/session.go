package engine

import (
	"context"
	"fmt"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
)

func traceAdapter(f func(string, int, []float32)) func(graph.Value, []float32) {
	return func(v graph.Value, rows []float32) { f(v.Name, v.Width, rows) }
}

// Session is one conversation: a sequence and the tokens in its cache.
type Session struct {
	e      *Engine
	seq    backend.Sequence
	tokens []int32 // in the cache
	logits backend.Logits
}

// NewSession returns an empty session with room for capacity tokens.
func (e *Engine) NewSession(capacity int) (*Session, error) {
	if capacity <= 0 {
		return nil, fmt.Errorf("%w: context of %d tokens", ErrInput, capacity)
	}
	seq, err := e.exec.NewSequence(capacity)
	if err != nil {
		return nil, err
	}
	return &Session{e: e, seq: seq}, nil
}

// Close frees the cache.
func (s *Session) Close() error { return s.seq.Close() }

// Tokens returns the tokens whose keys and values are cached. The slice must
// not be changed.
func (s *Session) Tokens() []int32 { return s.tokens }

// Capacity is the number of tokens the session has room for.
func (s *Session) Capacity() int { return s.seq.Capacity() }

// Prefill makes the cache hold exactly tokens, reusing the longest common
// prefix, and returns the logits after the last one and how many tokens were
// computed. The logits are valid until the next call.
func (s *Session) Prefill(ctx context.Context, tokens []int32) (logits []float32, computed int, err error) {
	if len(tokens) == 0 {
		return nil, 0, fmt.Errorf("%w: the prompt is empty", ErrInput)
	}
	if len(tokens) > s.Capacity() {
		return nil, 0, fmt.Errorf("%w: the prompt has %d tokens, the context has room for %d (see --ctx)", ErrInput, len(tokens), s.Capacity())
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
		if err := s.extend(rest[:n], want); err != nil {
			return nil, 0, err
		}
		rest = rest[n:]
	}
	return s.logits.Row(0), len(tokens) - common, nil
}

// Truncate forgets the tokens from position n on.
func (s *Session) Truncate(n int) error {
	if n > len(s.tokens) {
		return fmt.Errorf("cannot keep %d of %d tokens", n, len(s.tokens))
	}
	if err := s.seq.Truncate(n); err != nil {
		return err
	}
	s.tokens = s.tokens[:n]
	return nil
}

// Extend appends tokens (at most one batch) and returns logits: of the last
// token, or of every token. They are valid until the next call.
func (s *Session) Extend(tokens []int32, want backend.Want) (*backend.Logits, error) {
	if err := s.extend(tokens, want); err != nil {
		return nil, err
	}
	return &s.logits, nil
}

func (s *Session) extend(tokens []int32, want backend.Want) error {
	err := s.e.exec.Step([]backend.Span{{Seq: s.seq, Tokens: tokens, Want: want}}, &s.logits)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInference, err)
	}
	s.tokens = append(s.tokens, tokens...)
	return nil
}
