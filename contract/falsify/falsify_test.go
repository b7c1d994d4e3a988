package falsify

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/evidence"
)

// program stands in for apr: it prints a cosine and answers help for one command.
const program = `#!/bin/sh
case "$1" in
help) [ "$2" = measure ] ;;
version) echo '{"backends": ["cpu"]}' ;;
measure) echo "{\"cosine\": 0.995, \"text\": \"$(cat "$2")\", \"speed\": 12.5}" ;;
slow) sleep 60 ;;
loud) head -c 20000000 /dev/zero ;;
env) env ;;
*) echo "unknown" >&2; exit 2 ;;
esac
`

const claim = `metadata:
  version: "1.0.0"
  description: "A claim"
  kind: schema
  references: [a]
equations:
  floor:
    formula: "cosine ≥ 0.99"
proof_obligations:
  - {id: ob, type: bound, property: "p"}
falsification_tests:
  - id: T-1
    rule: floor
    prediction: "the cosine is at least 0.99"
    if_fails: "look at the kernel"
    test:
      level: live
      requires: ["command:prog measure"]
      sources: [src]
      run: [prog, measure, "${model:m}"]
      expect:
        - {on: exit, is: "== 0"}
        - {on: json, path: cosine, is: ">= 0.99"}
        - {on: json, path: text, equals: "weights"}
      handled:
        - {on: exit, is: "== 0"}
  - id: T-2
    rule: floor
    prediction: "on a GPU too"
    if_fails: "look at the kernel"
    test:
      level: functional
      requires: ["gpu:none-such"]
      run: [prog, measure, "${model:m}"]
      expect: [{on: exit, is: "== 0"}]
  - id: T-3
    rule: ob
    prediction: "prose"
    if_fails: "prose"
    test: "look at it"
  - id: T-4
    rule: ob
    prediction: "the program answers"
    if_fails: "it does not"
    test:
      level: functional
      run: [prog, version]
      expect: [{on: stdout, contains: "backends"}]
qa_gate: {id: G, name: g, checks: [ob]}
`

// site is a repository with a program, a model and a contract.
type site struct {
	t      *testing.T
	root   string
	path   string // of the contract
	now    time.Time
	runner Runner
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, root: t.TempDir(), now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	s.write("bin/prog", program)
	s.write("models/m.gguf", "weights")
	s.write("src/main.go", "package main")
	s.write("contracts/claim-v1.yaml", claim)
	s.path = filepath.Join(s.root, "contracts/claim-v1.yaml")
	s.runner = Runner{Inputs: s.inputs(), Evidence: filepath.Join(s.root, "evidence"), Tool: "test", Now: func() time.Time {
		s.now = s.now.Add(time.Second)
		return s.now
	}}
	return s
}

func (s *site) inputs() *Inputs {
	return &Inputs{Root: s.root, Bin: []string{filepath.Join(s.root, "bin")}, ModelDir: filepath.Join(s.root, "models")}
}

func (s *site) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// edit replaces text in a file; the text must be there.
func (s *site) edit(name, old, new string) {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		s.t.Fatalf("%s has no %q:\n%s", name, old, data)
	}
	s.write(name, strings.Replace(string(data), old, new, 1))
}

