// Package tokenizer turns text into token ids and back: byte-level BPE with
// the pre-tokenizers that GGUF files name, and SentencePiece BPE as Llama 2,
// Mistral 7B and Phi-3 use it.
//
// Results equal llama.cpp's, with these deliberate differences:
//
//   - For the Qwen2 family text is composed (NFC) first, as the model's own
//     tokenizer does; llama.cpp leaves decomposed text as it is.
//   - Pre-tokenizer patterns are those published with the models, where
//     llama.cpp approximates some (see pretokenizers), and clitics are matched
//     without regard to case by Unicode's rules.
//   - An unknown pre-tokenizer name is an error, not a guess.
//   - Decoding never removes spaces before punctuation, so that decoding what
//     was encoded gives the same text.
//
// A Tokenizer is safe for concurrent use.
package tokenizer

import (
	"errors"
	"fmt"
	"sync"
)

// Errors that New and FromMetadata wrap.
var (
	// ErrUnsupported means a tokenizer model or pre-tokenizer this package does
	// not know.
	ErrUnsupported = errors.New("unsupported tokenizer")
	// ErrFormat means a vocabulary that is missing parts or contradicts itself.
	ErrFormat = errors.New("invalid tokenizer")
	// ErrID means a token id outside the vocabulary.
	ErrID = errors.New("token id out of range")
)

// None stands for a special token that does not exist.
const None int32 = -1

// Kind says what a token is for. The values are those of
// tokenizer.ggml.token_type.
type Kind int8

// The kinds of tokens.
const (
	Undefined   Kind = 0
	Normal      Kind = 1
	Unknown     Kind = 2 // stands for text the vocabulary cannot write
	Control     Kind = 3 // recognised in text only with ParseSpecial
	UserDefined Kind = 4 // always recognised in text
	Unused      Kind = 5
	Byte        Kind = 6 // <0xXX>, one byte
)

// String returns the kind's name in lower case.
func (k Kind) String() string {
	switch k {
	case Normal:
		return "normal"
	case Unknown:
		return "unknown"
	case Control:
		return "control"
	case UserDefined:
		return "user-defined"
	case Unused:
		return "unused"
	case Byte:
		return "byte"
	}
	return "undefined"
}

// Spec describes a tokenizer. FromMetadata fills it from a model file.
type Spec struct {
	Model string // "gpt2" for byte-level BPE, "llama" for SentencePiece BPE
	// Pre names the pre-tokenizer of byte-level BPE; empty is "default".
	Pre string
	// Name is the model's name. Some rules hang on it for want of a better
	// place in GGUF: Phi-3's special tokens take the whitespace after them.
	Name   string
	Tokens []string
	Scores []float32 // SentencePiece: merge priorities, one a token
	Kinds  []Kind    // empty: all Normal
	Merges []string  // byte-level BPE: "left right", best first

	// Ids of special tokens, None where there is none. An id outside the
	// vocabulary is treated as None.
	BOS, EOS, EOT, EOM, UNK, SEP, PAD, FIMPad, FIMRep, FIMSep int32

	AddBOS, AddEOS bool // what EncodeOptions.AddSpecial adds
	// AddSpacePrefix makes SentencePiece put a space before text at the start
	// and after special tokens.
	AddSpacePrefix bool
}

// Tokenizer converts between text and token ids. Make one with New or
// FromMetadata.
type Tokenizer struct {
	model  string
	rule   preRule
	spm    bool
	texts  []string // as stored in the file, with the byte alphabet or ▁
	kinds  []Kind
	pieces []byte   // the bytes of all tokens, one after the other
	ends   []uint32 // where each token's piece ends
	table  *textTable

	bos, eos, unk  int32
	sep, pad       int32
	addBOS, addEOS bool
	addSpacePrefix bool
	eog            map[int32]bool

	always, parsed *finder // special tokens matched always; and with ParseSpecial

	bpe *bpeModel
	sp  *spmModel

	pool sync.Pool // *encoder
}

// New builds a tokenizer. It keeps s.Tokens.
func New(s Spec) (*Tokenizer, error) {
	n := len(s.Tokens)
	switch {
	case n == 0:
		return nil, fmt.Errorf("%w: vocabulary is empty", ErrFormat)
	case n > 1<<24:
		return nil, fmt.Errorf("%w: %d tokens, more than %d", ErrFormat, n, 1<<24)
	case len(s.Kinds) != 0 && len(s.Kinds) < n:
		return nil, fmt.Errorf("%w: %d token types for %d tokens", ErrFormat, len(s.Kinds), n)
	}
	t := &Tokenizer{model: s.Model, texts: s.Tokens, addBOS: s.AddBOS, addEOS: s.AddEOS,
		addSpacePrefix: s.AddSpacePrefix}
	t.bos, t.eos, t.unk = t.valid(s.BOS), t.valid(s.EOS), t.valid(s.UNK)
	t.sep, t.pad = t.valid(s.SEP), t.valid(s.PAD)
	t.nameEmpty()
	t.kinds = make([]Kind, n)
	for i := range t.kinds {
		t.kinds[i] = Normal
	}
	copy(t.kinds, s.Kinds)
	t.table = newTextTable(t.texts)
	t.pool.New = func() any { return newEncoder(t) }

	t.spm = s.Model == "llama"
	t.findEndTokens(&s)
	// Half of the work needs nothing of the other half, and start-up waits for
	// both.
	done := make(chan struct{})
	go func() {
		classes()
		t.buildPieces()
		t.findSpecials(s.Name, s.Pre)
		close(done)
	}()
	var err error
	switch s.Model {
	case "gpt2":
		err = t.initBPE(&s)
	case "llama":
		err = t.initSPM(&s)
	default:
		err = fmt.Errorf("%w: model %q (have gpt2, llama)", ErrUnsupported, s.Model)
	}
	<-done
	if err != nil {
		return nil, err
	}
	return t, nil
}

