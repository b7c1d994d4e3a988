// Package gemma3 is the architecture of Gemma 3's text models: norms on both
// sides of each block, query and key norms, and five layers with a sliding
// window for each one without (Gemma Team 2025).
package gemma3

import (
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/model"
)

const arch = "gemma3"

func init() { model.Register(arch, build) }

func build(md model.Metadata, w graph.Weights) (*graph.Program, error) {
	return model.Dense{
		Pairing:        graph.Halves,
		Act:            graph.GELU,
		QKNorm:         true,
		PostNorms:      true,
		ScaleEmbedding: true,
		GlobalEvery:    6,
		LocalRopeBase:  10000,
		QueryWidth:     queryWidth,
	}.Build(arch, md, w)
}

// queryWidth is Hugging Face's query_pre_attn_scalar, which GGUF does not store:
// the head's width in all sizes but 27B, the only one of 62 layers.
func queryWidth(c model.Config) int {
	const layers27B = 62
	if c.Layers == layers27B {
		return c.Hidden / c.Heads
	}
	return c.HeadDim
}
