package tokenizer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
)

// fields is metadata held in a map.
type fields map[string]any

func (f fields) String(k string) (string, bool)    { v, ok := f[k].(string); return v, ok }
func (f fields) Uint(k string) (uint64, bool)      { v, ok := f[k].(uint64); return v, ok }
func (f fields) Bool(k string) (bool, bool)        { v, ok := f[k].(bool); return v, ok }
func (f fields) Strings(k string) ([]string, bool) { v, ok := f[k].([]string); return v, ok }
func (f fields) Ints(k string) ([]int64, bool)     { v, ok := f[k].([]int64); return v, ok }
func (f fields) Floats(k string) ([]float64, bool) { v, ok := f[k].([]float64); return v, ok }

// sharedDir returns the folder shared/ beside the repository, or skips.
func sharedDir(t testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = filepath.Dir(dir)
	}
	shared := filepath.Join(filepath.Dir(dir), "shared")
	if _, err := os.Stat(shared); err != nil {
		t.Skip("the folder shared/ is not beside the repository")
	}
	return shared
}

// readGGUF reads a model file's metadata.
func readGGUF(t testing.TB, path string) *gguf.Metadata {
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f.Metadata
}

// bundledFields are the tokenizer fields of the small model in models/, which
// has byte-level BPE with 4096 tokens.
func bundledFields(t testing.TB) fields {
	md := readGGUF(t, filepath.Join("..", "models", "tiny-coder-4m-q4_k_m.gguf"))
	f := fields{}
	for _, k := range []string{"model", "pre"} {
		f[prefix+k], _ = md.String(prefix + k)
	}
	for _, k := range []string{"tokens", "merges"} {
		f[prefix+k], _ = md.Strings(prefix + k)
	}
	for _, k := range []string{"bos_token_id", "eos_token_id", "padding_token_id"} {
		if v, ok := md.Uint(prefix + k); ok {
			f[prefix+k] = v
		}
	}
	f[prefix+"token_type"], _ = md.Ints(prefix + "token_type")
	f[prefix+"add_bos_token"] = false
	return f
}

// bundled returns the tokenizer of the small model with another pre-tokenizer.
func bundled(t testing.TB, pre string) *Tokenizer {
	f := bundledFields(t)
	f[prefix+"pre"] = pre
	tok, err := FromMetadata(f)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// smallSPM is a SentencePiece vocabulary made by hand: bytes, and a few pieces
// whose scores make some merges compete.
func smallSPM(t testing.TB) *Tokenizer {
	tok, err := New(smallSPMSpec())
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func smallSPMSpec() Spec {
	s := Spec{Model: "llama", BOS: 1, EOS: 2, UNK: 0, EOT: None, EOM: None, SEP: None, PAD: None,
		FIMPad: None, FIMRep: None, FIMSep: None, AddBOS: true, AddSpacePrefix: true}
	add := func(text string, score float32, kind Kind) {
		s.Tokens = append(s.Tokens, text)
		s.Scores = append(s.Scores, score)
		s.Kinds = append(s.Kinds, kind)
	}
	add("<unk>", 0, Unknown)
	add("<s>", 0, Control)
	add("</s>", 0, Control)
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b), 0, Byte)
	}
	for i, text := range []string{"he", "ll", "el", "hell", "▁h", "lo", "hello", "▁hello", "▁▁", "▁w", "or", "ld", "▁world", "é", "你好"} {
		add(text, -float32(i), Normal)
	}
	for _, text := range []string{"▁", "h", "e", "l", "o", "w", "r", "d", "你", "好", "!"} {
		add(text, -100, Normal)
	}
	add("<|user|>", 0, UserDefined)
	return s
}
