package parity_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

func negate(row []float32) {
	for i := range row {
		row[i] = -row[i]
	}
}

// A prompt that is longer than what is judged one by one is run to its end as
// generation does, and its end is judged.
func TestLongPromptIsJudgedAtItsEnd(t *testing.T) {
	cand := &toy{}
	if v := probe(t, cand, toyCase(400)); !v.Passed() {
		t.Fatal(v.Reason)
	}
	// Eight batches with all logits, then all thirteen as served.
	served := cand.log[8 : 8+13]
	if served[0] != "0+32/0" || served[11] != "352+32/0" || served[12] != "384+16/1" || cand.log[21] != "400+1/1" {
		t.Errorf("steps as served are %q, then %q", served, cand.log[21])
	}
	for _, first := range []int{300, 399, 410} {
		v := probe(t, spoil(first, negate), toyCase(400))
		want := max(first, 399)
		if v.Status != parity.Mismatch || v.Violation.Position != want {
			t.Errorf("a fault from position %d on: %v, %s, want position %d", first, v.Status, v.Reason, want)
		}
	}
}

// Where the rows of a batch take too much memory it is judged in pieces, and
// still run as a whole before anything is decoded from its cache.
func TestLargeVocabulary(t *testing.T) {
	const vocab = 200_000
	c := toyCase(70)
	c.Vocab, c.MaxBatch = vocab, 64
	cand := &toy{vocab: vocab, noise: 0.01}
	v := parity.Probe(t.Context(), source("cpu-exact", &toy{vocab: vocab}), source("gpu", cand), c, parity.Standard())
	if !v.Passed() {
		t.Fatal(v.Reason)
	}
	want := []string{"0+32/2", "32+32/2", "64+6/2", "0+64/0", "64+6/1", "70+1/1"}
	if !slices.Equal(cand.log[:len(want)], want) {
		t.Errorf("steps are %q, want %q", cand.log[:len(want)], want)
	}
	// With a long prompt less is held at once, and as much is judged.
	c.Tokens = prompt(140)
	cand = &toy{vocab: vocab, noise: 0.01}
	v = parity.Probe(t.Context(), source("cpu-exact", &toy{vocab: vocab}), source("gpu", cand), c, parity.Standard())
	phases := map[parity.Phase]int{}
	for _, p := range v.Positions {
		phases[p.Phase]++
	}
	if !v.Passed() || phases[parity.Prefill] != 140 || phases[parity.Served] != 1 || phases[parity.Decode] != 24 || phases[parity.Resume] != 14 {
		t.Errorf("%v: %s, positions %v", v.Status, v.Reason, phases)
	}
	c.Tokens = prompt(70)
	// A batch that is wrong only as a whole is seen in the prompt's last logits.
	cand = &toy{vocab: vocab, row: func(_ *toy, position int, s backend.Span, row []float32) {
		if s.Seq.Capacity() > 0 && position == 69 && s.Want == backend.Last && len(s.Tokens) > 1 {
			negate(row)
		}
	}}
	v = parity.Probe(t.Context(), source("cpu-exact", &toy{vocab: vocab}), source("gpu", cand), c, parity.Standard())
	if v.Status != parity.Mismatch || v.Positions[len(v.Positions)-1].Phase != parity.Served {
		t.Errorf("%v: %s", v.Status, v.Reason)
	}
}

// A step in mid-generation is judged up to the position asked for: by batches,
// and by single tokens at the end.
func TestProbeStepReaches(t *testing.T) {
	step := parity.Step{History: prompt(72), Tokens: []int32{5}, Want: backend.Last, Reach: 128}
	run := func(cand *toy, s parity.Step, c parity.Case) parity.Verdict {
		return parity.ProbeStep(t.Context(), source("cpu-exact", &toy{}), source("gpu", cand), c, s, parity.Standard())
	}
	cand := &toy{noise: 0.01}
	v := run(cand, step, toyCase(0))
	if !v.Passed() || v.Context != 128 || len(v.Positions) != 128-72 {
		t.Fatalf("%v: %s; %d positions, context %d", v.Status, v.Reason, len(v.Positions), v.Context)
	}
	want := []string{"0+32/0", "32+32/0", "64+8/0", "72+1/1", "73+31/2", "104+1/1"}
	if !slices.Equal(cand.log[:len(want)], want) || cand.log[len(cand.log)-1] != "127+1/1" {
		t.Errorf("steps are %q, want %q", cand.log, want)
	}
	for _, first := range []int{72, 73, 90, 103, 104, 127} {
		if v := run(spoil(first, negate), step, toyCase(0)); v.Status != parity.Mismatch || v.Violation.Position != first {
			t.Errorf("a fault from position %d on: %v, %s", first, v.Status, v.Reason)
		}
	}
	if v := run(spoil(128, negate), step, toyCase(0)); !v.Passed() {
		t.Errorf("a fault beyond the reach: %v, %s", v.Status, v.Reason)
	}
	c := toyCase(0)
	c.Context = 80 // of the model
	if v := run(&toy{}, step, c); !v.Passed() || v.Context != 80 {
		t.Errorf("%v: %s, context %d, want the model's 80", v.Status, v.Reason, v.Context)
	}
}

// What the reference cannot compute in reasonable time is not judged, and no
// verdict claims it was.
func TestContextTime(t *testing.T) {
	slow := func() *toy {
		return &toy{before: func(_ *toy, batch []backend.Span) error {
			time.Sleep(time.Duration(len(batch[0].Tokens)) * 20 * time.Microsecond)
			return nil
		}}
	}
	p := parity.Standard()
	p.Probe.ContextTime = time.Millisecond
	c := toyCase(400)
	v := parity.Probe(t.Context(), source("cpu-exact", slow()), source("gpu", &toy{}), c, p)
	if !v.Passed() || v.Context != 280 {
		t.Errorf("%v: %s, context %d, want what could be judged, 280", v.Status, v.Reason, v.Context)
	}
	c.Full = true // a command that is about the verdict takes the time
	if v := parity.Probe(t.Context(), source("cpu-exact", slow()), source("gpu", &toy{}), c, p); !v.Passed() || v.Context != 424 {
		t.Errorf("%v: %s, context %d, want 424", v.Status, v.Reason, v.Context)
	}
	step := parity.Step{History: prompt(400), Tokens: []int32{5}, Want: backend.Last, Reach: 512}
	cand := &toy{}
	v = parity.ProbeStep(t.Context(), source("cpu-exact", slow()), source("gpu", cand), toyCase(0), step, p)
	if !v.TooLong() || v.Passed() || v.Context != 0 || cand.steps != 0 || !strings.Contains(v.Reason, "comparing 512 positions would take the reference about") {
		t.Errorf("%v: %s, context %d after %d steps", v.Status, v.Reason, v.Context, cand.steps)
	}
	unhurried := toyCase(0)
	unhurried.Unhurried = true
	if v := parity.ProbeStep(t.Context(), source("cpu-exact", slow()), source("gpu", &toy{}), unhurried, step, p); !v.Passed() {
		t.Errorf("%v: %s", v.Status, v.Reason)
	}
}
