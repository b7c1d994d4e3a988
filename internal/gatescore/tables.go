package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
)

// Files, relative to the repository's root.
const (
	calibrationData = "internal/gatescore/testdata/calibration.json"
	calibrationPage = "docs/gate-calibration.md"
	scoreData       = "internal/gatescore/testdata/score.json"
	scorePage       = "docs/gate-score.md"
)

// score is what the gate did with every fault and every sound configuration.
type score struct {
	Models []string `json:"models"`
	Faults []row    `json:"faults"`
	// Sound counts sound configurations by model, Rejected those of them that the
	// standard policy rejects.
	Sound    map[string]int `json:"sound"`
	Rejected map[string]int `json:"rejected"`
	// Broken lists why sound configurations were rejected.
	Broken []string `json:"broken,omitempty"`
}

// row is one fault: by policy, a mark for each model.
type row struct {
	Name  string            `json:"name"`
	Late  bool              `json:"late,omitempty"`
	Marks map[string]string `json:"marks"`
}

func writeCalibration(ctx context.Context, root string, subjects []subject) error {
	var table []parity.Noise
	for _, s := range subjects {
		noise, err := parity.Calibrate(ctx, s.calibration(), parity.Arithmetics())
		if err != nil {
			return err
		}
		table = append(table, noise...)
	}
	return writeBoth(root, calibrationData, table, calibrationPage, calibrationText(table))
}

func writeScore(ctx context.Context, root string, subjects []subject) error {
	total, err := measure(ctx, subjects, fault.All(), func(c []config) []config { return c })
	if err != nil {
		return err
	}
	return writeBoth(root, scoreData, total, scorePage, scoreText(total))
}

// measure scores faults and the chosen sound configurations.
func measure(ctx context.Context, subjects []subject, faults []fault.Fault, choose func([]config) []config) (score, error) {
	total := score{Sound: map[string]int{}, Rejected: map[string]int{}}
	for _, f := range faults {
		total.Faults = append(total.Faults, row{f.Name, f.Late, map[string]string{}})
	}
	for _, s := range subjects {
		total.Models = append(total.Models, s.name)
		if err := total.model(ctx, s, faults, choose); err != nil {
			return total, err
		}
	}
	return total, nil
}

func (t *score) model(ctx context.Context, s subject, faults []fault.Fault, choose func([]config) []config) error {
	sc, err := newScoring(ctx, s, 0, 0)
	if err != nil {
		return err
	}
	defer sc.end()
	for i, f := range faults {
		for _, p := range parity.Policies() {
			if err := ctx.Err(); err != nil {
				return err
			}
			o, err := sc.fault(f, p)
			if err != nil {
				return err
			}
			t.Faults[i].Marks[p.Name] += o.mark()
		}
	}
	for _, c := range choose(configs(len(s.prompts))) {
		v, err := sc.soundRun(c, parity.Standard())
		if err != nil {
			return err
		}
		t.Sound[s.name]++
		if !v.Passed() {
			t.Rejected[s.name]++
			t.Broken = append(t.Broken, fmt.Sprintf("%s, %+v: %s", s.name, c, v.Reason))
		}
	}
	return nil
}

func writeBoth(root, data string, v any, page, text string) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(data)), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, data), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, page), []byte(text), 0o644)
}

// writePages writes the pages of committed numbers.
func writePages(root string) error {
	var noise []parity.Noise
	var total score
	for name, v := range map[string]any{calibrationData: &noise, scoreData: &total} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, calibrationPage), []byte(calibrationText(noise)), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, scorePage), []byte(scoreText(total)), 0o644)
}

const generated = "<!-- Written by \"go run ./internal/gatescore\"; a test compares. -->\n"

