package synth

import (
	"encoding/binary"
	"math"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/quant"
)

// keyValue is a metadata key and a Go value for it.
type keyValue struct {
	key   string
	value any
}

func setAll(md *gguf.Metadata, kvs []keyValue) error {
	for _, kv := range kvs {
		if err := md.Set(kv.key, kv.value); err != nil {
			return err
		}
	}
	return nil
}

// metadata returns the keys that llama.cpp needs to load the model.
func metadata(o Options, s shape, r quant.Recipe) (*gguf.Metadata, error) {
	md := gguf.NewMetadata()
	a := s.arch + "."
	kvs := []keyValue{
		{"general.architecture", s.arch},
		{"general.type", "model"},
		{"general.name", "synthetic " + o.Preset},
		{"general.description", "Random weights in the shape of a known model; for benchmarks only."},
		{"general.file_type", r.FileType},
		{"general.quantization_version", uint32(2)},
		{a + "block_count", uint32(s.layers)},
		{a + "context_length", uint32(s.context)},
		{a + "embedding_length", uint32(s.hidden)},
		{a + "feed_forward_length", uint32(s.ffn)},
		{a + "attention.head_count", uint32(s.heads)},
		{a + "attention.head_count_kv", uint32(s.kvHeads)},
		{a + "attention.layer_norm_rms_epsilon", s.eps},
		{a + "rope.freq_base", s.ropeBase},
	}
	switch s.arch {
	case "llama":
		kvs = append(kvs,
			keyValue{a + "rope.dimension_count", uint32(s.headDim)},
			keyValue{a + "vocab_size", uint32(s.vocab)})
	case "qwen3", "gemma3": // heads × width need not be the hidden size
		kvs = append(kvs,
			keyValue{a + "attention.key_length", uint32(s.headDim)},
			keyValue{a + "attention.value_length", uint32(s.headDim)})
	}
	if s.window > 0 {
		kvs = append(kvs, keyValue{a + "attention.sliding_window", uint32(s.window)})
	}
	if err := setAll(md, kvs); err != nil {
		return nil, err
	}
	return md, newVocabulary(s).set(md, s)
}

// llama3Factors is what Llama 3's rope scaling divides each frequency by, in the
// form that GGUF stores. Long waves are stretched by the factor, short ones not
// at all, those between smoothly (Hugging Face's rope_type llama3, with a low
// factor of 1, a high factor of 4 and an original context of 8192).
func llama3Factors(s shape) []float32 {
	const original, low, high = 8192.0, 1.0, 4.0
	factors := make([]float32, s.headDim/2)
	for i := range factors {
		freq := math.Pow(float64(s.ropeBase), -2*float64(i)/float64(s.headDim))
		turns := original * freq / (2 * math.Pi) // within the original context
		switch {
		case turns > high:
			factors[i] = 1
		case turns < low:
			factors[i] = float32(s.ropeFactor)
		default:
			smooth := (turns - low) / (high - low)
			factors[i] = float32(1 / ((1-smooth)/s.ropeFactor + smooth))
		}
	}
	return factors
}

func appendFloat(b []byte, v float32) []byte {
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
}
