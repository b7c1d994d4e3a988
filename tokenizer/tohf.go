package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// ToHF writes the tokenizer that a GGUF file describes as Hugging Face's
// tokenizer.json and tokenizer_config.json, with the chat template if the file
// has one: the reverse of FromHF. context is the model's length in tokens.
//
// A tokenizer whose rules those files cannot say, or that FromHF would not read
// back, is refused with ErrUnsupported; a broken one with ErrFormat. What only
// GGUF says is left out: ids of tokens that end a turn or fill in the middle,
// which readers find by their texts.
func ToHF(m Metadata, context int) (tokenizerJSON, config []byte, err error) {
	s, err := specFrom(m)
	if err != nil {
		return nil, nil, err
	}
	if _, err := New(s); err != nil {
		return nil, nil, err // so that lengths below agree
	}
	template, _ := m.String("tokenizer.chat_template")
	if len(s.Kinds) == 0 {
		s.Kinds = make([]Kind, len(s.Tokens))
		for i := range s.Kinds {
			s.Kinds[i] = Normal
		}
	}
	w := hfWriter{Spec: s}
	file, err := w.file()
	if err != nil {
		return nil, nil, err
	}
	if tokenizerJSON, err = indented(file); err != nil {
		return nil, nil, err
	}
	config, err = indented(w.config(template, context))
	return tokenizerJSON, config, err
}

