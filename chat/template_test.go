package chat

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func user(s string) Message   { return Message{Role: "user", Content: s} }
func system(s string) Message { return Message{Role: "system", Content: s} }
func model(s string) Message  { return Message{Role: "assistant", Content: s} }

func mustBuiltin(t testing.TB, name string) *Template {
	t.Helper()
	src, ok := Builtin(name)
	if !ok {
		t.Fatalf("no builtin %s", name)
	}
	tmpl, err := Parse(name, src)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

// The expected texts are the formats as their makers document them.
func TestBuiltins(t *testing.T) {
	msgs := []Message{system("Be brief."), user("Hi"), model("Hello"), user("2+2?")}
	want := map[string]string{
		"chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n" +
			"<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n",
		"llama-2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] 2+2? [/INST]",
		"llama-3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n" +
			"Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n" +
			"2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
		"mistral": "<s>[INST] Be brief.\n\nHi [/INST] Hello</s>[INST] 2+2? [/INST]",
		"gemma": "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n" +
			"<start_of_turn>user\n2+2?<end_of_turn>\n<start_of_turn>model\n",
		"phi-3":  "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n<|user|>\n2+2?<|end|>\n<|assistant|>\n",
		"zephyr": "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\n2+2?</s>\n<|assistant|>\n",
	}
	if got := BuiltinNames(); len(got) != len(want) {
		t.Errorf("builtins %v, want %d of them", got, len(want))
	}
	for _, name := range BuiltinNames() {
		got, err := mustBuiltin(t, name).Render(Request{Messages: msgs, AddGenerationPrompt: true})
		if err != nil || got != want[name] {
			t.Errorf("%s: %v\n got %q\nwant %q", name, err, got, want[name])
		}
	}
	for _, name := range []string{"llama-2", "mistral", "gemma"} {
		_, err := mustBuiltin(t, name).Render(Request{Messages: []Message{user("a"), user("b")}})
		if !errors.Is(err, ErrConversation) || !strings.Contains(err.Error(), "roles must alternate") {
			t.Errorf("%s with two user turns in a row: %v", name, err)
		}
	}
}

func TestDetect(t *testing.T) {
	tests := []struct{ name, tokens, want string }{
		{"chatml", "<|im_end|> <|im_start|>", "chatml"},
		{"llama 3", "<|start_header_id|>", "llama-3"},
		{"gemma", "<start_of_turn>", "gemma"},
		{"llama 2", "<s> </s>", ""},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			has := func(tok string) bool { return strings.Contains(" "+tt.tokens+" ", " "+tok+" ") }
			tmpl, err := Fallback("x.gguf", has)
			if tt.want == "" {
				if !errors.Is(err, ErrNoTemplate) || !strings.Contains(err.Error(), "x.gguf") || !strings.Contains(err.Error(), "--raw") {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || tmpl.Name() != tt.want {
				t.Errorf("got %v, %v; want %s", tmpl, err, tt.want)
			}
		})
	}
}

func TestErrorsSayWhere(t *testing.T) {
	tests := []struct {
		name, source, want string
		kind               error
	}{
		{"syntax", "a\nb\n{% if %}", "chat template: t.jinja: line 3: ", ErrTemplate},
		{"undefined", "a\n{% for m in messages %}\n{{ m.nope.x }}{% endfor %}", "line 3: 'dict object' has no attribute 'nope'", ErrTemplate},
		{"raise", "\n{{ raise_exception('only user\nplease') }}", "only user", ErrConversation},
		{"limit", "\n{% for a in range(9999) %}{% for a in range(9999) %}{% endfor %}{% endfor %}", "line 2: work limit", ErrLimit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tmpl, err := Parse("t.jinja", tt.source)
			if err == nil {
				_, err = tmpl.Render(Request{Messages: []Message{user("x")}})
			}
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "t.jinja") {
				t.Errorf("error %v, want kind %v and %q", err, tt.kind, tt.want)
			}
		})
	}
}

