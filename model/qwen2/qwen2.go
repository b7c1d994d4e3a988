// Package qwen2 is the architecture of Qwen2 and Qwen2.5: a Llama block with
// biases on q, k and v (Yang et al. 2024).
package qwen2

import (
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/model"
)

const arch = "qwen2"

func init() { model.Register(arch, build) }

func build(md model.Metadata, w graph.Weights) (*graph.Program, error) {
	return model.Dense{Pairing: graph.Halves, QKVBias: true}.Build(arch, md, w)
}
