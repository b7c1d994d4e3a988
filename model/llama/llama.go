// Package llama is the architecture of Llama 1 to 3 and of Mistral 7B, whose
// GGUF files carry the same name (Touvron et al. 2023). GGUF stores q and k
// permuted, so that RoPE pairs neighbours.
package llama

import (
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/model"
)

const arch = "llama"

func init() { model.Register(arch, build) }

func build(md model.Metadata, w graph.Weights) (*graph.Program, error) {
	return model.Dense{Pairing: graph.Interleaved}.Build(arch, md, w)
}