func calibrationText(table []parity.Noise) string {
	var b strings.Builder
	b.WriteString(generated + `
# How much sound backends differ

Two right ways to compute a model do not give the same numbers: sums are formed in another order, keys and values
are rounded to half precision, activations to 16 or 8 bits. This page has the size of that noise, measured against
cpu-exact. No threshold of the gate may lie within it, and the thresholds of the policy (apr parity --policy) cite
this table. Errors are in standard deviations of the reference's logits at the same position; each number is the
worst of all positions of five prompts (a question, a program, prose, a licence, random tokens).

## All models together

`)
	const header = "| WHAT | positions | cosine, 1 − | KL, nats | RMS | 99 % | 99.9 % | largest | largest / 99 % | other argmax | its margin |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
	line := func(label string, n parity.Noise) {
		fmt.Fprintf(&b, "| %s | %d | %.1e | %.1e | %.2g | %.2g | %.2g | %.2g | %.2f | %d | %.3g |\n", label, n.Positions,
			max(1-n.MinCosine, 0), n.MaxKL, n.MaxRMS, n.MaxP99, n.MaxP999, n.MaxPeak, n.MaxPeakRatio, n.Flips, n.MaxMargin)
	}
	b.WriteString(strings.Replace(header, "WHAT", "arithmetic", 1))
	names, worst := merge(table, func(n parity.Noise) string { return n.Arithmetic })
	for _, name := range names {
		line(name, worst[name])
	}
	b.WriteString(`
The first row compares with the oracle (short prompts: it is slow): cpu-exact adds in another order and is off by some
1e-6. Batches of any size give the same bits. The cache in half precision and the 16-bit activations of cpu are
of the same size, 1e-3 of a standard deviation. 8-bit activations with one scale for 32 are thirty times noisier, most of all
where channels stick out; they are here for GPU kernels that use them. The last two rows of each model are
simulated by rounding what matrices are multiplied with.

A margin is a share of the spread of the ten best logits. Of models with random weights (all but tiny-coder) the ten
best lie close together, so the same noise gives larger margins than on trained ones.

## What the policy makes of it

`)
	b.WriteString("| limit | noise: 16 bits | noise: 8 bits | general limit | limit for cpu |\n|---|---:|---:|---:|---:|\n")
	fine, coarse := worst[fineName], worst[coarseName]
	p := parity.Standard()
	cpu := p.For("cpu")
	for _, r := range []struct {
		name                         string
		fine, coarse, general, tight float64
	}{
		{"1 − cosine", 1 - fine.MinCosine, 1 - coarse.MinCosine, 1 - p.MinCosine, 1 - cpu.MinCosine},
		{"KL divergence", fine.MaxKL, coarse.MaxKL, p.MaxKL, cpu.MaxKL},
		{"share not close", 1 - fine.MinClose, 1 - coarse.MinClose, 1 - p.MinClose, 1 - cpu.MinClose},
		{"99th percentile", fine.MaxP99, coarse.MaxP99, p.MaxP99, cpu.MaxP99},
		{"99.9th percentile", fine.MaxP999, coarse.MaxP999, p.MaxP999, cpu.MaxP999},
		{"largest error", fine.MaxPeak, coarse.MaxPeak, p.MaxPeak, cpu.MaxPeak},
		{"largest / 99 %", fine.MaxPeakRatio, coarse.MaxPeakRatio, p.MaxPeakRatio, cpu.MaxPeakRatio},
		{"margin of a near tie", fine.MaxMargin, coarse.MaxMargin, p.NearTie, cpu.NearTie},
	} {
		fmt.Fprintf(&b, "| %s | %.2g | %.2g | %.2g | %.2g |\n", r.name, r.fine, r.coarse, r.general, r.tight)
	}
	trained, flat := 0.0, 0.0
	for _, n := range table {
		if n.Arithmetic != coarseName {
			continue
		}
		if slices.Contains(bundled, n.Model) {
			trained = max(trained, n.MaxMargin)
		} else {
			flat = max(flat, n.MaxMargin)
		}
	}
	fmt.Fprintf(&b, `
The margin of a near tie is above every margin of 16-bit arithmetic. 8-bit arithmetic stays within it on the trained
models (%.3g) and not on random weights (%.3g): a backend with 8-bit activations can be rejected there for a choice
between tokens that are all equally improbable.

## By model

`, trained, flat)
	b.WriteString(strings.Replace(header, "WHAT", "model: arithmetic", 1))
	for _, n := range table {
		line(n.Model+": "+n.Arithmetic, n)
	}
	return b.String()
}

