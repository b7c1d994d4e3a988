package tokenizer

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/internal/golden"
)

func metadata(t *testing.T, path string) *gguf.Metadata {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f.Metadata
}

// TestToHFOriginal: the tokenizer.json written for the student says just what the
// one says that it was trained with, which Hugging Face's library wrote.
func TestToHFOriginal(t *testing.T) {
	got, config, err := ToHF(metadata(t, golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf")), 1024)
	if err != nil {
		t.Fatal(err)
	}
	object := func(text []byte) (v map[string]any) {
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	read := func(name string) map[string]any {
		text, err := os.ReadFile(golden.Shared(t, "models", "student-hf", name))
		if err != nil {
			t.Fatal(err)
		}
		return object(text)
	}
	want := read("tokenizer.json")
	for key, w := range want {
		if g, ok := object(got)[key]; !ok || !reflect.DeepEqual(g, w) {
			t.Errorf("tokenizer.json: %s is not as in the original", key)
		}
	}
	if n := len(object(got)); n != len(want) {
		t.Errorf("tokenizer.json has %d keys, the original %d", n, len(want))
	}
	setup := read("tokenizer_config.json")
	for _, key := range []string{"added_tokens_decoder", "bos_token", "eos_token", "pad_token", "unk_token", "model_max_length", "clean_up_tokenization_spaces"} {
		if g, w := object(config)[key], setup[key]; !reflect.DeepEqual(g, w) {
			t.Errorf("tokenizer_config.json: %s is %v, want %v", key, g, w)
		}
	}
	if s, ok := object(config)["chat_template"].(string); !ok || !strings.Contains(s, "<|im_start|>") {
		t.Errorf("the chat template is %v", object(config)["chat_template"])
	}
}

// TestToHFBack: what ToHF writes, FromHF reads as a tokenizer that gives the same
// ids, for byte-level BPE and SentencePiece. (Hugging Face's library, version
// 0.23.2, gave the same ids for the same files and texts when this was written.)
func TestToHFBack(t *testing.T) {
	for _, name := range []string{"gpt-2", "qwen2", "starcoder", "llama-spm"} {
		t.Run(name, func(t *testing.T) {
			path := golden.Shared(t, "vocab", "ggml-vocab-"+name+".gguf")
			md := metadata(t, path)
			want, err := FromMetadata(md)
			if err != nil {
				t.Fatal(err)
			}
			file, config, err := ToHF(md, 0)
			if err != nil {
				t.Fatal(err)
			}
			s, err := FromHF(file, config, want.Size())
			if err != nil {
				t.Fatal(err)
			}
			got, err := New(s)
			if err != nil {
				t.Fatal(err)
			}
			inputs, err := os.ReadFile(path + ".inp")
			if err != nil {
				t.Fatal(err)
			}
			texts := append(strings.Split(string(inputs), "\n__ggml_vocab_test__\n"), "<s> a </s>", "<|endoftext|> b", "e\u0301té 1234567 don't\r\n\t x", "日本語 한국어 🙂🙃")
			for _, text := range texts {
				for _, o := range []EncodeOptions{{}, {ParseSpecial: true, AddSpecial: true}} {
					if a, b := got.Encode(text, o), want.Encode(text, o); !slices.Equal(a, b) {
						t.Errorf("%q is %v, want %v", text, a, b)
					}
				}
			}
			for id := range int32(want.Size()) {
				if got.Text(id) != want.Text(id) || got.Kind(id) != want.Kind(id) {
					t.Fatalf("token %d is %q, %s, want %q, %s", id, got.Text(id), got.Kind(id), want.Text(id), want.Kind(id))
				}
			}
			if want.AddsBOS() && got.BOS() != want.BOS() || got.EOS() != want.EOS() || got.UNK() != want.UNK() || got.AddsBOS() != want.AddsBOS() {
				t.Errorf("special tokens %d %d %d %v, want %d %d %d %v", got.BOS(), got.EOS(), got.UNK(), got.AddsBOS(), want.BOS(), want.EOS(), want.UNK(), want.AddsBOS())
			}
		})
	}
}

// TestPreSteps: each pre-tokenizer that can be written is read back under a name
// of the same rule.
func TestPreSteps(t *testing.T) {
	written := 0
	for name, rule := range pretokenizers {
		steps, nfc, ignore, err := preSteps(name)
		if err != nil {
			if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		written++
		text, err := json.Marshal(steps)
		if err != nil {
			t.Fatal(err)
		}
		var step hfStep
		if err := json.Unmarshal(text, &step); err != nil {
			t.Fatal(err)
		}
		var normalizer *hfStep
		if nfc {
			normalizer = &hfStep{Type: "NFC"}
		}
		back, err := preName(normalizer, &step, ignore)
		if err != nil || pretokenizers[back].family != rule.family {
			t.Errorf("%s is read back as %q (%v)", name, back, err)
		}
	}
	if written < 30 {
		t.Errorf("%d of %d pre-tokenizers can be written", written, len(pretokenizers))
	}
}

func TestToHFErrors(t *testing.T) {
	small := func(change func(*gguf.Metadata)) *gguf.Metadata {
		md := gguf.NewMetadata()
		for key, v := range map[string]any{"model": "gpt2", "pre": "gpt-2", "tokens": []string{"a", "b", "ab"}, "merges": []string{"a b"}} {
			if err := md.Set(prefix+key, v); err != nil {
				t.Fatal(err)
			}
		}
		if change != nil {
			change(md)
		}
		return md
	}
	if _, _, err := ToHF(small(nil), 0); err != nil {
		t.Fatalf("a small tokenizer: %v", err)
	}
	for _, c := range []struct {
		name   string
		change func(*gguf.Metadata)
		kind   error
		want   string
	}{
		{"no tokens", func(m *gguf.Metadata) { m.Delete(prefix + "tokens") }, ErrFormat, "tokens is missing"},
		{"a text twice", func(m *gguf.Metadata) { m.Set(prefix+"tokens", []string{"a", "b", "a"}) }, ErrUnsupported, "token 0"},
		{"no UTF-8", func(m *gguf.Metadata) { m.Set(prefix+"tokens", []string{"a", "b", "\xff"}) }, ErrUnsupported, `"\xff"`},
		{"no pattern", func(m *gguf.Metadata) { m.Set(prefix+"pre", "bloom") }, ErrUnsupported, `"bloom"`},
		{"unknown", func(m *gguf.Metadata) { m.Set(prefix+"pre", "nosuch") }, ErrUnsupported, "nosuch"},
		{"few kinds", func(m *gguf.Metadata) { m.Set(prefix+"token_type", []int32{1}) }, ErrFormat, "1 token types"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := ToHF(small(c.change), 0); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %v with %s", err, c.kind, c.want)
			}
		})
	}
}
