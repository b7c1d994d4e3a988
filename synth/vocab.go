package synth

import (
	"fmt"

	"github.com/apr-engine/apr/format/gguf"
)

// Token types as GGUF numbers them.
const (
	tokenNormal  int32 = 1
	tokenControl int32 = 3
	tokenUnused  int32 = 5
)

// maxVocab is what the filler tokens of up to four letters suffice for.
const maxVocab = 400_000

// vocabulary is a byte-level BPE vocabulary: the 256 bytes, made-up words of up
// to four letters, special tokens. Every text encodes and decodes.
type vocabulary struct {
	tokens []string
	types  []int32
	merges []string
}

// byteTokens are GPT-2's printable stand-ins for the 256 bytes: printable ones
// stand for themselves, the others for the characters from U+0100 on.
func byteTokens() (t [256]string) {
	next := rune(256)
	for b := range t {
		r := rune(b)
		if printable := b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae; !printable {
			r = next
			next++
		}
		t[b] = string(r)
	}
	return t
}

// words yields merges "left right" in order of rank. Every left and right is a
// byte or an earlier result, as a real training run would give.
func words(yield func(left, right string) bool) {
	const space = "Ġ" // byte 0x20 in byteTokens
	var letters, pairs, triples []string
	for c := 'a'; c <= 'z'; c++ {
		letters = append(letters, string(c))
	}
	// extend yields every left+letter and collects the results.
	extend := func(lefts []string) (out []string, ok bool) {
		for _, l := range lefts {
			for _, r := range letters {
				if !yield(l, r) {
					return nil, false
				}
				out = append(out, l+r)
			}
		}
		return out, true
	}
	spaced, ok := extend([]string{space}) // " a" … " z"
	if !ok {
		return
	}
	if pairs, ok = extend(letters); !ok {
		return
	}
	if spaced, ok = extend(spaced); !ok {
		return
	}
	if triples, ok = extend(pairs); !ok {
		return
	}
	if _, ok = extend(spaced); ok {
		extend(triples)
	}
}

// newVocabulary makes a vocabulary of s.vocab tokens, the special ones from s.special on.
func newVocabulary(s shape) vocabulary {
	var v vocabulary
	add := func(text string, kind int32) {
		v.tokens = append(v.tokens, text)
		v.types = append(v.types, kind)
	}
	for _, b := range byteTokens() {
		add(b, tokenNormal)
	}
	words(func(left, right string) bool {
		if len(v.tokens) >= s.special {
			return false
		}
		add(left+right, tokenNormal)
		v.merges = append(v.merges, left+" "+right)
		return true
	})
	for _, name := range specials[s.tokens].names {
		add(name, tokenControl)
	}
	for n := 0; len(v.tokens) < s.vocab; n++ {
		add(fmt.Sprintf("[PAD%d]", n), tokenUnused)
	}
	return v
}

// specials is what each family of models puts after the words. bos, eos and pad
// are indices into names.
var specials = map[string]struct {
	names         []string
	bos, eos, pad int
	addBOS        bool
	pre           string
	template      string
}{
	"qwen":    {[]string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, 0, 2, 0, false, "qwen2", chatML},
	"llama3":  {[]string{"<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, 0, 5, 2, true, "llama-bpe", headers},
	"mistral": {[]string{"<unk>", "<s>", "</s>", "[INST]", "[/INST]"}, 1, 2, 0, true, "llama-bpe", ""},
	"gemma":   {[]string{"<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"}, 2, 1, 0, true, "llama-bpe", ""},
}

const chatML = `{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}` +
	`{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`

const headers = `{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] + '<|eot_id|>' }}{% endfor %}` +
	`{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}`

// set stores the vocabulary under the tokenizer keys.
func (v vocabulary) set(md *gguf.Metadata, s shape) error {
	f := specials[s.tokens]
	id := func(i int) uint32 { return uint32(s.special + i) }
	kvs := []keyValue{
		{"tokenizer.ggml.model", "gpt2"},
		{"tokenizer.ggml.pre", f.pre},
		{"tokenizer.ggml.tokens", v.tokens},
		{"tokenizer.ggml.token_type", v.types},
		{"tokenizer.ggml.merges", v.merges},
		{"tokenizer.ggml.bos_token_id", id(f.bos)},
		{"tokenizer.ggml.eos_token_id", id(f.eos)},
		{"tokenizer.ggml.padding_token_id", id(f.pad)},
		{"tokenizer.ggml.add_bos_token", f.addBOS},
	}
	if f.template != "" {
		kvs = append(kvs, keyValue{"tokenizer.chat_template", f.template})
	}
	return setAll(md, kvs)
}
