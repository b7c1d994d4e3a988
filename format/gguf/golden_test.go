package gguf

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// golden is what gguf-py's GGUFReader, a separate implementation, says about a
// file. testdata/golden.json was made with it once, over the shared models and
// vocabularies.
type golden struct {
	Version   uint32
	Alignment int
	Metadata  []struct {
		Key, Type, Elem string
		Value           *string
		Len             int
		// SHA256 is over the elements of an array: numbers as stored, strings
		// each with a zero byte behind; or over the bytes of a long string.
		SHA256 string
	}
	Tensors []struct {
		Name, Type string
		NE         []int // fastest-varying first
		Offset     int64
		SHA256     string
	}
}

// aliases are copies of the shared models that are bundled with the program.
var aliases = map[string]string{
	"../../models/tiny-coder-4m-q4_k_m.gguf":  "student-q4_k_m.gguf",
	"../../models/tiny-coder-28m-q4_k_m.gguf": "teacher-q4_k_m.gguf",
}

// sharedDir is the folder beside the repository's root, or "" if absent.
func sharedDir() string {
	dir, err := filepath.Abs(".")
	if err != nil {
		return ""
	}
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			if shared := filepath.Join(dir, "..", "shared"); isDir(shared) {
				return shared
			}
			return ""
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func TestGolden(t *testing.T) {
	data, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]golden
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	for path, name := range aliases {
		t.Run(filepath.Base(path), func(t *testing.T) { compareGolden(t, path, all[name]) })
	}
	for name, want := range all {
		t.Run(name, func(t *testing.T) {
			shared := sharedDir()
			if shared == "" {
				t.Skip("no folder ../shared beside the repository")
			}
			path := filepath.Join(shared, "models", name)
			if _, err := os.Stat(path); err != nil {
				path = filepath.Join(shared, "vocab", name)
			}
			compareGolden(t, path, want)
		})
	}
}

func compareGolden(t *testing.T, path string, want golden) {
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Version != want.Version || f.Alignment() != want.Alignment {
		t.Errorf("version %d, alignment %d; want %d, %d", f.Version, f.Alignment(), want.Version, want.Alignment)
	}
	keys := f.Metadata.Keys()
	if len(keys) != len(want.Metadata) || len(want.Metadata) == 0 {
		t.Fatalf("%d keys, want %d", len(keys), len(want.Metadata))
	}
	for i, w := range want.Metadata {
		v, _ := f.Metadata.Value(keys[i])
		if keys[i] != w.Key || v.Type.String() != w.Type {
			t.Errorf("key %d is %q of type %s, want %q of %s", i, keys[i], v.Type, w.Key, w.Type)
			continue
		}
		switch {
		case v.Type == TypeArray:
			if v.Elem().String() != w.Elem || v.Len() != w.Len || elementsSum(v) != w.SHA256 {
				t.Errorf("%s is an %s with sum %s, want %d %s with sum %s", w.Key, v.Kind(), elementsSum(v), w.Len, w.Elem, w.SHA256)
			}
		case w.Value == nil:
			if s := v.Any().(string); len(s) != w.Len || sum([]byte(s)) != w.SHA256 {
				t.Errorf("%s has %d bytes with sum %s, want %d with %s", w.Key, len(s), sum([]byte(s)), w.Len, w.SHA256)
			}
		default:
			if !sameScalar(v, *w.Value) {
				t.Errorf("%s = %v, want %s", w.Key, v, *w.Value)
			}
		}
	}
	if len(f.Tensors) != len(want.Tensors) {
		t.Fatalf("%d tensors, want %d", len(f.Tensors), len(want.Tensors))
	}
	for i, w := range want.Tensors {
		x := f.Tensors[i]
		place, _ := f.Place(x.Name)
		ne := slices.Clone(x.Shape)
		slices.Reverse(ne)
		if x.Name != w.Name || x.Type.String() != w.Type || !slices.Equal(ne, w.NE) || place.Offset != w.Offset || place.Path != path {
			t.Errorf("tensor %d is %v at %v, want %s %s %v at %d", i, x, place, w.Name, w.Type, w.NE, w.Offset)
		}
		if got := sum(x.Data); got != w.SHA256 {
			t.Errorf("%s: data with sum %s, want %s", x.Name, got, w.SHA256)
		}
	}
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// elementsSum is the checksum of an array as golden.SHA256 describes it.
func elementsSum(v Value) string {
	var h hash.Hash = sha256.New()
	if s, ok := v.strings(); ok {
		for _, x := range s {
			h.Write(append([]byte(x), 0))
		}
	} else {
		h.Write([]byte(v.raw))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// sameScalar compares a scalar with Python's rendering of it.
func sameScalar(v Value, want string) bool {
	switch x := v.Any().(type) {
	case string:
		return x == want
	case bool:
		return strconv.FormatBool(x) == want
	case float32:
		w, err := strconv.ParseFloat(want, 64)
		return err == nil && float64(x) == w // exact: both widened from the same bits
	case float64:
		w, err := strconv.ParseFloat(want, 64)
		return err == nil && x == w
	}
	if n, ok := v.int64At(0); ok {
		return strconv.FormatInt(n, 10) == want
	}
	return false
}

// BenchmarkOpen opens the vocabulary with the most strings: 151,936 tokens and
// 151,387 merges.
func BenchmarkOpen(b *testing.B) {
	shared := sharedDir()
	if shared == "" {
		b.Skip("no folder ../shared beside the repository")
	}
	path := filepath.Join(shared, "vocab", "ggml-vocab-qwen2.gguf")
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			f, err := Open(path)
			if err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	})
	b.Run("strings", func(b *testing.B) {
		f, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for b.Loop() {
			f.Metadata.Strings("tokenizer.ggml.tokens")
			f.Metadata.Strings("tokenizer.ggml.merges")
		}
	})
}
