package modelfile

import (
	"fmt"
	"slices"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/modelfile/names"
	"github.com/apr-engine/apr/tensor"
)

// FolderProblem is something wrong with a Hugging Face folder.
type FolderProblem struct {
	// File is the file at fault, such as "config.json"; empty for the weights.
	File string
	// Tensor is the tensor concerned, by its name in the file; may be empty.
	Tensor string
	Err    error
}

// FolderView is a Hugging Face folder in GGUF's terms, for checking it: what
// 'apr import' would make of it, as far as it can be read.
type FolderView struct {
	// Metadata is nil if config.json cannot be read or used.
	Metadata *gguf.Metadata
	// Tensors have GGUF's names; rows are in the folder's order.
	Tensors []tensor.Tensor
	// Problems are all that would keep the folder from being imported, but for
	// tensors that are missing or have another shape than Metadata asks for.
	Problems []FolderProblem
	Warnings []string
	close    func() error
}

// Close releases the files.
func (v *FolderView) Close() error { return v.close() }

// ViewFolder reads a Hugging Face folder for checking. The error is for weights
// that cannot be opened.
func ViewFolder(dir string) (*FolderView, error) {
	s, problems, err := readFolder(dir)
	if err != nil {
		return nil, err
	}
	v := &FolderView{Metadata: s.md, Problems: problems, Warnings: s.warnings, close: s.close}
	for _, it := range s.items {
		v.Tensors = append(v.Tensors, it.Tensor)
	}
	return v, nil
}

// incomplete returns an error that names a tensor which the architecture has and
// the source does not, or has in another shape; nil if there is none.
func (s *source) incomplete() error {
	arch, _ := s.md.String("general.architecture")
	layers, _ := s.md.Uint(arch + ".block_count")
	have := map[string]bool{}
	for _, it := range s.items {
		have[it.Name] = true
		if want, ok := s.shape(arch, it.Name); ok && !slices.Equal(it.Shape, want) {
			hf, _ := HFName(arch, it.Name)
			return fmt.Errorf("%w: tensor %s has the shape %v, config.json asks for %v", ErrConfig, hf, it.Shape, want)
		}
	}
	want := []string{"token_embd.weight", "output_norm.weight"}
	parts := []string{"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"}
	var biases []string
	switch arch {
	case "qwen2":
		biases = []string{"attn_q", "attn_k", "attn_v"}
	case "qwen3":
		parts = append(parts, "attn_q_norm", "attn_k_norm")
	case "gemma3":
		parts = append(parts, "attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm")
	}
	for i := range layers {
		for _, p := range parts {
			want = append(want, fmt.Sprintf("blk.%d.%s.weight", i, p))
		}
		for _, p := range biases {
			want = append(want, fmt.Sprintf("blk.%d.%s.bias", i, p))
		}
	}
	for _, name := range want {
		if !have[name] {
			hf, _ := HFName(arch, name)
			return fmt.Errorf("%w: tensor %s is missing", ErrConfig, hf)
		}
	}
	return nil
}

// shape is the one that the sizes of the metadata ask for; false where they say
// nothing.
func (s *source) shape(arch, name string) ([]int, bool) {
	n, ok := names.Parse(name, false)
	if !ok {
		return nil, false
	}
	size := func(key string) int { v, _ := s.md.Uint(arch + "." + key); return int(v) }
	heads, hidden := size("attention.head_count"), size("embedding_length")
	width := size("attention.key_length")
	if width == 0 && heads > 0 {
		width = hidden / heads
	}
	sizes := map[string]int{
		"hidden": hidden, "ffn": size("feed_forward_length"), "head_dim": width, "head_dim/2": width / 2,
		"heads*head_dim": heads * width, "kv_heads*head_dim": size("attention.head_count_kv") * width,
	}
	var shape []int
	for _, dim := range n.Role.Shape {
		v, ok := sizes[dim]
		if !ok {
			return nil, false // the vocabulary, which the tensor itself decides
		}
		shape = append(shape, v)
	}
	if n.Suffix == "bias" {
		shape = shape[:1]
	}
	return shape, true
}
