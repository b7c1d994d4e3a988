package modelfile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/format/safetensors"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/tensor"
)

// folder writes a GGUF model as a Hugging Face folder: the tensors by our own
// export, config.json and tokenizer.json from the metadata.
func folder(t *testing.T, path, modelType string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), modelType)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	f := open(t, path)
	source := path
	if _, ok := f.Tensor("rope_freqs.weight"); ok { // a key of config.json there
		var rest []tensor.Tensor
		for _, x := range f.Tensors {
			if x.Name != "rope_freqs.weight" {
				rest = append(rest, x)
			}
		}
		source = filepath.Join(t.TempDir(), "rest.gguf")
		if err := gguf.WriteFile(source, f.Metadata, rest); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := modelfile.Convert(t.Context(), source, filepath.Join(dir, "model.safetensors"), modelfile.Options{}); err != nil {
		t.Fatal(err)
	}
	arch, _ := f.Metadata.String("general.architecture")
	config := map[string]any{"model_type": modelType}
	number := func(key, from string) {
		if v, ok := f.Metadata.Value(arch + "." + from); ok {
			config[key] = v.Any()
		}
	}
	number("hidden_size", "embedding_length")
	number("num_hidden_layers", "block_count")
	number("num_attention_heads", "attention.head_count")
	number("num_key_value_heads", "attention.head_count_kv")
	number("intermediate_size", "feed_forward_length")
	number("max_position_embeddings", "context_length")
	number("rms_norm_eps", "attention.layer_norm_rms_epsilon")
	number("rope_theta", "rope.freq_base")
	number("head_dim", "attention.key_length")
	number("sliding_window", "attention.sliding_window")
	if kind, ok := f.Metadata.String(arch + ".rope.scaling.type"); ok && kind != "none" {
		factor, _ := f.Metadata.Float(arch + ".rope.scaling.factor")
		original, _ := f.Metadata.Uint(arch + ".rope.scaling.original_context_length")
		config["rope_scaling"] = map[string]any{"rope_type": kind, "factor": factor, "original_max_position_embeddings": original}
	}
	embedding, _ := f.Tensor("token_embd.weight")
	vocab := map[string]int{}
	for i := range embedding.Rows() - 1 {
		vocab[strings.Repeat("a", i+1)] = i
	}
	tokenizer := map[string]any{
		"pre_tokenizer": map[string]any{"type": "ByteLevel"},
		"added_tokens":  []any{map[string]any{"id": embedding.Rows() - 1, "content": "<end>", "special": true}},
		"model":         map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{"a a"}},
	}
	for name, v := range map[string]any{"config.json": config, "tokenizer.json": tokenizer} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestImportArchitectures: GGUF → folder → .apr → GGUF gives the same tensors and
// the same logits for each architecture, however its rotary embedding is stretched.
func TestImportArchitectures(t *testing.T) {
	for _, c := range []struct{ file, modelType string }{
		{"qwen2", "qwen2"}, {"qwen2-yarn", "qwen2"}, {"qwen3", "qwen3"}, {"qwen3-tied", "qwen3"}, {"gemma3", "gemma3_text"},
		{"llama-gqa", "llama"}, {"llama-mha-tied", "llama"}, {"llama-linear", "llama"}, {"llama-yarn", "llama"}, {"mistral", "mistral"},
	} {
		t.Run(c.file, func(t *testing.T) {
			path := golden.Path(t, "testdata", "architectures", c.file+".gguf")
			dir := folder(t, path, c.modelType)
			out := convert(t, convert(t, dir, "m.apr", modelfile.Options{}), "m.gguf", modelfile.Options{})
			got, want := open(t, out), open(t, path)
			if len(got.Tensors) != len(want.Tensors) {
				t.Errorf("%d tensors, want %d", len(got.Tensors), len(want.Tensors))
			}
			for _, w := range want.Tensors {
				// Gemma's norms lose their last bit where 1 is taken off and added.
				norm := c.file == "gemma3" && strings.HasSuffix(w.Name, "norm.weight")
				if g, ok := got.Tensor(w.Name); !ok || g.String() != w.String() || !norm && !bytes.Equal(g.Data, w.Data) {
					t.Errorf("%v is not %v with the same bytes", g, w)
				}
			}
			if c.file == "gemma3" {
				near(t, logits(t, out, ids), logits(t, path, ids), 1e-5)
				return
			}
			sameBits(t, out, path)
		})
	}
}