// The arithmetics whose noise the limits are compared with: the one that
// serves, and the coarsest that a GPU may use.
const (
	fineName   = "16-bit activations (cpu)"
	coarseName = "8-bit activations, one scale for 32"
)

// merge groups noise and keeps the order in which groups come up.
func merge(table []parity.Noise, key func(parity.Noise) string) (names []string, worst map[string]parity.Noise) {
	worst = map[string]parity.Noise{}
	for _, n := range table {
		k := key(n)
		if _, ok := worst[k]; !ok {
			names = append(names, k)
		}
		worst[k] = worst[k].Merge(n)
	}
	return names, worst
}

func scoreText(t score) string {
	var b strings.Builder
	b.WriteString(generated + `
# What the gate catches

Every fault of the catalogue (parity/fault) is put into the backend cpu, on every model, and judged by the policy that
serves and, for comparison, by two simpler gates that are in use elsewhere. A fault counts as caught only if it is caught on a short
question and on a prompt of three batches.

- ✓ rejected by the first comparison, before any token that it spoils
- s stopped in mid-generation before the first wrong token was shown; see below
- ✗ served
- · cannot exist in this model, and says so

Models, in the order of the columns:

`)
	for i, m := range t.Models {
		fmt.Fprintf(&b, "%d. %s\n", i+1, m)
	}
	b.WriteString("\n## Caught\n\n| policy | fault × model pairs | rejected at first | stopped | served |\n|---|---:|---:|---:|---:|\n")
	for _, p := range parity.Policies() {
		n := map[string]int{}
		for _, r := range t.Faults {
			for _, m := range r.Marks[p.Name] {
				n[string(m)]++
			}
		}
		possible := n[rejected.mark()] + n[stopped.mark()] + n[served.mark()]
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", p.Name, possible, n[rejected.mark()], n[stopped.mark()], n[served.mark()])
	}
	sound, wrong := 0, 0
	for _, m := range t.Models {
		sound, wrong = sound+t.Sound[m], wrong+t.Rejected[m]
	}
	fmt.Fprintf(&b, "\n## Sound configurations\n\n%d probes of sound executors (cpu and cpu-exact; cache in half and single precision; steps of 5, 32 and 512\ntokens; one and two threads; five prompts; %d models): **%d rejected**.\n", sound, len(t.Models), wrong)
	for _, why := range t.Broken {
		fmt.Fprintf(&b, "\n- %s", why)
	}
	b.WriteString(`
## By fault

bos-step looks at one step from the first token, three-steps at three, both at the cosine alone. Position 0 hides
everything about positions: rotation by zero is the identity and attention has one key.

| fault | standard | bos-step | three-steps |
|---|---|---|---|
`)
	for _, r := range t.Faults {
		fmt.Fprintf(&b, "| %s | `%s` | `%s` | `%s` |\n", r.Name, r.Marks["standard"], r.Marks["bos-step"], r.Marks["three-steps"])
	}
	b.WriteString(`
## Late faults

Two faults spare everything before position 500 and use no kernel of their own, so a probe of a short prompt cannot meet
them. They are put to an answer of 96 tokens after a prompt of 470, as apr run gives it. The prompt and what follows it
at once are sound and judged so; when the answer goes further, the context up to the next power of two is judged first
(docs/parity.md), and the answer ends there. A pair counts as stopped only if every token shown before is the one that
the same backend without the fault chooses.

## The faults

`)
	for _, f := range slices.SortedFunc(slices.Values(fault.All()), func(a, b fault.Fault) int { return cmp.Compare(a.Name, b.Name) }) {
		fmt.Fprintf(&b, "- **%s**: %s. *%s*\n", f.Name, f.Summary, f.Report)
	}
	return b.String()
}
