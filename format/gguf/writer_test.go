package gguf

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

func TestRoundTrip(t *testing.T) {
	for _, alignment := range []uint32{0, 8, 32, 4096} {
		md, tensors := sampleMetadata(t), sampleTensors()
		if alignment != 0 {
			if err := md.Set(keyAlignment, alignment); err != nil {
				t.Fatal(err)
			}
		}
		path, data := writeSample(t, md, tensors)
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(f.Metadata.Keys(), md.Keys()) {
			t.Errorf("keys %v, want %v", f.Metadata.Keys(), md.Keys())
		}
		for k, v := range md.All() {
			if got, _ := f.Metadata.Value(k); got != v {
				t.Errorf("%s = %v, want %v", k, got, v)
			}
		}
		if !reflect.DeepEqual(f.Tensors, tensors) {
			t.Errorf("tensors %v, want %v", f.Tensors, tensors)
		}
		want := 32
		if alignment != 0 {
			want = int(alignment)
		}
		if f.Alignment() != want || len(data)%want != 0 {
			t.Errorf("alignment %d, want %d; %d bytes", f.Alignment(), want, len(data))
		}
		if !reflect.DeepEqual(f.Paths(), []string{path}) || f.Size() != int64(len(data)) {
			t.Errorf("paths %v, size %d", f.Paths(), f.Size())
		}
		if err := f.Prefetch(); err != nil {
			t.Error(err)
		}
		// Writing what was read gives the same bytes again.
		_, again := writeSample(t, f.Metadata, f.Tensors)
		if !bytes.Equal(again, data) {
			t.Error("the second file differs from the first")
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		// Metadata is safe after Close.
		if s, ok := f.Metadata.Strings("a.str"); !ok || s[2] != "日本" {
			t.Errorf("strings after Close: %q", s)
		}
	}
}

func TestWriterStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	tensors := sampleTensors()
	var infos []TensorInfo
	for _, x := range tensors {
		infos = append(infos, TensorInfo{x.Name, x.Type, x.Shape})
	}
	w, err := Create(path, sampleMetadata(t), infos)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, x := range tensors {
		out, err := w.NextTensor()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range x.Data {
			if _, err := out.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the target exists before Close")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, want := writeSample(t, sampleMetadata(t), tensors); !bytes.Equal(got, want) {
		t.Error("streaming and writing at once give different files")
	}
}

// Whatever goes wrong, nothing is left behind and an old file stays.
func TestWriterFailures(t *testing.T) {
	infos := []TensorInfo{{"a", tensor.F32, []int{2}}, {"b", tensor.F32, []int{1}}}
	for _, c := range []struct {
		name string
		use  func(w *Writer) error
		want string
	}{
		{"too few tensors", func(w *Writer) error { w.WriteTensor(make([]byte, 8)); return w.Close() }, `1 of 2 tensors were not written, first "b"`},
		{"too many tensors", func(w *Writer) error {
			w.WriteTensor(make([]byte, 8))
			w.WriteTensor(make([]byte, 4))
			return w.WriteTensor(make([]byte, 4))
		}, "more tensors"},
		{"wrong size", func(w *Writer) error { return w.WriteTensor(make([]byte, 7)) }, `tensor "a" has 7 bytes, want 8 for F32 [2]`},
		{"streaming too little", func(w *Writer) error {
			out, _ := w.NextTensor()
			out.Write(make([]byte, 3))
			_, err := w.NextTensor()
			return err
		}, `tensor "a" lacks 5 of its 8 bytes`},
		{"streaming too much", func(w *Writer) error {
			out, _ := w.NextTensor()
			_, err := out.Write(make([]byte, 9))
			return err
		}, `tensor "a" gets more than its 8 bytes`},
		{"aborted", func(w *Writer) error { w.Abort(); return w.Close() }, "aborted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "m.gguf")
			if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			w, err := Create(path, NewMetadata(), infos)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.use(w); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one with %q and the path", err, c.want)
			}
			if err := w.Close(); err == nil {
				t.Error("Close succeeded after a failure")
			}
			if got, _ := os.ReadFile(path); string(got) != "old" {
				t.Errorf("the old file was replaced by %q", got)
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("%d files in the folder, want only the old one: %v", len(left), left)
			}
		})
	}
}

func TestWriterStaleStream(t *testing.T) {
	w, err := Create(filepath.Join(t.TempDir(), "m.gguf"), NewMetadata(), []TensorInfo{{"a", tensor.F32, []int{1}}, {"b", tensor.F32, []int{1}}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	a, _ := w.NextTensor()
	a.Write(make([]byte, 4))
	b, _ := w.NextTensor()
	if _, err := a.Write([]byte{1}); err == nil {
		t.Error("the first tensor's stream still takes bytes after the second began")
	}
	if _, err := b.Write(make([]byte, 4)); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.WriteTensor(nil); err == nil {
		t.Error("WriteTensor succeeded after Close")
	}
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	aligned := func(v any) *Metadata {
		md := NewMetadata()
		if err := md.Set(keyAlignment, v); err != nil {
			t.Fatal(err)
		}
		return md
	}
	for _, c := range []struct {
		name  string
		md    *Metadata
		infos []TensorInfo
		want  string
	}{
		{"alignment 24", aligned(uint32(24)), nil, "power of two"},
		{"alignment 4", aligned(uint32(4)), nil, "8 to 65536"},
		{"alignment of uint64", aligned(uint64(32)), nil, "uint32"},
		{"long name", NewMetadata(), []TensorInfo{{strings.Repeat("n", 64), tensor.F32, []int{1}}}, "64 bytes"},
		{"no name", NewMetadata(), []TensorInfo{{"", tensor.F32, []int{1}}}, "0 bytes"},
		{"no dimensions", NewMetadata(), []TensorInfo{{"a", tensor.F32, nil}}, "0 dimensions"},
		{"dimension 0", NewMetadata(), []TensorInfo{{"a", tensor.F32, []int{0}}}, "dimension 0"},
		{"unknown type", NewMetadata(), []TensorInfo{{"a", 99, []int{1}}}, "unknown tensor type 99"},
		{"half a block", NewMetadata(), []TensorInfo{{"a", tensor.Q8_0, []int{16}}}, "multiple"},
		{"twice", NewMetadata(), []TensorInfo{{"a", tensor.F32, []int{1}}, {"a", tensor.F32, []int{1}}}, "twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Create(filepath.Join(dir, "m.gguf"), c.md, c.infos)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%d files left behind", len(left))
	}
	if _, err := Create(filepath.Join(dir, "none", "m.gguf"), NewMetadata(), nil); err == nil {
		t.Error("Create succeeded in a folder that does not exist")
	}
}
