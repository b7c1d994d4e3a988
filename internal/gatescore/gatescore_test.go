package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/synth"
)

func committed[T any](t *testing.T, name string) (v T) {
	t.Helper()
	data, err := os.ReadFile(golden.Path(t, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// The pages are what the committed numbers make.
func TestPagesMatchTheirNumbers(t *testing.T) {
	for _, tt := range []struct{ page, want string }{
		{calibrationPage, calibrationText(committed[[]parity.Noise](t, calibrationData))},
		{scorePage, scoreText(committed[score](t, scoreData))},
	} {
		got, err := os.ReadFile(golden.Path(t, filepath.FromSlash(tt.page)))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != tt.want {
			t.Errorf("%s is not what its numbers make: run \"go run ./internal/gatescore\"", tt.page)
		}
	}
}

// The committed score covers the catalogue as it is, every fault is caught by
// the policy that serves, and no sound configuration is rejected.
func TestScoreIsWholeAndClean(t *testing.T) {
	s := committed[score](t, scoreData)
	var models []string
	models = append(models, bundled...)
	for _, o := range synthetic {
		models = append(models, synthName(o))
	}
	if !slices.Equal(s.Models, models) {
		t.Errorf("models %v, want %v", s.Models, models)
	}
	var names []string
	possible := 0
	for _, r := range s.Faults {
		names = append(names, r.Name)
		marks := []rune(r.Marks["standard"])
		if len(marks) != len(models) {
			t.Errorf("%s: %d models, want %d", r.Name, len(marks), len(models))
		}
		for i, m := range marks {
			switch string(m) {
			case rejected.mark():
				possible++
			case notApplicable.mark():
			case stopped.mark():
				if possible++; !r.Late {
					t.Errorf("%s on %s was noticed only in mid-generation", r.Name, models[i])
				}
			default:
				t.Errorf("%s is served on %s", r.Name, models[i])
			}
		}
		if p := r.Marks["standard"]; strings.Count(p, notApplicable.mark()) == len(models) {
			t.Errorf("%s applies to no model", r.Name)
		}
	}
	if !slices.Equal(names, fault.Names()) {
		t.Error("the faults are not those of the catalogue: run \"go run ./internal/gatescore score\"")
	}
	if possible < 300 {
		t.Errorf("%d pairs of fault and model", possible)
	}
	sound := 0
	for _, m := range models {
		sound += s.Sound[m]
		if s.Rejected[m] != 0 {
			t.Errorf("%s: %d sound configurations rejected", m, s.Rejected[m])
		}
	}
	if sound < 1000 {
		t.Errorf("%d sound configurations, want at least 1000", sound)
	}
}

// Noise measured now is about that of the table: on another processor kernels
// add in another order, and the worst of a thousand positions varies.
func TestCalibrationHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("measures every arithmetic on the bundled models")
	}
	const more, less, floor = 3, 10, 1e-4
	table := committed[[]parity.Noise](t, calibrationData)
	for _, name := range bundled {
		s, err := openSubject(name, golden.Path(t, "models", name+".gguf"), golden.Root(t))
		if err != nil {
			t.Fatal(err)
		}
		defer s.model.Close()
		noise, err := parity.Calibrate(context.Background(), s.calibration(), parity.Arithmetics())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range noise {
			i := slices.IndexFunc(table, func(c parity.Noise) bool { return c.Model == n.Model && c.Arithmetic == n.Arithmetic })
			if i < 0 {
				t.Errorf("%s, %s is not in the table", n.Model, n.Arithmetic)
				continue
			}
			c := table[i]
			for _, v := range []struct {
				metric    string
				got, want float64
			}{
				{"RMS", n.MaxRMS, c.MaxRMS}, {"99th percentile", n.MaxP99, c.MaxP99}, {"99.9th percentile", n.MaxP999, c.MaxP999}, {"largest error", n.MaxPeak, c.MaxPeak},
			} {
				if !(v.got <= more*v.want+floor) || !(v.got+floor >= v.want/less) {
					t.Errorf("%s, %s: %s is %.3g, the table has %.3g", n.Model, n.Arithmetic, v.metric, v.got, v.want)
				}
			}
			if n.Positions != c.Positions {
				t.Errorf("%s, %s: %d positions, the table has %d", n.Model, n.Arithmetic, n.Positions, c.Positions)
			}
		}
	}
}

// The limits lie outside the noise, and say where the noise is written down.
func TestPolicyContainsTheNoise(t *testing.T) {
	// A limit this close to the worst of some thousand positions would be crossed
	// in use: the general limits hold for 8-bit arithmetic, those of cpu for 16.
	const general, tight = 1.5, 5
	p := parity.Standard()
	for _, name := range []string{"near_tie", "max_kl", "tight"} {
		if !strings.Contains(p.Basis[name], calibrationPage) {
			t.Errorf("the basis of %s is %q, want it to cite %s", name, p.Basis[name], calibrationPage)
		}
	}
	within := func(n parity.Noise, metric string, noise, limit, factor float64) {
		if !(factor*noise <= limit) {
			t.Errorf("%s, %s: %s of sound arithmetic is %.3g, the limit %.3g is not %v times larger", n.Model, n.Arithmetic, metric, noise, limit, factor)
		}
	}
	for _, n := range committed[[]parity.Noise](t, calibrationData) {
		factor, q := float64(tight), p.For("cpu")
		if n.Arithmetic == coarseName {
			factor, q = general, p
		}
		within(n, "1 − cosine", 1-n.MinCosine, 1-q.MinCosine, factor)
		within(n, "KL divergence", n.MaxKL, q.MaxKL, factor)
		within(n, "share not close", 1-n.MinClose, 1-q.MinClose, factor)
		within(n, "99th percentile", n.MaxP99, q.MaxP99, factor)
		within(n, "99.9th percentile", n.MaxP999, q.MaxP999, factor)
		within(n, "largest error", n.MaxPeak, q.MaxPeak, factor)
		within(n, "largest over 99th percentile", n.MaxPeakRatio, q.MaxPeakRatio, general)
		// 8-bit arithmetic on random weights has no margin: see the page.
		if n.Arithmetic != coarseName {
			within(n, "margin of another argmax", n.MaxMargin, q.NearTie, tight)
		} else if slices.Contains(bundled, n.Model) {
			within(n, "margin of another argmax", n.MaxMargin, q.NearTie, 1)
		}
	}
}

// A few faults and sound configurations give what the table says.
func TestScoreHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("probes two models dozens of times")
	}
	names := []string{
		"scale-high-bits", "vocabulary-tail", "qkv-bias-missing", "batch-qk-norm-missing", "rope-decode-late", "cache-zero-rows",
		"kv-drift", "silu-steep", "residual-twice", "after-500", "racing-tile", "previous-logits", "panic", "hang",
	}
	var faults []fault.Fault
	for _, n := range names {
		f, err := fault.Lookup(n)
		if err != nil {
			t.Fatal(err)
		}
		faults = append(faults, f)
	}
	small, err := openSubject(bundled[0], golden.Path(t, "models", bundled[0]+".gguf"), golden.Root(t))
	if err != nil {
		t.Fatal(err)
	}
	defer small.model.Close()
	o := synthetic[len(synthetic)-3]
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := synth.Write(path, o); err != nil {
		t.Fatal(err)
	}
	made, err := openSubject(synthName(o), path, golden.Root(t))
	if err != nil {
		t.Fatal(err)
	}
	defer made.model.Close()
	every := func(all []config) (some []config) {
		for i := 0; i < len(all); i += 11 { // odd, so that all values of all settings occur
			some = append(some, all[i])
		}
		return some
	}
	got, err := measure(context.Background(), []subject{small, made}, faults, every)
	if err != nil {
		t.Fatal(err)
	}
	for _, why := range got.Broken {
		t.Errorf("sound configuration rejected: %s", why)
	}
	want := committed[score](t, scoreData)
	for _, r := range got.Faults {
		i := slices.IndexFunc(want.Faults, func(w row) bool { return w.Name == r.Name })
		if i < 0 {
			t.Errorf("%s is not in the table", r.Name)
			continue
		}
		for policy, marks := range r.Marks {
			for j, mark := range []rune(marks) {
				column := slices.Index(want.Models, got.Models[j])
				if w := []rune(want.Faults[i].Marks[policy])[column]; mark != w {
					t.Errorf("%s on %s by %s: %c, the table has %c", r.Name, got.Models[j], policy, mark, w)
				}
			}
		}
	}
}