// indented is JSON as people read it: <, > and & as they are.
func indented(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// hfWriter translates one tokenizer.
type hfWriter struct{ Spec }

// object is a JSON object; its keys come out sorted.
type object = map[string]any

// hfOut is tokenizer.json in the order in which Hugging Face writes it.
type hfOut struct {
	Version       string    `json:"version"`
	Truncation    any       `json:"truncation"`
	Padding       any       `json:"padding"`
	Added         []hfAdded `json:"added_tokens"`
	Normalizer    any       `json:"normalizer"`
	PreTokenizer  any       `json:"pre_tokenizer"`
	PostProcessor any       `json:"post_processor"`
	Decoder       any       `json:"decoder"`
	Model         hfModel   `json:"model"`
}

// hfAdded is a token that is found in text before anything else.
type hfAdded struct {
	ID         int    `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

type hfModel struct {
	Type         string  `json:"type"`
	Dropout      any     `json:"dropout"`
	UNK          *string `json:"unk_token"`
	Prefix       any     `json:"continuing_subword_prefix"`
	Suffix       any     `json:"end_of_word_suffix"`
	FuseUNK      bool    `json:"fuse_unk"`
	ByteFallback bool    `json:"byte_fallback"`
	IgnoreMerges bool    `json:"ignore_merges"`
	Vocab        hfVocab `json:"vocab"`
	Merges       any     `json:"merges"`
}

// hfVocab is the object of texts and ids, in the order of the ids.
type hfVocab []hfEntry

type hfEntry struct {
	text string
	id   int
}

// MarshalJSON writes the object.
func (v hfVocab) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	texts := json.NewEncoder(&b)
	texts.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, e := range v {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := texts.Encode(e.text); err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, ":%d", e.id) // after a line end, which JSON allows
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (w *hfWriter) file() (hfOut, error) {
	h := hfOut{Version: "1.0", Model: hfModel{Type: "BPE", UNK: w.text(w.UNK)}, Added: []hfAdded{}}
	ids := make(map[string]int, len(w.Tokens))
	for id, text := range w.Tokens {
		if w.Kinds[id] == Unused && text == fmt.Sprintf("[PAD%d]", id) || w.Kinds[id] == Undefined {
			continue // a row of the embedding matrix without a token
		}
		if other, twice := ids[text]; twice || !utf8.ValidString(text) {
			return h, fmt.Errorf("%w: tokenizer.json cannot hold token %d, %q: it is not UTF-8, or token %d has the same text", ErrUnsupported, id, text, other)
		}
		ids[text] = id
		kind := w.Kinds[id]
		if kind == Control || kind == UserDefined || kind == Unknown {
			h.Added = append(h.Added, hfAdded{ID: id, Content: text, Special: kind != UserDefined})
			if w.Model == "gpt2" {
				continue // byte-level vocabularies list added tokens apart
			}
		}
		h.Model.Vocab = append(h.Model.Vocab, hfEntry{text, id})
	}
	if w.Model == "llama" {
		return h, w.sentencePiece(&h, ids)
	}
	return h, w.byteLevel(&h)
}

// text is the token with an id, nil for None.
func (w *hfWriter) text(id int32) *string {
	if id < 0 || int(id) >= len(w.Tokens) {
		return nil
	}
	return &w.Tokens[id]
}

// byteLevel writes the steps of byte-level BPE: those whose signature preName
// knows under the file's name of the pre-tokenizer.
func (w *hfWriter) byteLevel(h *hfOut) error {
	steps, nfc, ignore, err := preSteps(w.Pre)
	if err != nil {
		return err
	}
	if nfc {
		h.Normalizer = object{"type": "NFC"}
	}
	h.PreTokenizer = steps
	h.Model.IgnoreMerges = ignore
	h.Model.UNK = nil // every byte has a token
	h.Model.Merges = w.Merges
	plain := object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}
	h.Decoder = object{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}
	h.PostProcessor = plain
	if around := w.around(); around != nil {
		h.PostProcessor = object{"type": "Sequence", "processors": []any{plain, around}}
	}
	return nil
}

// around is the post-processor that puts special tokens round a text, nil if
// there are none.
func (w *hfWriter) around() any {
	special := func(id int32) object { return object{"SpecialToken": object{"id": w.Tokens[id], "type_id": 0}} }
	sequence := func(name string, no int) object { return object{"Sequence": object{"id": name, "type_id": no}} }
	used := object{}
	put := func(list []any, add bool, id int32) []any {
		if text := w.text(id); add && text != nil {
			used[*text] = object{"id": *text, "ids": []int32{id}, "tokens": []string{*text}}
			return append(list, special(id))
		}
		return list
	}
	single := put(nil, w.AddBOS, w.BOS)
	single = put(append(single, sequence("A", 0)), w.AddEOS, w.EOS)
	if len(used) == 0 {
		return nil
	}
	pair := append(slices.Clone(single), put(nil, w.AddBOS, w.BOS)...)
	pair = put(append(pair, sequence("B", 1)), w.AddEOS, w.EOS)
	return object{"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": used}
}

// sentencePiece writes the steps of SentencePiece BPE, and its scores as merges:
// one for each way to make a token of two, the best token first. Hugging Face's
// converter does the same.
func (w *hfWriter) sentencePiece(h *hfOut, ids map[string]int) error {
	h.Model.ByteFallback, h.Model.FuseUNK = true, true
	replace := object{"type": "Replace", "pattern": object{"String": " "}, "content": spaceMark}
	decoders := []any{
		object{"type": "Replace", "pattern": object{"String": spaceMark}, "content": " "},
		object{"type": "ByteFallback"}, object{"type": "Fuse"},
	}
	h.Normalizer = replace
	if w.AddSpacePrefix {
		h.Normalizer = object{"type": "Sequence", "normalizers": []any{object{"type": "Prepend", "prepend": spaceMark}, replace}}
		decoders = append(decoders, object{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	h.Decoder = object{"type": "Sequence", "decoders": decoders}
	if around := w.around(); around != nil {
		h.PostProcessor = around
	}
	score := func(id int) float32 {
		if len(w.Scores) == 0 {
			return 0
		}
		return w.Scores[id]
	}
	var order []int
	for _, e := range h.Model.Vocab {
		if w.Kinds[e.id] == Normal {
			order = append(order, e.id)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case score(a) > score(b):
			return -1
		case score(a) < score(b):
			return 1
		}
		return 0
	})
	merges := [][2]string{}
	for _, id := range order {
		text := w.Tokens[id]
		for at := range text {
			if at == 0 {
				continue
			}
			if _, ok := ids[text[:at]]; !ok {
				continue
			}
			if _, ok := ids[text[at:]]; ok {
				merges = append(merges, [2]string{text[:at], text[at:]})
			}
		}
	}
	h.Model.Merges = merges
	return nil
}

// config is tokenizer_config.json.
func (w *hfWriter) config(template string, context int) object {
	added := map[string]object{}
	for id, kind := range w.Kinds[:len(w.Tokens)] {
		if kind == Control || kind == UserDefined || kind == Unknown {
			added[fmt.Sprint(id)] = object{"content": w.Tokens[id], "lstrip": false, "rstrip": false,
				"normalized": false, "single_word": false, "special": kind != UserDefined}
		}
	}
	c := object{
		// The class that takes everything from tokenizer.json; those named after
		// models rebuild parts of it by their own rules.
		"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
		"add_bos_token": w.AddBOS && w.BOS != None, "add_eos_token": w.AddEOS && w.EOS != None,
		"added_tokens_decoder": added, "eos_token": w.text(w.EOS), "pad_token": w.text(w.PAD), "unk_token": w.text(w.UNK),
		"bos_token": (*string)(nil),
	}
	// A file may name a token that nothing puts before a text; config.json has its
	// id. Named here, programs would put it.
	if w.AddBOS || strings.Contains(template, "bos_token") {
		c["bos_token"] = w.text(w.BOS)
	}
	if context > 0 {
		c["model_max_length"] = context
	}
	if template != "" {
		c["chat_template"] = template
	}
	return c
}

// preSteps is the pre-tokenizer with a name, as tokenizer.json writes it, with
// the two options that belong to the name: compose text (NFC) first, and do not
// merge a piece that is a token. It is found by going through what FromHF knows,
// so that both directions agree; names that stand for the same rule share one.
func preSteps(name string) (steps any, nfc, ignoreMerges bool, err error) {
	want, err := findPre(name)
	if err != nil {
		return nil, false, false, err
	}
	// Exact names first; then those with the same rule, in a fixed order.
	sigs := slices.Sorted(maps.Keys(hfPres))
	for _, same := range []bool{false, true} {
		for _, sig := range sigs {
			if strings.HasPrefix(sig, "Split Removed") {
				continue // another spelling of "Isolated"
			}
			known := hfPres[sig]
			for _, c := range []struct {
				name        string
				nfc, ignore bool
			}{{known.plain, false, false}, {known.nfc, true, false}, {known.ignoreMerges, false, true}} {
				if c.name == "" || c.name != want.name && !(same && pretokenizers[c.name].family == want.family) {
					continue
				}
				return stepsOf(sig), c.nfc, c.ignore, nil
			}
		}
	}
	return nil, false, false, fmt.Errorf("%w: tokenizer.json: how the pre-tokenizer %q splits text is not known as a pattern", ErrUnsupported, name)
}

// stepsOf turns a signature back into the steps it was made of.
func stepsOf(sig string) any {
	var steps []any
	for part := range strings.SplitSeq(sig, "; ") {
		kind, rest, _ := strings.Cut(part, " ")
		switch kind {
		case "Split":
			behavior, pattern, _ := strings.Cut(rest, " ")
			steps = append(steps, object{"type": "Split", "pattern": object{"Regex": pattern}, "behavior": behavior, "invert": false})
		case "Digits":
			steps = append(steps, object{"type": "Digits", "individual_digits": rest == "individual"})
		case "ByteLevel":
			steps = append(steps, object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": rest == "regex"})
		}
	}
	if len(steps) == 1 {
		return steps[0]
	}
	return object{"type": "Sequence", "pretokenizers": steps}
}
