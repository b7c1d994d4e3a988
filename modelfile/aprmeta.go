package modelfile

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/tokenizer"
)

// Keys of our own in .apr metadata. The format has no place for GGUF's metadata,
// nor for what byte-level BPE needs besides vocabulary and merges.
const (
	keyGGUF       = "gguf.metadata"         // list of storedValue: all keys of the GGUF file
	keyPre        = "tokenizer.pre"         // tokenizer.ggml.pre
	keyTokenTypes = "tokenizer.token_types" // tokenizer.ggml.token_type
)

// inBoth are the large arrays that both containers have a key for, so that
// keyGGUF refers to them instead of holding them again.
var inBoth = map[string]string{
	"tokenizer.ggml.tokens":     "tokenizer.vocabulary",
	"tokenizer.ggml.merges":     "tokenizer.merges",
	"tokenizer.ggml.scores":     "tokenizer.scores",
	"tokenizer.ggml.token_type": keyTokenTypes,
	"tokenizer.chat_template":   "chat_template",
}

// storedValue is one GGUF key within keyGGUF.
type storedValue struct {
	Key   string          `json:"key"`
	Type  string          `json:"type"` // "uint32", "[]uint32"
	Value json.RawMessage `json:"value,omitempty"`
	From  string          `json:"from,omitempty"` // the metadata key that holds the value
}

// values makes a new variable for each type's name.
var values = map[string]func() any{
	"uint8": fresh[uint8], "int8": fresh[int8], "uint16": fresh[uint16], "int16": fresh[int16],
	"uint32": fresh[uint32], "int32": fresh[int32], "uint64": fresh[uint64], "int64": fresh[int64],
	"float32": fresh[float32], "float64": fresh[float64], "bool": fresh[bool], "string": fresh[string],
	"[]uint8": fresh[[]uint16], "[]int8": fresh[[]int8], "[]uint16": fresh[[]uint16], "[]int16": fresh[[]int16],
	"[]uint32": fresh[[]uint32], "[]int32": fresh[[]int32], "[]uint64": fresh[[]uint64], "[]int64": fresh[[]int64],
	"[]float32": fresh[[]float32], "[]float64": fresh[[]float64], "[]bool": fresh[[]bool], "[]string": fresh[[]string],
}

func fresh[T any]() any { return new(T) }

// restore sets a GGUF key from the JSON text of its value.
func restore(md *gguf.Metadata, key, typ string, raw json.RawMessage) error {
	bad := func(err error) error {
		return fmt.Errorf("%w: metadata key %s: GGUF key %q of type %q: %v", apr.ErrFormat, keyGGUF, key, typ, err)
	}
	make, ok := values[typ]
	if !ok {
		return bad(fmt.Errorf("unknown type"))
	}
	v := make()
	if err := json.Unmarshal(raw, v); err != nil {
		return bad(err)
	}
	if err := md.Set(key, deref(v, typ)); err != nil {
		return bad(err)
	}
	return nil
}

// deref returns the value that v, made by values, points to.
func deref(v any, typ string) any {
	switch x := v.(type) {
	case *uint8:
		return *x
	case *int8:
		return *x
	case *uint16:
		return *x
	case *int16:
		return *x
	case *uint32:
		return *x
	case *int32:
		return *x
	case *uint64:
		return *x
	case *int64:
		return *x
	case *float32:
		return *x
	case *float64:
		return *x
	case *bool:
		return *x
	case *string:
		return *x
	case *[]int8:
		return *x
	case *[]uint16:
		if typ == "[]uint8" { // JSON would write bytes as text
			b := []uint8{}
			for _, n := range *x {
				b = append(b, uint8(n))
			}
			return b
		}
		return *x
	case *[]int16:
		return *x
	case *[]uint32:
		return *x
	case *[]int32:
		return *x
	case *[]uint64:
		return *x
	case *[]int64:
		return *x
	case *[]float32:
		return *x
	case *[]float64:
		return *x
	case *[]bool:
		return *x
	case *[]string:
		return *x
	}
	return v
}

