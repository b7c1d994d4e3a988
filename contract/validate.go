package contract

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/mod/semver"
)

// Ruleset chooses the rules of a judgement.
type Ruleset int

// Rulesets. First is the format's first version: twelve obligation types,
// SCHEMA-001 to 013, and its required keys. Current adds everything since.
const (
	Current Ruleset = iota
	First
)

// judge collects the findings of one contract.
type judge struct {
	c        *Contract
	findings []Finding
}

// find records a finding with the severity of its rule.
func (j *judge) find(rule string, pos Pos, format string, args ...any) {
	def, _ := FindRule(rule)
	// What concerns the whole file is shown at its first key.
	pos = orPos(pos, at(j.c.root))
	j.findings = append(j.findings, Finding{
		Rule: rule, Severity: def.Severity, Path: j.c.Path,
		Line: pos.Line, Column: pos.Column, Message: fmt.Sprintf(format, args...),
	})
}

// Validate judges one contract by itself: its shape and the SCHEMA and
// PROVABILITY rules. Problems of reading come first.
func Validate(c *Contract, rules Ruleset) []Finding {
	j := &judge{c: c, findings: slices.Clone(c.problems)}
	if rules == First {
		j.required()
		j.firstWords()
	}
	_, stated := c.Kind()
	kernel := rules == First || j.kernel()
	j.metadata()
	j.equations(kernel)
	j.obligations()
	j.falsifiers()
	j.harnesses()
	if c.Gate == nil && kernel {
		j.find("SCHEMA-013", Pos{}, "no qa_gate: say which checks must pass before a release")
	}
	if rules == Current {
		if !stated {
			j.find("KIND-001", c.Metadata.Pos, "metadata has no kind: judged as kernel")
		}
		for _, k := range c.Ignored {
			j.find("READ-005", k.Pos, "%s is read by nothing", k.Path)
		}
		j.topLevel()
		j.extensions()
		if kernel {
			j.provability()
		}
	}
	SortFindings(j.findings)
	return j.findings
}

// kernel says whether the rules for kernels apply; see Contract.Kind.
func (j *judge) kernel() bool {
	kind, _ := j.c.Kind()
	return kind == "kernel"
}

// metadata applies SCHEMA-001, 002 and 024.
func (j *judge) metadata() {
	md := j.c.Metadata
	if len(md.References) == 0 {
		j.find("SCHEMA-001", md.Pos, "metadata.references is empty: cite what the claims come from")
	}
	if md.Version.Value == "" {
		j.find("SCHEMA-002", orPos(md.Version.Pos, md.Pos), "metadata.version is empty")
	} else if !semver.IsValid("v" + md.Version.Value) {
		j.find("SCHEMA-024", md.Version.Pos, "metadata.version %q is not MAJOR.MINOR.PATCH", md.Version.Value)
	}
}

// orPos is the first place that is known.
func orPos(ps ...Pos) Pos {
	for _, p := range ps {
		if p.Line > 0 {
			return p
		}
	}
	return Pos{}
}

// equations applies SCHEMA-003 and 004.
func (j *judge) equations(kernel bool) {
	if len(j.c.Equations) == 0 && kernel {
		j.find("SCHEMA-003", Pos{}, "equations must hold at least one equation")
	}
	for _, eq := range j.c.Equations {
		if eq.Formula.Value == "" {
			j.find("SCHEMA-004", orPos(eq.Formula.Pos, eq.Pos), "equations.%s.formula is empty", eq.Name)
		}
	}
}

// obligations applies SCHEMA-005 and 006.
func (j *judge) obligations() {
	formal := map[string]Pos{}
	for i, ob := range j.c.Obligations {
		if ob.Property.Value == "" {
			j.find("SCHEMA-005", orPos(ob.Property.Pos, ob.Pos), "proof_obligations[%d].property is empty", i)
		}
		if !ob.Formal.Set {
			continue
		}
		if first, ok := formal[ob.Formal.Value]; ok {
			j.find("SCHEMA-006", ob.Formal.Pos, "the same formal predicate stands at line %d", first.Line)
		} else {
			formal[ob.Formal.Value] = ob.Formal.Pos
		}
	}
}

// falsifiers applies SCHEMA-007 to 009 and 025.
func (j *judge) falsifiers() {
	ids := map[string]Pos{}
	for i, f := range j.c.Falsifiers {
		name := fmt.Sprintf("falsification_tests.%s", f.ID.Value)
		if f.ID.Value == "" {
			name = fmt.Sprintf("falsification_tests[%d]", i)
			j.find("SCHEMA-025", orPos(f.ID.Pos, f.Pos), "%s has no id", name)
		} else if first, ok := ids[f.ID.Value]; ok {
			j.find("SCHEMA-007", f.ID.Pos, "%s: the id is taken by the test at line %d", name, first.Line)
		} else {
			ids[f.ID.Value] = f.ID.Pos
		}
		if f.Prediction.Value == "" {
			j.find("SCHEMA-008", orPos(f.Prediction.Pos, f.Pos), "%s.prediction is empty", name)
		}
		if f.IfFails.Value == "" {
			j.find("SCHEMA-009", orPos(f.IfFails.Pos, f.Pos), "%s.if_fails is empty", name)
		}
	}
}

