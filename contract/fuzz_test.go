package contract

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// exercise runs everything that reads a contract over some bytes. It fails on a
// finding without a place or outside the file.
func exercise(t testing.TB, src []byte) {
	c, err := Parse("f.yaml", src)
	if err != nil {
		if f := ReadFinding("f.yaml", err); f.Message == "" || f.Rule != "READ-001" && f.Rule != "READ-002" {
			t.Fatalf("finding %+v for %v", f, err)
		}
		return
	}
	lines := countLines(src)
	for _, rules := range []Ruleset{Current, First} {
		for _, f := range append(Validate(c, rules), Audit(c, nil)...) {
			if f.Line < 1 || f.Line > lines || f.Column < 1 || f.Rule == "" {
				t.Fatalf("finding %+v in a file of %d lines", f, lines)
			}
		}
	}
	if d := Diff(c, c); len(d.Changes) > 0 && len(c.Problems()) == 0 && distinctNames(c) {
		t.Fatalf("a contract differs from itself: %v", d.Changes)
	}
	NewGraph([]*Contract{c, c})
	_ = c.Tally().String()
	for i := range c.Falsifiers {
		f := &c.Falsifiers[i]
		_ = c.Definition(f)
		if f.Test == nil {
			continue
		}
		for _, s := range f.Test.Steps {
			for _, check := range s.Expect {
				check.Eval(Observation{Stdout: []byte(`{"a": [1, "x", null]}`)}, nil)
			}
		}
	}
	edit(t, c)
}

// breaks end a line of YAML 1.1 (section 4.2), which is how its parser counts.
var breaks = []string{"\n", "\r", "\u0085", "\u2028", "\u2029"}

// countLines is at least the number of lines: a carriage return with a line feed
// counts as two.
func countLines(src []byte) int {
	n := 1
	for _, b := range breaks {
		n += bytes.Count(src, []byte(b))
	}
	return n
}

// distinctNames says whether sections can be compared by name.
func distinctNames(c *Contract) bool {
	for _, rule := range []string{"SCHEMA-007", "SCHEMA-010", "SCHEMA-020"} {
		for _, f := range Validate(c, Current) {
			if f.Rule == rule {
				return false
			}
		}
	}
	seen := map[string]bool{}
	for _, items := range [][]item{equationParts(c), obligationParts(c), falsifierParts(c), harnessParts(c), gateParts(c)} {
		clear(seen)
		for _, it := range items {
			if seen[it.name] {
				return false
			}
			seen[it.name] = true
		}
	}
	return true
}

// edit sets the status of the first falsifier: it must fail, or do that and
// nothing else.
func edit(t testing.TB, c *Contract) {
	if len(c.Falsifiers) == 0 || c.Falsifiers[0].ID.Value == "" {
		return
	}
	e := c.Edit()
	e.SetStatus(c.Falsifiers[0].ID.Value, Functional, "name")
	e.SetSummary(c.Tally())
	after, err := e.Apply()
	if err != nil {
		return
	}
	if len(after.Falsifiers) != len(c.Falsifiers) {
		t.Fatalf("%d falsifiers became %d", len(c.Falsifiers), len(after.Falsifiers))
	}
	for i := range c.Falsifiers {
		if c.Definition(&c.Falsifiers[i]) != after.Definition(&after.Falsifiers[i]) {
			t.Fatalf("setting a status changed the definition of %q", c.Falsifiers[i].ID)
		}
	}
}

// special are the characters that mean something in YAML.
const special = "{}[]:,-#&*!|>'\"%@`?\n\t "

func mutate(src []byte, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	out := bytes.Clone(src)
	for range 1 + r.IntN(4) {
		if len(out) == 0 {
			return out
		}
		at := r.IntN(len(out))
		switch r.IntN(6) {
		case 0:
			out = out[:at]
		case 1:
			out[at] = byte(r.IntN(256))
		case 2: // a character that means something
			out[at] = special[r.IntN(len(special))]
		case 3: // lose some bytes
			out = append(out[:at], out[min(len(out), at+1+r.IntN(30)):]...)
		case 4: // lose a line
			end := bytes.IndexByte(out[at:], '\n')
			if end >= 0 {
				out = append(out[:at], out[at+end+1:]...)
			}
		case 5: // repeat a part
			part := bytes.Clone(out[at:min(len(out), at+r.IntN(200))])
			out = append(out[:at], append(part, out[at:]...)...)
		}
	}
	return out
}

func TestMutationsOfOurContracts(t *testing.T) {
	files, err := filepath.Glob("../contracts/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no contracts: %v", err)
	}
	for i, path := range files {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		exercise(t, src)
		for n := range 100 {
			exercise(t, mutate(src, uint64(i*100+n)))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sound))
	f.Add([]byte(Scaffold("a-v1", "kernel", "d", fixedTime)))
	f.Add([]byte("metadata: {version: 1.0, references: [a]}\nequations:\n  - id: x\n"))
	f.Add([]byte("metadata: &a {version: *a}\n"))
	f.Add([]byte(strings.ReplaceAll(sound, "\n", "\r\n")))
	for _, b := range breaks {
		f.Add([]byte("metadata: {version: 1.0}" + b + "unknown: 1"))
	}
	for _, tc := range ruleCases {
		f.Add([]byte(change(f, sound, tc.old, tc.new)))
	}
	f.Fuzz(func(t *testing.T, src []byte) { exercise(t, src) })
}
