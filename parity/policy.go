// Package parity decides whether an executor may serve. It compares a candidate's
// logits with those of a reference on the real prompt, through the sequences and
// steps that will serve, and remembers verdicts as certificates. It knows the
// executor interface and no particular backend.
package parity

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Tag begins every line about a rejected backend; it names the contract that
// fixes the thresholds.
const Tag = "apr-cpu-vs-gpu-output-parity-v1"

// Errors by kind, for errors.Is.
var (
	// ErrMismatch marks a candidate that was measured and is wrong.
	ErrMismatch = errors.New("parity check failed")
	// ErrNotMeasured marks a candidate that could not be judged; it is not a pass.
	ErrNotMeasured = errors.New("parity not measured")
	// ErrPolicy marks a policy name or value that does not exist.
	ErrPolicy = errors.New("bad parity policy")
	// ErrUncertified marks an executor that has not passed the gate.
	ErrUncertified = errors.New("executor is not certified")
)

// Policy is everything that turns measurements into a verdict. Limits on errors
// are relative to the reference's standard deviation over the vocabulary at the
// same position, so that they mean the same for every model.
type Policy struct {
	Name string `json:"name"`

	// MinCosine is the least cosine at every single position, never an average.
	MinCosine float64 `json:"min_cosine"`
	// NearTie is the largest margin, as a share of the spread of the reference's
	// ten best logits, at which a different argmax is a tie and not an error. Both
	// the reference's and the candidate's own margin must be within it.
	NearTie float64 `json:"near_tie"`
	// MaxKL bounds the Kullback-Leibler divergence of the candidate's distribution
	// from the reference's, in nats.
	MaxKL float64 `json:"max_kl"`
	// MinClose is the least share of elements with an error of at most CloseLimit.
	MinClose float64 `json:"min_close"`
	// MaxP99 and MaxP999 bound the 99th and 99.9th percentile of the error.
	MaxP99  float64 `json:"max_p99"`
	MaxP999 float64 `json:"max_p999"`
	// MaxPeak bounds the largest error of any element.
	MaxPeak float64 `json:"max_peak"`
	// MaxPeakRatio bounds the largest error as a multiple of the 99th percentile,
	// where it exceeds PeakFloor: a wrong tile stands out of a sound noise floor.
	MaxPeakRatio float64 `json:"max_peak_ratio"`
	PeakFloor    float64 `json:"peak_floor"`
	// Tight holds limits on the error for backends whose sound noise has been
	// calibrated far below the general limits, by backend name.
	Tight map[string]Limits `json:"tight,omitempty"`
	// CacheRounding times the largest errors that the cache alone makes in the reference,
	// where it rounds keys and values coarsely (Rounded), is added to the tight limits and
	// to NearTie, which ends at MaxNearTie: with a wider one no argmax would count.
	CacheRounding float64 `json:"cache_rounding"`
	MaxNearTie    float64 `json:"max_near_tie"`

	// CosineOnly judges finiteness and cosine and nothing else.
	CosineOnly bool `json:"cosine_only"`

	Probe Domain `json:"probe"`

	// Basis says for each threshold, by its JSON name, where it comes from.
	Basis map[string]string `json:"basis"`
}

// Limits are tighter than the policy's own, or what is added to them.
type Limits struct {
	NearTie float64 `json:"near_tie,omitempty"` // only added
	MaxP99  float64 `json:"max_p99"`
	MaxP999 float64 `json:"max_p999"`
	MaxPeak float64 `json:"max_peak"`
}

// For is the policy for one backend, with its tighter limits if it has any.
func (p Policy) For(backend string) Policy { return p.beside(Limits{}, backend) }

