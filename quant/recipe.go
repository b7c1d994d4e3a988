package quant

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apr-engine/apr/tensor"
)

// ErrRecipe means that no recipe has the given name.
var ErrRecipe = errors.New("unknown quantisation recipe")

// Recipe says which type each tensor of a model gets: most get the recipe's
// base type, those that suffer most from rounding a better one. The rules are
// those of llama-quantize without an importance matrix (llama_tensor_get_type in
// llama.cpp's llama-quant.cpp, February 2025), so files have the same layout.
type Recipe struct {
	Name string
	// FileType is the number for GGUF's general.file_type (llama_ftype).
	FileType uint32
	// Base is the type of tensors without a rule of their own.
	Base tensor.DType

	mix mix
}

// mix is the set of extra rules of a recipe.
type mix int

const (
	pure   mix = iota // every matrix gets the base type
	simple            // only the output matrix differs
	small             // Q4_K_S, Q5_K_S
	medium            // Q4_K_M, Q5_K_M
)

// recipes by name; the names are llama-quantize's in lower case.
var recipes = []Recipe{
	{"f32", 0, tensor.F32, pure},
	{"f16", 1, tensor.F16, pure},
	{"bf16", 32, tensor.BF16, pure},
	{"q8_0", 7, tensor.Q8_0, simple},
	{"q6_k", 18, tensor.Q6_K, simple},
	{"q5_k_m", 17, tensor.Q5_K, medium},
	{"q5_k_s", 16, tensor.Q5_K, small},
	{"q5_1", 9, tensor.Q5_1, simple},
	{"q5_0", 8, tensor.Q5_0, simple},
	{"q4_k_m", 15, tensor.Q4_K, medium},
	{"q4_k_s", 14, tensor.Q4_K, small},
	{"q4_1", 3, tensor.Q4_1, simple},
	{"q4_0", 2, tensor.Q4_0, simple},
}

// RecipeNames lists the names that FindRecipe knows, best quality first.
func RecipeNames() []string {
	names := make([]string, len(recipes))
	for i, r := range recipes {
		names[i] = r.Name
	}
	return names
}

// FindRecipe returns the recipe with the given name, ignoring case. "q4_k" and
// "q5_k" mean the medium mixes, as in llama-quantize. The error is ErrRecipe.
func FindRecipe(name string) (Recipe, error) {
	want := strings.ToLower(name)
	if want == "q4_k" || want == "q5_k" {
		want += "_m"
	}
	for _, r := range recipes {
		if r.Name == want {
			return r, nil
		}
	}
	return Recipe{}, fmt.Errorf("%w %q, want one of %s", ErrRecipe, name, strings.Join(RecipeNames(), ", "))
}

// TensorRef is what the rules look at.
type TensorRef struct {
	Name  string
	Type  tensor.DType // as it is now
	Shape []int        // slowest-varying first

	Layer  int // the N of "blk.N."; any number for other tensors
	Layers int // blocks of the model

	// Tied: the model has no output.weight and token_embd.weight serves as both.
	Tied bool
	// GQA is query heads per key/value head, at least 1.
	GQA int
	// Experts of a mixture; 0 or 1 for a dense model.
	Experts int
	// Arch is general.architecture.
	Arch string
}

// kept are parts of names of matrices that are never quantised: they are small
// and sensitive.
var kept = []string{
	"_norm.weight", "ffn_gate_inp.weight", "ssm_conv1d.weight", "attn_rel_b.weight",
	"time_mix_first.weight", "time_mix_w1.weight", "time_mix_w2.weight",
	"time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
}

// keeps reports whether the tensor stays as it is.
func keeps(t TensorRef) bool {
	return !strings.HasSuffix(t.Name, "weight") ||
		t.Name == "position_embd.weight" || t.Name == "token_types.weight" ||
		slices.ContainsFunc(kept, func(part string) bool { return strings.Contains(t.Name, part) })
}

// dims counts dimensions as ggml does: leading ones of length 1 do not count.
func (t TensorRef) dims() int {
	n := len(t.Shape)
	for n > 1 && t.Shape[len(t.Shape)-n] == 1 {
		n--
	}
	return n
}

