package engine_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/synth"
)

// The tests of this file are the cases in which another runtime's gates let
// garbage through (A1 to A13) or threw a good backend away (R1 to R7), each
// named by what happened there.

// judge compares the CPU backend, with hooks or a fault, on the small model.
func judge(t *testing.T, h hooks, faults string, tokens []int32) parity.Verdict {
	t.Helper()
	m, err := engine.LoadModel(golden.Path(t, "models", small))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	return judgeModel(t, m, h, faults, tokens)
}

func judgeModel(t *testing.T, m *engine.Model, h hooks, faults string, tokens []int32) parity.Verdict {
	t.Helper()
	spec, err := fault.Parse(faults)
	if err != nil {
		t.Fatal(err)
	}
	o := engine.Options{Gate: engine.GateOptions{FaultSpec: "test", Fault: func(name string, d backend.Device) backend.Device {
		if name != "cpu" {
			return d
		}
		return hooked{fault.Wrap(d, spec[name]...), h}
	}}}
	if tokens == nil {
		tokens = m.TextPrompt("package main\n\nimport \"fmt\"\n\nfunc main() {\n\tfmt.Println(1 + 2)\n}\n")
	}
	v, err := engine.Measure(context.Background(), m, o, "cpu", tokens)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantMismatch(t *testing.T, v parity.Verdict) {
	t.Helper()
	if v.Status != parity.Mismatch || v.Passed() || v.Err() == nil || v.Reason == "" {
		t.Errorf("%v: %q, want a mismatch", v.Status, v.Reason)
	}
}

func wantPass(t *testing.T, v parity.Verdict) {
	t.Helper()
	if !v.Passed() {
		t.Errorf("%v: %s, want a pass", v.Status, v.Reason)
	}
}

// when changes logits of the steps that a condition picks.
func when(pick func(s backend.Span) bool, change func(row []float32)) func([]backend.Span, *backend.Logits) error {
	return func(batch []backend.Span, l *backend.Logits) error {
		if pick(batch[0]) {
			for i := range batch[0].Rows() {
				change(l.Row(i))
			}
		}
		return nil
	}
}

func TestFalseAccepts(t *testing.T) {
	t.Run("A1 a rejection that only --verbose shows, then a backend without a gate", func(t *testing.T) {
		fakeCUDA.plug(t, hooks{step: spoilFrom(0, negate)})
		fakeWGPU.plug(t, hooks{step: spoilFrom(0, negate)})
		g := generate(t, engine.Options{}, 16, false)
		if g.err != nil || g.result.Text != answer || len(g.lines) != 3 {
			t.Errorf("%v, %q, %q", g.err, g.result.Text, g.lines)
		}
	})
	t.Run("A2 one of two twin functions has no gate", func(t *testing.T) {
		TestUngatedPathsDoNotExist(t)
	})
	t.Run("A3 a wrong position in the middle while the last token looks fine", func(t *testing.T) {
		v := judge(t, hooks{step: func(batch []backend.Span, l *backend.Logits) error {
			if s := batch[0]; len(s.Tokens) > 8 && s.Want == backend.All {
				negate(l.Row(6))
			}
			return nil
		}}, "", nil)
		wantMismatch(t, v)
		if v.Violation == nil || v.Violation.Position != 6 {
			t.Errorf("violation %+v, want position 6", v.Violation)
		}
	})
	t.Run("A4 batched prefill is wrong, single steps are right", func(t *testing.T) {
		wantMismatch(t, judge(t, hooks{step: when(func(s backend.Span) bool { return len(s.Tokens) > 1 }, negate)}, "", nil))
	})
	t.Run("A4 the prompt is right, what it left in the cache is not", func(t *testing.T) {
		v := judge(t, hooks{step: when(func(s backend.Span) bool { return len(s.Tokens) == 1 }, negate)}, "", nil)
		wantMismatch(t, v)
		if p, ok := v.Worst(); !ok || p.Phase != parity.Decode {
			t.Errorf("found in phase %s", p.Phase)
		}
	})
	t.Run("A5 the first steps are right, the replayed ones are not", func(t *testing.T) {
		steps := 0
		wantMismatch(t, judge(t, hooks{step: when(func(s backend.Span) bool {
			if len(s.Tokens) == 1 {
				steps++
			}
			return len(s.Tokens) == 1 && steps > 2 // eager, capture, then replay
		}, negate)}, "", nil))
		wantMismatch(t, judge(t, hooks{}, "cpu:replay-operation-dropped", nil))
	})
	t.Run("A6 an unknown tensor type is read as another", func(t *testing.T) {
		wantMismatch(t, judge(t, hooks{}, "cpu:type-misread", nil))
	})
	t.Run("A7 another class of session has no gate", func(t *testing.T) {
		fakeCUDA.plug(t, hooks{step: spoilFrom(0, negate)})
		for _, name := range []string{"first", "second"} {
			s, err := open(t, small, engine.Options{Backend: "cuda"}).NewSession(64)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Generate(context.Background(), engine.Request{Prompt: []int32{1, 2}, MaxTokens: 2}); !errors.Is(err, engine.ErrRejected) {
				t.Errorf("%s engine: %v", name, err)
			}
			s.Close()
		}
	})
	t.Run("A8 a probe that judged nothing passes", func(t *testing.T) {
		cand := &hookedExecutor{}
		broken := parity.Source{Backend: "cpu-exact", Open: func() (backend.Executor, error) { return nil, errors.New("no reference") }}
		g := parity.Gate{Reference: broken, Policy: parity.Standard()}
		cert, v := g.Certify(context.Background(), parity.Source{Backend: "cuda", Open: func() (backend.Executor, error) { return cand, nil }},
			parity.Case{Tokens: []int32{1}, MaxBatch: 8, Vocab: 10})
		if v.Status != parity.NotMeasured || v.Passed() || cert.How() != "" || cert.Allows(cand) == nil {
			t.Errorf("%v, by %q", v.Status, cert.How())
		}
		cert, v = g.Certify(context.Background(), parity.Source{Backend: "cuda", Open: func() (backend.Executor, error) { return cand, nil }}, parity.Case{})
		if v.Passed() || cert.How() != "" {
			t.Errorf("without a prompt: %v", v.Status)
		}
	})
	t.Run("A9 what did not run counts as a pass", func(t *testing.T) {
		var v parity.Verdict
		if v.Passed() || v.Err() == nil || v.Status.String() != "not measured" {
			t.Errorf("the empty verdict is %v", v.Status)
		}
		m, err := engine.LoadModel(golden.Path(t, "models", small))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		// The backend is registered and has no device.
		v, err = engine.Measure(context.Background(), m, engine.Options{}, "cuda", []int32{1, 2})
		if err != nil || v.Status != parity.NotMeasured || v.Reason == "" {
			t.Errorf("%v: %q, %v", v.Status, v.Reason, err)
		}
	})
	t.Run("A10 a verdict on one side alone", func(t *testing.T) {
		m := damagedModel(t)
		defer m.Close()
		v, err := engine.Measure(context.Background(), m, engine.Options{}, "cpu", []int32{5, 6, 7})
		if err != nil || v.Status != parity.NotMeasured || !strings.Contains(v.Reason, "reference") {
			t.Errorf("%v: %q, %v; the reference failed too", v.Status, v.Reason, err)
		}
	})
	t.Run("A11 the display says wrong and the exit code right", func(t *testing.T) {
		for _, v := range []parity.Verdict{{Status: parity.Validated}, {Status: parity.Mismatch}, {Status: parity.NotMeasured}, {Status: 7}} {
			if (v.Err() == nil) != v.Passed() || v.Passed() != (v.Status.String() == "validated") {
				t.Errorf("%v: passed %v, error %v", v.Status, v.Passed(), v.Err())
			}
		}
	})
	t.Run("A12 wrong on one device only", func(t *testing.T) {
		store := &parity.Store{Dir: t.TempDir()}
		o := engine.Options{Gate: engine.GateOptions{Store: store}}
		plug := func(identity string, h hooks) {
			wrap := func(d backend.Device) backend.Device { return identified{hooked{d, h}, identity} }
			fakeCUDA.wrap.Store(&wrap)
			t.Cleanup(func() { fakeCUDA.wrap.Store(nil) })
		}
		plug("sm_89 driver 1", hooks{})
		if g := generate(t, o, 4, true); g.e.Selection().Ran != "cuda" {
			t.Fatal(g.lines)
		}
		for _, identity := range []string{"sm_121 driver 1", "sm_89 driver 2"} {
			plug(identity, hooks{step: spoilFrom(0, negate)})
			if g := generate(t, o, 4, true); g.err != nil || g.e.Selection().Ran != "cpu" {
				t.Errorf("%s serves on the certificate of another device: %q", identity, g.lines)
			}
		}
	})
	t.Run("A13 position 0 hides what rotation spoils", func(t *testing.T) {
		v := judge(t, hooks{}, "cpu:rope-first-head-only", nil)
		wantMismatch(t, v)
		if v.Violation == nil || v.Violation.Position == 0 || !(v.Positions[0].Cosine > 0.9999) {
			t.Errorf("position 0 has cosine %v, violation %+v", v.Positions[0].Cosine, v.Violation)
		}
	})
}

// identified is a device of another make.
type identified struct {
	hooked
	identity string
}

func (d identified) Identity() string { return d.identity }

// outlierModel has channels 26 times larger than the others.
func outlierModel(t *testing.T) *engine.Model {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outliers.gguf")
	if err := synth.Write(path, synth.Options{Preset: "tiny-qwen2.5-1.5b", Quant: "q4_k_m", OutlierChannels: 2}); err != nil {
		t.Fatal(err)
	}
	m, err := engine.LoadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// few are tokens that the smallest vocabularies have too.
func few(n int) []int32 {
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(i * 31 % 700)
	}
	return tokens
}

// flat is a text without sense: its next tokens are all unlikely.
func flat(n int) []int32 {
	rng := rand.New(rand.NewPCG(1, 2))
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(rng.IntN(4000))
	}
	return tokens
}