// beside is For where the reference's cache rounds, which moves its logits by so much.
func (p Policy) beside(rounding Limits, backend string) Policy {
	if l, ok := p.Tight[backend]; ok {
		p.MaxP99 = min(p.MaxP99, l.MaxP99+p.CacheRounding*rounding.MaxP99)
		p.MaxP999 = min(p.MaxP999, l.MaxP999+p.CacheRounding*rounding.MaxP999)
		p.MaxPeak = min(p.MaxPeak, l.MaxPeak+p.CacheRounding*rounding.MaxPeak)
	}
	p.NearTie = max(p.NearTie, min(p.MaxNearTie, p.NearTie+p.CacheRounding*rounding.NearTie))
	return p
}

// Domain says what a probe runs.
type Domain struct {
	// PromptPositions is the most prompt tokens that are judged at every position,
	// from the first on.
	PromptPositions int `json:"prompt_positions"`
	// WholePrompt runs a longer prompt to its end, as generation does, and judges
	// its last position and the steps after it. ContextTime bounds how long the
	// reference may take over positions that are not judged one by one; beyond what
	// it manages a backend counts as unverified.
	WholePrompt bool          `json:"whole_prompt"`
	ContextTime time.Duration `json:"context_time_ns"`
	// MinPositions is the least number of positions: a short prompt is extended by
	// the reference's greedy continuation.
	MinPositions int `json:"min_positions"`
	// DecodeSteps is the least number of single-token steps after the prompt.
	DecodeSteps int `json:"decode_steps"`
	// Resume truncates the candidate's sequence to its half at the end and computes
	// the rest again as one batch, as a second turn of a conversation does.
	Resume bool `json:"resume"`
	// OneByOne feeds the prompt in single-token steps instead of batches.
	OneByOne bool `json:"one_by_one"`
	// Deadline is how long one candidate step may take, or DeadlineFactor times the
	// reference's time for the same tokens if that is longer.
	Deadline       time.Duration `json:"deadline_ns"`
	DeadlineFactor float64       `json:"deadline_factor"`
}

// Standard is the policy that every command uses.
func Standard() Policy {
	return Policy{
		Name:      "standard",
		MinCosine: 0.99, NearTie: 0.05, MaxKL: 0.1,
		MinClose: 0.98, MaxP99: 0.5, MaxP999: 0.75, MaxPeak: 1.5, MaxPeakRatio: 8, PeakFloor: 0.25,
		Tight: map[string]Limits{
			"cpu":  {MaxP99: 0.03, MaxP999: 0.05, MaxPeak: 0.1},
			"cuda": {MaxP99: 0.03, MaxP999: 0.05, MaxPeak: 0.1},
			"wgpu": {MaxP99: 0.03, MaxP999: 0.05, MaxPeak: 0.1},
		},
		CacheRounding: 2, MaxNearTie: 0.25,
		Probe: Domain{
			PromptPositions: 256, WholePrompt: true, ContextTime: 30 * time.Second, MinPositions: 72, DecodeSteps: 24, Resume: true,
			Deadline: 30 * time.Second, DeadlineFactor: 8,
		},
		Basis: map[string]string{
			"min_cosine":       "fixed by the contract " + Tag + "; sound CPU paths stay above 0.9999",
			"near_tie":         "relative margin of argmax flips between sound executors, see docs/gate-calibration.md",
			"max_kl":           "an error of a cosine of 0.99 on logits of usual spread; activations of 8 bits reach 0.03, of 16 bits 2e-5 (docs/gate-calibration.md)",
			"min_close":        "close is a quarter of the logits' standard deviation: a cosine of 0.99 with evenly spread error leaves 92 % within a quarter deviation, a sound path 100 %",
			"max_p99":          "twice the close limit: one tile of 1 % of the vocabulary must not hide",
			"max_p999":         "three times the close limit: one tile of 0.1 % of the vocabulary must not hide",
			"max_peak":         "a zeroed or stale tile is off by a deviation or more somewhere",
			"max_peak_ratio":   "evenly spread noise over 150,000 logits peaks at 1.8 times its 99th percentile, outliers at 4",
			"peak_floor":       "below the close limit a peak cannot change a token",
			"tight":            "16-bit activations stay below 0.01 in all three on the calibrated models (docs/gate-calibration.md), 0.02 on the worst model seen, 28 layers with outliers; a slightly wrong activation function reaches 0.05",
			"cache_rounding":   "two caches that round independently differ by 1.4 times what rounding does to one; the sound path differs by 0.5 to 1.2 times (docs/executors.md)",
			"max_near_tie":     "the sound path beside a cache of Q8_0 needed 0.072 at most, where twice its rounding would have allowed 0.79 (docs/executors.md)",
			"prompt_positions": "whole batches of common sizes; beyond them a batch computes what it computed before, and its end is judged",
			"whole_prompt":     "a fault that begins at a later position than is judged must not be served as verified",
			"context_time":     "longer than this nobody waits for a first token; what is not judged is marked as unverified",
			"min_positions":    "past the 64 positions that attention sums in one block; release gates elsewhere found that fewer than 64 positions miss faults of single positions",
			"decode_steps":     "more than 20 steps meet a corruption of one step in twenty; a captured step is replayed from the third on",
			"resume":           "a second turn truncates and continues with a batch, which neither prompt nor decode steps do",
			"deadline_ns":      "a hang must end; slower than this is of no use",
			"deadline_factor":  "a candidate eight times slower than the reference is of no use",
		},
	}
}

