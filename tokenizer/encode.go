package tokenizer

import "unicode/utf8"

// EncodeOptions say what to do beside encoding the text.
type EncodeOptions struct {
	// AddSpecial adds the tokens at the start and the end that the model
	// expects there (BOS, EOS), as its file says.
	AddSpecial bool
	// ParseSpecial recognises control tokens in the text. Leave it off for text
	// that users type, or they can write markup.
	ParseSpecial bool
}

// Encode returns the token ids of text.
func (t *Tokenizer) Encode(text string, o EncodeOptions) []int32 {
	return t.AppendEncode(nil, text, o)
}

// AppendEncode appends the token ids of text to dst.
func (t *Tokenizer) AppendEncode(dst []int32, text string, o EncodeOptions) []int32 {
	if o.AddSpecial && t.AddsBOS() {
		dst = append(dst, t.bos)
	}
	if text != "" {
		e := t.pool.Get().(*encoder)
		f := t.always
		if o.ParseSpecial {
			f = t.parsed
		}
		afterSpecial := true
		for _, fr := range e.partition(f, text) {
			switch {
			case fr.id != None:
				dst = append(dst, fr.id)
			case t.spm:
				dst = e.encodeSPM(dst, text[fr.start:fr.end], afterSpecial && t.addSpacePrefix)
			default:
				dst = e.encodeBPE(dst, text[fr.start:fr.end])
			}
			afterSpecial = fr.id != None
		}
		t.pool.Put(e)
	}
	if o.AddSpecial && t.AddsEOS() {
		dst = append(dst, t.eos)
	}
	return dst
}

// encoder is the working memory of one call, kept between calls.
type encoder struct {
	t             *Tokenizer
	classes       *classTable
	cache         wordCache
	frags, frags2 []fragment
	found         []int32
	seen          []bool // by index into a finder's specials
	buf           []byte // a word in the form the vocabulary uses
	syms          []symbol
	heap          []candidate
	ids           []int32
	starts        []int32
	merges        []merge
}

func newEncoder(t *Tokenizer) *encoder {
	return &encoder{t: t, classes: classes(), cache: newWordCache()}
}

// encodeBPE appends the tokens of text, which has no special tokens.
func (e *encoder) encodeBPE(dst []int32, text string) []int32 {
	if !utf8.ValidString(text) {
		text = repair(text)
	}
	rule := &e.t.rule
	if rule.nfc {
		text = e.classes.compose(text)
	}
	return e.splitInto(dst, rule.stages, text)
}

// splitInto encodes each piece that the stages cut text into.
func (e *encoder) splitInto(dst []int32, stages []splitter, text string) []int32 {
	first := stages[0]
	for i := 0; i < len(text); {
		end := first(e.classes, text, i)
		if len(stages) == 1 {
			dst = e.encodeWord(dst, text[i:end])
		} else {
			dst = e.splitInto(dst, stages[1:], text[i:end])
		}
		i = end
	}
	return dst
}

// maxCached is the longest word in bytes that is worth remembering: longer ones
// seldom come twice.
const maxCached = 48

// encodeWord appends the tokens of one pre-token.
func (e *encoder) encodeWord(dst []int32, word string) []int32 {
	m := e.t.bpe
	if len(word) == 1 {
		return m.emit(dst, m.byteID[word[0]])
	}
	if len(word) > maxCached {
		return e.mergeWord(dst, word)
	}
	h := e.cache.hash(word)
	if ids, ok := e.cache.get(h, word); ok {
		return append(dst, ids...)
	}
	start := len(dst)
	dst = e.mergeWord(dst, word)
	e.cache.put(h, word, dst[start:])
	return dst
}
