package modelfile

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/tensor"
)

// withMetadata returns a file's bytes with another text as its metadata.
func withMetadata(file []byte, text []byte) []byte {
	le := binary.LittleEndian
	index, data := le.Uint64(file[24:]), le.Uint64(file[32:])
	out := append(append([]byte(nil), file[:64]...), text...)
	le.PutUint32(out[20:], uint32(len(text)))
	le.PutUint64(out[24:], uint64(len(out)))
	out = append(out, file[index:data]...)
	le.PutUint64(out[32:], uint64(len(out)))
	clear(out[40:44]) // no checksum of the header
	return append(out, file[data:]...)
}

// FuzzViewApr: an .apr file with any metadata is either presented in GGUF's terms
// or refused with a one-line error, and then it can be converted without a panic.
func FuzzViewApr(f *testing.F) {
	dir := f.TempDir()
	var file []byte
	for i, fields := range [][]apr.Field{
		{{Key: "architecture", Value: "llama"}, {Key: "num_heads", Value: 2}, {Key: "hidden_size", Value: 4}, {Key: "rope_type", Value: 2},
			{Key: "tokenizer.vocabulary", Value: []string{"<unk>", "a"}}, {Key: "tokenizer.scores", Value: []float32{0, 1}}},
		{{Key: keyGGUF, Value: []storedValue{{Key: "general.architecture", Type: "string", Value: []byte(`"qwen2"`)},
			{Key: "tokenizer.ggml.tokens", Type: "[]string", From: "tokenizer.vocabulary"}, {Key: "x", Type: "[]uint8", Value: []byte("[1,2]")}}},
			{Key: "tokenizer.vocabulary", Value: []string{"a"}}},
	} {
		path := filepath.Join(dir, string('a'+rune(i)))
		w, err := apr.Create(path, fields, []apr.TensorInfo{
			{Name: "model.layers.0.self_attn.q_proj.weight", Type: apr.Q4, Shape: []int{4, 5}},
			{Name: "model.embed_tokens.weight", Type: apr.Q8, Shape: []int{2, 4}},
			{Name: "lm_head.weight", Type: apr.Q8, Shape: []int{2, 4}, SameAs: "model.embed_tokens.weight"},
			{Name: "blk.0.attn_k.weight", Type: apr.Type(tensor.F16), Shape: []int{4, 4}},
		})
		if err != nil {
			f.Fatal(err)
		}
		for _, n := range []int{18, 12, 32} {
			out, err := w.NextTensor()
			if err != nil {
				f.Fatal(err)
			}
			if _, err := out.Write(make([]byte, n)); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		parsed, err := apr.Parse(data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[64 : 64+parsed.Header.MetadataSize])
		file = data
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := apr.Parse(withMetadata(file, text))
		if err != nil {
			return
		}
		view, err := viewApr(a)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("error %q has several lines", err)
			}
			return
		}
		for _, x := range view.Tensors {
			if n, err := tensor.Bytes(x.Type, x.Shape); err != nil || n != len(x.Data) {
				t.Errorf("%v has %d bytes, want %d (%v)", x, len(x.Data), n, err)
			}
		}
		s, err := view.source()
		if err != nil {
			return
		}
		for _, format := range Formats() {
			j := &job{source: s, format: format}
			if _, err := j.plan(); err != nil && strings.ContainsAny(err.Error(), "\n\r") && !errors.Is(err, ErrTypes) {
				t.Fatalf("error %q has several lines", err)
			}
		}
	})
}

// FuzzConfig: any config.json gives metadata or an error of a known kind.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"model_type":"qwen2","hidden_size":64,"num_hidden_layers":1,"num_attention_heads":1,"intermediate_size":64,"max_position_embeddings":64,"rope_scaling":{"type":"yarn","factor":2}}`))
	f.Add([]byte(`{"model_type":"gemma3","text_config":{"hidden_size":64,"num_hidden_layers":1,"num_attention_heads":1,"intermediate_size":64}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, arch, err := parseConfig(text)
		if err == nil {
			_, err = c.metadata(arch, "x")
		}
		if err != nil && !errors.Is(err, ErrConfig) && !errors.Is(err, ErrArch) {
			t.Fatalf("error %q is of no kind", err)
		}
		if err == nil && c.Scaling != nil && c.Scaling.kind() == "llama3" && c.HeadDim < 1<<12 {
			c.ropeFactors()
		}
	})
}