// valid returns id, or None if it is outside the vocabulary.
func (t *Tokenizer) valid(id int32) int32 {
	if id < 0 || int(id) >= len(t.texts) {
		return None
	}
	return id
}

// nameEmpty gives tokens without text the names that llama.cpp gives them, so
// that an empty string never matches.
func (t *Tokenizer) nameEmpty() {
	copied := false
	for i, s := range t.texts {
		if s != "" {
			continue
		}
		if !copied { // the slice is the caller's
			t.texts = append([]string(nil), t.texts...)
			copied = true
		}
		t.texts[i] = fmt.Sprintf("[EMPTY_%d]", i)
	}
}

// Size is the number of tokens in the vocabulary.
func (t *Tokenizer) Size() int { return len(t.texts) }

// Name describes the tokenizer for display, such as "gpt2 qwen2".
func (t *Tokenizer) Name() string {
	if t.spm || t.rule.name == "" {
		return t.model
	}
	return t.model + " " + t.rule.name
}

// Text returns a token as the file spells it, "" for an id outside the
// vocabulary.
func (t *Tokenizer) Text(id int32) string {
	if t.valid(id) == None {
		return ""
	}
	return t.texts[id]
}

// ID returns the token that the file spells text.
func (t *Tokenizer) ID(text string) (int32, bool) { return t.table.find(text) }

// Kind returns what a token is for, Undefined for an id outside the vocabulary.
func (t *Tokenizer) Kind(id int32) Kind {
	if t.valid(id) == None {
		return Undefined
	}
	return t.kinds[id]
}

// BOS is the token that starts a sequence, None if there is none.
func (t *Tokenizer) BOS() int32 { return t.bos }

// EOS is the token that ends a sequence, None if there is none.
func (t *Tokenizer) EOS() int32 { return t.eos }

// UNK is the token for text the vocabulary cannot write, None if there is none.
func (t *Tokenizer) UNK() int32 { return t.unk }

// SEP is the token between two texts, None if there is none.
func (t *Tokenizer) SEP() int32 { return t.sep }

// PAD is the token that fills batches, None if there is none.
func (t *Tokenizer) PAD() int32 { return t.pad }

// AddsBOS reports whether EncodeOptions.AddSpecial puts BOS first.
func (t *Tokenizer) AddsBOS() bool { return t.addBOS && t.bos != None }

// AddsEOS reports whether EncodeOptions.AddSpecial puts EOS last.
func (t *Tokenizer) AddsEOS() bool { return t.addEOS && t.eos != None }

// IsEOG reports whether a model that emits this token has finished: the end of
// the text, of the turn, of the message.
func (t *Tokenizer) IsEOG(id int32) bool { return t.eog[id] }

// EOG returns the tokens for which IsEOG holds, in order.
func (t *Tokenizer) EOG() []int32 { return sortedKeys(t.eog) }

// IsControl reports whether a token is markup rather than text.
func (t *Tokenizer) IsControl(id int32) bool { return t.Kind(id) == Control }

// Piece returns the bytes a token stands for, which need not be whole
// characters; nil for an id outside the vocabulary. Callers must not write to it.
func (t *Tokenizer) Piece(id int32) []byte {
	if t.valid(id) == None {
		return nil
	}
	start := uint32(0)
	if id > 0 {
		start = t.ends[id-1]
	}
	end := t.ends[id]
	return t.pieces[start:end:end]
}

// buildPieces decodes all tokens once, so that decoding is copying.
func (t *Tokenizer) buildPieces() {
	size := 0
	for _, s := range t.texts {
		size += len(s)
	}
	t.pieces = make([]byte, 0, size)
	t.ends = make([]uint32, len(t.texts))
	for i, s := range t.texts {
		switch {
		case t.kinds[i] == Unused || t.kinds[i] == Undefined:
			// No bytes, as in llama.cpp.
		case t.kinds[i] != Normal && t.kinds[i] != Byte:
			t.pieces = append(t.pieces, s...)
		case t.spm:
			t.pieces = appendUnescaped(t.pieces, s, t.kinds[i])
		default:
			t.pieces = appendUnbyteLevel(t.pieces, s)
		}
		t.ends[i] = uint32(len(t.pieces))
	}
}
