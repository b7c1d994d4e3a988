// Package chat turns a conversation into the text a model was trained on: messages, tools and the Jinja template that
// came with the model, rendered as Hugging Face's apply_chat_template renders it.
package chat

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/apr-engine/apr/chat/internal/jinja"
)

// Kinds of failure, tested with errors.Is.
var (
	// ErrTemplate: the template cannot be parsed, or fails in a way that no conversation can mend.
	ErrTemplate = errors.New("chat template")
	// ErrConversation: the template refused the conversation through raise_exception; the error carries its words.
	ErrConversation = errors.New("chat template refuses the conversation")
	// ErrLimit: the template is too large, or its rendering took too much work, output or recursion.
	ErrLimit = errors.New("chat template limit")
	// ErrNoTemplate: the model has no template and none could be told from its special tokens.
	ErrNoTemplate = errors.New("no chat template")
)

// Template is a parsed chat template; safe for concurrent use.
type Template struct {
	name   string
	source string
	t      *jinja.Template
}

// Parse reads a template; name is for error messages (a file or a builtin's name). Errors wrap ErrTemplate or ErrLimit and
// say the line.
func Parse(name, source string) (t *Template, err error) {
	defer rescue(name, &err)
	jt, err := jinja.Parse(source, jinja.DefaultLimits)
	if err != nil {
		return nil, wrap(name, err)
	}
	return &Template{name: name, source: source, t: jt}, nil
}

// Name is the name given to Parse.
func (t *Template) Name() string { return t.name }

// Source is the text given to Parse.
func (t *Template) Source() string { return t.source }

// workPerMessage allows for templates that look through all messages for each of them, up to some thousand messages.
const workPerMessage = 20_000

// moreWork is what this conversation adds to the engine's work limit. Some templates append each message to a growing
// string, which copies all the text once a message or more.
func (r *Request) moreWork() int {
	n, text := len(r.Messages), 0
	for _, m := range r.Messages {
		text += len(m.Content)
	}
	return n*workPerMessage + n*(text/4)
}

// Request is what a template renders. Absent values reach it as transformers passes them: tools and documents as None,
// an empty BOS or EOS as an undefined name.
type Request struct {
	Messages            []Message
	Tools               []Value // one object a tool, as in the OpenAI API
	Documents           []Value
	AddGenerationPrompt bool      // end with the start of the assistant's turn
	BOS, EOS            string    // text of the special tokens
	Now                 time.Time // what strftime_now formats, in its own zone; zero: the time of the call
	Extra               []Member  // further variables, such as enable_thinking; they override the others
}

// Render applies the template. Its errors wrap ErrConversation, ErrTemplate or ErrLimit.
func (t *Template) Render(r Request) (out string, err error) {
	defer rescue(t.name, &err)
	out, err = t.t.Render(r.vars(), r.moreWork())
	if err != nil {
		return "", wrap(t.name, err)
	}
	return out, nil
}

func (r *Request) vars() map[string]any {
	msgs := &jinja.List{}
	for _, m := range r.Messages {
		msgs.Items = append(msgs.Items, m.value().jinja())
	}
	vars := map[string]any{
		"messages":              msgs,
		"tools":                 nil,
		"documents":             nil,
		"add_generation_prompt": r.AddGenerationPrompt,
		"strftime_now":          strftimeNow(r.Now),
	}
	if len(r.Tools) > 0 {
		vars["tools"] = NewArray(r.Tools...).jinja()
	}
	if len(r.Documents) > 0 {
		vars["documents"] = NewArray(r.Documents...).jinja()
	}
	if r.BOS != "" {
		vars["bos_token"] = r.BOS
	}
	if r.EOS != "" {
		vars["eos_token"] = r.EOS
	}
	for _, x := range r.Extra {
		vars[x.Key] = x.Value.jinja()
	}
	return vars
}

func strftimeNow(now time.Time) *jinja.Callable {
	return jinja.Func("strftime_now", []string{"format"}, 1, func(args []any) (any, error) {
		layout, ok := args[0].(string)
		if !ok {
			return nil, errors.New("strftime_now: the format must be a string")
		}
		if now.IsZero() {
			return strftime(time.Now(), layout), nil
		}
		return strftime(now, layout), nil
	})
}

// wrap turns the engine's error into one of this package's kinds.
func wrap(name string, err error) error {
	var je *jinja.Error
	errors.As(err, &je)
	if je == nil {
		je = &jinja.Error{Msg: err.Error()}
	}
	msg := oneLine(je.Msg)
	if je.Kind == jinja.ErrRaised {
		return fmt.Errorf("%w: %s: %s", ErrConversation, name, msg)
	}
	if je.Line > 0 {
		msg = fmt.Sprintf("line %d: %s", je.Line, msg)
	}
	if je.Kind == jinja.ErrLimit {
		return fmt.Errorf("%w: %s: %s", ErrLimit, name, msg)
	}
	return fmt.Errorf("%w: %s: %s", ErrTemplate, name, msg)
}

// oneLine makes a message from a template fit for a terminal: no control characters, at most 500 characters.
func oneLine(s string) string {
	rs := []rune(s[:min(len(s), 4*500)])
	rs = rs[:min(len(rs), 500)]
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, string(rs)))
}

// rescue turns a panic in the engine, which would be a bug in it, into an error: templates come from outside.
func rescue(name string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %s: internal error: %v", ErrTemplate, name, r)
	}
}
