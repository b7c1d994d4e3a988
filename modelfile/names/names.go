// Package names knows what tensors are called: by llama.cpp in GGUF files and by
// Hugging Face in safetensors and .apr files, what each is for and its shape.
// The pairs are those of llama.cpp's gguf-py/gguf/tensor_mapping.py.
package names

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Role is what a tensor is for.
type Role struct {
	// GGUF and HF are the names without layer and suffix: "attn_q" and
	// "self_attn.q_proj". HF is empty where Hugging Face stores no such tensor.
	GGUF, HF string
	// GemmaHF is Gemma's name where it differs: the family has four norms a layer.
	GemmaHF string
	// Layered: there is one in each layer.
	Layered bool
	// Group is the part of a layer or model it belongs to: "attention".
	Group string
	// What says what it does, in a few words.
	What string
	// Shape is that of the weight in terms of the model's sizes, slowest first.
	Shape []string
	// Note tells what differs between architectures; may be empty.
	Note string
}

// Groups of roles.
const (
	groupInput     = "input"
	groupAttention = "attention"
	groupFFN       = "feed-forward network"
	groupOutput    = "output"
)

// Roles lists every role that this package knows, in the order of computation.
var Roles = []Role{
	{GGUF: "token_embd", HF: "embed_tokens", Group: groupInput, What: "token embeddings: row i is the vector of token i", Shape: []string{"vocab", "hidden"},
		Note: "Without output.weight it also makes the logits (tied embeddings). gemma3 multiplies the vector by sqrt(hidden)."},
	{GGUF: "rope_freqs", Group: groupInput, What: "divisors of the rotary frequencies (Llama 3.1 and later)", Shape: []string{"head_dim/2"}},
	{GGUF: "attn_norm", HF: "input_layernorm", Layered: true, Group: groupAttention, What: "scale of the RMS norm before attention", Shape: []string{"hidden"}},
	{GGUF: "attn_q", HF: "self_attn.q_proj", Layered: true, Group: groupAttention, What: "query projection", Shape: []string{"heads*head_dim", "hidden"},
		Note: "qwen2 has a bias. In llama files GGUF orders the rows of each head for rotation of neighbours, Hugging Face for rotation of halves."},
	{GGUF: "attn_k", HF: "self_attn.k_proj", Layered: true, Group: groupAttention, What: "key projection", Shape: []string{"kv_heads*head_dim", "hidden"},
		Note: "qwen2 has a bias. In llama files GGUF orders the rows of each head for rotation of neighbours, Hugging Face for rotation of halves."},
	{GGUF: "attn_v", HF: "self_attn.v_proj", Layered: true, Group: groupAttention, What: "value projection", Shape: []string{"kv_heads*head_dim", "hidden"},
		Note: "qwen2 has a bias."},
	{GGUF: "attn_q_norm", HF: "self_attn.q_norm", Layered: true, Group: groupAttention, What: "scale of the RMS norm of each query head, before rotation", Shape: []string{"head_dim"},
		Note: "qwen3 and gemma3 have it, llama and qwen2 do not."},
	{GGUF: "attn_k_norm", HF: "self_attn.k_norm", Layered: true, Group: groupAttention, What: "scale of the RMS norm of each key head, before rotation", Shape: []string{"head_dim"},
		Note: "qwen3 and gemma3 have it, llama and qwen2 do not."},
	{GGUF: "attn_output", HF: "self_attn.o_proj", Layered: true, Group: groupAttention, What: "projection of the heads' results back to the residual stream", Shape: []string{"hidden", "heads*head_dim"}},
	{GGUF: "post_attention_norm", GemmaHF: "post_attention_layernorm", Layered: true, Group: groupAttention, What: "scale of the RMS norm of attention's result", Shape: []string{"hidden"},
		Note: "gemma3 only."},
	{GGUF: "ffn_norm", HF: "post_attention_layernorm", GemmaHF: "pre_feedforward_layernorm", Layered: true, Group: groupFFN, What: "scale of the RMS norm before the feed-forward network", Shape: []string{"hidden"}},
	{GGUF: "ffn_gate", HF: "mlp.gate_proj", Layered: true, Group: groupFFN, What: "gate projection; its activation multiplies ffn_up", Shape: []string{"ffn", "hidden"},
		Note: "The activation is SiLU, in gemma3 GELU."},
	{GGUF: "ffn_up", HF: "mlp.up_proj", Layered: true, Group: groupFFN, What: "up projection", Shape: []string{"ffn", "hidden"}},
	{GGUF: "ffn_down", HF: "mlp.down_proj", Layered: true, Group: groupFFN, What: "down projection, back to the residual stream", Shape: []string{"hidden", "ffn"}},
	{GGUF: "post_ffw_norm", GemmaHF: "post_feedforward_layernorm", Layered: true, Group: groupFFN, What: "scale of the RMS norm of the network's result", Shape: []string{"hidden"},
		Note: "gemma3 only."},
	{GGUF: "output_norm", HF: "norm", Group: groupOutput, What: "scale of the RMS norm before the logits", Shape: []string{"hidden"}},
	{GGUF: "output", HF: "lm_head", Group: groupOutput, What: "makes the logits, one row a token", Shape: []string{"vocab", "hidden"},
		Note: "Missing in models with tied embeddings, which use token_embd.weight."},
}

