package check

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/safetensors"
	"github.com/apr-engine/apr/modelfile"
)

// TestFolder: a Hugging Face folder is sound, and each kind of damage to the files
// beside the weights, or between them and the weights, is found.
func TestFolder(t *testing.T) {
	weights := func(t *testing.T, dir string, change func(list []safetensors.TensorInfo) []safetensors.TensorInfo) {
		t.Helper()
		path := filepath.Join(dir, "model.safetensors")
		f, err := safetensors.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var infos []safetensors.TensorInfo
		for _, x := range f.Tensors {
			infos = append(infos, safetensors.TensorInfo{Name: x.Name, Type: x.Type, Shape: x.Shape})
		}
		infos = change(infos)
		w, err := safetensors.Create(path+".new", nil, infos)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			dst, err := w.NextTensor()
			if err != nil {
				t.Fatal(err)
			}
			x, ok := f.Tensor(info.Name)
			if !ok {
				x, _ = f.Tensor("model.norm.weight")
			}
			if _, err := dst.Write(x.Data); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	set := func(file, key string, v any) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			path := filepath.Join(dir, file)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var o map[string]any
			if err := json.Unmarshal(text, &o); err != nil {
				t.Fatal(err)
			}
			if o[key] = v; v == nil {
				delete(o, key)
			}
			if text, err = json.Marshal(o); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, text, 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(file string) func(*testing.T, string) {
		return func(_ *testing.T, dir string) { os.Remove(filepath.Join(dir, file)) }
	}
	tests := []struct {
		name   string
		change func(*testing.T, string)
		want   []Finding // Text is a part of the text
	}{
		{"sound", nil, nil},
		{"no config", remove("config.json"), []Finding{{KindConfig, Error, "", "no config.json"}}},
		{"broken config", func(t *testing.T, dir string) { os.WriteFile(filepath.Join(dir, "config.json"), []byte("{"), 0o666) },
			[]Finding{{KindConfig, Error, "", "unexpected end of JSON input"}}},
		{"another architecture", set("config.json", "model_type", "mamba"), []Finding{{KindConfig, Error, "", `"mamba" is not supported`}}},
		{"an option not computed", set("config.json", "rope_scaling", map[string]any{"rope_type": "longrope", "factor": 2}),
			[]Finding{{KindConfig, Error, "", `"longrope" is not supported`}}},
		{"a key missing", set("config.json", "hidden_size", nil), []Finding{{KindConfig, Error, "", "hidden_size is missing"}}},
		{"another width", set("config.json", "intermediate_size", 512), []Finding{
			{KindShape, Error, "blk.0.ffn_up.weight", "512"}, {KindShape, Error, "blk.3.ffn_down.weight", "512"}}},
		{"more layers", set("config.json", "num_hidden_layers", 5), []Finding{
			{KindIncomplete, Error, "blk.4.attn_q.weight", ""}, {KindIncomplete, Error, "blk.4.ffn_norm.weight", ""}}},
		{"fewer layers", set("config.json", "num_hidden_layers", 3), []Finding{{KindUnused, Warning, "blk.3.attn_q.weight", ""}}},
		{"another vocabulary", set("config.json", "vocab_size", 5000), []Finding{{KindConfig, Error, "model.embed_tokens.weight", "vocab_size 5000"}}},
		{"no tokenizer", remove("tokenizer.json"), []Finding{{KindTokenizer, Error, "", "no tokenizer.json"}}},
		{"broken setup", func(t *testing.T, dir string) {
			os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte("["), 0o666)
		}, []Finding{{KindTokenizer, Error, "", "tokenizer_config.json"}}},
		{"another normalizer", set("tokenizer.json", "normalizer", map[string]any{"type": "Lowercase"}), []Finding{{KindTokenizer, Error, "", "Lowercase"}}},
		{"a tensor left out", func(t *testing.T, dir string) {
			weights(t, dir, func(l []safetensors.TensorInfo) []safetensors.TensorInfo {
				return slices.DeleteFunc(l, func(i safetensors.TensorInfo) bool { return strings.HasSuffix(i.Name, "layers.2.mlp.up_proj.weight") })
			})
		}, []Finding{{KindIncomplete, Error, "blk.2.ffn_up.weight", ""}}},
		{"a tensor too many", func(t *testing.T, dir string) {
			weights(t, dir, func(l []safetensors.TensorInfo) []safetensors.TensorInfo {
				for _, i := range l {
					if i.Name == "model.norm.weight" {
						i.Name = "model.strange.weight"
						return append(l, i)
					}
				}
				return l
			})
		}, []Finding{{KindConfig, Error, "model.strange.weight", "no part of qwen2"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "hf")
			if _, err := modelfile.Convert(context.Background(), "../../models/tiny-coder-4m-q4_k_m.gguf", dir, modelfile.Options{Format: modelfile.FormatSafetensors, Recipe: "f16"}); err != nil {
				t.Fatal(err)
			}
			if tt.change != nil {
				tt.change(t, dir)
			}
			r, err := File(context.Background(), dir, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !slices.ContainsFunc(r.Findings, func(f Finding) bool {
					return f.Kind == want.Kind && f.Severity == want.Severity && f.Tensor == want.Tensor && strings.Contains(f.Text, want.Text)
				}) {
					t.Errorf("want %+v among %+v", want, r.Findings)
				}
			}
			if len(tt.want) == 0 && (len(r.Findings) > 0 || r.Architecture != "qwen2") {
				t.Errorf("%s, findings %+v", r.Architecture, r.Findings)
			}
			// What is an error here keeps the folder from being imported, and the reverse.
			_, err = modelfile.Convert(context.Background(), dir, filepath.Join(t.TempDir(), "m.gguf"), modelfile.Options{})
			if (err == nil) != r.Passed(false) {
				t.Errorf("importing: %v, findings %+v", err, r.Findings)
			}
		})
	}
}
