package contract

import (
	"strings"
	"testing"
)

// checkOf reads one expectation as a contract would have it.
func checkOf(t testing.TB, yaml string) (Check, []Finding) {
	t.Helper()
	src := change(t, sound, `        - {on: json, path: cpu.threads, is: ">= 1"}`, "        - "+yaml)
	c := parse(t, src)
	test := c.Falsifiers[0].Test
	if len(test.Steps[0].Expect) < 2 {
		return Check{}, c.Problems()
	}
	return test.Steps[0].Expect[1], c.Problems()
}

func TestChecks(t *testing.T) {
	o := Observation{
		Exit: 5, Seconds: 1.5,
		Stdout: []byte(`{"p": [{"cosine": 0.999, "ok": true}, {"cosine": 0.98, "ok": true}], "text": "a <b>\n", "big": 9007199254740993, "null": null, "a b": [], "nan": "NaN", "n": 1e3}`),
		Stderr: []byte("first line\npeak 12.5 MiB\nspeed: 40 tok/s\nlast NaN\ncosine 0.995\ncosine 0.90\n"),
		Files:  map[string]FileFact{"out": {true, 2048, strings.Repeat("a", 64)}},
	}
	earlier := map[string]Observation{
		"one":  {Stdout: o.Stdout, Stderr: []byte("other")},
		"bare": {Stdout: []byte("{}")},
	}
	for _, tc := range []struct {
		check string
		match bool
	}{
		{`{on: exit, is: "== 5"}`, true},
		{`{on: exit, equals: 5}`, true},
		{`{on: exit, is: "!= 0"}`, true},
		{`{on: exit, is: "< 5"}`, false},
		{`{on: time, is: "<= 1500 ms"}`, true},
		{`{on: time, is: "< 1 s"}`, false},
		{`{on: time, is: "< 2"}`, false}, // a bound without a unit is no time
		{`{on: stdout, contains: ["cosine", "text"]}`, true},
		{`{on: stdout, contains: ["cosine", "absent"]}`, false},
		{`{on: stdout, lacks: ["absent", "cosine"]}`, false},
		{`{on: stderr, lacks: absent}`, true},
		{`{on: stderr, matches: "^speed: \\d+ tok/s$"}`, true},
		{`{on: stderr, matches: ["^first", "^none"]}`, false},
		{`{on: stderr, equals: "first line\n"}`, false},
		{`{on: stderr, lines: ["first", "speed", "last"]}`, true},
		{`{on: stderr, lines: ["speed", "first"]}`, false},
		{`{on: stderr, lines: ["first", "line"]}`, false}, // two texts of one line are two lines
		{`{on: stderr, number: "peak (.*)$", is: "< 13 MiB"}`, true},
		{`{on: stderr, number: "peak (.*)$", is: ">= 13107200 B"}`, true},
		{`{on: stderr, number: "peak (.*)$", is: "< 13"}`, false},
		{`{on: stderr, number: "speed: (\\d+)", unit: tok/s, is: ">= 40 tok/s"}`, true},
		{`{on: stderr, number: "last (\\w+)", is: "!= 0"}`, false}, // NaN is no number
		{`{on: stderr, number: "cosine (\\S+)", is: ">= 0.9"}`, true},
		{`{on: stderr, number: "cosine (\\S+)", is: ">= 0.99"}`, false}, // every one must hold
		{`{on: stderr, number: "nowhere (\\S+)", is: ">= 0"}`, false},
		{`{on: json, path: "$.p[*].cosine", is: ">= 0.98"}`, true},
		{`{on: json, path: "p[*].cosine", is: ">= 0.99"}`, false},
		{`{on: json, path: "p[0].cosine", is: ">= 0.99"}`, true},
		{`{on: json, path: "p[*].ok", equals: true}`, true},
		{`{on: json, path: "p[*]", count: "== 2"}`, true},
		{`{on: json, path: "p[7].cosine", is: ">= 0"}`, false},
		{`{on: json, path: '["a b"][*]', count: "== 0"}`, true},
		{`{on: json, path: '["a b"][*]', is: ">= 0"}`, false}, // a claim about nothing
		{`{on: json, path: text, equals: "a <b>\n"}`, true},
		{`{on: json, path: text, contains: "<b>"}`, true},
		{`{on: json, path: text, is: ">= 0"}`, false},
		{`{on: json, path: nan, is: ">= 0"}`, false},
		{`{on: json, path: n, equals: 1000}`, true},
		{`{on: json, path: "null", equals: "null"}`, true},
		{`{on: json, path: absent, exists: false}`, true},
		{`{on: json, path: p, exists: true}`, true},
		{`{on: json, path: p, same_as: bare}`, false},
		{`{on: json, path: p, differs_from: bare}`, false}, // nothing to compare is no difference
		{`{on: file, path: out, exists: true}`, true},
		{`{on: file, path: none, exists: false}`, true},
		{`{on: file, path: none, is: ">= 0 B"}`, false},
		{`{on: file, path: out, is: "== 2 KiB"}`, true},
		{`{on: file, path: out, equals: "sha256:` + strings.Repeat("a", 64) + `"}`, true},
	} {
		check, problems := checkOf(t, tc.check)
		if len(problems) > 0 && !strings.Contains(problems[0].Message, "names no earlier step") {
			t.Errorf("%s: %v", tc.check, problems)
			continue
		}
		if r := check.Eval(o, earlier); r.Match != tc.match || r.Observed == "" {
			t.Errorf("%s: match %v (observed %s), want %v", tc.check, r.Match, r.Observed, tc.match)
		}
	}
	// Steps of the same test are known; these are judged without a file.
	for _, tc := range []struct {
		c     Check
		match bool
	}{
		{Check{On: "stdout", Op: "same_as", Values: texts("one")}, true},
		{Check{On: "stderr", Op: "same_as", Values: texts("one")}, false},
		{Check{On: "stderr", Op: "differs_from", Values: texts("one")}, true},
		{Check{On: "stdout", Op: "same_as", Values: texts("absent")}, false},
		{Check{On: "json", Path: "p", Op: "same_as", Values: texts("one")}, true},
		{Check{On: "json", Path: "p", Op: "differs_from", Values: texts("one")}, false},
		{Check{On: "exit", Op: "contains", Values: texts("5")}, false},
		{Check{}, false},
	} {
		if r := tc.c.Eval(o, earlier); r.Match != tc.match {
			t.Errorf("%v: match %v, want %v", tc.c, r.Match, tc.match)
		}
	}
	if r := (Check{On: "json", Path: "a", Op: "exists", Values: texts("false")}).Eval(Observation{Stdout: []byte("no json")}, nil); r.Match {
		t.Error("a value is said to be absent from what is no JSON")
	}
}

