package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// DecodeOptions say how to write tokens as text.
type DecodeOptions struct {
	// SkipSpecial leaves out control and unknown tokens.
	SkipSpecial bool
	// KeepSpace keeps the space that a SentencePiece tokenizer puts before the
	// first word. Set it when the tokens continue a text.
	KeepSpace bool
}

// Decode returns the text of tokens. Bytes that are no UTF-8 become U+FFFD.
// Spaces are never tidied away, so that decoding undoes encoding.
func (t *Tokenizer) Decode(ids []int32, o DecodeOptions) (string, error) {
	s := t.NewStream(o)
	var b strings.Builder
	b.Grow(4 * len(ids))
	for i, id := range ids {
		if t.valid(id) == None {
			return "", fmt.Errorf("%w: token %d of the input is %d, the vocabulary has %d", ErrID, i, id, len(t.texts))
		}
		s.out = s.out[:0]
		s.push(id)
		b.Write(s.out)
	}
	b.WriteString(s.Flush())
	return b.String(), nil
}

// Stream writes tokens as text as they come. It holds back an unfinished
// character until it is complete or cannot be completed.
type Stream struct {
	t       *Tokenizer
	o       DecodeOptions
	strip   bool    // the next piece loses its leading space
	pending [4]byte // the start of a character
	n       int
	out     []byte
}

// NewStream starts a text.
func (t *Tokenizer) NewStream(o DecodeOptions) *Stream {
	return &Stream{t: t, o: o, strip: t.spm && t.addSpacePrefix && !o.KeepSpace}
}

// Push adds a token and returns the text that is now certain. A token outside
// the vocabulary adds nothing.
func (s *Stream) Push(id int32) string {
	s.out = s.out[:0]
	s.push(id)
	return string(s.out)
}

func (s *Stream) push(id int32) {
	if s.t.valid(id) == None {
		return
	}
	if kind := s.t.kinds[id]; s.o.SkipSpecial && (kind == Control || kind == Unknown) {
		return
	}
	piece := s.t.Piece(id)
	if s.strip {
		s.strip = false
		if len(piece) > 0 && piece[0] == ' ' {
			piece = piece[1:]
		}
	}
	if s.n == 0 && utf8.Valid(piece) {
		s.out = append(s.out, piece...)
		return
	}
	for _, b := range piece {
		s.pushByte(b)
	}
}

// Flush ends the text: an unfinished character becomes U+FFFD.
func (s *Stream) Flush() string {
	s.out = s.out[:0]
	s.giveUp()
	return string(s.out)
}

// giveUp writes U+FFFD for pending bytes, one for all of them: they are a
// maximal part of a character (Unicode 15, section 3.9, as Python and Rust do).
func (s *Stream) giveUp() {
	if s.n > 0 {
		s.out = utf8.AppendRune(s.out, utf8.RuneError)
		s.n = 0
	}
}

func (s *Stream) pushByte(b byte) {
	if s.n > 0 {
		s.pending[s.n] = b
		s.n++
		switch p := s.pending[:s.n]; {
		case utf8.Valid(p):
			s.out = append(s.out, p...)
			s.n = 0
			return
		case canContinue(p):
			return
		}
		s.n--
		s.giveUp()
	}
	switch {
	case b < 0x80:
		s.out = append(s.out, b)
	case b >= 0xc2 && b <= 0xf4:
		s.pending[0] = b
		s.n = 1
	default:
		s.out = utf8.AppendRune(s.out, utf8.RuneError)
	}
}

// canContinue reports whether p, two or three bytes, is the start of a
// character.
func canContinue(p []byte) bool {
	if len(p) >= 4 || p[len(p)-1]&0xc0 != 0x80 || p[0] < 0xe0 || len(p) == 3 && p[0] < 0xf0 {
		return false
	}
	switch p[0] { // second bytes that would be overlong, surrogate, too large
	case 0xe0:
		return p[1] >= 0xa0
	case 0xed:
		return p[1] < 0xa0
	case 0xf0:
		return p[1] >= 0x90
	case 0xf4:
		return p[1] < 0x90
	}
	return true
}
