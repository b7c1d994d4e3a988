package contract

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Test is a falsifier's experiment in a form that a program can carry out.
type Test struct {
	Pos      Pos
	Level    Text          // how much a pass can show, see Levels
	Requires []Requirement // what must be there; otherwise the test is blocked
	Sources  []Text        // files and folders that decide the result, besides the programs
	Steps    []Step        // run in order, in one scratch folder
	Handled  []Check       // what if_fails promises; judged when a prediction fails
}

// Levels of a test, weakest first: algorithm runs a decision rule alone (unit
// tests), functional runs the real program on a stand-in (an injected fault, a
// toy model, software in place of a device), live runs the real thing.
var Levels = []string{"algorithm", "functional", "live"}

// Requirement is something that a test needs: kind:name, as in gpu:cuda.
type Requirement struct {
	Kind, Name string
	Pos        Pos
}

func (r Requirement) String() string { return r.Kind + ":" + r.Name }

// RequirementKinds are the kinds of requirements and what they ask for.
var RequirementKinds = map[string]string{
	"gpu":     "a device with its library: cuda, or wgpu (a Vulkan, Metal or DX12 driver)",
	"backend": "a backend in the apr that is tested (apr version --json)",
	"command": "a subcommand, as program and name: command:apr parity",
	"model":   "a model file of this name, with or without .gguf",
	"peer":    "another program on the search path",
	"file":    "a file or folder in the repository",
	"os":      "an operating system, as Go names it",
}

// Step is one command of a test. Exactly one of Run and Shell is set.
type Step struct {
	Pos     Pos
	Name    Text
	Run     []Text // argv; no shell
	Shell   Text   // a line for sh -c
	Stdin   Text
	Env     []Variable
	Timeout time.Duration // 0 for the runner's default
	Expect  []Check
}

// Variable is an environment variable of a step.
type Variable struct {
	Name  string
	Value Text
}

// Check is one prediction in machine form: a place to look, a way to pick
// something there, and a comparison.
type Check struct {
	Pos    Pos
	On     string // exit, stdout, stderr, json, file, time
	Path   string // of a JSON value or of a file
	Number string // pattern with one group, which holds a number
	Unit   string // unit of the observed number, where it carries none
	Op     string // is, equals, contains, lacks, matches, lines, same_as, differs_from, exists, count
	Values []Text
}

// Ops are the comparisons of a check.
var Ops = []string{"is", "equals", "contains", "lacks", "matches", "lines", "same_as", "differs_from", "exists", "count"}

// Targets are the places a check can look at.
var Targets = []string{"exit", "stdout", "stderr", "json", "file", "time"}

// String is the check in the words of its file.
func (c Check) String() string {
	var b strings.Builder
	b.WriteString(c.On)
	if c.Path != "" {
		fmt.Fprintf(&b, " %s", c.Path)
	}
	if c.Number != "" {
		fmt.Fprintf(&b, " number /%s/", c.Number)
	}
	if c.Unit != "" {
		fmt.Fprintf(&b, " in %s", c.Unit)
	}
	fmt.Fprintf(&b, " %s", c.Op)
	for i, v := range c.Values {
		sep := " "
		if i > 0 {
			sep = ", "
		}
		if c.Op == "is" || c.Op == "count" || c.Op == "same_as" || c.Op == "differs_from" || c.Op == "exists" {
			b.WriteString(sep + v.Value)
		} else {
			fmt.Fprintf(&b, "%s%q", sep, v.Value)
		}
	}
	return b.String()
}

