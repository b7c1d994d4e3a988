package modelfile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/format/safetensors"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/modelfile"
)

// export writes a model as a Hugging Face folder with the given name.
func export(t *testing.T, in, name string) string {
	t.Helper()
	return convert(t, in, name, modelfile.Options{Format: modelfile.FormatSafetensors})
}

// readJSON reads an object of a folder.
func readJSON(t *testing.T, dir, name string) (v map[string]any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestExportOriginal: a folder written by transformers, imported and exported
// again, has the same bytes in every tensor and says the same, but for keys that
// mean nothing to a model at rest.
func TestExportOriginal(t *testing.T) {
	// The window is not used, so max_window_layers says nothing either.
	meaningless := []string{"attention_dropout", "initializer_range", "transformers_version", "use_cache", "sliding_window", "use_sliding_window", "max_window_layers"}
	for _, name := range []string{"student", "teacher"} {
		for _, mid := range []string{"m.gguf", "m.apr"} {
			t.Run(name+" "+mid, func(t *testing.T) {
				original := golden.Shared(t, "models", name+"-hf")
				dir := export(t, convert(t, original, mid, modelfile.Options{}), name+"-hf")
				want, err := safetensors.OpenFolder(original)
				if err != nil {
					t.Fatal(err)
				}
				defer want.Close()
				got, err := safetensors.OpenFolder(dir)
				if err != nil {
					t.Fatal(err)
				}
				defer got.Close()
				if len(got.Tensors) != len(want.Tensors) {
					t.Errorf("%d tensors, want %d", len(got.Tensors), len(want.Tensors))
				}
				for _, w := range want.Tensors {
					if g, ok := got.Tensor(w.Name); !ok || g.String() != w.String() || !bytes.Equal(g.Data, w.Data) {
						t.Errorf("%v is not %v with the same bytes", g, w)
					}
				}
				for _, file := range []string{"config.json", "generation_config.json", "tokenizer.json"} {
					g := readJSON(t, dir, file)
					for key, w := range readJSON(t, original, file) {
						if !slices.Contains(meaningless, key) && !reflect.DeepEqual(g[key], w) {
							t.Errorf("%s: %s is %v, want %v", file, key, g[key], w)
						}
					}
				}
				g, w := readJSON(t, dir, "tokenizer_config.json"), readJSON(t, original, "tokenizer_config.json")
				for _, key := range []string{"chat_template", "added_tokens_decoder", "bos_token", "eos_token", "pad_token", "unk_token"} {
					if !reflect.DeepEqual(g[key], w[key]) {
						t.Errorf("tokenizer_config.json: %s is %v, want %v", key, g[key], w[key])
					}
				}
			})
		}
	}
}

// TestExportBack: an exported folder gives, imported again, the very file it was
// made of, for every architecture, rotary scaling, window and container.
func TestExportBack(t *testing.T) {
	cases := []struct{ file, modelType string }{
		{"qwen2", "qwen2"}, {"qwen2-yarn", "qwen2"}, {"qwen3", "qwen3"}, {"qwen3-tied", "qwen3"}, {"gemma3", "gemma3_text"},
		{"llama-gqa", "llama"}, {"llama-mha-tied", "llama"}, {"llama-linear", "llama"}, {"llama-yarn", "llama"},
		{"llama3", "llama"}, {"mistral", "mistral"},
	}
	for _, c := range cases {
		t.Run(c.file, func(t *testing.T) {
			source := c.file
			if source == "llama3" {
				source = "llama-gqa"
			}
			// The files of the architectures have no tokenizer: folder adds one.
			first := folder(t, golden.Path(t, "testdata", "architectures", source+".gguf"), c.modelType)
			if c.file == "llama3" {
				edit(t, first, "config.json", func(c map[string]any) {
					c["rope_scaling"] = map[string]any{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
				})
			}
			if c.file == "mistral" { // what tells it from llama
				edit(t, first, "config.json", func(c map[string]any) { c["sliding_window"] = 24 })
			}
			want := convert(t, first, "m.gguf", modelfile.Options{})
			for _, mid := range []string{want, convert(t, want, "m.apr", modelfile.Options{})} {
				dir := export(t, mid, filepath.Base(first))
				if got := readJSON(t, dir, "config.json"); got["model_type"] != c.modelType {
					t.Errorf("model_type is %v, want %s", got["model_type"], c.modelType)
				}
				back := convert(t, dir, "m.gguf", modelfile.Options{})
				sameFile(t, back, want)
				sameBits(t, back, want)
			}
		})
	}
}

// sameFile compares two GGUF files: metadata and tensors, which may be in another
// order.
func sameFile(t *testing.T, got, want string) {
	t.Helper()
	a, b := open(t, got), open(t, want)
	for key, w := range b.Metadata.All() {
		if g, ok := a.Metadata.Value(key); !ok || !reflect.DeepEqual(g.Any(), w.Any()) {
			t.Errorf("%s is %s, want %s", key, g, w)
		}
	}
	if a.Metadata.Len() != b.Metadata.Len() || len(a.Tensors) != len(b.Tensors) {
		t.Errorf("%d keys and %d tensors, want %d and %d", a.Metadata.Len(), len(a.Tensors), b.Metadata.Len(), len(b.Tensors))
	}
	for _, w := range b.Tensors {
		if g, ok := a.Tensor(w.Name); !ok || g.String() != w.String() || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("%v is not %v with the same bytes", g, w)
		}
	}
}

// TestExportQuantised: what is exported from a quantised model has just the numbers
// that the quantised blocks stand for.
func TestExportQuantised(t *testing.T) {
	path := golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf")
	o := modelfile.Options{Recipe: "f32"}
	want := convert(t, path, "m.gguf", o)
	o.Format = modelfile.FormatSafetensors
	got := convert(t, convert(t, path, "hf", o), "m.gguf", modelfile.Options{})
	sameBits(t, got, want)
	a, b := load(t, got), load(t, path)
	const text = "<|im_start|>user\nWhat is été 1234?<|im_end|>\n"
	if x, y := encode(a, text), encode(b, text); !slices.Equal(x, y) || len(x) == 0 {
		t.Errorf("tokens %v, want %v", x, y)
	}
}

// TestWeightsAlone: a name that ends in .safetensors gets one file, and says so.
func TestWeightsAlone(t *testing.T) {
	out := filepath.Join(t.TempDir(), "w.safetensors")
	p, err := modelfile.Convert(t.Context(), golden.Path(t, "testdata", "architectures", "qwen2.gguf"), out, modelfile.Options{})
	if err != nil || len(p.Files) != 0 || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "config.json") {
		t.Errorf("%+v, %v", p, err)
	}
	if info, err := os.Stat(out); err != nil || info.IsDir() {
		t.Errorf("%v, %v", info, err)
	}
}

