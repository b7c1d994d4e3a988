package contract

import (
	"slices"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	for _, tc := range []struct {
		name, old, new string
		bump           Bump
		what           string
		path           string
	}{
		{"comment", "metadata:\n", "metadata: # words\n", None, "", ""},
		{"layout", "  - id: K-1\n    obligation: OB-1\n", "  - obligation: 'OB-1'\n    id: \"K-1\"\n    # moved\n", None, "", ""},
		{"description", "Root mean square", "RMS", Patch, "reworded", "metadata.description"},
		{"prediction", "finite for finite input", "finite", Patch, "reworded", "falsification_tests.T-1.prediction"},
		{"reference", "[\"Zhang & Sennrich 2019\"]", "[a, b]", Patch, "reworded", "metadata.references"},
		{"status raised", "  - id: T-1\n", "  - id: T-1\n    status: FUNCTIONAL\n", Minor, "raised", "falsification_tests.T-1.status"},
		{"equation added", "equations:\n", "equations:\n  other: {formula: x}\n", Minor, "added", "equations.other"},
		{"test added", "falsification_tests:\n", "falsification_tests:\n  - {id: T-2, prediction: p, if_fails: f}\n", Minor, "added", "falsification_tests.T-2"},
		{"dependency added", "[base-v1]", "[base-v1, more-v1]", Minor, "added", "metadata.depends_on.more-v1"},
		{"dependency removed", "[base-v1]", "[]", Major, "removed", "metadata.depends_on.base-v1"},
		{"formula changed", "mean(x²) + ε", "mean(x²)", Major, "changed", "equations.rmsnorm.formula"},
		{"equation renamed", "  rmsnorm:\n", "  norm:\n", Major, "removed", "equations.rmsnorm"},
		{"tolerance tightened", "tolerance: 1e-6", "tolerance: 1e-7", Major, "tightened", "proof_obligations.OB-1.tolerance"},
		{"tolerance loosened", "tolerance: 1e-6", "tolerance: 1e-5", Major, "loosened", "proof_obligations.OB-1.tolerance"},
		{"threshold tightened", ">= 1\"", ">= 2\"", Major, "tightened", "falsification_tests.T-1.test.steps[0].expect(json cpu.threads is)"},
		{"threshold loosened", ">= 1\"", ">= 0\"", Major, "loosened", "falsification_tests.T-1.test.steps[0].expect(json cpu.threads is)"},
		{"comparison changed", ">= 1\"", "<= 1\"", Major, "changed", "falsification_tests.T-1.test.steps[0].expect(json cpu.threads is)"},
		{"expectation removed", "        - {on: json, path: cpu.threads, is: \">= 1\"}\n", "", Major, "removed", "falsification_tests.T-1.test.steps[0].expect(json cpu.threads is)"},
		{"expectation added", "        - {on: exit, is: \"== 0\"}\n", "        - {on: exit, is: \"== 0\"}\n        - {on: stderr, equals: \"\"}\n", Major, "tightened", "falsification_tests.T-1.test.steps[0].expect(stderr equals)"},
		{"command changed", "--json]", "--jsn]", Major, "changed", "falsification_tests.T-1.test.steps[0].command"},
		{"level changed", "level: functional", "level: live", Major, "changed", "falsification_tests.T-1.test.level"},
		{"requirement added", "level: functional", "level: functional\n      requires: [\"gpu:cuda\"]", Major, "tightened", "falsification_tests.T-1.test.requires"},
		{"harness bound", "bound: 8", "bound: 4", Major, "changed", "kani_harnesses.K-1.bound"},
		{"gate removed", "qa_gate:\n  id: Q-1\n  name: gate\n", "", Patch, "reworded", "qa_gate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			old, new := parse(t, sound), parse(t, change(t, sound, tc.old, tc.new))
			d := Diff(old, new)
			if d.Required != tc.bump {
				t.Errorf("requires %s, want %s: %v", d.Required, tc.bump, d.Changes)
			}
			if tc.bump == None {
				return
			}
			if !slices.ContainsFunc(d.Changes, func(c Change) bool { return c.What == tc.what && c.Path == tc.path && c.Bump == tc.bump }) {
				t.Errorf("changes %v, want %s %s", d.Changes, tc.what, tc.path)
			}
			if d.Enough() {
				t.Error("the version did not rise, yet that is enough")
			}
		})
	}
}

