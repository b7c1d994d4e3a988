package engine_test

import (
	"slices"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/golden"
)

// together extends sessions with different contexts three times and returns the
// logits of all.
func together(t *testing.T, e *engine.Engine) [][]float32 {
	t.Helper()
	var sessions []*engine.Session
	for i, n := range []int{20, 3, 11} {
		s, err := e.NewSession(64)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		text := make([]int32, n)
		for j := range text {
			text[j] = int32((i*31 + j*7) % 300)
		}
		if _, _, err := s.Prefill(t.Context(), text); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	var rows [][]float32
	for round := range 3 {
		l, err := e.ExtendTogether(t.Context(), sessions, []int32{int32(round), 5, 9})
		if err != nil {
			t.Fatal(err)
		}
		for i := range sessions {
			rows = append(rows, slices.Clone(l.Row(i)))
		}
	}
	return rows
}

func TestExtendTogether(t *testing.T) {
	want := together(t, open(t, small, engine.Options{Backend: "cpu-exact"}))
	served := open(t, small, engine.Options{NoGPU: true})
	for i, row := range together(t, served) {
		if e := golden.RelativeRMS(row, want[i]); !(e <= 2e-3) {
			t.Errorf("row %d differs from cpu-exact's by %.3g", i, e)
		}
	}
	if ran := served.Selection().Ran; ran != "cpu" {
		t.Errorf("%s has served", ran)
	}
	// A fault that only steps of several sequences have is found before their logits
	// are used.
	swap := hooks{
		plan: func(batch []backend.Span, names []string) []string {
			if len(batch) > 1 {
				return []string{"together"}
			}
			return names
		},
		step: func(batch []backend.Span, l *backend.Logits) error {
			if len(batch) > 1 {
				copy(l.Row(0), l.Row(2))
			}
			return nil
		},
	}
	faulty := open(t, small, engine.Options{NoGPU: true, Gate: engine.GateOptions{Fault: only("cpu", swap), FaultSpec: "test"}})
	for i, row := range together(t, faulty) {
		if e := golden.RelativeRMS(row, want[i]); e != 0 {
			t.Errorf("with a fault: row %d differs by %.3g", i, e)
		}
	}
	if ran := faulty.Selection().Ran; ran != "cpu-exact" {
		t.Errorf("%s has served in spite of the fault", ran)
	}
}

func TestExtendTogetherRefuses(t *testing.T) {
	e, other := open(t, small, engine.Options{NoGPU: true}), open(t, small, engine.Options{NoGPU: true})
	a, _ := e.NewSession(8)
	b, _ := other.NewSession(8)
	for name, tt := range map[string]struct {
		sessions []*engine.Session
		tokens   []int32
	}{
		"no session":          {},
		"fewer tokens":        {[]*engine.Session{a}, nil},
		"a session twice":     {[]*engine.Session{a, a}, []int32{1, 2}},
		"another engine's":    {[]*engine.Session{a, b}, []int32{1, 2}},
		"an unknown token id": {[]*engine.Session{a}, []int32{1 << 20}},
	} {
		if _, err := e.ExtendTogether(t.Context(), tt.sessions, tt.tokens); err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
}
