// Package qwen3 is the architecture of the dense Qwen3 models: query and key
// heads are normalised before RoPE, and the head size is a parameter of its own
// (Yang et al. 2025).
package qwen3

import (
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/model"
)

const arch = "qwen3"

func init() { model.Register(arch, build) }

func build(md model.Metadata, w graph.Weights) (*graph.Program, error) {
	return model.Dense{Pairing: graph.Halves, QKNorm: true}.Build(arch, md, w)
}
