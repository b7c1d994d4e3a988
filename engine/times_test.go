package engine_test

import (
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
)

// What a backend that is rejected after the first token has cost is no part of the
// answer's time, nor is the judging of the next; its computing is. Each step of the
// first takes a second by a clock that nothing else moves, until it goes wrong: then an
// hour. Each of the second takes a minute.
func TestTimesWithoutTheRejected(t *testing.T) {
	const prompt, late, tokens = 20, 25, 12
	end := func(batch []backend.Span) int { return batch[0].Seq.Len() }
	for _, tt := range []struct {
		name   string
		wrong  func([]backend.Span) bool
		harm   func(*backend.Logits) error
		judged bool // by a run before, so that it goes wrong in an answer
		good   int  // steps of the first backend after the prompt
	}{
		{
			name:  "in what the second token rests on",
			wrong: func(batch []backend.Span) bool { return len(batch[0].Tokens) == 1 },
			harm:  func(l *backend.Logits) error { negate(l.Row(0)); return nil },
		},
		{
			name:   "a step that fails",
			wrong:  func(batch []backend.Span) bool { return end(batch) == late },
			harm:   func(*backend.Logits) error { return errors.New("device lost") },
			judged: true, good: late - prompt - 1,
		},
		{
			name:   "a step without numbers",
			wrong:  func(batch []backend.Span) bool { return end(batch) == late },
			harm:   func(l *backend.Logits) error { l.Row(0)[3] = float32(math.NaN()); return nil },
			judged: true, good: late - prompt - 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := &parity.Store{Dir: t.TempDir()}
			if tt.judged {
				fakeCUDA.plug(t, hooks{})
				if g := generate(t, engine.Options{Gate: engine.GateOptions{Store: store}}, tokens, true); g.err != nil {
					t.Fatal(g.err)
				}
			}
			var clock atomic.Int64
			fakeCUDA.plug(t, hooks{step: func(batch []backend.Span, l *backend.Logits) error {
				if !tt.wrong(batch) {
					clock.Add(int64(time.Second))
					return nil
				}
				clock.Add(int64(time.Hour))
				return tt.harm(l)
			}})
			fakeWGPU.plug(t, hooks{step: func([]backend.Span, *backend.Logits) error {
				clock.Add(int64(time.Minute))
				return nil
			}})
			e := open(t, small, engine.Options{Gate: engine.GateOptions{Store: store}})
			e.SetClock(func() time.Time { return time.Unix(0, clock.Load()) })
			s, err := e.NewSession(prompt + tokens)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			r, err := s.Generate(t.Context(), engine.Request{Prompt: few(prompt), MaxTokens: tokens, IgnoreEOS: true})
			if err != nil || len(r.TokenIDs) != tokens || e.Selection().Ran != "wgpu" {
				t.Fatalf("%d tokens, %v, %+v", len(r.TokenIDs), err, e.Selection())
			}
			if r.PrefillTime != time.Second {
				t.Errorf("the prompt took %v, want one step", r.PrefillTime)
			}
			later := time.Duration(tokens - 1 - tt.good) // steps of the second backend
			if want := time.Duration(tt.good)*time.Second + later*time.Minute; r.DecodeTime != want {
				t.Errorf("decoding took %v, want %v", r.DecodeTime, want)
			}
			if r.MoveTime != time.Minute {
				t.Errorf("computing the tokens again took %v, want one step", r.MoveTime)
			}
			_, rejected := e.GateTimes()
			if rejected < time.Hour || r.AsideTime < rejected+time.Minute {
				t.Errorf("%v on the rejected backend, %v aside", rejected, r.AsideTime)
			}
		})
	}
}
