package modelfile

import (
	"strconv"
	"strings"
)

// Names of tensors: GGUF's, and those of Hugging Face's transformers, which .apr
// files use too. Both lists are beside each other, first GGUF.
var wholeNames = [][2]string{
	{"token_embd", "model.embed_tokens"},
	{"output_norm", "model.norm"},
	{"output", "lm_head"},
}

// blockNames are within a layer: "blk.N." and "model.layers.N.".
var blockNames = [][2]string{
	{"attn_norm", "input_layernorm"},
	{"attn_q", "self_attn.q_proj"},
	{"attn_k", "self_attn.k_proj"},
	{"attn_v", "self_attn.v_proj"},
	{"attn_output", "self_attn.o_proj"},
	{"attn_q_norm", "self_attn.q_norm"},
	{"attn_k_norm", "self_attn.k_norm"},
	{"ffn_gate", "mlp.gate_proj"},
	{"ffn_up", "mlp.up_proj"},
	{"ffn_down", "mlp.down_proj"},
}

// normNames are the names of norms that depend on whether a block has norms
// after attention and network too (Gemma): then "post_attention_layernorm" is
// the one after attention, otherwise the one before the network.
var normNames = map[bool][][2]string{
	false: {{"ffn_norm", "post_attention_layernorm"}},
	true: {
		{"post_attention_norm", "post_attention_layernorm"},
		{"ffn_norm", "pre_feedforward_layernorm"},
		{"post_ffw_norm", "post_feedforward_layernorm"},
	},
}

// postNorms reports whether the blocks of an architecture have norms after
// attention and network.
func postNorms(arch string) bool { return strings.HasPrefix(arch, "gemma") && arch != "gemma" }

// GGUFName translates a tensor name of Hugging Face's transformers. A name it
// does not know, a GGUF name included, is returned as it is with false.
func GGUFName(arch, name string) (string, bool) {
	// Models with vision put the language model one level down.
	plain := strings.TrimPrefix(name, "language_model.")
	plain = strings.Replace(plain, "model.language_model.", "model.", 1)
	return translate(arch, plain, name, 1, 0, "model.layers.", "blk.")
}

// HFName is the reverse of GGUFName.
func HFName(arch, name string) (string, bool) {
	return translate(arch, name, name, 0, 1, "blk.", "model.layers.")
}

func translate(arch, name, unknown string, from, to int, fromBlock, toBlock string) (string, bool) {
	base, suffix := cutSuffix(name)
	if suffix == "" {
		return unknown, false
	}
	rest, inBlock := strings.CutPrefix(base, fromBlock)
	if !inBlock {
		for _, p := range wholeNames {
			if p[from] == base {
				return p[to] + suffix, true
			}
		}
		return unknown, false
	}
	number, part, ok := strings.Cut(rest, ".")
	if n, err := strconv.Atoi(number); !ok || err != nil || n < 0 || strconv.Itoa(n) != number {
		return unknown, false
	}
	for _, list := range [][][2]string{blockNames, normNames[postNorms(arch)]} {
		for _, p := range list {
			if p[from] == part {
				return toBlock + number + "." + p[to] + suffix, true
			}
		}
	}
	return unknown, false
}

// cutSuffix splits a name before ".weight" or ".bias".
func cutSuffix(name string) (base, suffix string) {
	for _, s := range []string{".weight", ".bias"} {
		if b, ok := strings.CutSuffix(name, s); ok {
			return b, s
		}
	}
	return name, ""
}

// architectures maps what files call an architecture to GGUF's name, in lower case.
var architectures = map[string]string{
	"qwen2": "qwen2", "qwen2forcausallm": "qwen2", "qwen2.5": "qwen2",
	"qwen3": "qwen3", "qwen3forcausallm": "qwen3",
	"llama": "llama", "llamaforcausallm": "llama",
	"mistral": "llama", "mistralforcausallm": "llama",
	"gemma3": "gemma3", "gemma3_text": "gemma3", "gemma3forcausallm": "gemma3", "gemma3forconditionalgeneration": "gemma3",
}

// knownArch translates an architecture's name; false if it is unknown.
func knownArch(name string) (string, bool) {
	a, ok := architectures[strings.ToLower(name)]
	return a, ok
}

// pairsNeighbours reports whether GGUF files of an architecture have query and
// key rows in the order in which RoPE pairs neighbours. Hugging Face's never do.
func pairsNeighbours(arch string) bool { return arch == "llama" }