// test reads an executable test. Unlike the rest of a contract it is read strictly.
func (r *reader) test(n *node, path string) *Test {
	before := len(r.c.problems)
	r.testKeys(n, path, []string{"level", "requires", "sources", "steps", "handled",
		"name", "run", "shell", "stdin", "env", "timeout", "expect"})
	t := &Test{Pos: at(n), Level: r.text(n, path, "level"), Sources: r.texts(n, path, "sources")}
	if !t.Level.Set {
		r.problem("TEST-002", at(n), "%s says no level, want one of %s", path, strings.Join(Levels, ", "))
	} else if !slices.Contains(Levels, t.Level.Value) {
		r.problem("TEST-002", t.Level.Pos, "%s.level %q is not known, want one of %s", path, t.Level.Value, strings.Join(Levels, ", "))
	}
	for _, req := range r.texts(n, path, "requires") {
		kind, name, _ := strings.Cut(req.Value, ":")
		if RequirementKinds[kind] == "" || name == "" {
			r.problem("TEST-002", req.Pos, "%s.requires: %q is not kind:name with a kind of %s", path, req.Value, kindList())
			continue
		}
		t.Requires = append(t.Requires, Requirement{kind, name, req.Pos})
	}
	if steps := member(n, "steps"); steps != nil {
		for _, key := range []string{"run", "shell", "stdin", "env", "timeout", "expect", "name"} {
			if k := member(n, key); k != nil {
				r.problem("TEST-002", at(k), "%s has both steps and %s: put %s into a step", path, key, key)
			}
		}
		for i, s := range r.list(steps, path+".steps") {
			p := fmt.Sprintf("%s.steps[%d]", path, i)
			if s = r.mapping(s, p); s != nil {
				r.testKeys(s, p, []string{"name", "run", "shell", "stdin", "env", "timeout", "expect"})
				t.Steps = append(t.Steps, r.step(s, p))
			}
		}
	} else {
		t.Steps = []Step{r.step(n, path)}
	}
	t.Handled = r.checks(n, path, "handled")
	r.testWhole(t, path)
	unjudged := func(f Finding) bool { return f.Rule == "TEST-003" }
	if t.expectations() == 0 && !slices.ContainsFunc(r.c.problems[before:], unjudged) {
		r.problem("TEST-002", t.Pos, "%s expects nothing: a test that cannot fail shows nothing", path)
	}
	return t
}

// testKeys is keys for mappings of a test, where an unknown key is an error: a
// misspelt expectation would silently not be checked.
func (r *reader) testKeys(m *node, path string, known []string) {
	before := len(r.c.Ignored)
	r.keys(m, path, known)
	for _, k := range r.c.Ignored[before:] {
		r.problem("TEST-002", k.Pos, "%s is not known here, want one of %s", k.Path, strings.Join(known, ", "))
	}
	r.c.Ignored = r.c.Ignored[:before]
}

// testWhole checks what concerns the steps together.
func (r *reader) testWhole(t *Test, path string) {
	names := map[string]bool{}
	for i := range t.Steps {
		s := &t.Steps[i]
		if s.Shell.Set && len(t.Sources) == 0 && !t.namesPrograms() {
			r.problem("TEST-002", s.Shell.Pos, "%s: name what the shell runs: sources, or a requirement command:… or peer:…", path)
		}
		for _, c := range s.Expect {
			if (c.Op == "same_as" || c.Op == "differs_from") && !names[c.Values[0].Value] {
				r.problem("TEST-002", c.Pos, "%s: %s %s names no earlier step", path, c.Op, c.Values[0].Value)
			}
		}
		if s.Name.Set {
			if names[s.Name.Value] {
				r.problem("TEST-002", s.Name.Pos, "%s: two steps are named %s", path, s.Name.Value)
			}
			names[s.Name.Value] = true
		}
	}
}

// namesPrograms says whether a requirement names a program. Which programs a
// shell line runs cannot be seen, so without that a change of them would not
// make evidence stale.
func (t *Test) namesPrograms() bool {
	return slices.ContainsFunc(t.Requires, func(r Requirement) bool { return r.Kind == "command" || r.Kind == "peer" })
}

// HasShell says whether a step is a shell line.
func (t *Test) HasShell() bool {
	return slices.ContainsFunc(t.Steps, func(s Step) bool { return s.Shell.Set })
}

// expectations is the number of checks over all steps.
func (t *Test) expectations() int {
	n := 0
	for _, s := range t.Steps {
		n += len(s.Expect)
	}
	return n
}

