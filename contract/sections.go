package contract

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// Closed vocabularies of the format. The first twelve obligation types are
// those of its first version.
var (
	obligationTypes = []string{
		"invariant", "equivalence", "bound", "monotonicity", "idempotency", "linearity", "symmetry",
		"associativity", "conservation", "ordering", "completeness", "soundness",
		"involution", "determinism", "roundtrip", "state_machine", "classification", "independence",
		"termination", "safety", "liveness", "precondition", "postcondition", "frame", "loop_invariant",
		"loop_variant", "old_state", "subcontract",
	}
	strategies   = []string{"exhaustive", "stub_float", "compositional", "bounded_int"}
	leanStatuses = []string{"proved", "sorry", "wip", "not-applicable"}
	kinds        = []string{
		"kernel", "registry", "model-family", "model-family-variant", "tokenizer", "training-loop",
		"pretraining-corpus", "training-precondition-gate", "corpus-assembly", "pattern", "schema",
		"beat-benchmark", "kaizen", "competitive-parity",
	}
	levels = []string{"basic", "standard", "strict", "proven"}
)

// firstTypes is the number of obligation types in the first version.
const firstTypes = 12

// metadata reads the block that every contract has.
func (r *reader) metadata(n *node) {
	const path = "metadata"
	md := &r.c.Metadata
	m := r.mapping(n, path)
	if m == nil {
		return
	}
	r.keys(m, path, []string{"version", "description", "created", "author", "references", "depends_on", "kind", "registry",
		"enforcement_level", "locked_level", "competitor", "demand_score", "intake_status", "status", "changelog"})
	md.Version = r.text(m, path, "version")
	md.Description = r.text(m, path, "description")
	md.Kind = r.word(m, path, "kind", kinds)
	md.Registry = r.text(m, path, "registry")
	r.word(m, path, "enforcement_level", levels)
	md.Status = r.text(m, path, "status")
	md.Created = r.text(m, path, "created")
	md.References = r.texts(m, path, "references")
	md.DependsOn = r.texts(m, path, "depends_on")
	md.Changelog = r.prose(m, path, "changelog")
}

// equations reads the mapping of name to equation, or the newer list, where
// the id is the name.
func (r *reader) equations(n *node) {
	const path = "equations"
	if isNull(n) {
		return
	}
	add := func(name string, pos Pos, n *node, path string) {
		m := r.mapping(n, path)
		if m == nil {
			return
		}
		r.keys(m, path, []string{"id", "formula", "domain", "codomain", "invariants", "preconditions", "postconditions",
			"lean_theorem", "float_tolerance", "assumes", "guarantees"})
		r.c.Equations = append(r.c.Equations, Equation{
			Name: name, Pos: pos,
			Formula:    r.text(m, path, "formula"),
			Domain:     r.text(m, path, "domain"),
			Codomain:   r.text(m, path, "codomain"),
			Invariants: r.prose(m, path, "invariants"),
		})
	}
	switch n.Kind {
	case yaml.MappingNode:
		r.keys(n, path, nil)
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i].Value
			add(name, at(n.Content[i]), n.Content[i+1], join(path, name))
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			name := fmt.Sprintf("equation_%d", i)
			if id := member(item, "id"); id != nil && id.Value != "" {
				name = id.Value
			}
			add(name, at(item), item, fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		r.shape(n, path, "a mapping or a list")
	}
}

// obligation reads one obligation; statement and verification are older names of
// property and formal.
func (r *reader) obligation(n *node, path string) {
	m := r.mapping(n, path)
	if m == nil {
		return
	}
	r.keys(m, path, []string{"id", "type", "property", "statement", "formal", "verification", "tolerance", "applies_to", "na_reason",
		"na_owner", "lean", "requires", "applies_to_phase", "parent_contract"})
	ob := Obligation{
		Pos:            at(n),
		ID:             r.text(m, path, "id"),
		Type:           r.word(m, path, "type", obligationTypes),
		Property:       r.text(m, path, "property", "statement"),
		Formal:         r.text(m, path, "formal", "verification"),
		Tolerance:      r.number(m, path, "tolerance"),
		AppliesTo:      r.text(m, path, "applies_to"),
		Requires:       r.text(m, path, "requires"),
		AppliesToPhase: r.text(m, path, "applies_to_phase"),
		ParentContract: r.text(m, path, "parent_contract"),
		NAReason:       r.text(m, path, "na_reason"),
		NAOwner:        r.text(m, path, "na_owner"),
	}
	if l := r.mapping(member(m, "lean"), join(path, "lean")); l != nil {
		r.keys(l, join(path, "lean"), []string{"theorem", "module", "status", "depends_on", "mathlib_imports", "notes"})
		ob.Lean = &Lean{
			Theorem: r.text(l, join(path, "lean"), "theorem"),
			Status:  r.word(l, join(path, "lean"), "status", leanStatuses),
		}
	}
	r.c.Obligations = append(r.c.Obligations, ob)
}

