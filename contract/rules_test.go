package contract

import (
	"slices"
	"strings"
	"testing"
)

// sound is a contract that no rule objects to.
const sound = `metadata:
  version: "1.2.3"
  description: "Root mean square normalisation"
  kind: kernel
  references: ["Zhang & Sennrich 2019"]
  depends_on: [base-v1]
equations:
  rmsnorm:
    formula: "y = x / sqrt(mean(x²) + ε)"
proof_obligations:
  - id: OB-1
    type: invariant
    property: "the output is finite"
    formal: "|y| < ∞"
    tolerance: 1e-6
falsification_tests:
  - id: T-1
    rule: rmsnorm
    prediction: "finite for finite input"
    if_fails: "division by zero"
    test:
      level: functional
      run: [apr, version, --json]
      expect:
        - {on: exit, is: "== 0"}
        - {on: json, path: cpu.threads, is: ">= 1"}
kani_harnesses:
  - id: K-1
    obligation: OB-1
    bound: 8
    strategy: exhaustive
qa_gate:
  id: Q-1
  name: gate
`

// change replaces text in a contract; the text must be there.
func change(t testing.TB, src, old, new string) string {
	t.Helper()
	if !strings.Contains(src, old) {
		t.Fatalf("the contract has no %q", old)
	}
	return strings.Replace(src, old, new, 1)
}

