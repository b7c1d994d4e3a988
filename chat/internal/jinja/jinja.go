// Package jinja renders Jinja templates as Python's jinja2 3.1 does under the settings that Hugging Face uses for chat
// templates: an immutable sandbox, trim_blocks, lstrip_blocks, loop controls, no autoescaping and no loader.
//
// Values keep Python's semantics where templates can see them: ordered dicts, booleans that count as integers, undefined
// values that print as nothing but raise in arithmetic, one scope for each loop iteration. A template comes with a model
// file and is not trusted: its size, nesting, work, output and recursion are bounded, and nothing in it can reach
// anything but the values it is given.
//
// Not provided, because nothing can be loaded or because chat templates have no use for it: extends, include, import,
// autoescape blocks, and the filters random, urlize, xmlattr, pprint and wordwrap. They are errors, never ignored.
package jinja

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of failure; an *Error wraps one of them.
var (
	ErrSyntax  = errors.New("syntax error")    // the template does not parse
	ErrRuntime = errors.New("render error")    // Python would raise while rendering
	ErrRaised  = errors.New("template raised") // the template called raise_exception
	ErrLimit   = errors.New("limit exceeded")  // a bound in Limits was met
)

// Error is a failure with the template line it happened on.
type Error struct {
	Line int    // 1-based; 0 when unknown
	Msg  string // for ErrRaised the template's own words
	Kind error
}

func (e *Error) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.Msg)
	}
	return e.Msg
}

func (e *Error) Unwrap() error { return e.Kind }

// Limits bounds one template and one rendering of it.
type Limits struct {
	Source int // bytes of template source
	Nest   int // depth of nested statements and expressions, and of nested values when printed or compared
	Work   int // units of work: an evaluation step, or 16 bytes produced
	Output int // bytes of output
	Calls  int // depth of macro calls and recursive loops
}

// DefaultLimits are far above what published templates need (the largest takes some 10,000 units of work for a short
// conversation) and keep the worst template to about a second and a few hundred MiB.
var DefaultLimits = Limits{Source: 1 << 20, Nest: 200, Work: 10_000_000, Output: 64 << 20, Calls: 100}

// Template is a parsed template; safe for concurrent use.
type Template struct {
	body   []node
	limits Limits
}

// Parse reads a template. Its errors are *Error wrapping ErrSyntax or ErrLimit.
func Parse(source string, limits Limits) (*Template, error) {
	if len(source) > limits.Source {
		return nil, &Error{Kind: ErrLimit, Msg: fmt.Sprintf("template has %d bytes, limit %d", len(source), limits.Source)}
	}
	toks, err := lex(source)
	if err != nil {
		return nil, err
	}
	body, err := parse(toks, limits)
	if err != nil {
		return nil, err
	}
	return &Template{body: body, limits: limits}, nil
}

// Render executes the template with the given variables, which must be values of this package (see value.go). Functions
// among them are made with Func. Its errors are *Error.
//
// moreWork is added to Limits.Work: honest templates need more for a longer conversation, and a template has no say in it.
func (t *Template) Render(vars map[string]any, moreWork int) (string, error) {
	ev := &evaluator{limits: t.limits}
	ev.limits.Work += moreWork
	globals := &scope{fixed: globalFuncs}
	root := &scope{fixed: vars, parent: globals}
	var out strings.Builder
	err := ev.exec(t.body, &scope{parent: root}, &out)
	if err != nil {
		var te *Error
		if errors.As(err, &te) {
			return "", te
		}
		return "", &Error{Kind: ErrRuntime, Msg: err.Error()}
	}
	return out.String(), nil
}

func runtimeErr(format string, args ...any) error {
	return &Error{Kind: ErrRuntime, Msg: fmt.Sprintf(format, args...)}
}

func limitErr(what string) error {
	return &Error{Kind: ErrLimit, Msg: what + " limit of the template engine exceeded"}
}

// Raise returns the error that raise_exception gives.
func Raise(msg string) error { return &Error{Kind: ErrRaised, Msg: msg} }