// Name is a tensor's name taken apart.
type Name struct {
	Role   *Role
	Layer  int    // −1 for tensors outside the layers
	Suffix string // "weight" or "bias"
}

// GGUF is the name in GGUF files.
func (n Name) GGUF() string {
	if n.Layer < 0 {
		return n.Role.GGUF + "." + n.Suffix
	}
	return fmt.Sprintf("blk.%d.%s.%s", n.Layer, n.Role.GGUF, n.Suffix)
}

// HF is the name in Hugging Face's files; empty if they have no such tensor.
func (n Name) HF(gemma bool) string {
	base := n.Role.HF
	if gemma && n.Role.GemmaHF != "" {
		base = n.Role.GemmaHF
	}
	switch {
	case base == "":
		return ""
	case base == "lm_head":
		return "lm_head." + n.Suffix
	case n.Layer < 0:
		return "model." + base + "." + n.Suffix
	}
	return fmt.Sprintf("model.layers.%d.%s.%s", n.Layer, base, n.Suffix)
}

// Parse takes a name of either scheme apart. gemma says that Hugging Face names
// are Gemma's. ok is false for a name that is in neither scheme.
func Parse(name string, gemma bool) (n Name, ok bool) {
	base, suffix, found := cutLast(name)
	if !found || suffix != "weight" && suffix != "bias" {
		return n, false
	}
	n.Suffix, n.Layer = suffix, -1
	hf := false
	if rest, is := strings.CutPrefix(base, "blk."); is {
		if n.Layer, base, ok = cutLayer(rest); !ok {
			return n, false
		}
	} else {
		for _, prefix := range []string{"language_model.model.", "model.language_model.", "model."} {
			if rest, is := strings.CutPrefix(base, prefix); is {
				hf, base = true, rest
				break
			}
		}
		if rest, is := strings.CutPrefix(base, "layers."); hf && is {
			if n.Layer, base, ok = cutLayer(rest); !ok {
				return n, false
			}
		}
	}
	hf = hf || base == "lm_head" || base == "language_model.lm_head"
	base = strings.TrimPrefix(base, "language_model.")
	i := slices.IndexFunc(Roles, func(r Role) bool {
		want := r.GGUF
		if hf {
			if want = r.HF; gemma && r.GemmaHF != "" {
				want = r.GemmaHF
			}
		}
		return base == want && want != "" && r.Layered == (n.Layer >= 0)
	})
	if i < 0 {
		return n, false
	}
	n.Role = &Roles[i]
	return n, true
}

// Layer splits a name of either scheme within a layer, known or not, into the
// layer's number and the rest.
func Layer(name string) (layer int, rest string, ok bool) {
	for _, prefix := range []string{"blk.", "model.layers.", "model.language_model.layers.", "language_model.model.layers."} {
		if after, is := strings.CutPrefix(name, prefix); is {
			return cutLayer(after)
		}
	}
	return 0, "", false
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// cutLayer splits "7.attn_q" into 7 and "attn_q".
func cutLayer(s string) (layer int, rest string, ok bool) {
	number, rest, ok := strings.Cut(s, ".")
	layer, err := strconv.Atoi(number)
	if !ok || err != nil || layer < 0 || strconv.Itoa(layer) != number {
		return 0, "", false
	}
	return layer, rest, true
}

// IsGemma reports whether the Hugging Face names in a list are those of the
// Gemma family, which call the norms of a layer differently.
func IsGemma(list []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, ".pre_feedforward_layernorm.") })
}

// Canonical returns the GGUF name of a tensor of either scheme, or the name
// itself if it is in neither.
func Canonical(name string, gemma bool) string {
	if n, ok := Parse(name, gemma); ok {
		return n.GGUF()
	}
	return name
}

// IsHF reports whether a name is a Hugging Face name that Parse knows.
func IsHF(name string, gemma bool) bool {
	n, ok := Parse(name, gemma)
	return ok && n.GGUF() != name
}

// FromHF translates a name of Hugging Face's scheme to GGUF's. A name that is not
// in it, a GGUF name included, is returned as it is with false.
func FromHF(name string, gemma bool) (string, bool) {
	n, ok := Parse(name, gemma)
	if !ok || n.GGUF() == name {
		return name, false
	}
	return n.GGUF(), true
}

// ToHF is the reverse of FromHF. A tensor that Hugging Face stores nowhere is
// returned as it is with false.
func ToHF(name string, gemma bool) (string, bool) {
	n, ok := Parse(name, gemma)
	if !ok || n.GGUF() != name || n.HF(gemma) == "" {
		return name, false
	}
	return n.HF(gemma), true
}
