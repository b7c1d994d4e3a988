package jinja

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokKind uint8

const (
	tokEOF tokKind = iota
	tokData
	tokVarBegin
	tokVarEnd
	tokBlockBegin
	tokBlockEnd
	tokName
	tokString
	tokInt
	tokFloat
	tokOp
)

type token struct {
	kind tokKind
	val  string // text of data, decoded string literal, name, digits, operator
	line int
}

func (t token) String() string {
	switch t.kind {
	case tokEOF:
		return "end of template"
	case tokVarEnd:
		return "end of print statement"
	case tokBlockEnd:
		return "end of statement block"
	case tokData:
		return "template data"
	}
	return "'" + t.val + "'"
}

// lexer follows jinja2's tokeniter for the settings trim_blocks and lstrip_blocks.
type lexer struct {
	src       string
	pos       int
	line      int
	lineStart bool // what was consumed last ended in a newline
	toks      []token
}

func lex(source string) ([]token, error) {
	source = strings.ReplaceAll(source, "\r\n", "\n")
	source = strings.ReplaceAll(source, "\r", "\n")
	source = strings.TrimSuffix(source, "\n") // keep_trailing_newline is off
	l := &lexer{src: source, line: 1, lineStart: true}
	for l.pos < len(l.src) {
		if err := l.root(); err != nil {
			return nil, err
		}
	}
	l.emit(tokEOF, "")
	return l.toks, nil
}

func (l *lexer) emit(k tokKind, v string) { l.toks = append(l.toks, token{k, v, l.line}) }

func (l *lexer) fail(format string, args ...any) error {
	return &Error{Line: l.line, Kind: ErrSyntax, Msg: fmt.Sprintf(format, args...)}
}

// advance consumes n bytes, counting lines.
func (l *lexer) advance(n int) {
	s := l.src[l.pos : l.pos+n]
	l.line += strings.Count(s, "\n")
	l.lineStart = strings.HasSuffix(s, "\n")
	l.pos += n
}

// root consumes text up to the next tag and the tag itself.
func (l *lexer) root() error {
	rest := l.src[l.pos:]
	at := tagIndex(rest)
	if at < 0 {
		l.emit(tokData, rest)
		l.advance(len(rest))
		return nil
	}
	kind := rest[at+1]
	sign := signAt(rest, at+2)
	text := stripBefore(rest[:at], sign, kind != '{', l.lineStart)
	if text != "" {
		l.emit(tokData, text)
	}
	l.advance(at + 2)
	if sign != 0 {
		l.advance(1)
	}
	switch kind {
	case '#':
		return l.comment()
	case '%':
		if n := rawBegin(l.src[l.pos:]); n > 0 {
			l.advance(n)
			return l.raw()
		}
		l.emit(tokBlockBegin, "{%")
		return l.code(tokBlockEnd, "%}")
	default:
		l.emit(tokVarBegin, "{{")
		return l.code(tokVarEnd, "}}")
	}
}

// tagIndex finds the first of "{{", "{%" and "{#", or -1.
func tagIndex(s string) int {
	for from := 0; ; {
		i := strings.IndexByte(s[from:], '{')
		if i < 0 || from+i+1 >= len(s) {
			return -1
		}
		i += from
		if c := s[i+1]; c == '{' || c == '%' || c == '#' {
			return i
		}
		from = i + 1
	}
}

func signAt(s string, i int) byte {
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		return s[i]
	}
	return 0
}

// stripBefore applies "{%-" and lstrip_blocks to the text in front of a tag.
func stripBefore(text string, sign byte, block, lineStart bool) string {
	if sign == '-' {
		return strings.TrimRightFunc(text, isSpace)
	}
	if sign == '+' || !block {
		return text
	}
	nl := strings.LastIndexByte(text, '\n') + 1
	if (nl > 0 || lineStart) && nl < len(text) && strings.TrimLeftFunc(text[nl:], isSpace) == "" {
		return text[:nl]
	}
	return text
}