// aprArch finds the architecture in .apr metadata; several writers put it in
// different places. The first name that is known counts, else the first there is.
func aprArch(m *apr.Metadata) string {
	first := ""
	for _, key := range []string{"architecture", "model.architecture", "hf_model_type", "hf_architecture", "model_type", "tokenizer.architecture"} {
		s, ok := m.String(key)
		if !ok || s == "" {
			continue
		}
		if a, known := knownArch(s); known {
			return a
		}
		if first == "" {
			first = s
		}
	}
	return first
}

// aprMetadata translates .apr metadata: from our own key where the file has it,
// otherwise from the keys that other writers use.
func aprMetadata(m *apr.Metadata, f *File) (*gguf.Metadata, error) {
	var stored []storedValue
	if ok, err := m.Decode(&stored, keyGGUF); err != nil {
		return nil, err
	} else if !ok {
		return f.foreignMetadata(m)
	}
	md := gguf.NewMetadata()
	for _, v := range stored {
		raw := v.Value
		if v.From != "" {
			var ok bool
			if raw, ok = m.Raw(v.From); !ok {
				continue // removed by another program; what needs it will say so
			}
		}
		if err := restore(md, v.Key, v.Type, raw); err != nil {
			return nil, err
		}
	}
	return md, nil
}

// foreign collects GGUF keys, remembering the first error.
type foreign struct {
	*gguf.Metadata
	m    *apr.Metadata
	arch string
	err  error
}

func (f *foreign) set(key string, v any) {
	if err := f.Set(key, v); err != nil && f.err == nil {
		f.err = err
	}
}

// count copies a whole number under "<arch>.key", from the first of several names.
func (f *foreign) count(key string, names ...string) bool {
	n, ok := f.m.Uint(names...)
	if ok && n > 0 && n < 1<<32 {
		f.set(f.arch+"."+key, uint32(n))
		return true
	}
	return false
}

// defaults are what holds for an architecture when a file does not say.
var defaults = map[string]struct{ base, eps float32 }{
	"qwen2": {1e6, 1e-6}, "qwen3": {1e6, 1e-6}, "gemma3": {1e6, 1e-6}, "llama": {1e4, 1e-5},
}

// foreignMetadata builds GGUF metadata from the keys of other writers.
func (f *File) foreignMetadata(m *apr.Metadata) (*gguf.Metadata, error) {
	arch := aprArch(m)
	md := &foreign{Metadata: gguf.NewMetadata(), m: m, arch: arch}
	md.set("general.architecture", arch)
	if name, ok := m.String("name"); ok {
		md.set("general.name", name)
	}
	md.count("embedding_length", "hidden_size", "hidden_dim", "d_model", "n_embd", "model.hidden_size")
	if !md.count("block_count", "num_layers", "n_layers", "num_hidden_layers", "n_layer", "model.num_layers") {
		if n := f.layers(); n > 0 {
			md.set(arch+".block_count", uint32(n))
		}
	}
	md.count("attention.head_count", "num_heads", "n_heads", "num_attention_heads", "n_head", "model.num_heads")
	md.count("attention.head_count_kv", "num_kv_heads", "n_kv_heads", "num_key_value_heads", "model.num_kv_heads")
	md.count("feed_forward_length", "intermediate_size", "ffn_dim", "intermediate_dim", "n_inner", "model.intermediate_size")
	if !md.count("context_length", "max_position_embeddings", "max_seq_len", "context_length", "n_ctx", "model.max_position_embeddings") {
		f.warn("the file does not say for how many tokens it was trained; 4096 is assumed")
		md.set(arch+".context_length", uint32(4096))
	}
	md.count("attention.sliding_window", "sliding_window")
	d := defaults[arch]
	base, eps := float64(d.base), float64(d.eps)
	if x, ok := m.Float("rope_theta", "model.rope_theta"); ok {
		base = x
	}
	if x, ok := m.Float("rms_norm_eps", "layer_norm_eps", "norm_eps", "model.rms_norm_eps"); ok {
		eps = x
	}
	if base > 0 {
		md.set(arch+".rope.freq_base", float32(base))
	}
	if eps > 0 {
		md.set(arch+".attention.layer_norm_rms_epsilon", float32(eps))
	}
	f.headWidth(md)
	if n, ok := m.Uint("rope_type", "model.rope_type"); ok {
		// 0 pairs neighbours, 2 the halves of a head.
		if n == 0 != pairsNeighbours(arch) {
			md.set(arch+".rope.pairing", map[bool]string{true: "interleaved", false: "halves"}[n == 0])
		}
	}
	f.foreignTokenizer(md)
	return md.Metadata, md.err
}