func (s *site) contract() *contract.Contract {
	s.t.Helper()
	c, err := contract.Load(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range contract.Validate(c, contract.Current) {
		if f.Severity == contract.Error {
			s.t.Fatalf("the contract is not valid: %v", f)
		}
	}
	return c
}

// run carries out one falsifier and returns what was recorded.
func (s *site) run(id string) (*evidence.Record, string) {
	s.t.Helper()
	c := s.contract()
	s.runner.Inputs = s.inputs() // hashes are kept, the files may have changed
	rec, dir, err := s.runner.Run(context.Background(), c, c.Falsifier(id))
	if err != nil {
		s.t.Fatal(err)
	}
	return rec, dir
}

func (s *site) ledger() *Ledger {
	return &Ledger{Roots: []string{filepath.Join(s.root, "evidence")}, Inputs: s.inputs(), Now: s.now}
}

func (s *site) status(id string) Support {
	s.t.Helper()
	c := s.contract()
	sup, err := s.ledger().Support(c, c.Falsifier(id))
	if err != nil {
		s.t.Fatal(err)
	}
	return sup
}

func (s *site) discharge() []Move {
	s.t.Helper()
	after, moves, err := s.ledger().Discharge(s.contract(), s.now)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := Write(after); err != nil {
		s.t.Fatal(err)
	}
	return moves
}

// errors are the rules that audit finds broken.
func (s *site) errors() []string {
	s.t.Helper()
	fs, err := s.ledger().Audit(s.contract())
	if err != nil {
		s.t.Fatal(err)
	}
	var rules []string
	for _, f := range fs {
		if f.Severity == contract.Error {
			rules = append(rules, f.Rule)
		}
	}
	return rules
}

func TestRunRecordsAPass(t *testing.T) {
	s := newSite(t)
	rec, dir := s.run("T-1")
	if rec.Verdict != evidence.Pass || rec.Handled != nil {
		t.Fatalf("verdict %s: %+v", rec.Verdict, rec)
	}
	b, err := evidence.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := b.Record
	if len(r.Predictions) != 3 || r.Predictions[1].Observed != "0.995" || r.Predictions[1].Predicted != "json cosine is >= 0.99" {
		t.Errorf("predictions %+v", r.Predictions)
	}
	if len(r.Programs) != 1 || len(r.Models) != 1 || r.Models[0].Name != "m.gguf" || r.Models[0].SHA256 != evidence.Hash([]byte("weights")) || r.Sources == nil {
		t.Errorf("inputs %+v %+v %+v", r.Programs, r.Models, r.Sources)
	}
	if got := r.Steps[0].Argv; !slices.Equal(got, []string{"prog", "measure", "models/m.gguf"}) {
		t.Errorf("argv %q", got)
	}
	if strings.Contains(string(b.Outputs["1.stdout"]), s.root) {
		t.Error("the output names the machine's folders")
	}
	if r.Machine.OS == "" || r.Machine.Threads < 1 || r.Contract.Version != "1.0.0" || r.Tool != "test" {
		t.Errorf("record %+v", r)
	}
}

func TestRunVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name, old, new string
		verdict        string
		reason         string
	}{
		{"fail", ">= 0.99", ">= 0.999", evidence.Fail, ""},
		{"blocked", "command:prog measure", "command:prog nothing", evidence.Blocked, "required but missing"},
		{"requirements that are met", `"command:prog measure"`, `"command:prog measure", "file:src", "model:m", "peer:sh"`, evidence.Pass, ""},
		{"out of time", `run: [prog, measure, "${model:m}"]`, "run: [prog, slow]\n      timeout: 200ms", evidence.Broken, "step 1: not finished after 200ms"},
		{"too much output", `run: [prog, measure, "${model:m}"]`, `run: [prog, loud]`, evidence.Broken, "step 1: more than 16777216 bytes of output"},
		{"program with a folder", `run: [prog, measure, "${model:m}"]`, `run: [./prog]`, evidence.Broken, "program \"./prog\""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			s.edit("contracts/claim-v1.yaml", tc.old, tc.new)
			rec, dir := s.run("T-1")
			if rec.Verdict != tc.verdict || !strings.HasPrefix(rec.Reason, tc.reason) {
				t.Fatalf("verdict %s (%s), want %s (%s)", rec.Verdict, rec.Reason, tc.verdict, tc.reason)
			}
			if _, err := evidence.Open(dir); err != nil {
				t.Error(err)
			}
			if rec.Verdict == evidence.Fail && (rec.Handled == nil || !*rec.Handled) {
				t.Errorf("handled %v, want true", rec.Handled)
			}
		})
	}
}

func TestCommandsRunInACleanEnvironment(t *testing.T) {
	t.Setenv("APR_FAULT", "cpu:one-nan")
	t.Setenv("SKIP_PARITY_GATE", "1")
	s := newSite(t)
	s.edit("contracts/claim-v1.yaml", "run: [prog, version]\n      expect: [{on: stdout, contains: \"backends\"}]",
		"run: [prog, env]\n      env: {OWN: \"1\"}\n      expect: [{on: stdout, lacks: [APR_FAULT, SKIP_PARITY_GATE]}, {on: stdout, contains: [\"OWN=1\", XDG_CACHE_HOME]}]")
	if rec, _ := s.run("T-4"); rec.Verdict != evidence.Pass {
		t.Errorf("%+v", rec.Predictions)
	}
}