func TestDiffJudgesTheVersion(t *testing.T) {
	old := parse(t, sound)
	for _, tc := range []struct {
		version string
		enough  bool
	}{{"1.2.3", false}, {"1.2.4", false}, {"1.3.0", true}, {"2.0.0", true}, {"1.2.2", false}, {"1.3", true}, {"one", false}, {"1.3.0-rc1", false}} {
		src := change(t, sound, `"1.2.3"`, `"`+tc.version+`"`)
		d := Diff(old, parse(t, change(t, src, "equations:\n", "equations:\n  other: {formula: x}\n")))
		if d.Required != Minor || d.Enough() != tc.enough {
			t.Errorf("%s: required %s, enough %v, want %v (%s)", tc.version, d.Required, d.Enough(), tc.enough, d.Problem)
		}
	}
}

func TestNextVersion(t *testing.T) {
	for _, tc := range []struct {
		version string
		bump    Bump
		want    string
	}{{"1.2.3", Patch, "1.2.4"}, {"1.2.3", Minor, "1.3.0"}, {"1.2.3", Major, "2.0.0"}, {"1.2.3", None, "1.2.3"}, {"1.9.9", Patch, "1.9.10"}, {"1.0", Minor, "1.1.0"}} {
		if got, err := NextVersion(tc.version, tc.bump); got != tc.want || err != nil {
			t.Errorf("%s %s: %s, %v, want %s", tc.version, tc.bump, got, err, tc.want)
		}
	}
	for _, bad := range []string{"", "v1.0.0", "1.0.0-rc1", "1.0.0+x", "1.0.0.0", "99999999999999999999.0.0"} {
		if got, err := NextVersion(bad, Minor); err == nil {
			t.Errorf("%q gives %s", bad, got)
		}
	}
}

func TestGraph(t *testing.T) {
	make := func(stem string, on ...string) *Contract {
		c := parse(t, "metadata: {version: 1.0.0, references: [a], depends_on: ["+strings.Join(on, ", ")+"]}\n")
		c.Stem = stem
		return c
	}
	g := NewGraph([]*Contract{make("top", "mid", "base"), make("mid", "base"), make("base"), make("x", "y"), make("y", "x"), make("self", "self"), make("lost", "gone")})
	if len(g.Circles) != 2 || !slices.Equal(g.Circles[0], []string{"self"}) && !slices.Equal(g.Circles[1], []string{"self"}) {
		t.Errorf("circles %v", g.Circles)
	}
	at := func(stem string) int { return slices.Index(g.Order, stem) }
	if !(at("base") < at("mid") && at("mid") < at("top")) || at("base") < 0 || at("x") >= 0 {
		t.Errorf("order %v", g.Order)
	}
	var rules []string
	for _, f := range g.Findings() {
		rules = append(rules, f.Rule)
	}
	slices.Sort(rules)
	if !slices.Equal(rules, []string{"DEPEND-001", "DEPEND-002", "DEPEND-002"}) {
		t.Errorf("findings %v", g.Findings())
	}
	twice := NewGraph([]*Contract{make("a"), make("a")})
	if fs := twice.Findings(); len(fs) != 1 || fs[0].Rule != "STEM-001" {
		t.Errorf("findings %v", fs)
	}
}

func TestAudit(t *testing.T) {
	for _, tc := range []struct{ rule, old, new string }{
		{"AUDIT-002", "    obligation: OB-1\n", ""},
		{"AUDIT-004", "obligation: OB-1\n    bound", "obligation: OB-9\n    bound"},
		{"AUDIT-005", "rule: rmsnorm", "rule: something"},
		{"AUDIT-003", sound[strings.Index(sound, "proof_obligations"):strings.Index(sound, "falsification_tests")], ""},
		{"AUDIT-001", sound[strings.Index(sound, "falsification_tests"):strings.Index(sound, "kani_harnesses")], ""},
		{"TEST-001", sound[strings.Index(sound, "    test:\n"):strings.Index(sound, "kani_harnesses")], "    test: proptest\n"},
	} {
		if got := ruleIDs(Audit(parse(t, change(t, sound, tc.old, tc.new)), nil)); !slices.Contains(got, tc.rule) {
			t.Errorf("%s: found %v", tc.rule, got)
		}
	}
	if got := Audit(parse(t, sound), nil); len(got) > 0 {
		t.Errorf("sound: %v", got)
	}
	for status, want := range map[string][]string{"implemented": nil, "partial": {"BIND-002"}, "not_implemented": {"BIND-003"}, "": {"BIND-003"}} {
		r := &Bindings{[]Binding{{"c.yaml", "rmsnorm", "f", status}}}
		if got := ruleIDs(Audit(parse(t, sound), r)); !slices.Equal(got, want) {
			t.Errorf("binding %q: %v, want %v", status, got, want)
		}
	}
	if got := ruleIDs(Audit(parse(t, sound), &Bindings{})); !slices.Equal(got, []string{"BIND-001"}) {
		t.Errorf("no binding: %v", got)
	}
}
