package parity_test

import (
	"slices"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// plain is an executor whose logits cost little, for tests about time.
type plain struct {
	toy
	each time.Duration // that a token takes, without using the CPU
}

func (p *plain) Step(batch []backend.Span, l *backend.Logits) error {
	time.Sleep(time.Duration(len(batch[0].Tokens)) * p.each)
	seq := batch[0].Seq.(*toySequence)
	rows := batch[0].Rows()
	if rows > 0 {
		l.Resize(rows, p.vocab)
	}
	for i, token := range batch[0].Tokens {
		seq.tokens = append(seq.tokens, token)
		if at := rows - len(batch[0].Tokens) + i; at >= 0 {
			plainRow(token, l.Row(at))
		}
	}
	return nil
}

func plainRow(token int32, row []float32) {
	for i := range row {
		row[i] = float32((i*7 + int(token)) % 101)
	}
}

// generation is a candidate that takes 2 ms for a token, as a GPU does, followed
// by a reference that takes so long for one. It returns the time it took, what a
// generation without following takes, and what following found.
func generation(t *testing.T, tokens, wrong int, reference time.Duration, vocab int, how parity.Following) (took, alone time.Duration, s *parity.Shadow, v parity.Verdict, complete bool) {
	t.Helper()
	const each = 2 * time.Millisecond
	c := toyCase(0)
	c.Vocab = vocab
	source := source("cpu-exact", &plain{toy: toy{vocab: vocab}, each: reference})
	s = parity.Follow(t.Context(), source, parity.Source{Backend: "gpu"}, c, prompt(20), 20+tokens, parity.Standard(), how)
	row := make([]float32, vocab)
	start := time.Now()
	for i := range tokens {
		computing := time.Now()
		time.Sleep(each)
		plainRow(int32(i), row)
		if i >= wrong {
			negate(row)
		}
		alone += time.Since(computing)
		s.Token(int32(i), row)
		if s.Broken() != nil {
			break
		}
	}
	limit := time.Duration(how.Budget * float64(time.Since(start)))
	v, complete = s.Wait(limit)
	took = time.Since(start)
	s.Stop()
	return took, alone, s, v, complete
}

// With CPUs to spare following adds at most a tenth to a generation, whether the
// reference keeps up or not; what it has judged by then counts.
func TestFollowingKeepsItsBudget(t *testing.T) {
	const vocab = 1000
	budget := parity.Following{Budget: 0.1, Lag: 4 * vocab * 80}
	for _, tt := range []struct {
		name      string
		reference time.Duration
		behind    bool
	}{
		{"a reference that keeps up", 200 * time.Microsecond, false},
		{"a reference that is a little slower", 2500 * time.Microsecond, false},
		{"one that is too slow to keep all rows for", 20 * time.Millisecond, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			took, alone, s, v, complete := generation(t, 300, 1000, tt.reference, vocab, budget)
			// Copying a row is not free, and neither are timers on a busy machine.
			const slack = 1.1
			if limit := time.Duration(slack * (1 + budget.Budget) * float64(alone)); took > limit {
				t.Errorf("%v, alone %v: %.0f %% slower", took, alone, 100*(float64(took)/float64(alone)-1))
			}
			if s.Behind() != tt.behind || tt.behind && complete {
				t.Errorf("behind %v, complete %v", s.Behind(), complete)
			}
			if tt.name == "a reference that keeps up" && (!complete || !v.Passed() || s.Judged() != 320) {
				t.Errorf("complete %v, %v, %d judged", complete, v.Status, s.Judged())
			}
			if v.Status == parity.Mismatch {
				t.Error(v.Reason)
			}
		})
	}
}

// Without a budget every token is judged, however long that takes; with turns
// too.
func TestFollowingJudgesAll(t *testing.T) {
	for name, how := range map[string]parity.Following{"background": {}, "turns": {Turns: true}, "turns with a budget": {Turns: true, Budget: 0.1}} {
		_, _, s, v, complete := generation(t, 100, 1000, 3*time.Millisecond, 1000, how)
		if !complete || !v.Passed() || s.Judged() != 120 || s.Behind() {
			t.Errorf("%s: complete %v, %v %s, %d judged", name, complete, v.Status, v.Reason, s.Judged())
		}
		_, _, s, v, complete = generation(t, 100, 70, 3*time.Millisecond, 1000, how)
		if !complete || v.Status != parity.Mismatch || s.Judged() != 90 {
			t.Errorf("%s: a wrong token 70: complete %v, %v %s, %d judged", name, complete, v.Status, v.Reason, s.Judged())
		}
	}
}

// A violation is found with the budget too, later where the reference is slow.
func TestFollowingFindsViolations(t *testing.T) {
	_, _, s, v, _ := generation(t, 300, 40, time.Millisecond, 1000, parity.Following{Budget: 0.1})
	if v.Status != parity.Mismatch || s.Broken() == nil || s.Judged() != 60 {
		t.Errorf("%v %s, %d judged", v.Status, v.Reason, s.Judged())
	}
	if !slices.Contains([]string{"cosine", "argmax"}, v.Violation.Metric) || v.Violation.Position != 60 {
		t.Errorf("%+v", v.Violation)
	}
}