// TestStatusFollowsEvidence walks a claim through its life.
func TestStatusFollowsEvidence(t *testing.T) {
	s := newSite(t)
	want := func(id string, status contract.Status, why string) {
		t.Helper()
		if got := s.status(id); got.Status != status {
			t.Fatalf("%s: %s is %s (%s), want %s", why, id, got.Status, got.Reason, status)
		}
	}
	want("T-1", contract.Unbound, "nothing is recorded")
	want("T-3", contract.Unbound, "prose")
	s.run("T-1")
	s.run("T-2")
	s.run("T-4")
	want("T-1", contract.Discharged, "a live pass")
	want("T-2", contract.Blocked, "no such GPU")
	want("T-4", contract.Functional, "a pass on a stand-in")

	if moves := s.discharge(); len(moves) != 3 {
		t.Fatalf("moves %+v", moves)
	}
	c := s.contract()
	if v := c.Metadata.Version.Value; v != "1.1.0" {
		t.Errorf("version %s, want 1.1.0", v)
	}
	if got, want := c.Tally().String(), "1 of 4 discharged, 1 functional, 1 blocked, 1 unbound"; got != want {
		t.Errorf("tally %q, want %q", got, want)
	}
	if len(c.Metadata.Changelog) != 1 || !strings.Contains(c.Metadata.Changelog[0].Value, "unbound → DISCHARGED: T-1") {
		t.Errorf("changelog %v", c.Metadata.Changelog)
	}
	if errs := s.errors(); len(errs) > 0 {
		t.Errorf("audit after discharge: %v", errs)
	}
	if moves := s.discharge(); len(moves) != 0 {
		t.Errorf("a second discharge moves %+v", moves)
	}

	// The program changes, its sources do not (as with another compiler).
	s.edit("bin/prog", "*) echo", "# built again\n*) echo")
	want("T-1", contract.Discharged, "the sources are the same")
	want("T-4", contract.Partial, "the program changed and no sources are named")
	s.edit("src/main.go", "main", "other")
	want("T-1", contract.Partial, "program and sources changed")
	if moves := s.discharge(); len(moves) != 2 || s.contract().Metadata.Version.Value != "1.1.1" {
		t.Errorf("lowering moves %+v to %s, want a patch", moves, s.contract().Metadata.Version)
	}
	s.run("T-1")
	want("T-1", contract.Discharged, "run again")

	// A failure stands, also after a pass with the same inputs.
	s.edit("bin/prog", "0.995", "0.985")
	rec, _ := s.run("T-1")
	if rec.Verdict != evidence.Fail {
		t.Fatalf("verdict %s", rec.Verdict)
	}
	want("T-1", contract.Falsified, "the prediction was wrong")
	if sup := s.status("T-1"); sup.Handled == nil || !*sup.Handled {
		t.Errorf("handled %v", sup.Handled)
	}
	s.discharge()
	if errs := s.errors(); !slices.Equal(errs, []string{"STATUS-007"}) {
		t.Errorf("audit of a falsified claim: %v", errs)
	}
	s.edit("bin/prog", "0.985", "0.996")
	want("T-1", contract.Falsified, "not run since")
	s.run("T-1")
	want("T-1", contract.Discharged, "the program was mended")

	s.edit("contracts/claim-v1.yaml", ">= 0.99\"}\n        - {on: json, path: text", ">= 0.98\"}\n        - {on: json, path: text")
	want("T-1", contract.Unbound, "the threshold changed")
}

// TestFlakyIsFalsified: the same inputs gave both, so the prediction is wrong.
func TestFlakyIsFalsified(t *testing.T) {
	s := newSite(t)
	s.edit("bin/prog", "0.995", "$(cat "+s.root+"/value)")
	for _, v := range []string{"0.995", "0.9", "0.995"} {
		s.write("value", v)
		s.run("T-1")
	}
	if got := s.status("T-1"); got.Status != contract.Falsified {
		t.Errorf("pass, fail, pass is %s", got.Status)
	}
}

// TestShellIsJudgedBySources: which programs a shell line runs is not known, so
// that those that are known are the same shows nothing.
func TestShellIsJudgedBySources(t *testing.T) {
	s := newSite(t)
	s.edit("contracts/claim-v1.yaml", "run: [prog, measure, \"${model:m}\"]", "shell: prog measure ${model:m} && x=1 && test ${x} = 1")
	if rec, _ := s.run("T-1"); rec.Verdict != evidence.Pass || len(rec.Programs) != 2 {
		t.Fatalf("%+v", rec)
	}
	if got := s.status("T-1"); got.Status != contract.Discharged {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
	s.edit("src/main.go", "main", "other")
	if got := s.status("T-1"); got.Status != contract.Partial {
		t.Errorf("sources changed: %s, %s", got.Status, got.Reason)
	}
}

func TestInterruptedRunRecordsNothing(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c := s.contract()
	if _, _, err := s.runner.Run(ctx, c, c.Falsifier("T-1")); err == nil {
		t.Error("an interrupted run has no error")
	}
	if entries, _ := evidence.List(s.runner.Evidence, "claim-v1", "T-1"); len(entries) > 0 {
		t.Errorf("recorded %v", entries)
	}
}
