package engine

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/tokenizer"
)

// Template returns the template that was set with UseTemplate, else that of the
// file, else the one that the special tokens imply.
func (m *Model) Template() (*chat.Template, error) {
	if m.template != nil {
		return m.template, nil
	}
	if source, ok := m.File.Metadata.String("tokenizer.chat_template"); ok && source != "" {
		t, err := chat.Parse("tokenizer.chat_template", source)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrLoad, m.Path, err)
		}
		return t, nil
	}
	has := func(token string) bool { _, ok := m.Tokenizer.ID(token); return ok }
	t, err := chat.Fallback(m.Path, has)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	return t, nil
}

// UseTemplate replaces the model's template by a builtin one or, if there is none
// of that name, by the template in the file of that name.
func (m *Model) UseTemplate(name string) error {
	source, ok := chat.Builtin(name)
	if !ok {
		data, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("%w: chat template %s is neither a file nor one of %s: %w", ErrInput, name, strings.Join(chat.BuiltinNames(), ", "), err)
		}
		source = string(data)
	}
	t, err := chat.Parse(name, source)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	m.template = t
	return nil
}

// ChatPrompt renders a conversation, up to the point where the model answers,
// and returns its tokens.
func (m *Model) ChatPrompt(messages []chat.Message) ([]int32, error) {
	t, err := m.Template()
	if err != nil {
		return nil, err
	}
	bos, eos := m.tokenText(m.Tokenizer.BOS()), m.tokenText(m.Tokenizer.EOS())
	text, err := t.Render(chat.Request{Messages: messages, AddGenerationPrompt: true, BOS: bos, EOS: eos, Now: time.Now()})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInput, m.Path, err)
	}
	// A template that writes the BOS token itself must not get a second one.
	special := bos == "" || !strings.HasPrefix(text, bos)
	return m.Tokenizer.Encode(text, tokenizer.EncodeOptions{AddSpecial: special, ParseSpecial: true}), nil
}

// TextPrompt returns the tokens of a text that is given to the model as it is.
func (m *Model) TextPrompt(text string) []int32 {
	return m.Tokenizer.Encode(text, tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true})
}

func (m *Model) tokenText(id int32) string {
	if id < 0 {
		return ""
	}
	return m.Tokenizer.Text(id)
}
