package contract

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var fixedTime = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// TestEdits compares the text after an edit with the text that a person would
// have written: nothing else may move.
func TestEdits(t *testing.T) {
	const head = "# héllo\nmetadata:   # about\n    version: 1.0.0   # now\n    references: [a]\n\n\nequations: {}\n"
	status := func(e *Editor) { e.SetStatus("T-1", Partial, "b-1") }
	version := func(e *Editor) { e.SetVersion("1.1.0"); e.AppendChangelog("1.1.0: x → y") }
	summary := func(e *Editor) { e.SetSummary(Tally{Total: 1, Partial: 1}) }
	for _, tc := range []struct {
		name     string
		src      string
		edit     func(*Editor)
		old, new string
	}{
		{"insert into a block", head + "falsification_tests:\n  - id: T-1 # first\n\n    # why\n    rule: r\n", status,
			"T-1 # first\n", "T-1 # first\n    status: PARTIAL_ALGORITHM_LEVEL\n    evidence: b-1\n"},
		{"insert behind an id that comes later", head + "falsification_tests:\n- rule: \"é\"\n  id: 'T-1'\n", status,
			"'T-1'\n", "'T-1'\n  status: PARTIAL_ALGORITHM_LEVEL\n  evidence: b-1\n"},
		{"insert into a flow mapping", head + "falsification_tests: [{rule: \"ü, }\", id: T-1, prediction: p}]\n", status,
			"id: T-1,", "id: T-1, status: PARTIAL_ALGORITHM_LEVEL, evidence: b-1,"},
		{"insert at the end without a line end", head + "falsification_tests:\n  - id: T-1", status,
			"- id: T-1", "- id: T-1\n    status: PARTIAL_ALGORITHM_LEVEL\n    evidence: b-1"},
		{"replace in place", head + "falsification_tests:\n  - {id: T-1, status: \"unbound\", evidence: 'none'} # é\n", status,
			"\"unbound\", evidence: 'none'", "\"PARTIAL_ALGORITHM_LEVEL\", evidence: 'b-1'"},
		{"replace after wide characters", head + "falsification_tests:\n  - {prediction: \"∀x ∈ ℝⁿ 😀\", id: T-1, status: unbound, evidence: x}\n", status,
			"status: unbound, evidence: x", "status: PARTIAL_ALGORITHM_LEVEL, evidence: b-1"},
		{"carriage returns", strings.ReplaceAll(head+"falsification_tests:\n  - id: T-1\n    rule: r\n", "\n", "\r\n"), status,
			"T-1\r\n", "T-1\r\n    status: PARTIAL_ALGORITHM_LEVEL\r\n    evidence: b-1\r\n"},
		{"byte order mark", "\ufeff" + head + "falsification_tests:\n  - id: T-1\n", status,
			"T-1\n", "T-1\n    status: PARTIAL_ALGORITHM_LEVEL\n    evidence: b-1\n"},
		{"version and a new changelog", head, version,
			"version: 1.0.0   # now\n", "version: \"1.1.0\"   # now\n    changelog:\n      - \"1.1.0: x → y\"\n"},
		{"append to a changelog", strings.Replace(head, "    references", "    changelog:\n    - \"0: first\"\n    - >\n      folded\n\n      text\n    # end\n\n    references", 1), version,
			"version: 1.0.0   # now\n    changelog:\n    - \"0: first\"\n    - >\n      folded\n\n      text\n",
			"version: \"1.1.0\"   # now\n    changelog:\n    - \"0: first\"\n    - >\n      folded\n\n      text\n    - \"1.1.0: x → y\"\n"},
		{"changelog in flow style", strings.Replace(head, "references", "changelog: [\"0\"]\n    references", 1), version,
			"version: 1.0.0   # now\n    changelog: [\"0\"]", "version: \"1.1.0\"   # now\n    changelog: [\"1.1.0: x → y\", \"0\"]"},
		{"new summary", head, summary, "equations: {}\n",
			"equations: {}\n\nverification_summary:\n  total_obligations: 0\n  falsifiers: {total: 1, discharged: 0, functional: 0, partial: 1, blocked: 0, unbound: 0, falsified: 0}\n"},
		{"summary that has counts", head + "verification_summary: # counts\n  total_obligations: 7 # seven\n  l2_property_tested: 3\n  falsifiers: {total: 9, discharged: 9, functional: 0, partial: 0, blocked: 0, unbound: 0, falsified: 0}\n", summary,
			"7 # seven\n  l2_property_tested: 3\n  falsifiers: {total: 9, discharged: 9, functional: 0, partial: 0,",
			"0 # seven\n  l2_property_tested: 3\n  falsifiers: {total: 1, discharged: 0, functional: 0, partial: 1,"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := parse(t, tc.src).Edit()
			tc.edit(e)
			after, err := e.Apply()
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(after.Source()), change(t, tc.src, tc.old, tc.new); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestEditsThatAreRefused(t *testing.T) {
	const head = "metadata: {version: 1.0.0, references: [a]}\n"
	for _, tc := range []struct {
		name, src string
		edit      func(*Editor)
	}{
		{"no such falsifier", head, func(e *Editor) { e.SetStatus("T-9", Partial, "") }},
		{"status over several lines", head + "falsification_tests:\n  - id: T-1\n    status: >\n      unbound\n", func(e *Editor) { e.SetStatus("T-1", Partial, "") }},
		{"status is a mapping", head + "falsification_tests:\n  - id: T-1\n    status: {a: b}\n", func(e *Editor) { e.SetStatus("T-1", Partial, "") }},
		{"id with an anchor", head + "falsification_tests:\n  - id: &a T-1\n", func(e *Editor) { e.SetStatus("T-1", Partial, "") }},
		{"no version", "metadata: {references: [a]}\n", func(e *Editor) { e.SetVersion("1.0.0") }},
		{"changelog is text", "metadata: {version: 1.0.0, changelog: x}\n", func(e *Editor) { e.AppendChangelog("y") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := parse(t, tc.src).Edit()
			tc.edit(e)
			if after, err := e.Apply(); !errors.Is(err, ErrEdit) {
				t.Errorf("got %v, %v, want ErrEdit", after != nil, err)
			}
		})
	}
}

func TestScaffoldIsValid(t *testing.T) {
	for _, kind := range Kinds() {
		c := parse(t, Scaffold("my-claim-v3", kind, "what: it \"promises\"", fixedTime))
		if fs := Validate(c, Current); len(fs) > 0 {
			t.Errorf("%s: %v", kind, fs)
		}
		if c.Metadata.Version.Value != "3.0.0" || c.Metadata.Description.Value != "what: it \"promises\"" {
			t.Errorf("%s: %+v", kind, c.Metadata)
		}
	}
}

// twoThousand writes 2,000 contracts of the size of ours into a folder.
func twoThousand(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 2000 {
		src := Scaffold("claim-v1", "kernel", "a claim", fixedTime) + "\n# " + strings.Repeat("words ", 100) + "\nenforcement:\n"
		for n := range 40 { // real ones have 4 to 5 KiB
			src += "  rule_" + string(rune('a'+n%26)) + string(rune('a'+n/26)) + ": {description: \"what must hold\", check: \"a check\", severity: ERROR}\n"
		}
		if err := os.WriteFile(filepath.Join(dir, "c-"+string(rune('a'+i%26))+time.Duration(i).String()+".yaml"), []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// validateAll reads and judges all contracts of a folder, on as many processors as
// Go may use.
func validateAll(t testing.TB, dir string) {
	t.Helper()
	files, _, err := Files(dir)
	if err != nil || len(files) != 2000 {
		t.Fatal(len(files), err)
	}
	for _, l := range LoadAll(files) {
		if l.Err != nil {
			t.Fatal(l.Err)
		}
		Validate(l.Contract, Current)
	}
}

func BenchmarkValidate2000(b *testing.B) {
	dir := twoThousand(b)
	for b.Loop() {
		validateAll(b, dir)
	}
}
