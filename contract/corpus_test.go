package contract

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/corpus.tsv")

// corpusEnv names the folder of a checkout of the public repository
// paiml/provable-contracts at commit 7871d8d6. Its files are not ours and are
// not committed; testdata/corpus.tsv holds verdicts alone.
const corpusEnv = "PV_CORPUS"

// theirs is what the reference tool of that commit says: it reads 92 files, with
// one warning, and cannot read these.
var unreadable = map[string]string{
	"contracts/aprender/binding.yaml":                  "no metadata",
	"contracts/aprender/kernel-fusion-v1.yaml":         "no equations",
	"contracts/aprender/layer-parity-v1.yaml":          "no equations",
	"contracts/aprender/quantized-dot-product-v1.yaml": "no equations",
	"contracts/aprender/tensor-layout-v1.yaml":         "no equations",
}

const theirWarning = "contracts/preprocessing-normalization-v1.yaml"

func corpusFiles(t testing.TB) (root string, files []string) {
	root = os.Getenv(corpusEnv)
	if root == "" {
		t.Skipf("%s is not set: it names a checkout of paiml/provable-contracts at 7871d8d6", corpusEnv)
	}
	for _, pattern := range []string{"contracts/*.yaml", "contracts/aprender/*.yaml", "crates/provable-contracts-cli/tests/fixtures/*.yaml"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	return root, files
}

// verdict is unreadable, or the numbers of errors and warnings.
func verdict(path string, rules Ruleset) string {
	c, err := Load(path)
	if err != nil {
		return "unreadable"
	}
	fs := Validate(c, rules)
	if rules == First {
		// What the first version's reader refuses is not judged further.
		for _, f := range fs {
			if strings.HasPrefix(f.Rule, "READ-") && f.Severity == Error {
				return "unreadable"
			}
		}
	}
	errors, warnings, _ := CountFindings(fs)
	return fmt.Sprintf("%d errors, %d warnings", errors, warnings)
}

func TestCorpusVerdicts(t *testing.T) {
	root, files := corpusFiles(t)
	if len(files) != 97 {
		t.Fatalf("%d files, want 97", len(files))
	}
	var b strings.Builder
	b.WriteString("file\ttheirs\tours, first rules\tours, current rules\treason for the difference\n")
	readable, warnings := 0, 0
	for _, path := range files {
		name, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		name = filepath.ToSlash(name)
		theirs := "0 errors, 0 warnings"
		if unreadable[name] != "" {
			theirs = "unreadable"
		} else if name == theirWarning {
			theirs = "0 errors, 1 warnings"
		}
		first, now := verdict(path, First), verdict(path, Current)
		if first != theirs {
			t.Errorf("%s: %s, theirs %s", name, first, theirs)
		}
		if first != "unreadable" {
			readable++
		}
		if strings.Contains(first, "1 warnings") {
			warnings++
		}
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\n", name, theirs, first, now, reason(name, theirs, now))
	}
	if readable != 92 || warnings != 1 {
		t.Errorf("%d readable with %d warnings, want 92 with 1", readable, warnings)
	}
	const golden = "testdata/corpus.tsv"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("verdicts differ from %s; see with -update and git diff", golden)
	}
}

// reason explains where the current rules judge otherwise than the first ones.
func reason(name, theirs, now string) string {
	switch {
	case theirs == now:
		return ""
	case name == "contracts/aprender/binding.yaml":
		return ""
	case unreadable[name] != "":
		return "read tolerantly: equations may be absent from the text, the kernel rules SCHEMA-003 and PROVABILITY-001 then say what is missing"
	case strings.HasPrefix(name, "crates/"):
		return "PROVABILITY-001: fewer tests than obligations, or no harness; the rule came after the first version"
	}
	return "unexplained"
}

func TestCorpusReasons(t *testing.T) {
	data, err := os.ReadFile("testdata/corpus.tsv")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != 98 {
		t.Errorf("%d lines, want a heading and 97 files", len(lines))
	}
	for _, l := range lines[1:] {
		cols := strings.Split(l, "\t")
		if len(cols) != 5 {
			t.Fatalf("%q has %d columns", l, len(cols))
		}
		if cols[1] != cols[2] {
			t.Errorf("%s: ours differs from theirs under the first rules", cols[0])
		}
		if cols[1] != cols[3] && cols[4] == "" || cols[4] == "unexplained" {
			t.Errorf("%s: the difference has no reason", cols[0])
		}
	}
}

// TestCorpusMutations cuts and damages every file of the corpus: whatever comes
// of it, nothing may panic, and findings must have places inside the file.
func TestCorpusMutations(t *testing.T) {
	_, files := corpusFiles(t)
	for i, path := range files {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 40 {
			exercise(t, mutate(src, uint64(i*40+n)))
		}
	}
}