// flipTies exchanges the best two logits wherever they are close.
func flipTies(flips *int) func([]backend.Span, *backend.Logits) error {
	return when(func(backend.Span) bool { return true }, func(row []float32) {
		order := make([]int, len(row))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int {
			switch {
			case row[a] > row[b]:
				return -1
			case row[a] < row[b]:
				return 1
			}
			return a - b
		})
		best, second := order[0], order[1]
		if spread := row[best] - row[order[9]]; row[best]-row[second] < 0.02*spread {
			row[best], row[second] = row[second], row[best]
			*flips++
		}
	})
}

func TestFalseRejects(t *testing.T) {
	t.Run("R1 a near tie from a flat distribution", func(t *testing.T) {
		flips := 0
		wantPass(t, judge(t, hooks{step: flipTies(&flips)}, "", flat(200)))
		if flips == 0 {
			t.Error("there was no tie to flip")
		}
	})
	t.Run("R2 the verdict of an old binary", func(t *testing.T) {
		store := &parity.Store{Dir: t.TempDir()}
		m, err := engine.LoadModel(golden.Path(t, "models", small))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		// A failure under another build's key, all else equal.
		fakeCUDA.plug(t, hooks{})
		o := engine.Options{Gate: engine.GateOptions{Store: store}}
		if g := generate(t, o, 2, true); g.e.Selection().Ran != "cuda" {
			t.Fatal(g.lines)
		}
		list, _, err := store.List()
		if err != nil || len(list) != 1 {
			t.Fatalf("%d certificates, %v", len(list), err)
		}
		old := list[0]
		if _, err := store.Clear(); err != nil {
			t.Fatal(err)
		}
		old.Key.Build, old.Status, old.Reason = "older", parity.Mismatch, "an old bug"
		store.Put(old)
		if g := generate(t, o, 2, true); g.err != nil || g.e.Selection().Ran != "cuda" {
			t.Errorf("%v, %q", g.err, g.lines)
		}
	})
	t.Run("R3 the reference is the inaccurate side on outlier channels", func(t *testing.T) {
		v, err := engine.Measure(context.Background(), outlierModel(t), engine.Options{}, "oracle", few(24))
		if err != nil {
			t.Fatal(err)
		}
		wantPass(t, v) // float64 sums, so the reference is right to five digits
		if w, ok := v.Worst(); !ok || !(w.Cosine > 0.999999) {
			t.Errorf("lowest cosine %v, want a reference as good as the oracle", w.Cosine)
		}
	})
	t.Run("R4 int8 against float32 on outliers", func(t *testing.T) {
		m := outlierModel(t)
		wantPass(t, judgeModel(t, m, hooks{}, "", few(24)))
		wantMismatch(t, judgeModel(t, m, hooks{}, "cpu:int8-coarse-scale", few(24)))
	})
	t.Run("R5 the first position of an exact path", func(t *testing.T) {
		v := judge(t, hooks{}, "", flat(30))
		wantPass(t, v)
		if p := v.Positions[0]; p.Index != 0 || p.Violation != nil || !(p.Cosine > 0.9999) {
			t.Errorf("position 0: %+v", p)
		}
	})
	t.Run("R6 different choices at a cosine of 0.9995", func(t *testing.T) {
		flips := 0
		noise := rand.New(rand.NewPCG(3, 4))
		ties := flipTies(&flips)
		v := judge(t, hooks{step: func(batch []backend.Span, l *backend.Logits) error {
			for i := range l.Data {
				l.Data[i] += float32(0.005 * noise.NormFloat64())
			}
			return ties(batch, l)
		}}, "", flat(100))
		wantPass(t, v)
		if flips == 0 {
			t.Error("there was no tie to flip")
		}
	})
	t.Run("R7 noise that differs from run to run", func(t *testing.T) {
		for seed := range uint64(5) {
			noise := rand.New(rand.NewPCG(seed, 9))
			wantPass(t, judge(t, hooks{step: func(_ []backend.Span, l *backend.Logits) error {
				for i := range l.Data {
					l.Data[i] += float32(0.008 * noise.NormFloat64())
				}
				return nil
			}}, "", nil))
		}
	})
}
