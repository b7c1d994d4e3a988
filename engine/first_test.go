package engine_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
)

// single spoils what single-token steps compute.
func single(batch []backend.Span, l *backend.Logits) error {
	if len(batch) == 1 && len(batch[0].Tokens) == 1 {
		negate(l.Row(0))
	}
	return nil
}

// The first token leaves when the prompt has been judged, before a GPU has computed a
// single-token step; all later ones only after those have been judged.
func TestFirstTokenRestsOnThePrompt(t *testing.T) {
	var singles, atFirst atomic.Int32
	fakeCUDA.plug(t, hooks{step: func(batch []backend.Span, _ *backend.Logits) error {
		if len(batch[0].Tokens) == 1 {
			singles.Add(1)
		}
		return nil
	}})
	atFirst.Store(-1)
	e := open(t, small, engine.Options{})
	s, err := e.NewSession(64)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ids := few(20)
	r, err := s.Generate(t.Context(), engine.Request{Prompt: ids, MaxTokens: 4, IgnoreEOS: true, Emit: func(string) {
		atFirst.CompareAndSwap(-1, singles.Load())
	}})
	if err != nil || len(r.TokenIDs) != 4 {
		t.Fatalf("%d tokens, %v", len(r.TokenIDs), err)
	}
	if atFirst.Load() != 0 {
		t.Errorf("the first token came after %d single-token steps", atFirst.Load())
	}
	if n := singles.Load(); n < 3+24 {
		t.Errorf("%d single-token steps in all: the rest was not judged", n)
	}
	times := e.StartTimes()
	if times.Gate <= 0 || times.Later <= 0 {
		t.Errorf("%+v", times)
	}
	if validate, _ := e.GateTimes(); validate < times.Gate+times.Later {
		t.Errorf("comparing took %v, of that %v and %v", validate, times.Gate, times.Later)
	}
	if sel := e.Selection(); !sel.Verified || sel.VerifiedContext != 72 || len(sel.Decisions) != 1 {
		t.Errorf("%+v", sel)
	}
}

// If the kernels for single tokens are wrong the answer goes on where the first token
// has left it: on the next backend, with the right text and one line.
func TestWrongAfterTheFirstToken(t *testing.T) {
	fakeCUDA.plug(t, hooks{step: single})
	g := generate(t, engine.Options{}, 16, false)
	if g.err != nil || g.result.Text != answer || g.emitted.String() != answer {
		t.Errorf("%q, emitted %q, %v", g.result.Text, g.emitted.String(), g.err)
	}
	if len(g.lines) != 2 || !strings.Contains(g.lines[0], "CUDA path rejected, attempting fallback: cosine vs CPU = -1.000000 (< 0.99) at position 26") || g.lines[1] != "Backend: CPU" {
		t.Errorf("lines %q", g.lines)
	}
	if s := g.e.Selection(); s.Ran != "cpu" || !s.FellBack || !s.Verified {
		t.Errorf("%+v", s)
	}
	// What was asked for by name, and has no successor, is judged whole before any token.
	g = generate(t, engine.Options{Backend: "cuda"}, 16, false)
	if !errors.Is(g.err, engine.ErrRejected) || len(g.result.TokenIDs) != 0 || g.emitted.Len() != 0 {
		t.Errorf("forced: %v, %d tokens, %q", g.err, len(g.result.TokenIDs), g.emitted.String())
	}
	if len(g.lines) != 1 || !strings.Contains(g.lines[0], "path rejected, no fallback: cosine vs CPU = -1.000000") {
		t.Errorf("forced: lines %q", g.lines)
	}
}

// An answer of one token needs no more than its prompt; that is told and is no
// certificate. The next answer of the engine judges the rest first.
func TestOneTokenAnswer(t *testing.T) {
	store := &parity.Store{Dir: t.TempDir()}
	fakeCUDA.plug(t, hooks{})
	g := generate(t, engine.Options{Gate: engine.GateOptions{Store: store}}, 1, false)
	if g.err != nil || g.result.Text != "2" || !slices.Equal(g.lines, []string{"Backend: CUDA (Vulkan)"}) {
		t.Errorf("%v, %q, %q", g.err, g.result.Text, g.lines)
	}
	if s := g.e.Selection(); !s.Verified || s.VerifiedContext != g.result.PromptTokens {
		t.Errorf("%+v", s)
	}
	list, _, err := store.List()
	if err != nil || len(list) != 0 {
		t.Errorf("%v, %d certificates", err, len(list))
	}
	if _, err := g.session.Generate(t.Context(), engine.Request{Prompt: g.session.Tokens(), MaxTokens: 1}); err != nil {
		t.Fatal(err)
	}
	if s := g.e.Selection(); s.VerifiedContext != 72 || len(s.Decisions) != 1 {
		t.Errorf("after another answer: %+v", s)
	}
	if list, _, err = store.List(); err != nil || len(list) != 1 {
		t.Errorf("after another answer: %v, %d certificates", err, len(list))
	}
}