// TypeFor returns the type the tensor is to be stored in. Vectors (norms,
// biases) and norms of any shape become F32, which is what readers expect;
// other tensors that are not quantised keep the type they have.
func (r Recipe) TypeFor(t TensorRef) tensor.DType {
	_, known := Lookup(t.Type)
	switch {
	case !known:
		return t.Type // integers and the like
	case t.dims() < 2 || strings.Contains(t.Name, "_norm.weight"):
		return tensor.F32
	case keeps(t):
		return t.Type
	case r.mix == pure:
		return r.Base
	}
	return fitting(r.wanted(t), t.cols())
}

func (t TensorRef) cols() int {
	if len(t.Shape) == 0 {
		return 0
	}
	return t.Shape[len(t.Shape)-1]
}

// wanted applies the rules for names; the row length is looked at afterwards,
// except for the output matrix.
func (r Recipe) wanted(t TensorRef) tensor.DType {
	has := func(part string) bool { return strings.Contains(t.Name, part) }
	eight := t.Experts == 8
	switch {
	case t.Name == "output.weight" || t.Tied && t.Name == "token_embd.weight":
		if t.cols()%r.Base.BlockLen() != 0 || r.Base == tensor.Q8_0 {
			return tensor.Q8_0
		}
		return tensor.Q6_K
	case t.Name == "token_embd.weight":
		return r.Base
	case has("attn_v.weight"):
		if eight {
			return tensor.Q8_0
		}
		return r.values(t)
	case has("attn_k.weight") && eight:
		return tensor.Q8_0
	case has("ffn_down"):
		return r.down(t)
	case has("attn_output.weight") && eight && r.Base == tensor.Q4_K:
		return tensor.Q5_K
	case has("attn_qkv.weight") && r.mix == medium:
		if r.Base == tensor.Q4_K {
			return tensor.Q5_K
		}
		return tensor.Q6_K
	}
	return r.Base
}

// values is the rule for the attention's value matrix.
func (r Recipe) values(t TensorRef) tensor.DType {
	typ := r.Base
	switch {
	case r.mix == medium && moreBits(t.Layer, t.Layers):
		typ = tensor.Q6_K
	case r.Name == "q4_k_s" && t.Layer < 4:
		typ = tensor.Q5_K
	}
	// In models of the 70B size eight heads share a value matrix, so it is an
	// eighth of the others' size and better bits cost little.
	if typ == tensor.Q4_K && t.Layers == 80 && (t.GQA > 1 || t.Arch != "llama") {
		typ = tensor.Q5_K
	}
	return typ
}

// down is the rule for the feed-forward's second matrix.
func (r Recipe) down(t TensorRef) tensor.DType {
	switch {
	case r.mix == medium && moreBits(t.Layer, t.Layers):
		return tensor.Q6_K
	case r.Name == "q4_k_s" && t.Layer < t.Layers/8:
		return tensor.Q5_K
	}
	return r.Base
}

// moreBits picks the first and last eighth of the layers and every third between.
func moreBits(layer, layers int) bool {
	return layer < layers/8 || layer >= 7*layers/8 || (layer-layers/8)%3 == 2
}

// fitting replaces a type whose blocks do not divide rows of cols elements by
// one of a similar size that does; F16 always does.
func fitting(t tensor.DType, cols int) tensor.DType {
	if cols%t.BlockLen() == 0 {
		return t
	}
	switch t {
	case tensor.Q4_K:
		t = tensor.Q5_0
	case tensor.Q5_K:
		t = tensor.Q5_1
	case tensor.Q6_K:
		t = tensor.Q8_0
	}
	if cols%t.BlockLen() == 0 {
		return t
	}
	return tensor.F16
}

// LayerOf returns N of a tensor called "blk.N.…"; false for other names.
func LayerOf(name string) (layer int, ok bool) {
	rest, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return 0, false
	}
	number, _, ok := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(number, 10, 31)
	if !ok || err != nil {
		return 0, false
	}
	return int(n), true
}