// isSpace is Python's str.isspace for one character.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

func spaceLen(s string) int { return len(s) - len(strings.TrimLeftFunc(s, isSpace)) }

// endTag reports the length of a closing tag at the start of s with the whitespace it removes, or 0. Blocks and
// comments swallow one newline (trim_blocks) unless closed with '+'.
func endTag(s, closer string) int {
	switch {
	case strings.HasPrefix(s, "-"+closer):
		return 3 + spaceLen(s[3:])
	case closer != "}}" && strings.HasPrefix(s, "+"+closer):
		return 3
	case strings.HasPrefix(s, closer):
		if closer != "}}" && len(s) > 2 && s[2] == '\n' {
			return 3
		}
		return 2
	}
	return 0
}

func (l *lexer) comment() error {
	rest := l.src[l.pos:]
	i := strings.Index(rest, "#}")
	if i < 0 {
		return l.fail("missing end of comment tag")
	}
	if i > 0 && (rest[i-1] == '-' || rest[i-1] == '+') {
		i--
	}
	l.advance(i)
	l.advance(endTag(l.src[l.pos:], "#}"))
	return nil
}

// rawBegin reports the length of "raw %}" at the start of s, or 0.
func rawBegin(s string) int {
	n := spaceLen(s)
	if !strings.HasPrefix(s[n:], "raw") {
		return 0
	}
	n += 3
	n += spaceLen(s[n:])
	switch {
	case strings.HasPrefix(s[n:], "-%}"):
		n += 3
		return n + spaceLen(s[n:])
	case strings.HasPrefix(s[n:], "%}"):
		return n + 2
	}
	return 0
}

// raw consumes up to and including "{% endraw %}".
func (l *lexer) raw() error {
	rest := l.src[l.pos:]
	if rest == "" {
		return nil // jinja2 misses the end only if there is text
	}
	for from := 0; ; {
		i := strings.Index(rest[from:], "{%")
		if i < 0 {
			return l.fail("missing end of raw directive")
		}
		i += from
		n := i + 2
		sign := signAt(rest, n)
		if sign != 0 {
			n++
		}
		n += spaceLen(rest[n:])
		if strings.HasPrefix(rest[n:], "endraw") {
			n += 6
			n += spaceLen(rest[n:])
			if e := endTag(rest[n:], "%}"); e > 0 {
				if text := stripBefore(rest[:i], sign, true, l.lineStart); text != "" {
					l.emit(tokData, text)
				}
				l.advance(n + e)
				return nil
			}
		}
		from = i + 2
	}
}

var operators = []string{
	"**", "//", "==", "!=", ">=", "<=",
	"+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";",
}

// code lexes the inside of a tag up to its end. A closing tag inside brackets is not an end.
func (l *lexer) code(end tokKind, closer string) error {
	var stack []byte
	for {
		s := l.src[l.pos:]
		if s == "" {
			l.emit(tokEOF, "")
			return nil // the parser reports what is missing
		}
		if len(stack) == 0 {
			if n := endTag(s, closer); n > 0 {
				l.emit(end, closer)
				l.advance(n)
				return nil
			}
		}
		if n := spaceLen(s); n > 0 {
			l.advance(n)
			continue
		}
		if c := s[0]; c >= '0' && c <= '9' {
			if err := l.number(s); err != nil {
				return err
			}
			continue
		}
		if n := nameLen(s); n > 0 {
			l.emit(tokName, s[:n])
			l.advance(n)
			continue
		}
		if s[0] == '\'' || s[0] == '"' {
			if err := l.str(s); err != nil {
				return err
			}
			continue
		}
		op := ""
		for _, o := range operators {
			if strings.HasPrefix(s, o) {
				op = o
				break
			}
		}
		if op == "" {
			r, _ := utf8.DecodeRuneInString(s)
			return l.fail("unexpected char %q", r)
		}
		switch op {
		case "(", "[", "{":
			stack = append(stack, op[0])
		case ")", "]", "}":
			want := map[string]byte{")": '(', "]": '[', "}": '{'}[op]
			if len(stack) == 0 || stack[len(stack)-1] != want {
				return l.fail("unexpected '%s'", op)
			}
			stack = stack[:len(stack)-1]
		}
		l.emit(tokOp, op)
		l.advance(len(op))
	}
}