// harnesses applies SCHEMA-010 to 012.
func (j *judge) harnesses() {
	ids := map[string]Pos{}
	for i, h := range j.c.Harnesses {
		name := fmt.Sprintf("kani_harnesses[%d] %s", i, h.ID.Value)
		if first, ok := ids[h.ID.Value]; ok {
			j.find("SCHEMA-010", orPos(h.ID.Pos, h.Pos), "%s: the id is taken by the harness at line %d", name, first.Line)
		} else {
			ids[h.ID.Value] = orPos(h.ID.Pos, h.Pos)
		}
		if h.Obligation.Value == "" {
			j.find("SCHEMA-011", orPos(h.Obligation.Pos, h.Pos), "%s names no obligation", name)
		}
		if h.Bound == nil {
			j.find("SCHEMA-012", h.Pos, "%s has no bound", name)
		}
	}
}

// extensions applies what came after the first version.
func (j *judge) extensions() {
	for i, ob := range j.c.Obligations {
		name := fmt.Sprintf("proof_obligations[%d]", i)
		typ := ob.Type.Value
		if ob.Requires.Set && typ != "postcondition" {
			j.find("SCHEMA-014", ob.Requires.Pos, "%s has requires but is no postcondition", name)
		}
		if ob.AppliesToPhase.Set && !strings.HasPrefix(typ, "loop_") {
			j.find("SCHEMA-015", ob.AppliesToPhase.Pos, "%s has applies_to_phase but is no loop_invariant or loop_variant", name)
		}
		if p := ob.ParentContract; p.Set {
			if typ != "subcontract" {
				j.find("SCHEMA-016", p.Pos, "%s has parent_contract but is no subcontract", name)
			}
			if !slices.ContainsFunc(j.c.Metadata.DependsOn, func(t Text) bool { return t.Value == p.Value }) {
				j.find("SCHEMA-017", p.Pos, "%s: parent_contract %q is not in metadata.depends_on", name, p.Value)
			}
		}
		notApplicable := ob.AppliesTo.Value == "not_applicable"
		switch {
		case notApplicable && ob.NAReason.Value == "":
			j.find("SCHEMA-021", ob.AppliesTo.Pos, "%s is not applicable but has no na_reason", name)
		case notApplicable && ob.NAOwner.Value == "":
			j.find("SCHEMA-022", ob.AppliesTo.Pos, "%s is not applicable but has no na_owner", name)
		case !notApplicable && (ob.NAReason.Set || ob.NAOwner.Set):
			j.find("SCHEMA-023", orPos(ob.NAReason.Pos, ob.NAOwner.Pos), "%s has na_reason or na_owner but applies", name)
		}
	}
}

// topLevel reports keys that look like those of the format but are not.
func (j *judge) topLevel() {
	for _, k := range j.c.Keys {
		if k.Name == "kind" {
			j.find("SCHEMA-018", k.Pos, "kind at the top level is read by nothing: put it into metadata")
			continue
		}
		if slices.Contains(topLevel, k.Name) {
			continue
		}
		for _, known := range topLevel {
			if squash(known) == squash(k.Name) {
				j.find("SCHEMA-019", k.Pos, "%s is read by nothing: did you mean %s?", k.Name, known)
			}
		}
	}
}

// squash drops what near misses differ in: case, separators, a plural s.
func squash(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, name)
	return strings.TrimSuffix(name, "s")
}

// provability wants the whole chain of a kernel contract.
func (j *judge) provability() {
	c := j.c
	if len(c.Obligations) == 0 {
		j.find("PROVABILITY-001", Pos{}, "a kernel contract needs proof_obligations")
	}
	if len(c.Falsifiers) == 0 {
		j.find("PROVABILITY-001", Pos{}, "a kernel contract needs falsification_tests")
	}
	if len(c.Harnesses) == 0 {
		j.find("PROVABILITY-001", Pos{}, "a kernel contract needs kani_harnesses")
	}
	if len(c.Falsifiers) < len(c.Obligations) {
		j.find("PROVABILITY-001", c.Obligations[0].Pos, "%d falsification tests for %d obligations: at least one each is needed", len(c.Falsifiers), len(c.Obligations))
	}
}
