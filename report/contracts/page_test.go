package contracts

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/contract/falsify"
)

const claim = `metadata:
  version: "1.0.0"
  description: "A <b>claim</b> & more"
  kind: schema
  references: [a]
  changelog: ["0.9.0: first", "1.0.0: second"]
equations: {f: {formula: "a < b"}}
falsification_tests:
  - id: T-1
    rule: f
    prediction: "it prints <script>"
    if_fails: "look"
    test: {level: live, run: [echo, "<script>alert(1)</script>"], expect: [{on: stdout, contains: "<script>"}]}
  - id: T-2
    rule: f
    prediction: "it fails"
    if_fails: "look"
    test: {level: live, run: [echo, no], expect: [{on: stdout, contains: "yes"}]}
  - id: T-3
    rule: f
    prediction: "it needs more"
    if_fails: "look"
    status: DISCHARGED
    test: {level: live, requires: ["gpu:none"], run: [echo], expect: [{on: exit, is: "== 0"}]}
  - {id: T-4, prediction: prose, if_fails: f, test: prose}
`

func write(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	path := filepath.Join(root, "claim-v1.yaml")
	if err := os.WriteFile(path, []byte(claim), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := contract.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	inputs := &falsify.Inputs{Root: root, ModelDir: root}
	ledger := filepath.Join(root, "evidence")
	runner := falsify.Runner{Inputs: inputs, Evidence: ledger, Tool: "test", Now: time.Now}
	for _, id := range []string{"T-1", "T-2", "T-3"} {
		if _, _, err := runner.Run(context.Background(), c, c.Falsifier(id)); err != nil {
			t.Fatal(err)
		}
	}
	view, err := New(c, &falsify.Ledger{Roots: []string{ledger}, Inputs: inputs}, func(dir string) string { return "evidence/" + filepath.Base(dir) })
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := Write(&b, Page{Title: "Contracts", Generated: time.Now(), Contracts: []Contract{view}}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPage(t *testing.T) {
	html := write(t)
	for what, pattern := range map[string]string{
		"a status that evidence supports": `class="status discharged">DISCHARGED</span> <b>T-1</b>`,
		"a falsified claim":               `class="status falsified">FALSIFIED</span> <b>T-2</b>`,
		"a blocked claim":                 `class="status blocker_fixture_absent">BLOCKER_FIXTURE_ABSENT</span> <b>T-3</b>`,
		"a claim that is too high":        `The contract claims DISCHARGED\.`,
		"its finding":                     `STATUS-001: T-3: claims DISCHARGED`,
		"prose":                           `There is no test that can be run`,
		"what is missing":                 `missing gpu:none`,
		"a link to the evidence":          `href="evidence/\d{8}T`,
		"predictions":                     `<th>predicted<th>observed`,
		"the tally":                       `1 of 4 discharged, 1 blocked, 1 unbound, 1 falsified; 3 of 4 can be run`,
		"the history, newest first":       `(?s)1\.0\.0: second.*0\.9\.0: first`,
		"the description, escaped":        `A &lt;b&gt;claim&lt;/b&gt; &amp; more`,
		"a viewport for phones":           `name="viewport"`,
	} {
		if !regexp.MustCompile(pattern).MatchString(html) {
			t.Errorf("the page has no %s (%s)", what, pattern)
		}
	}
	for what, pattern := range map[string]string{
		"scripts":                    `<script`,
		"references to other places": `(src|href)="(https?:)?//|@import|<link|url\(`,
		"values that are missing":    `<no value>|%!`,
	} {
		if found := regexp.MustCompile(pattern).FindString(html); found != "" {
			t.Errorf("the page has %s: %s", what, found)
		}
	}
}
