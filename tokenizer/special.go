package tokenizer

import (
	"slices"
	"strings"
)

// Texts of tokens that end generation. GGUF names only one or two of them by
// id, so llama.cpp and this package go by the text. These are markup whatever
// type the file gives them.
var endTexts = []string{
	"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>",
	"<｜end▁of▁sentence｜>",
}

// Texts that end generation if the file calls them control tokens. Elsewhere
// they can be ordinary: in Qwen2 </s> closes an HTML element.
var endTextsIfControl = []string{
	"<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "</s>", "_<EOT>", "[EOT]", "[EOS]",
	"<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
	"<fim_pad>", "[PAD]", "<reponame>",
}

// Fill-in-the-middle tokens after which llama.cpp stops as well; of each kind
// there is one.
var fimEndTexts = [][]string{
	{"<|fim_pad|>", "<fim-pad>", "<PAD>"},
	{"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>"},
	{"<|file_sep|>"},
}

// Other fill-in-the-middle tokens, markup whatever the file says.
var fimTexts = [][]string{
	{"<|fim_prefix|>", "<fim-prefix>", "<｜fim▁begin｜>", "<PRE>"},
	{"<|fim_suffix|>", "<fim-suffix>", "<｜fim▁hole｜>", "<SUF>"},
	{"<|fim_middle|>", "<fim-middle>", "<｜fim▁end｜>", "<MID>"},
}

// findEndTokens fills t.eog and marks as control what looks like markup but is
// typed otherwise in the file.
func (t *Tokenizer) findEndTokens(s *Spec) {
	t.eog = map[int32]bool{}
	for _, id := range []int32{s.EOS, s.EOT, s.EOM, s.FIMPad, s.FIMRep, s.FIMSep} {
		if id = t.valid(id); id != None {
			t.eog[id] = true
		}
	}
	for _, text := range endTexts {
		if id, ok := t.ID(text); ok {
			t.eog[id] = true
			t.kinds[id] = Control
		}
	}
	for _, text := range endTextsIfControl {
		if id, ok := t.ID(text); ok && t.kinds[id] == Control {
			t.eog[id] = true
		}
	}
	given := []int32{s.FIMPad, s.FIMRep, s.FIMSep}
	for i, names := range fimEndTexts {
		if id := t.firstOf(names); id != None && t.valid(given[i]) == None {
			t.eog[id] = true
			t.kinds[id] = Control
		}
	}
	for _, names := range fimTexts {
		if id := t.firstOf(names); id != None {
			t.kinds[id] = Control
		}
	}
	t.dropFalseEnds()
}

// dropFalseEnds removes tokens that end a part of a message where another token
// ends the message: <|end|> in gpt-oss and Solar Open, </s> in Gemma 4.
func (t *Tokenizer) dropFalseEnds() {
	has := func(text string) bool {
		id, ok := t.ID(text)
		return ok && t.eog[id]
	}
	drop := func(text string, kind Kind) {
		if id, ok := t.ID(text); ok && id != t.eos {
			delete(t.eog, id)
			t.kinds[id] = kind
		}
	}
	if has("<|return|>") && has("<|call|>") || has("<|calls|>") && has("<|flush|>") {
		drop("<|end|>", Control)
	}
	if has("<|tool_response>") {
		drop("</s>", Normal)
	}
}

func (t *Tokenizer) firstOf(texts []string) int32 {
	for _, text := range texts {
		if id, ok := t.ID(text); ok {
			return id
		}
	}
	return None
}

