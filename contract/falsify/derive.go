package falsify

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/evidence"
)

// Ledger is where evidence is looked for and what it is compared with.
type Ledger struct {
	Roots  []string            // ledger folders; a bundle may lie in any
	Inputs *Inputs             // the present programs, models and sources
	Keys   []ed25519.PublicKey // if any: only bundles signed by one of them count
	Now    time.Time           // evidence from after it cannot be true; not checked if zero
}

// Support is what evidence says about one falsifier.
type Support struct {
	Status  contract.Status
	Bundle  *evidence.Bundle // what the status rests on; nil for unbound
	Handled *bool            // for FALSIFIED: did what if_fails promises happen
	Reason  string           // why it is not more, in a few words

	Bad   []evidence.Entry // bundles that cannot be trusted
	Stale []Stale          // bundles that would count for more if nothing had changed
}

// Stale is a bundle whose inputs have changed since.
type Stale struct {
	Bundle *evidence.Bundle
	Why    string
}

// freshness says how a bundle's inputs compare with the present ones.
type freshness int

const (
	other   freshness = iota // about another test or another model: shows nothing here
	older                    // the same experiment with another build of the program
	current                  // everything as now
)

// ErrOtherTest says that evidence is about another test than the present one.
var ErrOtherTest = errors.New("it is about another prediction or test than the contract's")

// Support derives the status of a falsifier from the ledger.
//
// A failure stands until a later run with another program, model or source
// passes: a prediction that was wrong once is wrong, whatever a repetition with
// the same inputs shows. Otherwise the best pass counts, up to the level of its
// test, and up to PARTIAL_ALGORITHM_LEVEL if the program changed since.
func (l *Ledger) Support(c *contract.Contract, f *contract.Falsifier) (Support, error) {
	s := Support{Status: contract.Unbound, Reason: "no evidence is recorded"}
	bundles, err := l.bundles(c, f, &s)
	if err != nil {
		return s, err
	}
	if f.Test == nil {
		s.Reason = "there is no executable test"
		return s, nil
	}
	definition := c.Definition(f)
	var passes, failures []*evidence.Bundle
	for _, b := range bundles {
		if b.Record.Definition != definition {
			s.Stale = append(s.Stale, Stale{b, "the prediction or its test changed"})
			continue
		}
		switch b.Record.Verdict {
		case evidence.Pass:
			passes = append(passes, b)
		case evidence.Fail:
			failures = append(failures, b)
		case evidence.Blocked:
			if rank, _ := s.Status.Rank(); rank == 0 {
				s.Status = contract.Blocked
			}
			if s.Status == contract.Blocked {
				s.Bundle, s.Reason = b, "missing "+join(b.Record.Missing)
			}
		}
	}
	for _, fail := range failures {
		if !cleared(fail, passes) {
			s.Status, s.Bundle, s.Handled = contract.Falsified, fail, fail.Record.Handled
			s.Reason = "a prediction was wrong: " + firstMismatch(fail.Record)
			return s, nil
		}
	}
	for _, p := range passes {
		l.count(&s, f, p)
	}
	if s.Status == contract.Unbound && len(s.Stale) > 0 {
		s.Reason = "what is recorded is about another test or another model"
	}
	return s, nil
}

func join(list []string) string {
	out := ""
	for i, s := range list {
		if i > 0 {
			out += "; "
		}
		out += s
	}
	return out
}

// bundles reads everything recorded for a falsifier, in order of time. What
// cannot be trusted goes to s.Bad.
func (l *Ledger) bundles(c *contract.Contract, f *contract.Falsifier, s *Support) ([]*evidence.Bundle, error) {
	var bundles []*evidence.Bundle
	for _, root := range l.Roots {
		entries, err := evidence.List(root, c.Stem, f.ID.Value)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Err == nil && len(l.Keys) > 0 {
				e.Err = evidence.VerifySignature(e.Bundle, l.Keys)
			}
			if e.Err == nil {
				e.Err = l.rejudge(c, f, e.Bundle)
			}
			if e.Err != nil {
				s.Bad = append(s.Bad, e)
				continue
			}
			bundles = append(bundles, e.Bundle)
		}
	}
	slices.SortStableFunc(bundles, func(a, b *evidence.Bundle) int { return a.Record.Ended.Compare(b.Record.Ended) })
	return bundles, nil
}

// rejudge repeats the judgement of a bundle of the present test on its recorded
// outputs. A record whose table or verdict does not follow from them was not
// written by a run.
func (l *Ledger) rejudge(c *contract.Contract, f *contract.Falsifier, b *evidence.Bundle) error {
	r := b.Record
	wrong := func(what string) error {
		return fmt.Errorf("%s: %w: %s does not follow from what is recorded", b.Dir, evidence.ErrTampered, what)
	}
	// Clocks of two machines differ a little.
	if r.Ended.Before(r.Started) || !l.Now.IsZero() && r.Ended.After(l.Now.Add(time.Hour)) {
		return wrong("the time of its end")
	}
	if r.Verdict != evidence.Pass && r.Verdict != evidence.Fail {
		return nil // no measurement, nothing to repeat
	}
	if f.Test == nil || r.Definition != c.Definition(f) {
		return nil // about another test, which is not at hand
	}
	if r.Level != f.Test.Level.Value {
		return wrong("the level")
	}
	ps, handled, err := Judge(f, r.Steps, func(name string) []byte { return b.Outputs[name] })
	switch {
	case err != nil || !slices.Equal(ps, r.Predictions):
		return wrong("the table of predictions")
	case verdict(ps) != r.Verdict:
		return wrong("the verdict")
	case (handled == nil) != (r.Handled == nil) || handled != nil && *handled != *r.Handled:
		return wrong("handled")
	}
	return nil
}

