package synth

import (
	"fmt"
	"slices"
	"strings"
)

// shape is all that decides a model's tensors and metadata, taken from the
// published config.json of the model it is named after.
type shape struct {
	arch           string // GGUF architecture: qwen2, llama, qwen3, gemma3
	layers, hidden int
	heads, kvHeads int
	headDim, ffn   int
	vocab          int
	special        int // id of the first special token
	tied           bool
	context        int
	ropeBase, eps  float32
	window         int     // sliding attention window, gemma3
	ropeFactor     float64 // llama3 rope scaling, 0 for none
	tokens         string  // family of special tokens: qwen, llama3, gemma, mistral
}

var presets = map[string]shape{
	"qwen2.5-0.5b": qwen2(24, 896, 14, 2, 4864, 151936, true),
	"qwen2.5-1.5b": qwen2(28, 1536, 12, 2, 8960, 151936, true),
	"qwen2.5-7b":   qwen2(28, 3584, 28, 4, 18944, 152064, false),
	"llama-3.1-8b": llama3(32, 4096, 32, 8, 14336, 128256, false, 8),
	"llama-3.2-1b": llama3(16, 2048, 32, 8, 8192, 128256, true, 32),
	"qwen3-0.6b":   qwen3(28, 1024, 16, 8, 128, 3072, 151936, true),
	"qwen3-1.7b":   qwen3(28, 2048, 16, 8, 128, 6144, 151936, true),
	"qwen3-8b":     qwen3(36, 4096, 32, 8, 128, 12288, 151936, false),
	"gemma3-1b":    gemma3(26, 1152, 4, 1, 256, 6912, 262144, 512),
	"mistral-7b":   mistral(32, 4096, 32, 8, 14336, 32768),

	// The tiny ones keep what is particular about their model: how many query
	// heads share a key head, whether heads × width equals the hidden size,
	// whether a row is a multiple of 256, tied output.
	"tiny-qwen2.5-0.5b": qwen2(2, 224, 7, 1, 512, 2048, true),
	"tiny-qwen2.5-1.5b": qwen2(2, 768, 12, 2, 1024, 2048, true),
	"tiny-qwen2.5-7b":   qwen2(2, 512, 8, 2, 1024, 2048, false),
	"tiny-llama-3.1-8b": llama3(2, 512, 8, 2, 1024, 2048, false, 8),
	"tiny-llama-3.2-1b": llama3(2, 256, 8, 2, 1024, 2048, true, 32),
	"tiny-qwen3-0.6b":   qwen3(2, 256, 4, 2, 128, 768, 2048, true),
	"tiny-qwen3-1.7b":   qwen3(2, 512, 4, 2, 128, 1024, 2048, true),
	"tiny-qwen3-8b":     qwen3(2, 512, 8, 2, 64, 1024, 2048, false),
	"tiny-gemma3-1b":    gemma3(2, 288, 4, 1, 64, 768, 2048, 16),
	"tiny-mistral-7b":   mistral(2, 512, 8, 2, 1024, 2048),
}

// Presets returns the names that Options.Preset takes, sorted.
func Presets() []string {
	var names []string
	for n := range presets {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Layers is how many layers a preset has; 0 for a name that is none.
func Layers(preset string) int { return presets[preset].layers }

func qwen2(layers, hidden, heads, kv, ffn, vocab int, tied bool) shape {
	return shape{
		arch: "qwen2", layers: layers, hidden: hidden, heads: heads, kvHeads: kv, headDim: hidden / heads, ffn: ffn,
		vocab: vocab, special: firstSpecial(vocab, 151643), tied: tied, context: 32768, ropeBase: 1e6, eps: 1e-6, tokens: "qwen",
	}
}

func qwen3(layers, hidden, heads, kv, headDim, ffn, vocab int, tied bool) shape {
	s := qwen2(layers, hidden, heads, kv, ffn, vocab, tied)
	s.arch, s.headDim, s.context = "qwen3", headDim, 40960
	return s
}

func llama3(layers, hidden, heads, kv, ffn, vocab int, tied bool, factor float64) shape {
	return shape{
		arch: "llama", layers: layers, hidden: hidden, heads: heads, kvHeads: kv, headDim: hidden / heads, ffn: ffn,
		vocab: vocab, special: firstSpecial(vocab, 128000), tied: tied, context: 131072, ropeBase: 5e5, eps: 1e-5,
		ropeFactor: factor, tokens: "llama3",
	}
}

func mistral(layers, hidden, heads, kv, ffn, vocab int) shape {
	return shape{
		arch: "llama", layers: layers, hidden: hidden, heads: heads, kvHeads: kv, headDim: hidden / heads, ffn: ffn,
		vocab: vocab, special: firstSpecial(vocab, vocab), context: 32768, ropeBase: 1e6, eps: 1e-5, tokens: "mistral",
	}
}

func gemma3(layers, hidden, heads, kv, headDim, ffn, vocab, window int) shape {
	return shape{
		arch: "gemma3", layers: layers, hidden: hidden, heads: heads, kvHeads: kv, headDim: headDim, ffn: ffn,
		vocab: vocab, special: firstSpecial(vocab, vocab), tied: true, context: 32768, ropeBase: 1e6, eps: 1e-6,
		window: window, tokens: "gemma",
	}
}

// firstSpecial is the id of the first special token: where the real vocabulary
// has it, or 64 before the end when that does not fit.
func firstSpecial(vocab, usual int) int {
	if usual+64 <= vocab {
		return usual
	}
	return vocab - 64
}

// minVocab leaves room for the 256 bytes, some merges and the special tokens.
const minVocab = 512

// resolve returns the shape that the options ask for.
func (o Options) resolve() (shape, error) {
	s, ok := presets[o.Preset]
	if !ok {
		return s, fmt.Errorf("unknown preset %q, want one of %s", o.Preset, strings.Join(Presets(), ", "))
	}
	if o.Layers < 0 {
		return s, fmt.Errorf("layers is %d, want at least 1 or 0 for the preset's %d", o.Layers, s.layers)
	}
	if o.Layers > 0 {
		s.layers = o.Layers
	}
	if o.VocabSize != 0 {
		if o.VocabSize < minVocab || o.VocabSize > maxVocab {
			return s, fmt.Errorf("vocabulary size is %d, want %d to %d, or 0 for the preset's %d", o.VocabSize, minVocab, maxVocab, s.vocab)
		}
		s.vocab, s.special = o.VocabSize, firstSpecial(o.VocabSize, s.special)
	}
	if o.OutlierChannels < 0 || o.OutlierChannels > s.hidden/4 {
		return s, fmt.Errorf("outlier channels is %d, want 0 to %d (a quarter of the width)", o.OutlierChannels, s.hidden/4)
	}
	if !(o.OutlierScale >= 0 && o.OutlierScale <= 1e4) {
		return s, fmt.Errorf("outlier scale is %v, want a number from 0 to 10000", o.OutlierScale)
	}
	return s, nil
}
