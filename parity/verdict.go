package parity

import (
	"encoding/json"
	"fmt"
	"time"
)

// Status is the outcome of a comparison. The zero value is not a pass.
type Status int

const (
	// NotMeasured says that there is no judgement: nothing was compared, or the
	// reference failed.
	NotMeasured Status = iota
	// Validated says that every position of the whole domain kept every limit.
	Validated
	// Mismatch says that the candidate is wrong, or failed.
	Mismatch
)

var statusNames = [...]string{NotMeasured: "not measured", Validated: "validated", Mismatch: "mismatch"}

func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return statusNames[NotMeasured]
	}
	return statusNames[s]
}

// MarshalText writes the status in words.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText refuses words that are no status.
func (s *Status) UnmarshalText(text []byte) error {
	for i, name := range statusNames {
		if name == string(text) {
			*s = Status(i)
			return nil
		}
	}
	return fmt.Errorf("parity status %q, want validated, mismatch or not measured", text)
}

// Phase says in which part of a probe a position was measured.
type Phase string

// The phases of a probe, in order.
const (
	Prefill  Phase = "prefill" // the prompt, in batches
	Decode   Phase = "decode"  // one token a step
	Resume   Phase = "resume"  // the last positions again, as one batch after truncation
	Served   Phase = "served"  // the prompt again, with the logits of its last token only
	Later    Phase = "later"   // a step in mid-generation whose kernels had not run before
	Followed Phase = "follow"  // a token of the answer, checked in the background
)

// Position is one comparison.
type Position struct {
	Index int   `json:"position"` // of the token in the sequence, from 0
	Token int32 `json:"token"`    // fed at this position
	Phase Phase `json:"phase"`
	Metrics
	// Violation is the first limit broken, nil if none.
	Violation *Violation `json:"violation,omitempty"`
}

// Cost is what one side of a probe took.
type Cost struct {
	Setup time.Duration `json:"setup_ns"` // to load, 0 if it was loaded already
	Time  time.Duration `json:"time_ns"`  // in steps
	// Ahead is how much of Time was spent before the probe asked, or for another one.
	Ahead  time.Duration `json:"ahead_ns,omitempty"`
	Tokens int           `json:"tokens"`
	Steps  int           `json:"steps"`
}

// Verdict is the one record of a comparison; every command shows this value.
type Verdict struct {
	Status Status `json:"status"`
	// Reason says why a verdict is not validated, in one line.
	Reason string `json:"reason,omitempty"`
	// Absent says that nothing was measured because there is no device.
	Absent bool `json:"absent,omitempty"`
	// Violation is the limit that decided a mismatch; nil where the candidate
	// failed in another way.
	Violation *Violation `json:"violation,omitempty"`
	Positions []Position `json:"positions,omitempty"`

	Backend   string `json:"backend"`
	Device    string `json:"device,omitempty"`
	Part      string `json:"part,omitempty"` // of the model on the device: "14 of 28 layers"; empty for all
	Reference string `json:"reference"`
	Policy    string `json:"policy"` // name
	// Covered are the kernel variants and paths that ran in the probe, NotCovered
	// those that the executor announced for the session and that did not.
	Covered    []string `json:"covered,omitempty"`
	NotCovered []string `json:"not_covered,omitempty"`
	MaxBatch   int      `json:"max_batch,omitempty"` // tokens in one step
	// CacheRounding are the largest errors that the cache's rounding alone makes in the
	// reference, which widen the limits (Rounded); nil for a cache that hardly rounds.
	CacheRounding *Limits `json:"cache_rounding,omitempty"`
	// Context is how many tokens the sequences held at the end: a verdict says
	// nothing about longer ones.
	Context int `json:"context,omitempty"`

	Hashes Hashes `json:"hashes"`

	ReferenceCost Cost `json:"reference_cost"`
	CandidateCost Cost `json:"candidate_cost"`

	// Cached says that the verdict comes from a certificate; it has no positions.
	Cached bool `json:"cached,omitempty"`
	// Override marks a verdict that was not sought (SKIP_PARITY_GATE).
	Override bool `json:"override,omitempty"`
	// Fault names the injected faults under which it was measured.
	Fault string `json:"fault,omitempty"`

	// transient marks a failure that may not happen again, such as a deadline on a
	// busy machine; it is not remembered.
	transient bool
	// tooLong says that nothing was measured because it would take too long.
	tooLong bool
}

// Hashes identify what was compared.
type Hashes struct {
	Model   string `json:"model,omitempty"`
	Program string `json:"program,omitempty"`
	Policy  string `json:"policy,omitempty"`
	Build   string `json:"build,omitempty"`
}

// Passed reports whether the candidate may serve.
func (v Verdict) Passed() bool { return v.Status == Validated }

// TooLong reports that nothing was measured because the reference would take
// longer than the policy allows.
func (v Verdict) TooLong() bool { return v.Status == NotMeasured && v.tooLong }

// Err is nil for a pass, otherwise ErrMismatch or ErrNotMeasured with the reason.
func (v Verdict) Err() error {
	switch v.Status {
	case Validated:
		return nil
	case Mismatch:
		return fmt.Errorf("%w: %s", ErrMismatch, v.Reason)
	}
	reason := v.Reason
	if reason == "" {
		reason = "nothing was compared"
	}
	return fmt.Errorf("%w: %s", ErrNotMeasured, reason)
}

// Worst returns the position with the least cosine; false if there is none.
func (v Verdict) Worst() (Position, bool) {
	if len(v.Positions) == 0 {
		return Position{}, false
	}
	least := v.Positions[0]
	for _, p := range v.Positions[1:] {
		if p.Cosine < least.Cosine {
			least = p
		}
	}
	return least, true
}

// JSON writes the verdict as one indented object.
func (v Verdict) JSON() ([]byte, error) { return json.MarshalIndent(v, "", "  ") }

// Fed returns the tokens that were fed, in order of position.
func (v Verdict) Fed() []int32 {
	var tokens []int32
	for _, p := range v.Positions {
		if p.Index == len(tokens) {
			tokens = append(tokens, p.Token)
		}
	}
	return tokens
}
