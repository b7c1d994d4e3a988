package contract

import "fmt"

// Status is how far a falsifier's claim is supported.
type Status string

// Statuses, weakest first, and Falsified apart from the order.
const (
	Unbound    Status = "unbound"                 // nothing is recorded
	Blocked    Status = "BLOCKER_FIXTURE_ABSENT"  // a model, a machine or an implementation is missing
	Partial    Status = "PARTIAL_ALGORITHM_LEVEL" // the decision rule is tested, the real run is not
	Functional Status = "FUNCTIONAL"              // the real program ran, on a stand-in
	Discharged Status = "DISCHARGED"              // the real thing ran, recorded and current
	Falsified  Status = "FALSIFIED"               // the prediction was wrong
)

// Statuses in their order, with Falsified at the end.
var Statuses = []Status{Unbound, Blocked, Partial, Functional, Discharged, Falsified}

// Rank orders statuses by how much they claim. Falsified claims nothing good:
// it ranks below unbound. ok is false for a word that is no status.
func (s Status) Rank() (rank int, ok bool) {
	switch s {
	case "", Unbound:
		return 0, true
	case Blocked:
		return 1, true
	case Partial:
		return 2, true
	case Functional:
		return 3, true
	case Discharged:
		return 4, true
	case Falsified:
		return -1, true
	}
	return 0, false
}

// falsifierCounts are the keys of verification_summary.falsifiers.
var falsifierCounts = []string{"total", "discharged", "functional", "partial", "blocked", "unbound", "falsified"}

// Claim is the status that a falsifier says it has; unbound if it says none. A
// word that is no status is returned as it is, and Rank reports it.
func (f *Falsifier) Claim() Status {
	if f.Status.Value == "" {
		return Unbound
	}
	return Status(f.Status.Value)
}

// Tally counts falsifiers by status. Every falsifier is in exactly one count
// beside Total; words that are no status count as Unbound.
type Tally struct {
	Total      int `json:"total"`
	Executable int `json:"executable"`
	Discharged int `json:"discharged"`
	Functional int `json:"functional"`
	Partial    int `json:"partial"`
	Blocked    int `json:"blocked"`
	Unbound    int `json:"unbound"`
	Falsified  int `json:"falsified"`
}

// Count adds one falsifier with this status.
func (t *Tally) Count(s Status, executable bool) {
	t.Total++
	if executable {
		t.Executable++
	}
	*t.field(s)++
}

// field is the count that a status belongs to. What is no status counts as
// unbound, so that the counts always add up to the total.
func (t *Tally) field(s Status) *int {
	switch s {
	case Discharged:
		return &t.Discharged
	case Functional:
		return &t.Functional
	case Partial:
		return &t.Partial
	case Blocked:
		return &t.Blocked
	case Falsified:
		return &t.Falsified
	}
	return &t.Unbound
}

// Add sums two tallies.
func (t *Tally) Add(u Tally) {
	t.Total += u.Total
	t.Executable += u.Executable
	t.Discharged += u.Discharged
	t.Functional += u.Functional
	t.Partial += u.Partial
	t.Blocked += u.Blocked
	t.Unbound += u.Unbound
	t.Falsified += u.Falsified
}

// String is the tally in words with its denominator: 5 of 9 discharged, 3
// partial, 1 blocked.
func (t Tally) String() string {
	if t.Total == 0 {
		return "none"
	}
	s := fmt.Sprintf("%d of %d discharged", t.Discharged, t.Total)
	for _, part := range []struct {
		n    int
		name string
	}{{t.Functional, "functional"}, {t.Partial, "partial"}, {t.Blocked, "blocked"}, {t.Unbound, "unbound"}, {t.Falsified, "falsified"}} {
		if part.n > 0 {
			s += fmt.Sprintf(", %d %s", part.n, part.name)
		}
	}
	return s
}

// Tally counts the statuses that the contract's falsifiers claim.
func (c *Contract) Tally() Tally {
	var t Tally
	for i := range c.Falsifiers {
		t.Count(c.Falsifiers[i].Claim(), c.Falsifiers[i].Test != nil)
	}
	return t
}
