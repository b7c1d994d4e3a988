package contract

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// node is a YAML node, with aliases resolved.
type node = yaml.Node

// Limits of a file from outside. The largest contract known has 64 KiB.
const (
	maxBytes = 8 << 20
	maxDepth = 64
)

// Errors of reading. A *ReadError wraps one of them.
var (
	// ErrFormat says that the file is not YAML in UTF-8, or too large.
	ErrFormat = errors.New("not readable as YAML")
	// ErrOther says that the file is YAML but no contract.
	ErrOther = errors.New("not a contract")
)

// ReadError is a file that cannot be read as a contract, and where.
type ReadError struct {
	Path string
	Pos  Pos
	Kind error // ErrFormat or ErrOther
	Text string
}

// Error is one line that starts with the file and the place.
func (e *ReadError) Error() string {
	if e.Pos.Line == 0 {
		return fmt.Sprintf("%s: %v: %s", e.Path, e.Kind, e.Text)
	}
	return fmt.Sprintf("%s:%d:%d: %v: %s", e.Path, e.Pos.Line, e.Pos.Column, e.Kind, e.Text)
}

func (e *ReadError) Unwrap() error { return e.Kind }

// parseYAML returns the root mapping of one document.
func parseYAML(path string, src []byte) (*node, error) {
	fail := func(pos Pos, kind error, format string, args ...any) error {
		return &ReadError{path, pos, kind, fmt.Sprintf(format, args...)}
	}
	if len(src) > maxBytes {
		return nil, fail(Pos{}, ErrFormat, "%d bytes, at most %d are read", len(src), maxBytes)
	}
	if !utf8.Valid(src) {
		return nil, fail(Pos{}, ErrFormat, "the file is not UTF-8")
	}
	if len(bytes.TrimSpace(src)) == 0 {
		return nil, fail(Pos{1, 1}, ErrOther, "the file is empty")
	}
	var doc node
	if err := loadYAML(src, &doc); err != nil {
		pos, text := yamlError(err)
		return nil, fail(pos, ErrFormat, "%s", text)
	}
	root := &doc
	if root.Kind == yaml.DocumentNode && len(root.Content) > 0 {
		root = root.Content[0]
	}
	f := flattener{size: map[*node]int{}}
	if _, err := f.flatten(root, 0); err != nil {
		return nil, fail(at(root), ErrFormat, "%v", err)
	}
	if root.Kind != yaml.MappingNode {
		return nil, fail(at(root), ErrOther, "the document is %s, want a mapping with metadata", describe(root))
	}
	return root, nil
}

// loadYAML guards against a panic of the YAML library: the file is from outside
// and must not end the process.
func loadYAML(src []byte, doc *node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML reader gave up: %v", r)
		}
	}()
	return yaml.Load(src, doc)
}

// yamlPlace finds the place in the messages of the YAML library.
var yamlPlace = regexp.MustCompile(`\bL(\d+)\.C(\d+)(?:-L\d+\.C\d+)?|\bline (\d+)`)

// yamlError splits an error of the YAML library into place and one line of text.
func yamlError(err error) (Pos, string) {
	text := strings.Join(strings.Fields(err.Error()), " ")
	var pos Pos
	if m := yamlPlace.FindStringSubmatch(text); m != nil {
		pos.Column = 1
		if m[1] != "" {
			pos.Line, _ = strconv.Atoi(m[1])
			pos.Column, _ = strconv.Atoi(m[2])
		} else {
			pos.Line, _ = strconv.Atoi(m[3])
		}
	}
	if i := strings.LastIndex(text, ": "); i >= 0 && pos.Line > 0 {
		text = text[i+2:]
	}
	return pos, text
}

// maxNodes bounds a document with its aliases expanded; a real contract has
// some thousands.
const maxNodes = 1 << 20

var (
	errDeep  = fmt.Errorf("nested deeper than %d levels", maxDepth)
	errLarge = fmt.Errorf("more than %d values", maxNodes)
	errCycle = errors.New("an alias stands for a value that contains it")
)

// flattener replaces aliases by what they stand for, so that the rest of the
// package sees plain nodes.
type flattener struct {
	size map[*node]int // expanded size of finished nodes; 0 while in progress
}

// flatten returns the expanded number of nodes below n.
func (f *flattener) flatten(n *node, depth int) (int, error) {
	if depth > maxDepth {
		return 0, errDeep
	}
	f.size[n] = 0
	total := 1
	for i, child := range n.Content {
		var size int
		if child.Kind == yaml.AliasNode && child.Alias != nil {
			size = f.size[child.Alias]
			if size == 0 {
				return 0, errCycle
			}
			// A copy, with the place of the use. Its children are shared.
			target := *child.Alias
			target.Line, target.Column = child.Line, child.Column
			n.Content[i] = &target
		} else {
			var err error
			if size, err = f.flatten(child, depth+1); err != nil {
				return 0, err
			}
		}
		if total += size; total > maxNodes {
			return 0, errLarge
		}
	}
	f.size[n] = total
	return total, nil
}

// at is the place of a node.
func at(n *node) Pos { return Pos{n.Line, n.Column} }

// describe names the shape of a node for messages.
func describe(n *node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch n.Tag {
		case "!!null":
			return "empty"
		case "!!int", "!!float":
			return "a number"
		case "!!bool":
			return "true or false"
		}
		return "text"
	}
	return "an unknown node"
}

// isNull says that a key is absent or its value empty.
func isNull(n *node) bool { return n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// member returns the value of the last occurrence of a key, or nil.
func member(m *node, key string) *node {
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	for i := len(m.Content) - 2; i >= 0; i -= 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// Numbers of the YAML 1.2 core schema, which reads 1e-6 as a number and 010 as
// ten. Other forms (1_000, 0b1, sexagesimal) are text.
var (
	yamlInt   = regexp.MustCompile(`^[-+]?[0-9]+$`)
	yamlFloat = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
	yamlHex   = regexp.MustCompile(`^0x[0-9a-fA-F]+$`)
	yamlOctal = regexp.MustCompile(`^0o[0-7]+$`)
)

// parseNumber reads a YAML 1.2 number. Infinities and NaN are numbers too.
func parseNumber(s string) (float64, bool) {
	switch {
	case yamlInt.MatchString(s), yamlFloat.MatchString(s):
		v, err := strconv.ParseFloat(s, 64)
		return v, err == nil || errors.Is(err, strconv.ErrRange)
	case yamlHex.MatchString(s), yamlOctal.MatchString(s):
		v, err := strconv.ParseUint(s, 0, 64)
		return float64(v), err == nil
	}
	switch strings.TrimPrefix(strings.ToLower(s), "+") {
	case ".inf":
		return math.Inf(1), true
	case "-.inf":
		return math.Inf(-1), true
	case ".nan":
		return math.NaN(), true
	}
	return 0, false
}