// BOSStep is the simplest gate in use elsewhere, for comparison: one step from
// the first token.
func BOSStep() Policy {
	return weak("bos-step", Domain{PromptPositions: 1, MinPositions: 1, OneByOne: true})
}

// ThreeSteps is another gate in use elsewhere, for comparison: three steps from
// the first token, following the reference.
func ThreeSteps() Policy {
	return weak("three-steps", Domain{PromptPositions: 1, MinPositions: 3, DecodeSteps: 2, OneByOne: true})
}

func weak(name string, d Domain) Policy {
	s := Standard()
	d.Deadline, d.DeadlineFactor = s.Probe.Deadline, s.Probe.DeadlineFactor
	return Policy{
		Name: name, MinCosine: 0.99, CosineOnly: true, Probe: d,
		Basis: map[string]string{"min_cosine": "the value of the gates it stands for", "probe": "never used to admit a backend"},
	}
}

// Policies returns the named policies, the standard first.
func Policies() []Policy { return []Policy{Standard(), BOSStep(), ThreeSteps()} }

// PolicyByName finds a named policy.
func PolicyByName(name string) (Policy, error) {
	var names []string
	for _, p := range Policies() {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Policy{}, fmt.Errorf("%w: no policy %q, want one of %s", ErrPolicy, name, strings.Join(names, ", "))
}

// Hash identifies the policy's numbers; the texts do not count.
func (p Policy) Hash() string {
	p.Basis = nil
	data, err := json.Marshal(p)
	if err != nil {
		// Only a NaN threshold gets here, and such a policy must match no other.
		return "invalid"
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// Violation is the first limit that a position breaks.
type Violation struct {
	Metric   string  `json:"metric"`
	Value    float64 `json:"value"`
	Limit    float64 `json:"limit"`
	Position int     `json:"position"`
	// Text says it in words, without the position.
	Text string `json:"text"`
}

// Judge returns the first limit that the metrics of a position break, nil if
// none. Every test is written so that a NaN breaks it. vs names the reference
// in the text.
func (p Policy) Judge(m Metrics, vs string) *Violation {
	least := func(metric string, value, limit float64) *Violation {
		if value >= limit {
			return nil
		}
		return &Violation{Metric: metric, Value: value, Limit: limit, Text: fmt.Sprintf("%s vs %s = %.6f (< %g)", metric, vs, value, limit)}
	}
	most := func(metric string, value, limit float64) *Violation {
		if value <= limit {
			return nil
		}
		return &Violation{Metric: metric, Value: value, Limit: limit, Text: fmt.Sprintf("%s vs %s = %.6g (> %g)", metric, vs, value, limit)}
	}
	if !m.CandidateFinite {
		return &Violation{Metric: "finite", Text: "NaN or infinity in the logits"}
	}
	checks := []func() *Violation{
		func() *Violation { return least("cosine", m.Cosine, p.MinCosine) },
		func() *Violation { return p.judgeArgmax(m, vs) },
		func() *Violation { return most("KL divergence", m.KL, p.MaxKL) },
		func() *Violation { return least("share of close logits", m.Close, p.MinClose) },
		func() *Violation { return most("99th percentile of the error", m.P99, p.MaxP99) },
		func() *Violation { return most("99.9th percentile of the error", m.P999, p.MaxP999) },
		func() *Violation { return most("largest error", m.Peak, p.MaxPeak) },
		func() *Violation {
			if m.Peak <= p.PeakFloor {
				return nil
			}
			return most("largest over usual error", m.Peak, p.MaxPeakRatio*m.P99)
		},
	}
	if p.CosineOnly {
		checks = checks[:1]
	}
	for _, check := range checks {
		if v := check(); v != nil {
			return v
		}
	}
	return nil
}

func (p Policy) judgeArgmax(m Metrics, vs string) *Violation {
	if m.ReferenceArgmax == m.CandidateArgmax || m.ReferenceMargin <= p.NearTie && m.CandidateMargin <= p.NearTie {
		return nil
	}
	margin := max(m.ReferenceMargin, m.CandidateMargin)
	return &Violation{
		Metric: "argmax", Value: margin, Limit: p.NearTie,
		Text: fmt.Sprintf("argmax %d, %s has %d, margin %.4f (> %g)", m.CandidateArgmax, vs, m.ReferenceArgmax, margin, p.NearTie),
	}
}

// Thresholds lists the policy's limits as name, value and basis, in the order
// of the struct, for printing.
func (p Policy) Thresholds() [][3]string {
	data, err := json.Marshal(p)
	if err != nil {
		return nil
	}
	var fields map[string]any
	var probe map[string]any
	if json.Unmarshal(data, &fields) != nil {
		return nil
	}
	probe, _ = fields["probe"].(map[string]any)
	for k, v := range probe {
		fields[k] = v
	}
	var rows [][3]string
	for _, name := range thresholdOrder {
		if v, ok := fields[name]; ok && (!p.CosineOnly || slices.Contains(cosineFields, name)) {
			text := fmt.Sprint(v)
			switch name {
			case "deadline_ns":
				text = p.Probe.Deadline.String()
			case "context_time_ns":
				text = p.Probe.ContextTime.String()
			case "tight":
				text = p.tightText()
			}
			rows = append(rows, [3]string{strings.TrimSuffix(name, "_ns"), text, cmp.Or(p.Basis[name], p.Basis[strings.TrimSuffix(name, "_ns")])})
		}
	}
	return rows
}

func (p Policy) tightText() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(p.Tight)) {
		l := p.Tight[name]
		parts = append(parts, fmt.Sprintf("%s: %g, %g, %g", name, l.MaxP99, l.MaxP999, l.MaxPeak))
	}
	return strings.Join(parts, "; ")
}

var thresholdOrder = []string{
	"min_cosine", "near_tie", "max_kl", "min_close", "max_p99", "max_p999", "max_peak", "max_peak_ratio", "peak_floor", "tight", "cache_rounding", "max_near_tie",
	"prompt_positions", "whole_prompt", "context_time_ns", "min_positions", "decode_steps", "resume", "one_by_one", "deadline_ns", "deadline_factor",
}

var cosineFields = []string{"min_cosine", "prompt_positions", "min_positions", "decode_steps", "one_by_one", "deadline_ns", "deadline_factor"}