func sortedKeys(m map[int32]bool) []int32 {
	ids := make([]int32, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// special is a token that is looked for in text before anything else.
type special struct {
	id             int32
	text           string
	lstrip, rstrip bool // the token takes the whitespace before or after it
}

// finder looks for a set of special tokens in text.
type finder struct {
	specials []special          // longest text first
	first    [256]bool          // bytes that some text starts with
	only     int                // that byte if there is only one, otherwise -1
	byByte   [256]int32         // texts of a single byte, -1 for none
	byPair   map[uint16][]int32 // by the first two bytes
	// Some vocabularies have a thousand tokens that start alike. For such a
	// start there are the lengths of the texts instead, and a table by text.
	lengths map[uint16][]int
	byText  map[string]int32
}

// manyAlike is the number of texts with the same first two bytes from which
// looking up each length is faster than comparing each text.
const manyAlike = 32

// findSpecials collects the tokens to look for in text: control and unknown
// tokens only when asked to, user-defined ones always.
func (t *Tokenizer) findSpecials(name, pre string) {
	name = strings.ToLower(name)
	phi3 := strings.Contains(name, "phi-3") || strings.Contains(name, "phi3")
	mask := ""
	switch {
	case strings.Contains(pre, "jina-v2-de"), strings.Contains(pre, "jina-v2-es"), strings.Contains(pre, "jina-v2-code"):
		mask = "<mask>"
	case !phi3 && strings.Contains(name, "modern-bert"):
		mask = "[MASK]"
	}
	var always, all []special
	for id, kind := range t.kinds {
		if kind != Control && kind != UserDefined && kind != Unknown {
			continue
		}
		sp := special{id: int32(id), text: t.texts[id]}
		sp.lstrip = mask != "" && sp.text == mask
		if phi3 {
			sp.rstrip = sp.text != "<unk>" && sp.text != "<s>" && sp.text != "<|endoftext|>"
		}
		all = append(all, sp)
		if kind == UserDefined {
			always = append(always, sp)
		}
	}
	t.always, t.parsed = newFinder(always), newFinder(all)
}

func newFinder(specials []special) *finder {
	if len(specials) == 0 {
		return nil
	}
	slices.SortStableFunc(specials, func(a, b special) int { return len(b.text) - len(a.text) })
	f := &finder{specials: specials, only: -1, byPair: map[uint16][]int32{}}
	for b := range f.byByte {
		f.byByte[b] = -1
	}
	distinct := 0
	for i, sp := range specials {
		b := sp.text[0]
		if !f.first[b] {
			f.first[b] = true
			f.only = int(b)
			distinct++
		}
		if len(sp.text) == 1 {
			if f.byByte[b] < 0 {
				f.byByte[b] = int32(i)
			}
			continue
		}
		key := pairOf(sp.text)
		f.byPair[key] = append(f.byPair[key], int32(i))
	}
	f.indexMany()
	if distinct != 1 {
		f.only = -1
	}
	return f
}

func pairOf(s string) uint16 { return uint16(s[0])<<8 | uint16(s[1]) }

// indexMany moves crowded starts from byPair to lengths and byText.
func (f *finder) indexMany() {
	f.lengths, f.byText = map[uint16][]int{}, map[string]int32{}
	for key, list := range f.byPair {
		if len(list) < manyAlike {
			continue
		}
		for _, k := range list {
			text := f.specials[k].text
			if _, ok := f.byText[text]; ok {
				continue
			}
			f.byText[text] = k
			if !slices.Contains(f.lengths[key], len(text)) {
				f.lengths[key] = append(f.lengths[key], len(text))
			}
		}
		delete(f.byPair, key)
	}
}

// fragment is a stretch of text, or a special token found in it.
type fragment struct {
	start, end int
	id         int32 // None for text
}

// partition cuts text at special tokens. Like llama.cpp it takes the tokens one
// after the other, longest first, each from left to right in what is left of
// the text; scan first finds out which of them occur at all.
func (e *encoder) partition(f *finder, text string) []fragment {
	e.frags = append(e.frags[:0], fragment{0, len(text), None})
	if f == nil {
		return e.frags
	}
	for _, k := range e.scan(f, text) {
		sp := &f.specials[k]
		e.frags2 = e.frags2[:0]
		for _, fr := range e.frags {
			if fr.id != None {
				e.frags2 = append(e.frags2, fr)
				continue
			}
			e.frags2 = sp.cut(e.frags2, text, fr)
		}
		e.frags, e.frags2 = e.frags2, e.frags
	}
	return e.frags
}

// cut appends to dst the parts of one stretch of text.
func (sp *special) cut(dst []fragment, text string, fr fragment) []fragment {
	for fr.start < fr.end {
		at := strings.Index(text[fr.start:fr.end], sp.text)
		if at < 0 {
			break
		}
		left := fr.start + at
		next := left + len(sp.text)
		for sp.lstrip && left > fr.start && isSpaceC(text[left-1]) {
			left--
		}
		if left > fr.start {
			dst = append(dst, fragment{fr.start, left, None})
		}
		dst = append(dst, fragment{id: sp.id})
		for sp.rstrip && next < fr.end && isSpaceC(text[next]) {
			next++
		}
		fr.start = next
	}
	if fr.start < fr.end {
		dst = append(dst, fr)
	}
	return dst
}

// isSpaceC is isspace of the C locale.
func isSpaceC(b byte) bool { return b == ' ' || b >= '\t' && b <= '\r' }

// scan returns the indices, in order, of the special tokens that occur in text.
func (e *encoder) scan(f *finder, text string) []int32 {
	e.found = e.found[:0]
	if len(e.seen) < len(f.specials) {
		e.seen = make([]bool, len(f.specials))
	}
	clear(e.seen)
	for i := 0; i < len(text); i++ {
		if f.only >= 0 {
			k := strings.IndexByte(text[i:], byte(f.only))
			if k < 0 {
				break
			}
			i += k
		} else if !f.first[text[i]] {
			continue
		}
		if k := f.byByte[text[i]]; k >= 0 {
			e.see(k)
		}
		if i+1 == len(text) {
			break
		}
		key := pairOf(text[i:])
		for _, k := range f.byPair[key] {
			if !e.seen[k] && strings.HasPrefix(text[i:], f.specials[k].text) {
				e.see(k)
			}
		}
		for _, n := range f.lengths[key] {
			if i+n > len(text) {
				continue
			}
			if k, ok := f.byText[text[i:i+n]]; ok {
				e.see(k)
			}
		}
	}
	slices.Sort(e.found)
	return e.found
}

func (e *encoder) see(k int32) {
	if !e.seen[k] {
		e.seen[k] = true
		e.found = append(e.found, k)
	}
}