func TestMessageFields(t *testing.T) {
	calls, err := ParseJSON([]byte(`[{"type":"function","function":{"name":"f","arguments":{"z":1,"a":2.50}}}]`))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ParseJSON([]byte(`{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"role":"user","x":1}`))
	if err != nil {
		t.Fatal(err)
	}
	fromJSON, err := FromJSON(raw)
	if err != nil || fromJSON.Content != "ab" || fromJSON.Role != "user" {
		t.Fatalf("FromJSON: %+v, %v", fromJSON, err)
	}
	tmpl, err := Parse("t", "{% for m in messages %}{{ m | tojson }}\n{% endfor %}")
	if err != nil {
		t.Fatal(err)
	}
	got, err := tmpl.Render(Request{Messages: []Message{
		{Role: "assistant", NoContent: true, ToolCalls: calls, Extra: []Member{{"reasoning_content", NewString("r")}}},
		{Role: "tool", Content: "ok", Name: "f", ToolCallID: "1"},
		fromJSON,
	}})
	want := `{"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"z": 1, "a": 2.5}}}], "reasoning_content": "r"}
{"role": "tool", "content": "ok", "name": "f", "tool_call_id": "1"}
{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "role": "user", "x": 1}
`
	if err != nil || got != want {
		t.Errorf("%v\n got %s\nwant %s", err, got, want)
	}
	for _, bad := range []string{`1`, `{}`, `{"role":1}`, `{"role":"user","content":1}`} {
		v, err := ParseJSON([]byte(bad))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := FromJSON(v); !errors.Is(err, ErrJSON) {
			t.Errorf("FromJSON(%s): %v", bad, err)
		}
	}
}

// TestConcurrent renders one template in parallel; a template that pops from its list must not disturb the others.
func TestConcurrent(t *testing.T) {
	tmpl, err := Parse("t", "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ messages.pop().content }}{{ ns.n }}")
	if err != nil {
		t.Fatal(err)
	}
	msgs := []Message{user("a"), user("b")}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got, err := tmpl.Render(Request{Messages: msgs}); err != nil || got != "b2" {
					t.Errorf("got %q, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// The expected texts come from Python's strftime.
func TestStrftime(t *testing.T) {
	at := time.Date(2026, 3, 7, 9, 5, 2, 123456789, time.UTC)
	tests := []struct{ format, want string }{
		{"%Y-%m-%d", "2026-03-07"}, {"%d %b %Y", "07 Mar 2026"}, {"%B %-d, %Y", "March 7, 2026"}, {"%A %a %j", "Saturday Sat 066"},
		{"%H:%M:%S.%f", "09:05:02.123456"}, {"%I:%M %p", "09:05 AM"}, {"%e|%k|%l", " 7| 9| 9"}, {"%U %W %V %G", "09 09 10 2026"},
		{"%u %w %y %C", "6 6 26 20"}, {"%D %F %T %R", "03/07/26 2026-03-07 09:05:02 09:05"}, {"100%%", "100%"}, {"%", "%"},
	}
	for _, tt := range tests {
		if got := strftime(at, tt.format); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.format, got, tt.want)
		}
	}
}

func BenchmarkQwen(b *testing.B) {
	src, err := os.ReadFile("testdata/templates/Qwen-Qwen2.5-7B-Instruct.jinja")
	if err != nil {
		b.Fatal(err)
	}
	c, ok := readJSON(b, "conversations.json").Get("tool-answer")
	if !ok {
		b.Fatal("no such conversation")
	}
	r := conversation(c)
	b.Run("parse+render", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			tmpl, err := Parse("qwen", string(src))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := tmpl.Render(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	tmpl, err := Parse("qwen", string(src))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("render", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tmpl.Render(r); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestLongConversation: no template runs out of work on an honest conversation of a thousand messages.
func TestLongConversation(t *testing.T) {
	files, err := filepath.Glob("testdata/templates/*.jinja")
	if err != nil || len(files) == 0 {
		t.Fatalf("no templates: %v", err)
	}
	r := Request{BOS: "<s>", EOS: "</s>", AddGenerationPrompt: true, Now: goldenNow}
	for range 500 {
		r.Messages = append(r.Messages, user(strings.Repeat("question ", 50)), model(strings.Repeat("answer ", 100)))
	}
	r.Messages = append(r.Messages, user("Bye"))
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := Parse(name, string(src))
		if err != nil {
			continue // golden_test.go has those that Python refuses too
		}
		if _, err := tmpl.Render(r); errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