func nameLen(s string) int {
	for i, r := range s {
		if r == '_' || unicode.IsLetter(r) || i > 0 && (unicode.IsDigit(r) || unicode.IsMark(r)) {
			continue
		}
		return i
	}
	return len(s)
}

// number lexes an integer (decimal, 0x, 0o, 0b) or a float; underscores may separate digits.
func (l *lexer) number(s string) error {
	digits := func(i int, ok func(byte) bool) int {
		for i < len(s) && (ok(s[i]) || s[i] == '_' && i+1 < len(s) && ok(s[i+1])) {
			i++
		}
		return i
	}
	dec := func(c byte) bool { return c >= '0' && c <= '9' }
	if s[0] == '0' && len(s) > 2 && strings.ContainsRune("xXoObB", rune(s[1])) {
		n := digits(2, func(c byte) bool { return dec(c) || c|0x20 >= 'a' && c|0x20 <= 'f' })
		l.emit(tokInt, strings.ReplaceAll(s[:n], "_", ""))
		l.advance(n)
		return nil
	}
	n := digits(0, dec)
	kind := tokInt
	if n+1 < len(s) && s[n] == '.' && dec(s[n+1]) {
		n = digits(n+1, dec)
		kind = tokFloat
	}
	if n < len(s) && s[n]|0x20 == 'e' {
		m := n + 1
		if m < len(s) && (s[m] == '+' || s[m] == '-') {
			m++
		}
		if m < len(s) && dec(s[m]) {
			n = digits(m, dec)
			kind = tokFloat
		}
	}
	l.emit(kind, strings.ReplaceAll(s[:n], "_", ""))
	l.advance(n)
	return nil
}

// str lexes a quoted string and decodes its escapes as Python's unicode-escape codec does.
func (l *lexer) str(s string) error {
	quote := s[0]
	i := 1
	for i < len(s) && s[i] != quote {
		if s[i] == '\\' {
			i++
		}
		i++
	}
	if i >= len(s) {
		return l.fail("unexpected char %q", rune(quote))
	}
	v, err := unescape(s[1:i])
	if err != nil {
		return l.fail("%v", err)
	}
	l.emit(tokString, v)
	l.advance(i + 1)
	return nil
}

var simpleEscapes = map[byte]string{
	'n': "\n", 't': "\t", 'r': "\r", '\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f", 'v': "\v", '\n': "",
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, "\\") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 >= len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		c := s[i]
		if e, ok := simpleEscapes[c]; ok {
			b.WriteString(e)
			continue
		}
		if n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]; n > 0 {
			r, ok := hexRune(s[i+1:], n)
			if !ok {
				return "", fmt.Errorf("bad \\%c escape in a string", c)
			}
			b.WriteRune(r)
			i += n
			continue
		}
		if c >= '0' && c <= '7' {
			r, n := rune(0), 0
			for n < 3 && i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '7' {
				r = r*8 + rune(s[i+n]-'0')
				n++
			}
			b.WriteRune(r)
			i += n - 1
			continue
		}
		if c == 'N' {
			return "", fmt.Errorf("named characters (\\N) are not supported")
		}
		b.WriteByte('\\') // an unknown escape stands for itself
		b.WriteByte(c)
	}
	return b.String(), nil
}

func hexRune(s string, n int) (rune, bool) {
	if len(s) < n {
		return 0, false
	}
	var r int64
	for _, c := range []byte(s[:n]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | int64(c)
	}
	if r > unicode.MaxRune {
		return 0, false
	}
	return rune(r), true
}
