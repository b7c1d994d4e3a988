package contract

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	bomb := "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
	for i := 'b'; i < 'j'; i++ {
		p := string(i - 1)
		bomb += string(i) + ": &" + string(i) + " [" + strings.Repeat("*"+p+",", 9) + "*" + p + "]\n"
	}
	for _, tc := range []struct {
		name, src string
		kind      error
		place     string
	}{
		{"empty", "", ErrOther, "c.yaml:1:1"},
		{"comment only", "# nothing\n", nil, ""},
		{"not UTF-8", "a: \xff\xfe", ErrFormat, "c.yaml: "},
		{"UTF-16", "\xff\xfea\x00", ErrFormat, "c.yaml: "},
		{"syntax", "metadata:\n  a: [1, 2\n", ErrFormat, "c.yaml:2:"},
		{"tab", "metadata:\n\tversion: 1\n", ErrFormat, "c.yaml:2:"},
		{"list", "- a\n- b\n", ErrOther, "c.yaml:1:1"},
		{"text", "just words", ErrOther, "c.yaml:1:1"},
		{"no metadata", "equations: {}\n", ErrOther, "c.yaml:1:1"},
		{"two documents", sound + "---\na: 1\n", ErrFormat, ""},
		{"alias bomb", bomb, ErrFormat, ""},
		{"alias to its own parent", "metadata: &m\n  version: *m\n", ErrFormat, ""},
		{"deep", "metadata: " + deep, ErrFormat, ""},
		{"too large", "metadata: {}\n" + strings.Repeat("#", maxBytes), ErrFormat, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Parse("c.yaml", []byte(tc.src))
			var read *ReadError
			if !errors.As(err, &read) {
				t.Fatalf("got %v, %v, want a *ReadError", c, err)
			}
			if tc.kind != nil && !errors.Is(err, tc.kind) {
				t.Errorf("%v is not %v", err, tc.kind)
			}
			if !strings.HasPrefix(err.Error(), tc.place) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q, want one line that starts with %q", err, tc.place)
			}
		})
	}
}

func TestArtefactsAreNamed(t *testing.T) {
	for _, tc := range []struct{ src, want string }{
		{"bindings: []\ntarget_crate: x\n", "binding registry"},
		{"model_id: x\nprovenance: {}\n", "publish manifest"},
		{"schema: x/external-corpora/v1\n", "external corpora"},
	} {
		_, err := Parse("c.yaml", []byte(tc.src))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want %q", tc.src, err, tc.want)
		}
		if f := ReadFinding("c.yaml", err); f.Rule != "READ-002" {
			t.Errorf("%q: rule %s", tc.src, f.Rule)
		}
	}
}

// TestVariants reads what is in use elsewhere: other names, other shapes, keys
// that nothing reads. None of it is an error of shape.
func TestVariants(t *testing.T) {
	src := `metadata:
  version: 1.0
  created: 2026-01-01
  description: >
    folded
    text
  references: [one, 2, 3.5]
  registry: true
  changelog:
    - {version: 1.0.0, note: x}
  lessons_learned: [a]
equations:
  - id: first
    formula: "∀x ∈ ℝⁿ"
  - formula: f
proof_obligations:
  - statement: s
    verification: v
    tolerance: 1e-6
  - {type: frame, property: p, tolerance: 0x10}
falsification_tests:
  - {id: A, description: d, expected: e, command: cargo test, fails_if: f, binds_to: [x], evidence: {status: DONE}}
  - id: B
    prediction: p
    if_fails: f
    test: proptest with random input
    algorithm_evidence: [a, b]
  - {id: C, prediction: p, if_fails: f, test: }
kani_harnesses:
  - {id: K, obligation: first, bound: 4, strategy: bounded_int}
gates: []
`
	c := parse(t, src)
	if len(c.Problems()) > 0 {
		t.Fatalf("problems: %v", c.Problems())
	}
	if got := c.Metadata.Version.Value; got != "1.0" {
		t.Errorf("version %q", got)
	}
	if k, stated := c.Kind(); k != "registry" || !stated {
		t.Errorf("kind %q, %v", k, stated)
	}
	if got := []string{c.Equations[0].Name, c.Equations[1].Name}; !slices.Equal(got, []string{"first", "equation_1"}) {
		t.Errorf("equations %q", got)
	}
	if got := c.Obligations[0]; got.Property.Value != "s" || got.Formal.Value != "v" || got.Tolerance.Value != 1e-6 {
		t.Errorf("obligation %+v", got)
	}
	if got := c.Obligations[1].Tolerance.Value; got != 16 {
		t.Errorf("0x10 is %v", got)
	}
	if f := c.Falsifiers[0]; f.Rule.Value != "d" || f.Prediction.Value != "e" || f.Prose.Value != "cargo test" || f.IfFails.Value != "f" || f.Evidence.Set {
		t.Errorf("falsifier %+v", f)
	}
	if f := c.Falsifiers[1]; f.Test != nil || f.Prose.Value == "" {
		t.Errorf("falsifier %+v", f)
	}
	var ignored []string
	for _, k := range c.Ignored {
		ignored = append(ignored, k.Path)
	}
	want := []string{"gates", "metadata.lessons_learned", "falsification_tests[0].binds_to", "falsification_tests[1].algorithm_evidence"}
	if !slices.Equal(ignored, want) {
		t.Errorf("ignored %q, want %q", ignored, want)
	}
}