// Vet verifies one bundle of a falsifier as Support does, and that it is about the
// present test: its signature if keys are given, and that its verdict follows from
// what it recorded. stale tells what changed since; empty if nothing did. It is for
// evidence that comes from another machine.
func (l *Ledger) Vet(c *contract.Contract, f *contract.Falsifier, b *evidence.Bundle) (stale string, err error) {
	if len(l.Keys) > 0 {
		if err := evidence.VerifySignature(b, l.Keys); err != nil {
			return "", err
		}
	}
	if f.Test == nil || b.Record.Definition != c.Definition(f) {
		return "", fmt.Errorf("%s: %w", b.Dir, ErrOtherTest)
	}
	if err := l.rejudge(c, f, b); err != nil {
		return "", err
	}
	if b.Record.Verdict != evidence.Pass && b.Record.Verdict != evidence.Fail {
		return "", nil // no measurement that could grow old
	}
	_, stale = l.fresh(f, b.Record)
	return stale, nil
}

// cleared says whether a later pass with other inputs overrules a failure.
func cleared(fail *evidence.Bundle, passes []*evidence.Bundle) bool {
	return slices.ContainsFunc(passes, func(p *evidence.Bundle) bool {
		return p.Record.Ended.After(fail.Record.Ended) && !sameInputs(p.Record, fail.Record)
	})
}

// sameInputs says whether two runs could only differ by chance.
func sameInputs(a, b evidence.Record) bool {
	return slices.Equal(a.Programs, b.Programs) && slices.Equal(a.Models, b.Models) && sourcesHash(a) == sourcesHash(b)
}

func sourcesHash(r evidence.Record) string {
	if r.Sources == nil {
		return ""
	}
	return r.Sources.SHA256
}

// firstMismatch is the first prediction that was wrong, for messages.
func firstMismatch(r evidence.Record) string {
	for _, p := range r.Predictions {
		if !p.Match && p.Step > 0 {
			return fmt.Sprintf("%s, observed %s", p.Predicted, p.Observed)
		}
	}
	return "see the record"
}

// reaches maps a test's level to the status that a pass supports.
var reaches = map[string]contract.Status{
	"algorithm":  contract.Partial,
	"functional": contract.Functional,
	"live":       contract.Discharged,
}

// count lets one pass raise the status.
func (l *Ledger) count(s *Support, f *contract.Falsifier, p *evidence.Bundle) {
	full := reaches[f.Test.Level.Value]
	status, reason := full, "the test's level is "+f.Test.Level.Value
	fresh, why := l.fresh(f, p.Record)
	switch {
	case fresh == other:
		status = contract.Unbound
	case fresh == older && rank(status) > rank(contract.Partial):
		status, reason = contract.Partial, "stale: "+why
	}
	if fresh != current {
		s.Stale = append(s.Stale, Stale{p, why})
	}
	// Of equal ones the later.
	if status != contract.Unbound && rank(status) >= rank(s.Status) {
		s.Status, s.Bundle, s.Reason = status, p, reason
	}
}

// rank is how much a status claims; words that are no status claim nothing.
func rank(s contract.Status) int {
	r, _ := s.Rank()
	return r
}

// fresh compares what a run used with what is there now. A program counts as
// unchanged if its bytes are, or if the test names its sources and those are.
// Of a shell line the programs are not all known, so its sources decide alone.
func (l *Ledger) fresh(f *contract.Falsifier, r evidence.Record) (freshness, string) {
	for _, name := range modelNames(f.Test) {
		now, err := l.Inputs.HashModel(name)
		if err != nil {
			// The model is not here to compare with: the result stands for a
			// model of that hash, and nothing says that it changed.
			if errors.Is(err, errNoFile) && slices.ContainsFunc(r.Models, func(in evidence.Input) bool { return in.Name == name || in.Name == name+".gguf" }) {
				continue
			}
			return other, "model " + name + " cannot be read"
		}
		if !slices.Contains(r.Models, now) {
			return other, "model " + name + " changed"
		}
	}
	if paths := sourcePaths(f.Test); len(paths) > 0 && r.Sources != nil && slices.Equal(paths, r.Sources.Paths) {
		if now, err := l.Inputs.HashSources(paths); err == nil && now == r.Sources.SHA256 {
			return current, ""
		}
		if f.Test.HasShell() {
			return older, "the sources changed"
		}
	}
	for _, name := range programNames(f.Test) {
		now, err := l.Inputs.HashProgram(name)
		if err != nil {
			return older, "program " + name + " is not here to compare with"
		}
		if !slices.Contains(r.Programs, now) {
			return older, "program " + name + " changed"
		}
	}
	return current, ""
}