func parse(t testing.TB, src string) *Contract {
	t.Helper()
	c, err := Parse("c.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ruleIDs(fs []Finding) []string {
	var ids []string
	for _, f := range fs {
		ids = append(ids, f.Rule)
	}
	return ids
}

func TestSoundContractHasNoFindings(t *testing.T) {
	for _, rules := range []Ruleset{Current, First} {
		if fs := Validate(parse(t, sound), rules); len(fs) > 0 {
			t.Errorf("ruleset %d: %v", rules, fs)
		}
	}
}

// ruleCases break the sound contract in one way each; place is the line:column
// that the finding must name.
var ruleCases = []struct {
	rule     string
	old, new string
	place    string
}{
	{"READ-003", "tolerance: 1e-6", "tolerance: small", "c.yaml:15:16"},
	{"READ-004", "type: invariant", "type: invariance", "c.yaml:12:11"},
	{"READ-005", "  kind: kernel\n", "  kind: kernel\n  ticket: 7\n", "c.yaml:5:3"},
	{"KIND-001", "  kind: kernel\n", "", "c.yaml:1:1"},
	{"SCHEMA-001", `references: ["Zhang & Sennrich 2019"]`, "references: []", "c.yaml:1:1"},
	{"SCHEMA-002", `version: "1.2.3"`, `version: ""`, "c.yaml:2:12"},
	{"SCHEMA-003", "  rmsnorm:\n    formula: \"y = x / sqrt(mean(x²) + ε)\"\n", "  {}\n", "c.yaml:1:1"},
	{"SCHEMA-004", `formula: "y = x / sqrt(mean(x²) + ε)"`, `formula: ""`, "c.yaml:9:14"},
	{"SCHEMA-005", `property: "the output is finite"`, `property: ""`, "c.yaml:13:15"},
	{"SCHEMA-006", "    tolerance: 1e-6\n", "  - {type: bound, property: q, formal: \"|y| < ∞\"}\n", "c.yaml:15:40"},
	{"SCHEMA-007", "  - id: T-1\n", "  - {id: T-1, prediction: p, if_fails: f}\n  - id: T-1\n", "c.yaml:18:9"},
	{"SCHEMA-008", "    prediction: \"finite for finite input\"\n", "", "c.yaml:17:5"},
	{"SCHEMA-009", "    if_fails: \"division by zero\"\n", "", "c.yaml:17:5"},
	{"SCHEMA-010", "  - id: K-1\n", "  - {id: K-1, obligation: OB-1, bound: 2}\n  - id: K-1\n", "c.yaml:29:9"},
	{"SCHEMA-011", "    obligation: OB-1\n", "", "c.yaml:28:5"},
	{"SCHEMA-012", "    bound: 8\n", "", "c.yaml:28:5"},
	{"SCHEMA-013", "qa_gate:\n  id: Q-1\n  name: gate\n", "", "c.yaml:1:1"},
	{"SCHEMA-014", "type: invariant", "type: invariant\n    requires: x", "c.yaml:13:15"},
	{"SCHEMA-015", "type: invariant", "type: invariant\n    applies_to_phase: x", "c.yaml:13:23"},
	{"SCHEMA-016", "type: invariant", "type: invariant\n    parent_contract: base-v1", "c.yaml:13:22"},
	{"SCHEMA-017", "type: invariant", "type: subcontract\n    parent_contract: other-v1", "c.yaml:13:22"},
	{"SCHEMA-018", "qa_gate:", "kind: kernel\nqa_gate:", "c.yaml:32:1"},
	{"SCHEMA-019", "qa_gate:", "QA-gates: {}\nqa_gate:", "c.yaml:32:1"},
	{"SCHEMA-020", "  kind: kernel\n", "  kind: kernel\n  kind: kernel\n", "c.yaml:5:3"},
	{"SCHEMA-021", "type: invariant", "type: invariant\n    applies_to: not_applicable", "c.yaml:13:17"},
	{"SCHEMA-022", "type: invariant", "type: invariant\n    applies_to: not_applicable\n    na_reason: r", "c.yaml:13:17"},
	{"SCHEMA-023", "type: invariant", "type: invariant\n    na_owner: me", "c.yaml:13:15"},
	{"SCHEMA-024", `version: "1.2.3"`, `version: "one"`, "c.yaml:2:12"},
	{"SCHEMA-025", "  - id: T-1\n    rule", "  - rule", "c.yaml:17:5"},
	{"PROVABILITY-001", "  - id: OB-1\n", "  - {type: bound, property: q}\n  - id: OB-1\n", "c.yaml:11:5"},
	{"TEST-002", "      level: functional\n", "      level: functional\n      expects: []\n", "c.yaml:23:7"},
	{"TEST-003", `is: "== 0"`, `is: "0"`, "c.yaml:25:11"},
}

func TestRules(t *testing.T) {
	for _, tc := range ruleCases {
		t.Run(tc.rule, func(t *testing.T) {
			fs := Validate(parse(t, change(t, sound, tc.old, tc.new)), Current)
			i := slices.IndexFunc(fs, func(f Finding) bool { return f.Rule == tc.rule })
			if i < 0 {
				t.Fatalf("found %v, want %s", ruleIDs(fs), tc.rule)
			}
			if got := fs[i].Place(); got != tc.place {
				t.Errorf("found at %s, want %s: %s", got, tc.place, fs[i].Message)
			}
			def, _ := FindRule(tc.rule)
			if fs[i].Severity != def.Severity {
				t.Errorf("severity %v, want %v", fs[i].Severity, def.Severity)
			}
		})
	}
}

// TestEveryRuleHasACase keeps the catalogue and its tests together.
func TestEveryRuleHasACase(t *testing.T) {
	tested := map[string]bool{"READ-001": true, "READ-002": true, "READ-006": true} // in other tests
	for _, tc := range ruleCases {
		tested[tc.rule] = true
	}
	seen := map[string]bool{}
	for _, r := range Rules {
		if seen[r.ID] {
			t.Errorf("%s stands twice in the catalogue", r.ID)
		}
		seen[r.ID] = true
		family, _, _ := strings.Cut(r.ID, "-")
		validate := slices.Contains([]string{"READ", "KIND", "SCHEMA", "PROVABILITY"}, family)
		if validate && !tested[r.ID] {
			t.Errorf("%s has no case", r.ID)
		}
		if r.Title == "" || r.Why == "" {
			t.Errorf("%s has no explanation", r.ID)
		}
	}
}

func TestProvabilityOnlyForKernels(t *testing.T) {
	src := change(t, change(t, sound, "kind: kernel", "kind: schema"), "kani_harnesses:\n  - id: K-1\n    obligation: OB-1\n    bound: 8\n    strategy: exhaustive\n", "")
	if fs := Validate(parse(t, src), Current); len(fs) > 0 {
		t.Errorf("a schema contract without harnesses: %v", fs)
	}
	if fs := Validate(parse(t, change(t, src, "kind: schema", "kind: kernel")), Current); !slices.Contains(ruleIDs(fs), "PROVABILITY-001") {
		t.Errorf("a kernel contract without harnesses passes: %v", fs)
	}
}
