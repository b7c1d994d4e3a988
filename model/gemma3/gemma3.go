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
	}.Build(arch, md, w)
}