// TestPermutation: query and key rows of a llama folder are in the order that
// llama.cpp's converter starts from.
func TestPermutation(t *testing.T) {
	path := golden.Path(t, "testdata", "architectures", "llama-gqa.gguf")
	f := open(t, path)
	w, err := safetensors.Open(filepath.Join(folder(t, path, "llama"), "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for name, key := range map[string]string{"q": "attention.head_count", "k": "attention.head_count_kv"} {
		heads, _ := f.Metadata.Uint("llama." + key)
		from, _ := f.Tensor("blk.1.attn_" + name + ".weight")
		got, ok := w.Tensor("model.layers.1.self_attn." + name + "_proj.weight")
		if !ok || !bytes.Equal(got.Data, halves(from.Data, from.Rows(), int(heads))) {
			t.Errorf("%s: the rows are in another order", name)
		}
	}
}

// TestLlama3Factors: the tensor made from config.json equals the one that
// llama.cpp's converter would write, which the test model has.
func TestLlama3Factors(t *testing.T) {
	dir := folder(t, golden.Path(t, "testdata", "architectures", "llama-gqa.gguf"), "llama")
	edit(t, dir, "config.json", func(c map[string]any) {
		c["rope_scaling"] = map[string]any{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
	})
	f := open(t, convert(t, dir, "m.gguf", modelfile.Options{}))
	x, ok := f.Tensor("rope_freqs.weight")
	if !ok || x.Type != tensor.F32 {
		t.Fatalf("the factors are %v", x)
	}
	// Dimension 0 turns every 6.3 positions, under 32/4: kept. The last turns over
	// more than 32: divided by 8.
	if first, last := le32(x.Data), le32(x.Data[len(x.Data)-4:]); first != 1 || last != 8 {
		t.Errorf("factors from %v to %v, want 1 to 8", first, last)
	}
}

// edit changes a JSON file of a folder.
func edit(t *testing.T, dir, name string, change func(map[string]any)) {
	t.Helper()
	path := filepath.Join(dir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	change(v)
	if text, err = json.Marshal(v); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestImportErrors(t *testing.T) {
	set := func(key string, v any) func(map[string]any) {
		return func(c map[string]any) { c[key] = v }
	}
	for _, c := range []struct {
		name, file string
		change     func(map[string]any)
		kind       error
		want       string
	}{
		{"more layers than tensors", "config.json", set("num_hidden_layers", 9), modelfile.ErrConfig, "is missing"},
		{"another width", "config.json", set("intermediate_size", 100), modelfile.ErrConfig, "config.json asks for [100 64]"},
		{"fewer heads", "config.json", set("num_attention_heads", 5), modelfile.ErrConfig, "heads"},
		{"activation", "config.json", set("hidden_act", "relu"), modelfile.ErrArch, "hidden_act relu"},
		{"bias", "config.json", set("mlp_bias", true), modelfile.ErrArch, "mlp_bias"},
		{"scaling", "config.json", set("rope_scaling", map[string]any{"type": "dynamic", "factor": 2}), modelfile.ErrArch, "dynamic"},
		{"type", "config.json", set("hidden_size", "wide"), modelfile.ErrConfig, "config.json"},
		{"negative", "config.json", set("hidden_size", -1), modelfile.ErrConfig, "config.json"},
		{"no heads", "config.json", func(c map[string]any) { delete(c, "num_attention_heads") }, modelfile.ErrConfig, "num_attention_heads"},
		{"larger vocabulary", "tokenizer.json", func(c map[string]any) {
			c["added_tokens"] = []any{map[string]any{"id": 700, "content": "x"}}
		}, modelfile.ErrConfig, "embedding matrix"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, golden.Path(t, "testdata", "architectures", "llama-gqa.gguf"), "llama")
			edit(t, dir, c.file, c.change)
			out := filepath.Join(t.TempDir(), "m.apr")
			_, err := modelfile.Convert(t.Context(), dir, out, modelfile.Options{})
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v with %q", err, c.kind, c.want)
			}
			if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a file was left behind")
			}
		})
	}
	dir := folder(t, golden.Path(t, "testdata", "architectures", "llama-gqa.gguf"), "llama")
	os.Remove(filepath.Join(dir, "tokenizer.json"))
	if _, err := modelfile.Convert(t.Context(), dir, filepath.Join(t.TempDir(), "m"), modelfile.Options{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "tokenizer.json") {
		t.Errorf("without a tokenizer: %v", err)
	}
}

// TestSiblingTokenizer: a file without an embedded tokenizer takes the one beside
// it, and says what it looked for when there is none.
func TestSiblingTokenizer(t *testing.T) {
	path := golden.Path(t, "testdata", "architectures", "qwen2.gguf")
	out := foreignFile(t, path, func(_ *modelfile.File, md map[string]any, _ *apr.TensorInfo, data []byte) []byte {
		delete(md, "tokenizer.vocabulary")
		return data
	})
	if f := open(t, out); f.TokenizerProblem == nil || !strings.Contains(f.TokenizerProblem.Error(), "foreign.tokenizer.json") {
		t.Errorf("without a tokenizer: %v", f.TokenizerProblem)
	}
	dir := folder(t, path, "qwen2")
	text, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tokenizer.json", "foreign.tokenizer.json"} {
		beside := filepath.Join(filepath.Dir(out), name)
		if err := os.WriteFile(beside, text, 0o666); err != nil {
			t.Fatal(err)
		}
		f := open(t, out)
		if tokens, ok := f.Metadata.Strings("tokenizer.ggml.tokens"); f.TokenizerProblem != nil || !ok || tokens[1] != "aa" {
			t.Errorf("%s: %v, tokens %v", name, f.TokenizerProblem, ok)
		}
		os.Remove(beside)
	}
}

// TestTied: the entry of a tied output matrix takes no room, and disappears when
// the file is opened, also when another writer stored the bytes twice.
func TestTied(t *testing.T) {
	path := golden.Path(t, "testdata", "architectures", "qwen3-tied.gguf")
	f := open(t, convert(t, path, "m.apr", modelfile.Options{}))
	if _, ok := f.Tensor("output.weight"); ok {
		t.Error("the output matrix is there")
	}
	if f.Size() > 3*open(t, path).Size()/2 {
		t.Errorf("the file has %d bytes, the original %d", f.Size(), open(t, path).Size())
	}
	names := maps.Collect(func(yield func(string, bool) bool) {
		for _, x := range f.Tensors {
			yield(x.Name, true)
		}
	})
	if !names["token_embd.weight"] || names["lm_head.weight"] {
		t.Errorf("tensors %v", names)
	}
}
