package contract

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// ErrEdit says that a file is written in a form that cannot be edited in place.
var ErrEdit = errors.New("cannot be edited in place")

// Editor changes a contract's text by splicing bytes. Everything else in the
// file, comments and blank lines included, stays as it is. An editor is used
// for one set of changes and then applied.
type Editor struct {
	c       *Contract
	splices []splice
	err     error
}

// splice replaces the bytes from start to end.
type splice struct {
	start, end int
	text       string
}

// Edit starts a set of changes.
func (c *Contract) Edit() *Editor { return &Editor{c: c} }

// fail keeps the first reason why the edit is impossible; Apply returns it.
func (e *Editor) fail(pos Pos, format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("%s:%d:%d: %w: %s", e.c.Path, pos.Line, pos.Column, ErrEdit, fmt.Sprintf(format, args...))
	}
}

func (e *Editor) add(start, end int, text string) {
	e.splices = append(e.splices, splice{start, end, text})
}

// Apply returns the changed text, read again as a contract: a change that did
// not give what was asked for is an error and not a file.
func (e *Editor) Apply() (*Contract, error) {
	if e.err != nil {
		return nil, e.err
	}
	// Splices at one place keep the order in which they were asked for.
	slices.SortStableFunc(e.splices, func(a, b splice) int { return a.start - b.start })
	var out bytes.Buffer
	from := 0
	for _, s := range e.splices {
		if s.start < from || s.end < s.start || s.end > len(e.c.src) {
			return nil, fmt.Errorf("%s: %w: changes overlap", e.c.Path, ErrEdit)
		}
		out.Write(e.c.src[from:s.start])
		out.WriteString(s.text)
		from = s.end
	}
	out.Write(e.c.src[from:])
	changed, err := Parse(e.c.Path, out.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: the result is not readable: %w", ErrEdit, err)
	}
	if err := e.sameMeaning(changed); err != nil {
		return nil, err
	}
	return changed, nil
}

// sameMeaning fails if a change touched more than it should: an added line end,
// for one, becomes part of a text that stands at the end of the file.
func (e *Editor) sameMeaning(changed *Contract) error {
	if len(changed.Falsifiers) != len(e.c.Falsifiers) {
		return fmt.Errorf("%s: %w: falsifiers would be lost", e.c.Path, ErrEdit)
	}
	for i := range e.c.Falsifiers {
		f := &e.c.Falsifiers[i]
		if changed.Definition(&changed.Falsifiers[i]) != e.c.Definition(f) {
			return fmt.Errorf("%s: %w: %s would change its meaning", e.c.Path, ErrEdit, f.ID)
		}
	}
	return nil
}

// lineOffsets returns the byte offset at which each line starts.
func lineOffsets(src []byte) []int {
	lines := []int{0}
	for i, b := range src {
		if b == '\n' {
			lines = append(lines, i+1)
		}
	}
	return lines
}

// offset is the byte at a place.
func (c *Contract) offset(p Pos) (int, bool) {
	if p.Line < 1 || p.Line > len(c.lines) || p.Column < 1 {
		return 0, false
	}
	at := c.lines[p.Line-1]
	if p.Line == 1 && bytes.HasPrefix(c.src, []byte("\ufeff")) {
		at += len("\ufeff") // a byte order mark has no column
	}
	for range p.Column - 1 {
		if at >= len(c.src) {
			return 0, false
		}
		_, size := utf8.DecodeRune(c.src[at:])
		at += size
	}
	return at, true
}

// extent is the range of bytes of a scalar that stands on one line.
func (e *Editor) extent(n *node) (start, end int, ok bool) {
	start, ok = e.c.offset(at(n))
	if !ok || n.Kind != yaml.ScalarNode {
		return 0, 0, false
	}
	src := e.c.src
	rest := src[start:]
	if line := bytes.IndexByte(rest, '\n'); line >= 0 {
		rest = rest[:line]
	}
	if len(rest) == 0 {
		return start, start, n.Value == ""
	}
	switch quote := rest[0]; {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 || n.Anchor != "" || quote == '!' || quote == '&' || quote == '*':
		return 0, 0, false
	case quote == '"' || quote == '\'':
		for i := 1; i < len(rest); i++ {
			switch {
			case rest[i] == '\\' && quote == '"':
				i++
			case rest[i] == quote && quote == '\'' && i+1 < len(rest) && rest[i+1] == quote:
				i++
			case rest[i] == quote:
				return start, start + i + 1, true
			}
		}
		return 0, 0, false
	}
	// Plain: its text is its value, on one line.
	return start, start + len(n.Value), bytes.HasPrefix(rest, []byte(n.Value))
}

// plainWord says whether a value can stand without quotes.
func plainWord(s string) bool {
	for _, r := range s {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-' || r == '.') {
			return false
		}
	}
	_, number := parseNumber(s)
	return s != "" && !number && !slices.Contains([]string{"null", "true", "false", "yes", "no", "on", "off"}, strings.ToLower(s)) && s[0] != '-' && s[0] != '.'
}

// quote writes a value as YAML, double quoted unless it is a plain word.
func quote(s string) string {
	if plainWord(s) {
		return s
	}
	var b bytes.Buffer
	writeJSONString(&b, s) // a JSON string is a YAML string
	return b.String()
}

// setScalar replaces a scalar, keeping its kind of quotes where there are any.
func (e *Editor) setScalar(n *node, value, written string) {
	start, end, ok := e.extent(n)
	if !ok {
		e.fail(at(n), "a value over several lines, or with an anchor or tag")
		return
	}
	if q := e.c.src[start:end]; len(q) > 0 && (q[0] == '"' || q[0] == '\'') && !strings.ContainsAny(value, "\"'\\\n") {
		written = string(q[0]) + value + string(q[0])
	}
	e.add(start, end, written)
}

// setMember sets a key of a mapping: its value if it has one, else the key is
// added after the key named by after.
func (e *Editor) setMember(m *node, key, value, written, after string) {
	if n := member(m, key); n != nil {
		if n.Kind != yaml.ScalarNode {
			e.fail(at(n), "%s is %s", key, describe(n))
			return
		}
		if isNull(n) && n.Value == "" {
			e.fail(at(n), "%s is empty: write a value or remove the key", key)
			return
		}
		if n.Value != value {
			e.setScalar(n, value, written)
		}
		return
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == after {
			e.insertAfter(m, m.Content[i], m.Content[i+1], key+": "+written)
			return
		}
	}
	e.fail(at(m), "there is no %s to put %s behind", after, key)
}

// insertAfter adds "key: value" to a mapping behind a member with a scalar on
// one line.
func (e *Editor) insertAfter(m, key, value *node, text string) {
	_, end, ok := e.extent(value)
	if !ok {
		e.fail(at(value), "%s is not on one line", key.Value)
		return
	}
	if m.Style&yaml.FlowStyle != 0 {
		e.add(end, end, ", "+text)
		return
	}
	if nl := bytes.IndexByte(e.c.src[end:], '\n'); nl >= 0 {
		end += nl // behind a comment on the line
	} else {
		end = len(e.c.src)
	}
	end = beforeCR(e.c.src, end)
	e.add(end, end, e.newline()+strings.Repeat(" ", key.Column-1)+text)
}

// beforeCR steps over the carriage return of a line that ends at end.
func beforeCR(src []byte, end int) int {
	if end > 0 && src[end-1] == '\r' {
		return end - 1
	}
	return end
}

// newline is the line end that the file uses.
func (e *Editor) newline() string {
	if bytes.Contains(e.c.src, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}