func TestFirstRulesWantTheirKeys(t *testing.T) {
	for _, tc := range []struct{ name, old, new string }{
		{"no equations", "equations:\n  rmsnorm:\n    formula: \"y = x / sqrt(mean(x²) + ε)\"\n", ""},
		{"no rule", "    rule: rmsnorm\n", ""},
		{"no description", "  description: \"Root mean square normalisation\"\n", ""},
		{"no obligation type", "    type: invariant\n", ""},
		{"no gate name", "  name: gate\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs := Validate(parse(t, change(t, sound, tc.old, tc.new)), First)
			if !slices.Contains(ruleIDs(fs), "READ-006") {
				t.Errorf("found %v, want READ-006", ruleIDs(fs))
			}
		})
	}
	late := change(t, sound, "type: invariant", "type: frame")
	if fs := Validate(parse(t, late), First); !slices.Contains(ruleIDs(fs), "READ-004") {
		t.Errorf("a type of the newer version passes the first rules: %v", ruleIDs(fs))
	}
	if fs := Validate(parse(t, late), Current); len(fs) > 0 {
		t.Errorf("current rules: %v", fs)
	}
}

func TestParseNumber(t *testing.T) {
	for _, tc := range []struct {
		text string
		want float64
		ok   bool
	}{
		{"1e-6", 1e-6, true}, {"1e3", 1000, true}, {"010", 10, true}, {"0x1F", 31, true}, {"0o17", 15, true},
		{".5", 0.5, true}, {"-3", -3, true}, {"+1.5e+2", 150, true}, {".inf", math.Inf(1), true}, {"-.INF", math.Inf(-1), true},
		{"1_000", 0, false}, {"1:20", 0, false}, {"0b1", 0, false}, {"1e", 0, false}, {"", 0, false}, {"NaN", 0, false}, {"0x1p3", 0, false},
	} {
		got, ok := parseNumber(tc.text)
		if ok != tc.ok || got != tc.want {
			t.Errorf("%q is %v, %v; want %v, %v", tc.text, got, ok, tc.want, tc.ok)
		}
	}
	if v, ok := parseNumber(".nan"); !ok || !math.IsNaN(v) {
		t.Errorf(".nan is %v, %v", v, ok)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b-v1.yaml", "a-v1.yml", "binding.yaml", ".hidden.yaml", "my-playbook-1.yaml", "notes.txt", "sub/c.yaml", "legacy/old.yaml", ".git/x.yaml"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("x: 1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, skipped, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	rel := func(ps []string) (out []string) {
		for _, p := range ps {
			r, _ := filepath.Rel(dir, p)
			out = append(out, r)
		}
		return out
	}
	if got, want := rel(files), []string{"a-v1.yml", "b-v1.yaml", "sub/c.yaml"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if got, want := rel(skipped), []string{".hidden.yaml", "binding.yaml", "my-playbook-1.yaml"}; !slices.Equal(got, want) {
		t.Errorf("skipped %q, want %q", got, want)
	}
	if _, _, err := Files(t.TempDir()); !errors.Is(err, ErrNone) {
		t.Errorf("an empty folder gives %v, want ErrNone", err)
	}
}
