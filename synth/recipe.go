package synth

import (
	"fmt"
	"strings"

	"github.com/apr-engine/apr/tensor"
)

// recipes maps a name to the base type of its matrices and llama.cpp's number
// for the mix (llama_ftype), which general.file_type carries.
var recipes = []struct {
	name  string
	base  tensor.DType
	ftype uint32
}{
	{"f32", tensor.F32, 0},
	{"f16", tensor.F16, 1},
	{"q4_0", tensor.Q4_0, 2},
	{"q8_0", tensor.Q8_0, 7},
	{"q4_k_m", tensor.Q4_K, 15},
	{"q5_k_m", tensor.Q5_K, 17},
	{"q6_k", tensor.Q6_K, 18},
}

// Quants returns the names that Options.Quant takes.
func Quants() []string {
	var names []string
	for _, r := range recipes {
		names = append(names, r.name)
	}
	return names
}

// mix chooses the type of each tensor by the rules of llama-quantize.
type mix struct {
	base   tensor.DType
	ftype  uint32
	mixed  bool // the K_M mixes: more bits for some layers
	layers int
	tied   bool
}

func newMix(quant string, s shape) (mix, error) {
	for _, r := range recipes {
		if strings.EqualFold(r.name, quant) {
			return mix{r.base, r.ftype, r.base == tensor.Q4_K || r.base == tensor.Q5_K, s.layers, s.tied}, nil
		}
	}
	return mix{}, fmt.Errorf("unknown quantisation %q, want one of %s", quant, strings.Join(Quants(), ", "))
}

// moreBits names the layers that get Q6_K: the first and last eighth, and every
// third between.
func (m mix) moreBits(layer int) bool {
	n := m.layers
	return layer < n/8 || layer >= 7*n/8 || (layer-n/8)%3 == 2
}

// typeOf returns the type of a matrix with the given name, layer and row length.
func (m mix) typeOf(name string, layer, cols int) tensor.DType {
	if m.base.BlockLen() == 1 {
		return m.base
	}
	t := m.base
	switch {
	case name == "output.weight", name == "token_embd.weight" && m.tied:
		if cols%t.BlockLen() != 0 {
			return tensor.Q8_0
		}
		if t != tensor.Q8_0 {
			t = tensor.Q6_K
		}
	case m.mixed && (strings.Contains(name, "attn_v") || strings.Contains(name, "ffn_down")):
		if m.moreBits(layer) {
			t = tensor.Q6_K
		}
	}
	if cols%t.BlockLen() == 0 {
		return t
	}
	// The row is no multiple of 256: the nearest type with blocks of 32.
	switch t {
	case tensor.Q4_K:
		t = tensor.Q5_0
	case tensor.Q5_K:
		t = tensor.Q5_1
	case tensor.Q6_K:
		t = tensor.Q8_0
	}
	if cols%t.BlockLen() != 0 {
		return tensor.F16
	}
	return t
}