// kernelParts checks the shape of the sections that only generators read.
func (r *reader) kernelParts(root *node) {
	if m := r.mapping(member(root, "kernel_structure"), "kernel_structure"); m != nil {
		r.keys(m, "kernel_structure", []string{"phases"})
		for i, n := range r.list(member(m, "phases"), "kernel_structure.phases") {
			path := fmt.Sprintf("kernel_structure.phases[%d]", i)
			if p := r.mapping(n, path); p != nil {
				r.keys(p, path, []string{"name", "description", "invariant"})
			}
		}
	}
	if m := r.mapping(member(root, "simd_dispatch"), "simd_dispatch"); m != nil {
		r.keys(m, "simd_dispatch", nil)
		for i := 1; i < len(m.Content); i += 2 {
			path := join("simd_dispatch", m.Content[i-1].Value)
			if isa := r.mapping(m.Content[i], path); isa != nil {
				r.keys(isa, path, nil)
			}
		}
	}
	if m := r.mapping(member(root, "enforcement"), "enforcement"); m != nil {
		r.keys(m, "enforcement", nil)
		for i := 1; i < len(m.Content); i += 2 {
			path := join("enforcement", m.Content[i-1].Value)
			if e := r.mapping(m.Content[i], path); e != nil {
				r.keys(e, path, []string{"description", "check", "severity", "reference"})
			}
		}
	}
}

// falsifier reads one test under all names that its keys have had. A test that is
// a mapping can be run, one that is text cannot.
func (r *reader) falsifier(n *node, path string) {
	m := r.mapping(n, path)
	if m == nil {
		return
	}
	r.keys(m, path, []string{"id", "name", "rule", "description", "prediction", "expected", "test", "command", "if_fails", "fails_if",
		"test_harness", "status", "evidence"})
	f := Falsifier{
		Pos:        at(n),
		ID:         r.text(m, path, "id"),
		Rule:       r.text(m, path, "rule", "description"),
		Prediction: r.text(m, path, "prediction", "expected"),
		IfFails:    r.text(m, path, "if_fails", "fails_if"),
		Status:     r.text(m, path, "status"),
		node:       m,
	}
	// Elsewhere evidence is a mapping or a list that people fill in by hand.
	if e := member(m, "evidence"); e != nil && e.Kind == yaml.ScalarNode {
		f.Evidence = r.text(m, path, "evidence")
	}
	switch t := member(m, "test"); {
	case t != nil && t.Kind == yaml.MappingNode:
		f.Test = r.test(t, join(path, "test"))
	default:
		f.Prose = r.text(m, path, "test", "command")
	}
	r.c.Falsifiers = append(r.c.Falsifiers, f)
}

// harness reads one Kani harness. pv does not run Kani: a harness is a reference to
// follow and no evidence.
func (r *reader) harness(n *node, path string) {
	m := r.mapping(n, path)
	if m == nil {
		return
	}
	r.keys(m, path, []string{"id", "obligation", "property", "bound", "strategy", "solver", "harness", "actually_verified"})
	r.c.Harnesses = append(r.c.Harnesses, Harness{
		Pos:        at(n),
		ID:         r.text(m, path, "id"),
		Obligation: r.text(m, path, "obligation"),
		Bound:      r.number(m, path, "bound"),
		Strategy:   r.word(m, path, "strategy", strategies),
	})
}

// gate reads the quality gate, a list of names.
func (r *reader) gate(n *node) {
	const path = "qa_gate"
	m := r.mapping(n, path)
	if m == nil {
		return
	}
	r.keys(m, path, []string{"id", "name", "description", "checks", "pass_criteria", "falsification"})
	r.c.Gate = &QAGate{
		Pos:    at(m),
		ID:     r.text(m, path, "id"),
		Name:   r.text(m, path, "name"),
		Checks: r.prose(m, path, "checks"),
	}
}

// summaryKeys are the counts of verification_summary; those of falsifiers are
// written by pv.
var summaryKeys = []string{"total_obligations", "l2_property_tested", "l3_kani_proved", "l4_lean_proved", "l4_sorry_count",
	"l4_not_applicable", "falsifiers"}

// summary reads the contract's own counts, to be compared with the true ones.
func (r *reader) summary(n *node) {
	const path = "verification_summary"
	m := r.mapping(n, path)
	if m == nil {
		return
	}
	r.keys(m, path, summaryKeys)
	s := &Summary{Pos: at(m), Counts: map[string]Number{}, node: m}
	for _, name := range summaryKeys[:6] {
		if v := r.number(m, path, name); v != nil {
			s.Counts[name] = *v
		}
	}
	if f := r.mapping(member(m, "falsifiers"), path+".falsifiers"); f != nil {
		r.keys(f, path+".falsifiers", falsifierCounts)
		for _, name := range falsifierCounts {
			if v := r.number(f, path+".falsifiers", name); v != nil {
				s.Counts["falsifiers."+name] = *v
			}
		}
	}
	r.c.Summary = s
}
