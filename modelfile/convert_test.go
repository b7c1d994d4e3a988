package modelfile

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func convert(t *testing.T, in, out string, opts Options) *Plan {
	t.Helper()
	p, err := Convert(t.Context(), in, out, opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func openAny(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// sameModel compares tensors byte by byte, in whatever order, and metadata.
func sameModel(t *testing.T, got, want *File) {
	t.Helper()
	if len(got.Tensors) != len(want.Tensors) {
		t.Errorf("%d tensors, want %d", len(got.Tensors), len(want.Tensors))
	}
	for _, w := range want.Tensors {
		g, ok := got.Tensor(w.Name)
		if !ok || g.String() != w.String() || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("%v is not %v with the same bytes", g, w)
		}
	}
	for key, w := range want.Metadata.All() {
		g, ok := got.Metadata.Value(key)
		if !ok {
			t.Errorf("metadata %s is missing", key)
		} else if g.Kind() != w.Kind() || !reflect.DeepEqual(g.Any(), w.Any()) {
			t.Errorf("metadata %s is %s %s, want %s %s", key, g.Kind(), g, w.Kind(), w)
		}
	}
	if g, w := got.Metadata.Len(), want.Metadata.Len(); g != w {
		t.Errorf("%d metadata keys, want %d", g, w)
	}
}

// TestRoundTrip: GGUF → .apr → GGUF gives the same tensors and metadata, and the
// .apr file looks the same when opened.
func TestRoundTrip(t *testing.T) {
	models := []string{"../models/tiny-coder-4m-q4_k_m.gguf", "../models/tiny-coder-28m-q4_k_m.gguf"}
	for _, m := range models {
		t.Run(filepath.Base(m), func(t *testing.T) { roundTrip(t, m) })
	}
	for _, m := range []string{"teacher-q4_k_m.gguf", "student-q4_k_m.gguf", "student-f16.gguf"} {
		t.Run(m, func(t *testing.T) { roundTrip(t, shared(t, filepath.Join("models", m))) })
	}
}

func roundTrip(t *testing.T, path string) {
	dir := t.TempDir()
	mid, back := filepath.Join(dir, "m.apr"), filepath.Join(dir, "m.gguf")
	convert(t, path, mid, Options{})
	convert(t, mid, back, Options{})
	want, apr := openAny(t, path), openAny(t, mid)
	if apr.Format != "APR v2.0" || len(apr.Warnings) != 0 || apr.TokenizerProblem != nil {
		t.Errorf("%s with %q, tokenizer %v", apr.Format, apr.Warnings, apr.TokenizerProblem)
	}
	sameModel(t, apr, want)
	sameModel(t, openAny(t, back), want)
}

// TestImportStudent: importing the folder gives the tensors and the metadata of
// the file that llama.cpp's converter made of it, but for three keys that were
// set by hand and the template, which has \n as two characters there and as one in
// the folder.
func TestImportStudent(t *testing.T) {
	in := shared(t, "models/student-hf")
	out := filepath.Join(t.TempDir(), "s.gguf")
	convert(t, in, out, Options{})
	got, want := openAny(t, out), openAny(t, shared(t, "models/student-f16.gguf"))
	for _, key := range []string{"general.name", "general.license", "general.description", "tokenizer.chat_template"} {
		got.Metadata.Delete(key)
		want.Metadata.Delete(key)
	}
	sameModel(t, got, want)
}

// TestInterrupted: when the context ends nothing is left behind, and a file that
// was there stays as it was.
func TestInterrupted(t *testing.T) {
	for _, format := range Formats() {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			out := filepath.Join(dir, "out")
			old := out // the file that must stay
			if format == FormatSafetensors {
				if err := os.Mkdir(out, 0o777); err != nil {
					t.Fatal(err)
				}
				old = filepath.Join(out, "config.json")
			}
			if err := os.WriteFile(old, []byte("old"), 0o666); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := Convert(ctx, "../models/tiny-coder-4m-q4_k_m.gguf", out, Options{Format: format, Recipe: "f16", Force: true,
				Progress: func(p Progress) {
					if p.Index == 3 {
						cancel()
					}
				}})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want context.Canceled", err)
			}
			list, err := os.ReadDir(dir)
			if err != nil || len(list) != 1 {
				t.Errorf("the folder holds %v (%v)", list, err)
			}
			if text, _ := os.ReadFile(old); string(text) != "old" {
				t.Error("the file that was there has changed")
			}
		})
	}
}

// TestPlan: a plan says what Convert then does.
func TestPlan(t *testing.T) {
	const in = "../models/tiny-coder-4m-q4_k_m.gguf"
	for _, c := range []struct{ recipe, format string }{{"", FormatApr}, {"f16", FormatSafetensors}, {"q8_0", FormatGGUF}} {
		t.Run(c.format+" "+c.recipe, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			o := Options{Format: c.format, Recipe: c.recipe}
			plan, err := PlanConvert(in, out, o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
				t.Error("planning wrote a file")
			}
			if done := convert(t, in, out, o); !reflect.DeepEqual(plan, done) {
				t.Errorf("planned %+v, did %+v", plan, done)
			}
			size := int64(0)
			if err := filepath.Walk(out, func(_ string, info fs.FileInfo, err error) error {
				if err == nil && !info.IsDir() {
					size += info.Size()
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			// Besides the tensors there are names and the vocabulary.
			if over := size - plan.BytesOut; over < 0 || over > 400_000 {
				t.Errorf("there are %d bytes, %d were planned", size, plan.BytesOut)
			}
		})
	}
	if _, err := PlanConvert(in, "x.safetensors", Options{}); !errors.Is(err, ErrTypes) {
		t.Errorf("Q4_K in safetensors: %v, want ErrTypes", err)
	}
	if _, err := PlanConvert(in, "x", Options{Format: "onnx"}); err == nil {
		t.Error("an unknown container was accepted")
	}
}
