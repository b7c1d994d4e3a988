package contract

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Kinds are the kinds of contracts that the format knows.
func Kinds() []string { return slices.Clone(kinds) }

var majorSuffix = regexp.MustCompile(`-v(\d+)$`)

// Scaffold is the text of a new contract. It is valid, and its one falsifier
// fails until someone writes the real prediction: a test that passes before it
// was thought about shows nothing.
func Scaffold(name, kind, description string, now time.Time) string {
	major := "1"
	if m := majorSuffix.FindStringSubmatch(name); m != nil {
		major = m[1]
	}
	id := strings.ToUpper(strings.SplitN(name, "-", 2)[0])
	text := fmt.Sprintf(`# %s

metadata:
  version: "%s.0.0"
  created: "%s"
  description: %s
  kind: %s
  references:
    - "what the claims come from: a paper, a specification, a page of docs/"

equations:
  claim:
    formula: "what holds, as a formula"
    domain: "of what it holds"

proof_obligations:
  - id: claim-holds
    type: invariant
    property: "what must be shown, in words"

falsification_tests:
  - id: %s-001
    rule: claim
    prediction: "what will be observed if the claim is true, and would not be if it were false"
    if_fails: "where to look first"
    test:
      # live: the real thing; functional: a stand-in; algorithm: unit tests alone
      level: live
      run: [apr, version, --json]
      expect:
        - {on: exit, is: "== 0"}
        - {on: json, path: cpu.threads, is: ">= 1"}
        # Fails on purpose: replace it by the prediction.
        - {on: stdout, contains: "replace this expectation"}
`, name, major, now.UTC().Format(time.DateOnly), quote(description), kind, id)
	if kind == "kernel" {
		text += `
kani_harnesses:
  - id: KANI-001
    obligation: claim-holds
    bound: 8
    strategy: exhaustive
`
	}
	return text + fmt.Sprintf(`
qa_gate:
  id: GATE-%s
  name: %s
  checks: [claim-holds]
  pass_criteria: "every falsifier is discharged"
`, id, quote(description))
}
