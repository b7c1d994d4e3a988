package source

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/format/safetensors"
	"github.com/apr-engine/apr/modelfile"
)

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func container(header, data string) []byte {
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), data...)
}

func TestOpen(t *testing.T) {
	m, err := Open("../../testdata/architectures/qwen2.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	x, ok := m.Tensor("output_norm.weight")
	place, placed := m.Place("output_norm.weight")
	if !ok || !placed || x.Elements() != 64 || place.Offset == 0 || m.Architecture() != "qwen2" || m.Format != "GGUF v3" || len(m.Files) != 1 {
		t.Errorf("got %v at %+v of %s, %s", x, place, m.Format, m.Files)
	}
	if _, ok := m.Tensor("none"); ok {
		t.Error("found a tensor that is not there")
	}

	m, err = Open(write(t, "m.safetensors", container(`{"x":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]},"__metadata__":{"format":"pt"}}`, "abcd")))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if x, ok := m.Tensor("x"); !ok || string(x.Data) != "abcd" || m.Format != "safetensors" || m.Metadata.Len() != 0 || m.Architecture() != "" {
		t.Errorf("got %+v", m)
	}
}

// A folder and its index are one model of several files.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"a.safetensors":       container(`{"x":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}}`, "abcd"),
		"b.safetensors":       container(`{"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, "efgh"),
		safetensors.IndexName: []byte(`{"weight_map":{"x":"a.safetensors","y":"b.safetensors"}}`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, safetensors.IndexName)} {
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		y, ok := m.Tensor("y")
		place, _ := m.Place("y")
		if !ok || string(y.Data) != "efgh" || len(m.Files) != 2 || filepath.Base(place.Path) != "b.safetensors" || place.Offset == 0 {
			t.Errorf("%s: %v at %+v in %q", path, y, place, m.Files)
		}
		m.Close()
	}
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("an empty folder is a model")
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		name string
		data []byte
		kind error
		text string
	}{
		{"text", []byte("This is text."), gguf.ErrFormat, "magic"},
		{"empty", nil, gguf.ErrFormat, "empty"},
		{"cut GGUF", []byte("GGUF\x03\x00\x00\x00"), gguf.ErrFormat, "truncated"},
		{"cut safetensors", container(`{"x":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}}`, "ab"), safetensors.ErrFormat, "outside the 2 bytes"},
		{"unknown type", container(`{"x":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}`, "abcd"), safetensors.ErrFormat, "\"F4\""},
		{"sizes that differ", container(`{"x":{"dtype":"F16","shape":[1,3],"data_offsets":[0,4]}}`, "abcd"), safetensors.ErrFormat, "want 6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(write(t, "m", tt.data))
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	m := New(gguf.NewMetadata(), nil)
	if _, ok := m.Place("x"); ok || m.Close() != nil {
		t.Error("a model in memory has places or cannot be closed")
	}
}

// A Hugging Face folder shows the metadata that importing it would give, under its
// own tensor names; what keeps it from being imported is told, and the weights are
// shown all the same.
func TestHuggingFace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hf")
	if _, err := modelfile.Convert(t.Context(), "../../models/tiny-coder-4m-q4_k_m.gguf", dir, modelfile.Options{Format: modelfile.FormatSafetensors, Recipe: "f16"}); err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, ok := m.Tensor("model.norm.weight"); !ok || m.Architecture() != "qwen2" || len(m.Problems) != 0 {
		t.Errorf("architecture %q, problems %q", m.Architecture(), m.Problems)
	}
	if err := os.Remove(filepath.Join(dir, "tokenizer.json")); err != nil {
		t.Fatal(err)
	}
	m, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Architecture() != "qwen2" || len(m.Problems) != 1 || len(m.Tensors) == 0 {
		t.Errorf("architecture %q, %d tensors, problems %q", m.Architecture(), len(m.Tensors), m.Problems)
	}
}
