// Package explain tells in words what the names mean that people meet in model
// files: tensors, storage types, quantisation recipes and the kinds of findings
// of a check.
package explain

import (
	"fmt"
	"strings"

	"github.com/apr-engine/apr/modelfile/check"
	"github.com/apr-engine/apr/modelfile/names"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// Topic is an explanation: a heading and labelled facts.
type Topic struct {
	// Kind is "tensor", "type", "recipe" or "finding".
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Facts []Fact `json:"facts"`
}

// Fact is one line of an explanation.
type Fact struct {
	Label string `json:"label"`
	Text  string `json:"text"`
}

func (t *Topic) add(label, format string, args ...any) {
	t.Facts = append(t.Facts, Fact{label, fmt.Sprintf(format, args...)})
}

// Find explains a word; nil if it is none that this package knows. Tensor names are
// of either scheme; the rest is found in upper or lower case.
func Find(word string) *Topic {
	for _, find := range []func(string) *Topic{Type, Recipe, Finding, Tensor} {
		if t := find(word); t != nil {
			return t
		}
	}
	return nil
}

// Type explains a storage type such as Q4_K.
func Type(name string) *Topic {
	d, err := tensor.ParseDType(name)
	if err != nil {
		return nil
	}
	l, ok := quant.LayoutOf(d)
	if !ok {
		return nil
	}
	t := &Topic{Kind: "type", Name: d.String()}
	t.add("number", "%d in GGUF files", uint32(d))
	if n := d.BlockLen(); n > 1 {
		t.add("block", "%d numbers in %d bytes", n, d.BlockBytes())
	}
	t.add("bits", "%g a number", l.BitsPerWeight())
	t.add("number x", "%s", strings.TrimPrefix(l.Formula, "x = "))
	at := 0
	for _, p := range l.Parts {
		where := fmt.Sprintf("byte %d", at)
		if p.Size > 1 {
			where = fmt.Sprintf("bytes %d to %d", at, at+p.Size-1)
		}
		t.add(where, "%s: %s", p.Name, p.What)
		at += p.Size
	}
	if _, ok := quant.Lookup(d); ok {
		t.add("used for", "weights: apr runs models with it")
	} else {
		t.add("used for", "data: apr does not compute with it")
	}
	t.add("source", "%s", l.Source)
	return t
}

// Recipe explains a mix of types such as q4_k_m.
func Recipe(name string) *Topic {
	r, err := quant.FindRecipe(name)
	if err != nil {
		return nil
	}
	t := &Topic{Kind: "recipe", Name: r.Name}
	t.add("what", "a mix of storage types for the tensors of a model, chosen by apr quantize as by llama-quantize")
	t.add("most tensors", "%s", r.Base)
	t.add("file type", "%d in general.file_type", r.FileType)
	// The first layer of a model of usual proportions shows the rules.
	for _, name := range []string{"token_embd.weight", "output.weight", "blk.0.attn_v.weight", "blk.0.ffn_down.weight", "output_norm.weight"} {
		ref := quant.TensorRef{Name: name, Type: tensor.F16, Shape: []int{4096, 4096}, Layers: 32, GQA: 4, Arch: "llama"}
		if strings.Contains(name, "norm") {
			ref.Shape = ref.Shape[:1]
		}
		ref.Layer, _ = quant.LayerOf(name)
		if d := r.TypeFor(ref); d != r.Base {
			t.add("exception", "%s: %s (in a model of 32 layers)", name, d)
		}
	}
	return t
}

// Finding explains a kind of findings of a check.
func Finding(name string) *Topic {
	for _, k := range check.Kinds {
		if strings.EqualFold(k.Name, name) {
			t := &Topic{Kind: "finding", Name: k.Name}
			t.add("meaning", "%s", k.Meaning)
			t.add("what to do", "%s", k.Advice)
			return t
		}
	}
	return nil
}

// Tensor explains a tensor's name.
func Tensor(name string) *Topic {
	n, ok := names.Parse(name, names.IsGemma([]string{name}))
	if !ok {
		return nil
	}
	r := n.Role
	t := &Topic{Kind: "tensor", Name: name}
	what, shape := r.What, r.Shape
	if n.Suffix == "bias" {
		what, shape = "bias added to the result of the "+r.What, r.Shape[:1]
	}
	t.add("what", "%s", what)
	if n.Layer >= 0 {
		t.add("where", "layer %d (counted from 0), %s", n.Layer, r.Group)
	} else {
		t.add("where", "outside the layers, %s", r.Group)
	}
	t.add("shape", "%s", strings.Join(shape, " x "))
	for _, key := range sizes(shape) {
		t.add(key[0], "metadata key %s", key[1])
	}
	t.add("in GGUF", "%s", n.GGUF())
	plain, gemma := n.HF(false), n.HF(true)
	switch {
	case plain == "" && gemma == "":
		t.add("Hugging Face", "not stored")
	case plain == gemma:
		t.add("Hugging Face", "%s", plain)
	default:
		if plain != "" {
			t.add("Hugging Face", "%s", plain)
		}
		t.add("in Gemma 3", "%s", gemma)
	}
	if r.Note != "" {
		t.add("note", "%s", r.Note)
	}
	return t
}

// sizes lists the metadata keys behind the words of a shape.
func sizes(shape []string) (list [][2]string) {
	all := strings.Join(shape, " ")
	for _, k := range [][2]string{
		{"vocab", "tokenizer.ggml.tokens (its length)"},
		{"hidden", "ARCH.embedding_length"},
		{"kv_heads", "ARCH.attention.head_count_kv"},
		{"heads", "ARCH.attention.head_count"},
		{"head_dim", "ARCH.attention.key_length, otherwise hidden / heads"},
		{"ffn", "ARCH.feed_forward_length"},
	} {
		if k[0] == "heads" && !strings.Contains(strings.ReplaceAll(all, "kv_heads", ""), "heads") || !strings.Contains(all, k[0]) {
			continue
		}
		list = append(list, k)
	}
	return list
}

// Words lists examples of what Find knows, for messages and completion.
func Words() []string {
	var list []string
	for _, l := range quant.Layouts() {
		list = append(list, l.Type.String())
	}
	list = append(list, quant.RecipeNames()...)
	for _, k := range check.Kinds {
		list = append(list, k.Name)
	}
	for _, r := range names.Roles {
		n := names.Name{Role: &r, Layer: -1, Suffix: "weight"}
		if r.Layered {
			n.Layer = 0
		}
		list = append(list, n.GGUF())
	}
	return list
}
