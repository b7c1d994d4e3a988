package modelfile

import (
	"strings"

	"github.com/apr-engine/apr/modelfile/names"
)

// manyNorms reports whether the blocks of an architecture have norms after
// attention and network, and so Gemma's names for them.
func manyNorms(arch string) bool { return strings.HasPrefix(arch, "gemma") && arch != "gemma" }

// GGUFName translates a tensor name of Hugging Face's transformers, in a model of
// the given architecture. A name it does not know, a GGUF name included, is
// returned as it is with false.
func GGUFName(arch, name string) (string, bool) { return names.FromHF(name, manyNorms(arch)) }

// HFName is the reverse of GGUFName.
func HFName(arch, name string) (string, bool) { return names.ToHF(name, manyNorms(arch)) }

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
