package falsify

import (
	"fmt"

	"github.com/apr-engine/apr/contract"
)

// Audit compares the statuses that a contract claims with what the ledger
// supports.
func (l *Ledger) Audit(c *contract.Contract) ([]contract.Finding, error) {
	var findings []contract.Finding
	find := func(rule string, f *contract.Falsifier, format string, args ...any) {
		def, _ := contract.FindRule(rule)
		pos := f.Pos
		if f.Status.Set {
			pos = f.Status.Pos
		}
		findings = append(findings, contract.Finding{Rule: rule, Severity: def.Severity, Path: c.Path, Line: pos.Line, Column: pos.Column,
			Message: f.ID.Value + ": " + fmt.Sprintf(format, args...)})
	}
	for i := range c.Falsifiers {
		f := &c.Falsifiers[i]
		s, err := l.Support(c, f)
		if err != nil {
			return nil, err
		}
		for _, bad := range s.Bad {
			find("STATUS-003", f, "%v", bad.Err)
		}
		claim := f.Claim()
		claimed, known := claim.Rank()
		switch supported := rank(s.Status); {
		case !known:
			find("STATUS-008", f, "status %q is not known", claim)
		case claimed > supported:
			find("STATUS-001", f, "claims %s, evidence supports %s: %s", claim, s.Status, s.Reason)
		case claimed < supported:
			find("STATUS-002", f, "claims %s, evidence supports %s", claim, s.Status)
		}
		if s.Status == contract.Falsified {
			find("STATUS-007", f, "%s%s", s.Reason, handledWords(s.Handled))
		}
		for _, st := range s.Stale {
			find("STATUS-006", f, "%s is stale: %s", st.Bundle.Name, st.Why)
		}
		if name := f.Evidence.Value; f.Evidence.Set && name != "none" && !l.holds(c, f, name) {
			find("STATUS-004", f, "evidence %s is not there", name)
		}
	}
	findings = append(findings, summaryFindings(c)...)
	contract.SortFindings(findings)
	return findings, nil
}

// handledWords says what is known about the consequences of a failure. It stands
// beside FALSIFIED and does not soften it.
func handledWords(handled *bool) string {
	switch {
	case handled == nil:
		return ""
	case *handled:
		return "; handled as if_fails says"
	}
	return "; not handled as if_fails says"
}

// holds says whether a bundle of this name is there, readable or not: what is
// wrong with it is another rule's business.
func (l *Ledger) holds(c *contract.Contract, f *contract.Falsifier, name string) bool {
	for _, root := range l.Roots {
		if bundleExists(root, c.Stem, f.ID.Value, name) {
			return true
		}
	}
	return false
}

// summaryFindings compares verification_summary with the falsifiers.
func summaryFindings(c *contract.Contract) []contract.Finding {
	if c.Summary == nil {
		return nil
	}
	var findings []contract.Finding
	def, _ := contract.FindRule("STATUS-005")
	check := func(key string, want int) {
		n, ok := c.Summary.Counts[key]
		if !ok || n.Value == float64(want) {
			return
		}
		findings = append(findings, contract.Finding{Rule: def.ID, Severity: def.Severity, Path: c.Path, Line: n.Text.Pos.Line, Column: n.Text.Pos.Column,
			Message: fmt.Sprintf("verification_summary.%s is %s, there are %d", key, n.Text.Value, want)})
	}
	t := c.Tally()
	check("total_obligations", len(c.Obligations))
	for key, n := range map[string]int{"total": t.Total, "discharged": t.Discharged, "functional": t.Functional,
		"partial": t.Partial, "blocked": t.Blocked, "unbound": t.Unbound, "falsified": t.Falsified} {
		check("falsifiers."+key, n)
	}
	return findings
}
