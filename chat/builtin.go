package chat

import (
	"fmt"
	"sort"
	"strings"
)

// builtins are short templates for models whose file has none, written for the published prompt formats. They accept
// what their formats can say and refuse the rest.
var builtins = map[string]string{
	"chatml": `{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + (m.content or '') + '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`,

	"llama-2": alternating + `{% for m in turns %}
{%- if m.role == 'user' %}{{ bos_token|default('<s>') + '[INST] ' }}
{%- if loop.first and system %}{{ '<<SYS>>\n' + system + '\n<</SYS>>\n\n' }}{% endif %}
{{- m.content|trim + ' [/INST]' }}
{%- else %}{{ ' ' + m.content|trim + ' ' + eos_token|default('</s>') }}{% endif %}
{%- endfor %}`,

	"llama-3": `{{ bos_token|default('<|begin_of_text|>') }}{% for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + (m.content or '')|trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}`,

	"mistral": alternating + `{{ bos_token|default('<s>') }}{% for m in turns %}
{%- if m.role == 'user' %}{{ '[INST] ' }}
{%- if loop.first and system %}{{ system + '\n\n' }}{% endif %}
{{- m.content + ' [/INST]' }}
{%- else %}{{ ' ' + m.content|trim + eos_token|default('</s>') }}{% endif %}
{%- endfor %}`,

	"gemma": alternating + `{{ bos_token|default('<bos>') }}{% for m in turns %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\n' }}
{%- if loop.first and system %}{{ system|trim + '\n\n' }}{% endif %}
{{- m.content|trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}`,

	"phi-3": `{% for m in messages %}{{ '<|' + m.role + '|>\n' + (m.content or '') + '<|end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}`,

	"zephyr": `{% for m in messages %}{{ '<|' + m.role + '|>\n' + (m.content or '') + eos_token|default('</s>') + '\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}`,
}

// alternating splits a leading system message off and checks that user and assistant take turns.
const alternating = `{% set system = '' %}{% set turns = messages %}
{%- if messages and messages[0].role == 'system' %}
{%- set system = messages[0].content %}{% set turns = messages[1:] %}
{%- endif %}
{%- for m in turns %}
{%- if m.role != ('user' if loop.index0 is even else 'assistant') %}
{{- raise_exception('after an optional system message, roles must alternate user, assistant, user, …') }}
{%- endif %}
{%- endfor %}`

// Builtin is the source of a template this package has: see BuiltinNames.
func Builtin(name string) (source string, ok bool) {
	source, ok = builtins[name]
	return source, ok
}

// BuiltinNames lists the names Builtin knows, sorted.
func BuiltinNames() []string {
	var names []string
	for n := range builtins {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// marks are special tokens that occur in one prompt format only, with that format's builtin.
var marks = []struct{ token, name string }{
	{"<|im_start|>", "chatml"},
	{"<|start_header_id|>", "llama-3"},
	{"<start_of_turn>", "gemma"},
}

// Detect names the builtin for a model without a template of its own, told by its special tokens; has reports whether
// the vocabulary has a token with exactly this text. Formats made of ordinary text (Llama 2, Mistral) cannot be told
// apart, and <|end|> has several meanings, so nothing is guessed for them: the error wraps ErrNoTemplate.
func Detect(model string, has func(token string) bool) (name string, err error) {
	for _, m := range marks {
		if has(m.token) {
			return m.name, nil
		}
	}
	return "", fmt.Errorf("%w: %s has none and its special tokens do not tell; use --raw, or --chat-template with a file or one of %s",
		ErrNoTemplate, model, strings.Join(BuiltinNames(), ", "))
}

// Fallback is the parsed builtin that Detect names.
func Fallback(model string, has func(token string) bool) (*Template, error) {
	name, err := Detect(model, has)
	if err != nil {
		return nil, err
	}
	return Parse(name, builtins[name])
}
