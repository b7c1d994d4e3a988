package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Load reads a contract from a file. The error is a *ReadError, or one of the
// file system.
func Load(path string) (*Contract, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, src)
}

// Parse reads a contract. It fails only if the bytes are no YAML or no contract
// at all; what is wrong within a contract becomes findings. path is for
// messages and for the stem.
func Parse(path string, src []byte) (*Contract, error) {
	root, err := parseYAML(path, src)
	if err != nil {
		return nil, err
	}
	if member(root, "metadata") == nil {
		return nil, &ReadError{path, at(root), ErrOther, artefact(root)}
	}
	c := &Contract{
		Path: path,
		Stem: strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)),
		src:  src,
		root: root,
	}
	r := reader{c: c}
	r.contract(root)
	c.lines = lineOffsets(src)
	SortFindings(c.problems)
	return c, nil
}

// artefact says what a document without metadata is, by its shape.
func artefact(root *node) string {
	has := func(key string) bool { return member(root, key) != nil }
	switch schema := member(root, "schema"); {
	case has("bindings") && has("target_crate"):
		return "this is a binding registry (keys bindings and target_crate), give it with --binding"
	case has("model_id") && has("provenance"):
		return "this is a publish manifest (keys model_id and provenance)"
	case schema != nil && strings.Contains(schema.Value, "/external-corpora/"):
		return "this is a list of external corpora (key schema)"
	}
	return "the key metadata is missing"
}

// topLevel are the top-level keys that the format knows; falsifiers, findings
// and near misses are judged against them.
var topLevel = []string{
	"metadata", "equations", "proof_obligations", "kernel_structure", "simd_dispatch", "enforcement",
	"falsification_tests", "kani_harnesses", "qa_gate", "verification_summary",
	"type_invariants", "coq_spec", "beat", "stories",
}

// reader fills a contract from nodes and collects what is wrong.
type reader struct {
	c *Contract
}

// problem records a finding of reading. Reading goes on: one mistake must not hide
// the others.
func (r *reader) problem(rule string, pos Pos, format string, args ...any) {
	def, _ := FindRule(rule)
	r.c.problems = append(r.c.problems, Finding{
		Rule: rule, Severity: def.Severity, Path: r.c.Path,
		Line: pos.Line, Column: pos.Column, Message: fmt.Sprintf(format, args...),
	})
}

// shape reports that a value has another shape than the format says.
func (r *reader) shape(n *node, path, want string) {
	r.problem("READ-003", at(n), "%s is %s, want %s", path, describe(n), want)
}

// keys walks a mapping: it reports keys given twice and remembers those that
// are not known. known may be nil for mappings whose keys are free.
func (r *reader) keys(m *node, path string, known []string) {
	seen := map[string]Pos{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		k := m.Content[i]
		name := k.Value
		if k.Kind != yaml.ScalarNode {
			r.shape(k, join(path, "?"), "a name as key")
			continue
		}
		if first, ok := seen[name]; ok {
			r.problem("SCHEMA-020", at(k), "%s is given twice, first at line %d: only the last counts", join(path, name), first.Line)
		} else {
			seen[name] = at(k)
		}
		if known != nil && !slices.Contains(known, name) {
			r.c.Ignored = append(r.c.Ignored, Key{join(path, name), name, at(k)})
		}
	}
}

// join makes the path of keys that findings name.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// mapping returns n if it is a mapping, and reports it otherwise. Absent and
// empty values are nil without a report.
func (r *reader) mapping(n *node, path string) *node {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.shape(n, path, "a mapping")
		return nil
	}
	return n
}

// list returns the items of n if it is a list, and reports it otherwise.
func (r *reader) list(n *node, path string) []*node {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.shape(n, path, "a list")
		return nil
	}
	return n.Content
}

// scalar reads any scalar as text: a version 1.0, a date, a flag are read as
// written.
func (r *reader) scalar(n *node, path string) Text {
	if n == nil {
		return Text{}
	}
	if isNull(n) {
		return Text{Pos: at(n)}
	}
	if n.Kind != yaml.ScalarNode {
		r.shape(n, path, "text")
		return Text{Pos: at(n)}
	}
	return Text{Value: n.Value, Set: true, Pos: at(n)}
}

// text reads a member of a mapping by the first of its names that is present.
func (r *reader) text(m *node, path string, names ...string) Text {
	for _, name := range names {
		if n := member(m, name); n != nil {
			return r.scalar(n, join(path, name))
		}
	}
	return Text{}
}

// texts reads a list of scalars; a single scalar counts as a list of one.
func (r *reader) texts(m *node, path, name string) []Text {
	n := member(m, name)
	if isNull(n) {
		return nil
	}
	path = join(path, name)
	if n.Kind == yaml.ScalarNode {
		return []Text{r.scalar(n, path)}
	}
	var ts []Text
	for i, item := range r.list(n, path) {
		ts = append(ts, r.scalar(item, fmt.Sprintf("%s[%d]", path, i)))
	}
	return ts
}

// prose reads a list whose items may be of any shape, as text.
func (r *reader) prose(m *node, path, name string) []Text {
	n := member(m, name)
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return []Text{{Value: n.Value, Set: true, Pos: at(n)}}
	}
	var ts []Text
	for _, item := range n.Content {
		ts = append(ts, Text{Value: item.Value, Set: true, Pos: at(item)})
	}
	return ts
}

// number reads a member that must be a number.
func (r *reader) number(m *node, path, name string) *Number {
	n := member(m, name)
	if isNull(n) {
		return nil
	}
	t := r.scalar(n, join(path, name))
	if !t.Set {
		return nil
	}
	v, ok := parseNumber(t.Value)
	if !ok {
		r.problem("READ-003", t.Pos, "%s is %q, want a number", join(path, name), t.Value)
		return nil
	}
	return &Number{v, t}
}

// word reads a member from a closed vocabulary.
func (r *reader) word(m *node, path, name string, vocabulary []string) Text {
	t := r.text(m, path, name)
	if t.Set && !slices.Contains(vocabulary, t.Value) {
		r.problem("READ-004", t.Pos, "%s %q is not known, want one of %s", join(path, name), t.Value, strings.Join(vocabulary, ", "))
	}
	return t
}

// contract reads all sections. Their order in the file does not matter.
func (r *reader) contract(root *node) {
	c := r.c
	r.keys(root, "", topLevel)
	for i := 0; i+1 < len(root.Content); i += 2 {
		k := root.Content[i]
		c.Keys = append(c.Keys, Key{k.Value, k.Value, at(k)})
		if k.Value == "metadata" {
			c.Metadata.Pos = at(k)
		}
	}
	r.metadata(member(root, "metadata"))
	r.equations(member(root, "equations"))
	for i, n := range r.list(member(root, "proof_obligations"), "proof_obligations") {
		r.obligation(n, fmt.Sprintf("proof_obligations[%d]", i))
	}
	r.kernelParts(root)
	for i, n := range r.list(member(root, "falsification_tests"), "falsification_tests") {
		r.falsifier(n, fmt.Sprintf("falsification_tests[%d]", i))
	}
	for i, n := range r.list(member(root, "kani_harnesses"), "kani_harnesses") {
		r.harness(n, fmt.Sprintf("kani_harnesses[%d]", i))
	}
	r.gate(member(root, "qa_gate"))
	r.summary(member(root, "verification_summary"))
}