// kindList is for messages, in order.
func kindList() string {
	var ks []string
	for k := range RequirementKinds {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return strings.Join(ks, ", ")
}

// step reads one command with its expectations.
func (r *reader) step(n *node, path string) Step {
	s := Step{
		Pos:   at(n),
		Name:  r.text(n, path, "name"),
		Run:   r.texts(n, path, "run"),
		Shell: r.text(n, path, "shell"),
		Stdin: r.text(n, path, "stdin"),
	}
	switch {
	case len(s.Run) == 0 && !s.Shell.Set:
		r.problem("TEST-002", at(n), "%s has no command: give run (a list of arguments) or shell", path)
	case len(s.Run) > 0 && s.Shell.Set:
		r.problem("TEST-002", at(n), "%s has both run and shell", path)
	}
	if e := r.mapping(member(n, "env"), path+".env"); e != nil {
		r.keys(e, path+".env", nil)
		for i := 0; i+1 < len(e.Content); i += 2 {
			name := e.Content[i].Value
			s.Env = append(s.Env, Variable{name, r.scalar(e.Content[i+1], path+".env."+name)})
		}
	}
	if t := r.text(n, path, "timeout"); t.Set {
		d, err := time.ParseDuration(strings.ReplaceAll(t.Value, " ", ""))
		if err != nil || d <= 0 {
			r.problem("TEST-002", t.Pos, "%s.timeout %q is no duration such as 90s", path, t.Value)
		}
		s.Timeout = max(d, 0)
	}
	s.Expect = r.checks(n, path, "expect")
	r.placeholders(s, path)
	return s
}

// placeholder is a name in ${…}; in shell lines it may be the shell's own.
var placeholder = regexp.MustCompile(`\$\{([^}]*)\}`)

// placeholders reports names in ${…} that the runner does not replace.
func (r *reader) placeholders(s Step, path string) {
	texts := append(slices.Clone(s.Run), s.Stdin)
	for _, v := range s.Env {
		texts = append(texts, v.Value)
	}
	for _, t := range texts {
		for _, m := range placeholder.FindAllStringSubmatch(t.Value, -1) {
			if m[1] != "work" && m[1] != "root" && !strings.HasPrefix(m[1], "model:") {
				r.problem("TEST-002", t.Pos, "%s: ${%s} is not known, want ${model:NAME}, ${work} or ${root}", path, m[1])
			}
		}
	}
}

// Expand replaces the placeholders of a text. resolve is called with what is
// between ${ and }.
func Expand(text string, resolve func(name string) string) string {
	return placeholder.ReplaceAllStringFunc(text, func(m string) string {
		return resolve(m[2 : len(m)-1])
	})
}

// checks reads a list of expectations. One that cannot be judged is reported and
// left out; a contract with such findings is not run.
func (r *reader) checks(n *node, path, name string) []Check {
	path = join(path, name)
	var cs []Check
	for i, item := range r.list(member(n, name), path) {
		p := fmt.Sprintf("%s[%d]", path, i)
		if m := r.mapping(item, p); m != nil {
			if c, ok := r.check(m, p); ok {
				cs = append(cs, c)
			}
		}
	}
	return cs
}

// check reads one prediction; ok is false if it cannot be judged, which has
// then been reported.
func (r *reader) check(m *node, path string) (c Check, ok bool) {
	before := len(r.c.problems)
	r.testKeys(m, path, append([]string{"on", "path", "number", "unit"}, Ops...))
	c = Check{
		Pos: at(m), On: r.text(m, path, "on").Value, Path: r.text(m, path, "path").Value,
		Number: r.text(m, path, "number").Value, Unit: r.text(m, path, "unit").Value,
	}
	bad := func(format string, args ...any) {
		r.problem("TEST-003", at(m), "%s: %s", path, fmt.Sprintf(format, args...))
	}
	if !slices.Contains(Targets, c.On) {
		bad("on %q, want one of %s", c.On, strings.Join(Targets, ", "))
	}
	for _, op := range Ops {
		v := member(m, op)
		if v == nil {
			continue
		}
		if c.Op != "" {
			bad("has both %s and %s", c.Op, op)
		}
		c.Op = op
		if v.Kind == yaml.SequenceNode {
			c.Values = r.texts(m, path, op)
		} else {
			c.Values = []Text{r.scalar(v, join(path, op))}
		}
	}
	if c.Op == "" {
		bad("compares nothing, want one of %s", strings.Join(Ops, ", "))
	} else if err := c.validate(); err != nil {
		bad("%v", err)
	}
	return c, len(r.c.problems) == before
}
