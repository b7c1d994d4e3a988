package tokenizer

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/internal/golden"
)

// TestHFVectors: a tokenizer read from tokenizer.json gives the ids of Hugging
// Face's own reader.
func TestHFVectors(t *testing.T) {
	text, err := os.ReadFile(golden.Shared(t, "models", "student-hf", "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(golden.Shared(t, "models", "student-hf", "tokenizer_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := FromHF(text, config, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if s.Pre != "qwen2" || s.EOS != 4095 || s.PAD != 4093 || s.BOS != None || s.AddBOS || len(s.Tokens) != 4096 {
		t.Errorf("pre %s, eos %d, pad %d, bos %d %v, %d tokens", s.Pre, s.EOS, s.PAD, s.BOS, s.AddBOS, len(s.Tokens))
	}
	tok, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(golden.Shared(t, "models", "ref", "tokenizer_vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Text string  `json:"text"`
			IDs  []int32 `json:"ids"`
		} `json:"vectors"`
	}
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Vectors) == 0 {
		if err = json.Unmarshal(raw, &file.Vectors); err != nil || len(file.Vectors) == 0 {
			t.Fatalf("no vectors: %v", err)
		}
	}
	for _, v := range file.Vectors {
		if got := tok.Encode(v.Text, EncodeOptions{ParseSpecial: true}); !slices.Equal(got, v.IDs) {
			t.Errorf("%q is %v, want %v", v.Text, got, v.IDs)
		}
	}
}

// TestHFSentencePiece writes Llama 2's vocabulary as Hugging Face's converter
// does (a merge for every way to split a token, best token first) and reads it
// back: texts get the ids they have with the scores of the original.
func TestHFSentencePiece(t *testing.T) {
	f, err := gguf.Open(golden.Shared(t, "vocab", "ggml-vocab-llama-spm.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := FromMetadata(f.Metadata)
	if err != nil {
		t.Fatal(err)
	}
	tokens, _ := f.Metadata.Strings("tokenizer.ggml.tokens")
	scores, _ := f.Metadata.Floats("tokenizer.ggml.scores")
	vocab := map[string]int{}
	order := make([]int, len(tokens))
	for i, s := range tokens {
		vocab[s], order[i] = i, i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return 0
	})
	var merges []string
	for _, id := range order {
		if want.Kind(int32(id)) != Normal {
			continue
		}
		for at := range tokens[id] {
			left, right := tokens[id][:at], tokens[id][at:]
			_, a := vocab[left]
			_, b := vocab[right]
			if at > 0 && a && b {
				merges = append(merges, left+" "+right)
			}
		}
	}
	file, err := json.Marshal(map[string]any{
		"added_tokens": []map[string]any{{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}, {"id": 2, "content": "</s>", "special": true}},
		"normalizer": map[string]any{"type": "Sequence", "normalizers": []any{
			map[string]any{"type": "Prepend", "prepend": "▁"},
			map[string]any{"type": "Replace", "pattern": map[string]any{"String": " "}, "content": "▁"},
		}},
		"post_processor": map[string]any{"type": "TemplateProcessing", "single": []any{
			map[string]any{"SpecialToken": map[string]any{"id": "<s>"}}, map[string]any{"Sequence": map[string]any{"id": "A"}},
		}},
		"model": map[string]any{"type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": true, "unk_token": "<unk>"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := FromHF(file, []byte(`{"bos_token":{"content":"<s>"},"eos_token":"</s>"}`), 0)
	if err != nil {
		t.Fatal(err)
	}
	if s.BOS != 1 || s.EOS != 2 || s.UNK != 0 || !s.AddBOS || !s.AddSpacePrefix || s.Kinds[3] != Byte || s.Kinds[0] != Unknown {
		t.Errorf("bos %d %v, eos %d, unk %d, prefix %v, kinds %v %v", s.BOS, s.AddBOS, s.EOS, s.UNK, s.AddSpacePrefix, s.Kinds[0], s.Kinds[3])
	}
	got, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	inputs, err := os.ReadFile(golden.Shared(t, "vocab", "ggml-vocab-llama-spm.gguf.inp"))
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.SplitSeq(string(inputs), "\n__ggml_vocab_test__\n") {
		a, b := got.Encode(text, EncodeOptions{AddSpecial: true}), want.Encode(text, EncodeOptions{AddSpecial: true})
		if !slices.Equal(a, b) {
			t.Errorf("%q is %v, want %v", text, a, b)
		}
	}
}

func TestHFErrors(t *testing.T) {
	model := func(rest string) string {
		return `{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]` + rest + `}}`
	}
	if s, err := FromHF([]byte(model("")), nil, 5); err != nil || s.Pre != "gpt-2" || len(s.Tokens) != 5 || s.Kinds[4] != Unused || s.Merges[0] != "a b" {
		t.Fatalf("a small file: %+v, %v", s, err)
	}
	for _, c := range []struct {
		name, text string
		kind       error
		want       string
	}{
		{"broken", `{`, ErrFormat, "tokenizer.json"},
		{"unigram", `{"model":{"type":"Unigram"}}`, ErrUnsupported, "Unigram"},
		{"suffix", model(`,"end_of_word_suffix":"</w>"`), ErrUnsupported, "suffix"},
		{"no merges", `{"model":{"type":"BPE","vocab":{"a":0}}}`, ErrFormat, "merges"},
		{"merge of one", strings.Replace(model(""), "a b", "ab", 1), ErrFormat, "merge 0"},
		{"two tokens of one id", strings.Replace(model(""), `"b":1`, `"b":0`, 1), ErrFormat, "id 0"},
		{"negative id", strings.Replace(model(""), `"b":1`, `"b":-1`, 1), ErrFormat, "id -1"},
		{"huge id", strings.Replace(model(""), `"b":1`, `"b":9999999`, 1), ErrFormat, "ids go up"},
		{"id past all limits", strings.Replace(model(""), `"b":1`, `"b":99999999999`, 1), ErrFormat, "id 99999999999"},
		{"unknown pattern", strings.Replace(model(""), `{"type":"ByteLevel"}`, `{"type":"Split","pattern":{"Regex":"\\w+"},"behavior":"Isolated"}`, 1), ErrUnsupported, `\w+`},
		{"normalizer", strings.Replace(model(""), `{"pre`, `{"normalizer":{"type":"Lowercase"},"pre`, 1), ErrUnsupported, "Lowercase"},
		{"no rule for NFC", strings.Replace(model(""), `{"pre`, `{"normalizer":{"type":"NFC"},"pre`, 1), ErrUnsupported, "NFC true"},
		{"spaces", model(`,"byte_fallback":true`), ErrUnsupported, "ByteLevel"},
		{"merge to nothing", `{"normalizer":{"type":"Replace","pattern":{"String":" "},"content":"▁"},"model":{"type":"BPE","byte_fallback":true,"vocab":{"a":0,"b":1},"merges":[["a","b"]]}}`, ErrFormat, "no token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := FromHF([]byte(c.text), nil, 0)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v with %q", err, c.kind, c.want)
			}
		})
	}
}

func TestGuessKinds(t *testing.T) {
	tokens := []string{"<|im_end|>", "<unk>", "<0x0A>", "</s>", "<a", "<A>", "<>", "a>", "<|>"}
	if got := GuessKinds(tokens, true); !slices.Equal(got, []int32{3, 2, 6, 3, 1, 1, 1, 1, 1}) {
		t.Errorf("SentencePiece: %v", got)
	}
	if got := GuessKinds(tokens, false); !slices.Equal(got, []int32{3, 3, 1, 3, 1, 1, 1, 1, 1}) {
		t.Errorf("byte level: %v", got)
	}
}

// FuzzFromHF: any bytes give an error of a known kind or a usable description.
func FuzzFromHF(f *testing.F) {
	f.Add([]byte(`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`), []byte(`{"bos_token":"a"}`))
	f.Add([]byte(`{"normalizer":{"type":"Replace","pattern":{"String":" "},"content":"▁"},"added_tokens":[{"id":3,"content":"<s>"}],"model":{"type":"BPE","byte_fallback":true,"vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, file, config []byte) {
		s, err := FromHF(file, config, 0)
		if err == nil {
			_, err = New(s)
		}
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
			t.Fatalf("error %q is of no kind", err)
		}
	})
}