func (f *File) warn(format string, args ...any) {
	f.Warnings = append(f.Warnings, fmt.Sprintf(format, args...))
}

// layers counts the layers by the names of their tensors.
func (f *File) layers() (n int) {
	for _, t := range f.Tensors {
		var i int
		if _, err := fmt.Sscanf(t.Name, "blk.%d.", &i); err == nil && i >= 0 && i < 1<<20 {
			n = max(n, i+1)
		}
	}
	return n
}

// headWidth sets the width of a head: the query matrix knows it, whatever the
// keys say.
func (f *File) headWidth(md *foreign) {
	heads, ok := md.Uint(md.arch + ".attention.head_count")
	if q, found := f.Tensor("blk.0.attn_q.weight"); ok && found && q.Rows()%int(heads) == 0 {
		md.set(md.arch+".attention.key_length", uint32(q.Rows()/int(heads)))
		md.set(md.arch+".attention.value_length", uint32(q.Rows()/int(heads)))
		return
	}
	if md.count("attention.key_length", "head_dim") {
		md.count("attention.value_length", "head_dim")
	}
}

// foreignTokenizer takes over the embedded vocabulary, if there is one.
func (f *File) foreignTokenizer(md *foreign) {
	if s, ok := md.m.String("chat_template"); ok && s != "" {
		md.set("tokenizer.chat_template", s)
	}
	var tokens, merges []string
	var scores []float32
	_, err := md.m.Decode(&tokens, "tokenizer.vocabulary")
	if err == nil {
		_, err = md.m.Decode(&merges, "tokenizer.merges")
	}
	if err == nil {
		_, err = md.m.Decode(&scores, "tokenizer.scores")
	}
	if err != nil {
		md.err = err
		return
	}
	if len(tokens) == 0 {
		return
	}
	kind, _ := md.m.String("tokenizer.model_type", "tokenizer.model")
	spm := isSentencePiece(kind, len(merges) > 0, len(scores) > 0)
	md.set("tokenizer.ggml.tokens", tokens)
	if spm {
		md.set("tokenizer.ggml.model", "llama")
		if len(scores) > 0 {
			md.set("tokenizer.ggml.scores", scores)
		}
	} else {
		md.set("tokenizer.ggml.model", "gpt2")
		md.set("tokenizer.ggml.merges", merges)
		pre, ok := md.m.String(keyPre)
		if !ok {
			pre = tokenizer.PreForArchitecture(md.arch)
			f.warn("the file does not name its pre-tokenizer; %s is assumed from the architecture", pre)
		}
		md.set("tokenizer.ggml.pre", pre)
	}
	var kinds []int32
	if _, err := md.m.Decode(&kinds, keyTokenTypes); err != nil || len(kinds) != len(tokens) {
		kinds = tokenizer.GuessKinds(tokens, spm)
	}
	md.set("tokenizer.ggml.token_type", kinds)
	for key, names := range map[string][]string{
		"bos_token_id": {"tokenizer.bos_token_id", "bos_token_id"}, "eos_token_id": {"tokenizer.eos_token_id", "eos_token_id"},
	} {
		if n, ok := md.m.Uint(names...); ok && n < uint64(len(tokens)) {
			md.set("tokenizer.ggml."+key, uint32(n))
		}
	}
}

// isSentencePiece tells the two kinds of tokenizers apart, by the name of the
// kind or by what it comes with.
func isSentencePiece(kind string, merges, scores bool) bool {
	switch k := strings.ToLower(kind); {
	case strings.Contains(k, "gpt2"), strings.Contains(k, "bpe") && merges:
		return false
	case strings.Contains(k, "sentencepiece"), strings.Contains(k, "spm"), strings.Contains(k, "unigram"), k == "llama":
		return true
	}
	return scores && !merges
}