func texts(values ...string) (ts []Text) {
	for _, v := range values {
		ts = append(ts, Text{Value: v, Set: true})
	}
	return ts
}

func TestChecksThatCannotBeJudged(t *testing.T) {
	for _, check := range []string{
		`{on: exit}`, `{is: "== 0"}`, `{on: nowhere, is: "== 0"}`, `{on: exit, is: "0"}`, `{on: exit, is: ">= .nan"}`,
		`{on: exit, is: "== 0", equals: 0}`, `{on: exit, is: ["== 0", "== 1"]}`, `{on: exit, is: }`, `{on: exit, contains: x}`,
		`{on: json, is: "== 0"}`, `{on: json, path: "a..b", is: "== 0"}`, `{on: json, path: "a[", is: "== 0"}`, `{on: stdout, path: x, contains: x}`,
		`{on: stdout, is: "== 0"}`, `{on: stdout, number: "(\\d+)", contains: x}`, `{on: stdout, number: "\\d+", is: "== 0"}`,
		`{on: stdout, number: "((", is: "== 0"}`, `{on: stdout, matches: "(("}`, `{on: exit, is: "== 5 parsecs"}`,
		`{on: file, path: x, exists: maybe}`, `{on: exit, is: "== 0", isn't: x}`,
	} {
		if _, problems := checkOf(t, check); len(problems) == 0 {
			t.Errorf("%s is accepted", check)
		}
	}
}

func TestTestsThatAreMalformed(t *testing.T) {
	for _, tc := range []struct{ name, old, new, want string }{
		{"no level", "      level: functional\n", "", "says no level"},
		{"unknown level", "level: functional", "level: full", "level \"full\" is not known"},
		{"no command", "      run: [apr, version, --json]\n", "", "has no command"},
		{"two commands", "run: [apr, version, --json]", "run: [apr]\n      shell: apr", "has both run and shell"},
		{"steps and a command", "run: [apr, version, --json]", "run: [apr]\n      steps: [{run: [a], expect: [{on: exit, is: \"== 0\"}]}]", "has both steps and run"},
		{"no expectations", "      expect:\n        - {on: exit, is: \"== 0\"}\n        - {on: json, path: cpu.threads, is: \">= 1\"}\n", "", "expects nothing"},
		{"unknown requirement", "level: functional", "level: functional\n      requires: [\"moon:full\"]", "is not kind:name"},
		{"requirement without a name", "level: functional", "level: functional\n      requires: [gpu]", "is not kind:name"},
		{"no duration", "level: functional", "level: functional\n      timeout: soon", "is no duration"},
		{"negative duration", "level: functional", "level: functional\n      timeout: -1s", "is no duration"},
		{"unknown placeholder", "--json]", "\"${modle:x}\"]", "${modle:x} is not known"},
		{"shell that may run anything", "run: [apr, version, --json]", "shell: apr version --json", "name what the shell runs"},
		{"step that is not there", "{on: exit, is: \"== 0\"}", "{on: stdout, same_as: before}", "names no earlier step"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var all []string
			for _, p := range parse(t, change(t, sound, tc.old, tc.new)).Problems() {
				all = append(all, p.Message)
			}
			if !strings.Contains(strings.Join(all, "\n"), tc.want) {
				t.Errorf("problems %q, want %q", all, tc.want)
			}
		})
	}
}
