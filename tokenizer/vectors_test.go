package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// readVectors reads llama.cpp's test vectors: texts separated by a marker line,
// and one line of ids for each.
func readVectors(t *testing.T, path string) (texts []string, ids [][]int32) {
	in, err := os.ReadFile(path + ".inp")
	if err != nil {
		t.Skip(err)
	}
	out, err := os.ReadFile(path + ".out")
	if err != nil {
		t.Skip(err)
	}
	texts = strings.Split(string(in), "\n__ggml_vocab_test__\n")
	for line := range strings.Lines(string(out)) {
		var row []int32
		for field := range strings.FieldsSeq(line) {
			id, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			row = append(row, int32(id))
		}
		ids = append(ids, row)
	}
	// The last text is followed by a marker too.
	if len(texts) == len(ids)+1 && texts[len(ids)] == "" {
		texts = texts[:len(ids)]
	}
	if len(texts) != len(ids) || len(texts) < 40 {
		t.Fatalf("%d texts and %d rows of ids", len(texts), len(ids))
	}
	return texts, ids
}

// checkVectors compares every text and returns how many agree.
func checkVectors(t *testing.T, tok *Tokenizer, texts []string, ids [][]int32) {
	good := 0
	for i, text := range texts {
		got := tok.Encode(text, EncodeOptions{})
		if !slices.Equal(got, ids[i]) {
			t.Errorf("text %d %q:\n got %v\nwant %v", i, text, got, ids[i])
			continue
		}
		good++
	}
	t.Logf("%d of %d texts", good, len(texts))
}

// vocabDirs are folders with vocabulary files: the shared one, and those in the
// list APR_VOCAB_DIRS, for more vectors than we keep.
func vocabDirs(t *testing.T) []string {
	dirs := filepath.SplitList(os.Getenv("APR_VOCAB_DIRS"))
	return append(dirs, filepath.Join(sharedDir(t), "vocab"))
}

func TestVectors(t *testing.T) {
	for _, dir := range vocabDirs(t) {
		files, err := filepath.Glob(filepath.Join(dir, "*.gguf.out"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			path := strings.TrimSuffix(f, ".out")
			if _, err := os.Stat(path); err != nil {
				continue // vectors without a vocabulary
			}
			name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "ggml-vocab-"), ".gguf")
			t.Run(name, func(t *testing.T) {
				tok, err := FromMetadata(readGGUF(t, path))
				if err != nil {
					if strings.Contains(name, "bert") {
						t.Skip(err)
					}
					t.Fatal(err)
				}
				texts, ids := readVectors(t, path)
				checkVectors(t, tok, texts, ids)
			})
		}
	}
}

// TestHuggingFace compares with ids made by Hugging Face tokenizers for the
// bundled model, one text of which is decomposed and needs NFC.
func TestHuggingFace(t *testing.T) {
	data, err := os.ReadFile("testdata/huggingface.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Text string
		IDs  []int32
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) != 40 {
		t.Fatalf("%d vectors, want 40", len(vectors))
	}
	tok := bundled(t, "qwen2")
	for i, v := range vectors {
		// Hugging Face always recognises special tokens in the text.
		got := tok.Encode(v.Text, EncodeOptions{ParseSpecial: true})
		if !slices.Equal(got, v.IDs) {
			t.Errorf("text %d %q:\n got %v\nwant %v", i, v.Text, got, v.IDs)
		}
	}
}
