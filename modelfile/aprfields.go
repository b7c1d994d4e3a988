package modelfile

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/format/gguf"
)

// aprFields translates GGUF metadata for an .apr file: the keys that its other
// readers need, then all of GGUF's under a key of our own, so that translating
// back gives the same metadata.
func aprFields(md *gguf.Metadata, origin string, parameters, size int64, tied bool) ([]apr.Field, error) {
	arch, _ := md.String("general.architecture")
	var fields []apr.Field
	add := func(key string, v any, ok bool) {
		if ok {
			fields = append(fields, apr.Field{Key: key, Value: v})
		}
	}
	text := func(key, from string) { s, ok := md.String(from); add(key, s, ok) }
	number := func(key, from string) { n, ok := md.Uint(arch + "." + from); add(key, n, ok) }
	add("model_type", arch, true)
	text("name", "general.name")
	text("license", "general.license")
	add("original_format", origin, true)
	add("architecture", arch, true)
	number("hidden_size", "embedding_length")
	number("num_layers", "block_count")
	number("num_heads", "attention.head_count")
	if _, ok := md.Uint(arch + ".attention.head_count_kv"); ok {
		number("num_kv_heads", "attention.head_count_kv")
	} else {
		number("num_kv_heads", "attention.head_count")
	}
	tokens, hasTokens := md.Value("tokenizer.ggml.tokens")
	add("vocab_size", tokens.Len(), hasTokens)
	number("intermediate_size", "feed_forward_length")
	number("max_position_embeddings", "context_length")
	single := func(key, from string) { x, ok := md.Float(arch + "." + from); add(key, float32(x), ok) }
	single("rope_theta", "rope.freq_base")
	add("rope_type", ropeType(md, arch), true)
	single("rms_norm_eps", "attention.layer_norm_rms_epsilon")
	number("head_dim", "attention.key_length")
	add("tied_embeddings", true, tied)
	add("param_count", parameters, true)
	add("total_size", size, true)
	text("chat_template", "tokenizer.chat_template")
	if err := tokenizerFields(md, add); err != nil {
		return nil, err
	}
	stored, err := storeAll(md)
	add(keyGGUF, stored, true)
	return fields, err
}

// ropeType is the format's number for the pairing: 0 neighbours, 2 halves.
func ropeType(md *gguf.Metadata, arch string) int {
	neighbours := pairsNeighbours(arch)
	if s, ok := md.String(arch + ".rope.pairing"); ok {
		neighbours = s == "interleaved"
	}
	if neighbours {
		return 0
	}
	return 2
}

// tokenizerFields adds the vocabulary under the names of the format.
func tokenizerFields(md *gguf.Metadata, add func(string, any, bool)) error {
	tokens, ok := md.Strings("tokenizer.ggml.tokens")
	if !ok {
		return nil
	}
	if err := checkText("tokenizer.ggml.tokens", tokens...); err != nil {
		return err
	}
	model, _ := md.String("tokenizer.ggml.model")
	merges, hasMerges := md.Strings("tokenizer.ggml.merges")
	if err := checkText("tokenizer.ggml.merges", merges...); err != nil {
		return err
	}
	add("tokenizer.model_type", model, true)
	add("tokenizer.vocabulary", tokens, true)
	add("tokenizer.vocab_size", len(tokens), true)
	add("tokenizer.merges", merges, hasMerges)
	if v, ok := md.Value("tokenizer.ggml.scores"); ok {
		add("tokenizer.scores", v.Any(), true)
	}
	if v, ok := md.Value("tokenizer.ggml.token_type"); ok {
		add(keyTokenTypes, v.Any(), true)
	}
	pre, ok := md.String("tokenizer.ggml.pre")
	add(keyPre, pre, ok)
	bos, ok := md.Uint("tokenizer.ggml.bos_token_id")
	add("tokenizer.bos_token_id", bos, ok)
	eos, ok := md.Uint("tokenizer.ggml.eos_token_id")
	add("tokenizer.eos_token_id", eos, ok)
	return nil
}

// checkText refuses what JSON cannot hold.
func checkText(key string, list ...string) error {
	for i, s := range list {
		if !utf8.ValidString(s) {
			return fmt.Errorf("metadata key %s: text %d, %q, is not UTF-8, which an .apr file cannot hold; keep this model in GGUF", key, i, s)
		}
	}
	return nil
}

// storeAll lists every GGUF key with its type.
func storeAll(md *gguf.Metadata) ([]storedValue, error) {
	var list []storedValue
	for key, v := range md.All() {
		s := storedValue{Key: key, Type: v.Type.String()}
		x := v.Any()
		if v.Type == gguf.TypeArray {
			s.Type = "[]" + v.Elem().String()
		}
		switch y := x.(type) {
		case string:
			if err := checkText(key, y); err != nil {
				return nil, err
			}
		case []string:
			if err := checkText(key, y...); err != nil {
				return nil, err
			}
		case []uint8:
			wide := make([]uint16, len(y))
			for i, b := range y {
				wide[i] = uint16(b)
			}
			x = wide
		case []any:
			return nil, fmt.Errorf("metadata key %s is an array of arrays, which an .apr file cannot hold; keep this model in GGUF", key)
		}
		if from, ok := inBoth[key]; ok && (key != "tokenizer.chat_template" || v.Type == gguf.TypeString) {
			s.From = from
		} else {
			raw, err := json.Marshal(x)
			if err != nil {
				return nil, fmt.Errorf("metadata key %s: %w", key, err)
			}
			s.Value = raw
		}
		list = append(list, s)
	}
	return list, nil
}