// TestExportOver: what is in the way of a folder is never lost.
func TestExportOver(t *testing.T) {
	in := golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf")
	write := func(dir string, names ...string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name  string
		files []string
		force bool
		want  error
		says  string
	}{
		{name: "empty"},
		{name: "a model", files: []string{"config.json", "model-00001-of-00002.safetensors"}, want: fs.ErrExist},
		{name: "a model, force", files: []string{"config.json", "model-00001-of-00002.safetensors"}, force: true},
		{name: "something else, force", files: []string{"config.json", "thesis.tex"}, force: true, want: fs.ErrExist, says: "thesis.tex"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			write(out, c.files...)
			_, err := modelfile.Convert(t.Context(), in, out, modelfile.Options{Format: modelfile.FormatSafetensors, Recipe: "f16", Force: c.force})
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %v with %q", err, c.want, c.says)
			}
			have := fileNames(t, out)
			if c.want != nil {
				if !slices.Equal(have, c.files) {
					t.Errorf("the folder holds %v, want %v", have, c.files)
				}
			} else if want := []string{"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}; !slices.Equal(have, want) {
				t.Errorf("the folder holds %v, want %v", have, want)
			}
			if rest := fileNames(t, filepath.Dir(out)); len(rest) != 1 {
				t.Errorf("left behind: %v", rest)
			}
		})
	}
	t.Run("its own folder", func(t *testing.T) {
		dir := export(t, in2(t), "hf")
		if _, err := modelfile.Convert(t.Context(), dir, dir, modelfile.Options{Format: modelfile.FormatSafetensors, Force: true}); !errors.Is(err, modelfile.ErrSameFile) {
			t.Errorf("got %v, want ErrSameFile", err)
		}
	})
	t.Run("a file", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out")
		write(filepath.Dir(out), "out")
		_, err := modelfile.Convert(t.Context(), in, out, modelfile.Options{Format: modelfile.FormatSafetensors, Recipe: "f16", Force: true})
		if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "want a folder") {
			t.Errorf("got %v", err)
		}
	})
}

// in2 is a model in a type that safetensors has.
func in2(t *testing.T) string {
	return convert(t, golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf"), "m.gguf", modelfile.Options{Recipe: "f16"})
}

func fileNames(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestExportErrors: what a Hugging Face folder cannot say is refused, and nothing
// is left behind.
func TestExportErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*gguf.Metadata) error
		kind   error
		want   string
	}{
		{"no tokenizer", func(m *gguf.Metadata) error { m.Delete("tokenizer.ggml.tokens"); return nil }, nil, "tokens is missing; a name that ends in .safetensors gets the weights alone"},
		{"partial rotation", func(m *gguf.Metadata) error { return m.Set("llama.rope.dimension_count", uint32(8)) }, modelfile.ErrArch, "rotated"},
		{"layers that differ", func(m *gguf.Metadata) error { return m.Set("llama.feed_forward_length", []int32{96, 64}) }, modelfile.ErrConfig, "differs between layers"},
		{"scaling", func(m *gguf.Metadata) error { return m.Set("llama.rope.scaling.type", "longrope") }, modelfile.ErrArch, "longrope"},
		{"architecture", func(m *gguf.Metadata) error { return m.Set("general.architecture", "mamba") }, modelfile.ErrArch, `"mamba"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			full := convert(t, folder(t, golden.Path(t, "testdata", "architectures", "llama-gqa.gguf"), "llama"), "m.gguf", modelfile.Options{})
			f := open(t, full)
			md := f.Metadata.Clone()
			if err := c.change(md); err != nil {
				t.Fatal(err)
			}
			in := filepath.Join(t.TempDir(), "in.gguf")
			if err := gguf.WriteFile(in, md, f.Tensors); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "hf")
			o := modelfile.Options{Format: modelfile.FormatSafetensors}
			_, err := modelfile.Convert(t.Context(), in, out, o)
			if err == nil || c.kind != nil && !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %v with %q", err, c.kind, c.want)
			}
			if _, planErr := modelfile.PlanConvert(in, out, o); planErr == nil {
				t.Error("the plan does not say so")
			}
			if left := fileNames(t, filepath.Dir(out)); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
