package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Byte-level BPE writes every byte as one printable character, so that
// vocabularies are valid text (GPT-2, encoder.py, bytes_to_unicode): printable
// Latin-1 characters stand for themselves, the other 68 bytes become U+0100
// and up in order.
var (
	byteToText [256]string
	runeToByte [maxByteRune + 1]int16 // -1: not a character of the alphabet
)

const maxByteRune = 0x100 + 67

func init() {
	for i := range runeToByte {
		runeToByte[i] = -1
	}
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if printable := b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae; !printable {
			r = next
			next++
		}
		byteToText[b] = string(r)
		runeToByte[r] = int16(b)
	}
}

// appendByteLevel appends text written in the byte alphabet.
func appendByteLevel(dst []byte, text string) []byte {
	for i := range len(text) {
		dst = append(dst, byteToText[text[i]]...)
	}
	return dst
}

// appendUnbyteLevel appends the bytes that a token's text stands for.
// Characters outside the alphabet (in special tokens of careless files) are
// kept as they are.
func appendUnbyteLevel(dst []byte, text string) []byte {
	for i := 0; i < len(text); {
		if b := text[i]; b < 0x80 {
			// Every ASCII character of the alphabet is itself; the others
			// (space, control characters) are outside it and kept.
			dst = append(dst, b)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if r <= maxByteRune && runeToByte[r] >= 0 && n > 1 {
			dst = append(dst, byte(runeToByte[r]))
		} else {
			dst = append(dst, text[i:i+n]...)
		}
		i += n
	}
	return dst
}

// decodeLax decodes the code point at s[i:] by its first byte alone. The text
// must have passed through repair, which leaves only complete sequences; for
// other text it still neither panics nor stalls.
func decodeLax(s string, i int) (rune, int) {
	b := s[i]
	switch {
	case b < 0xc0:
		return rune(b), 1
	case b < 0xe0 && i+1 < len(s):
		return rune(b&0x1f)<<6 | rune(s[i+1]&0x3f), 2
	case b < 0xf0 && i+2 < len(s):
		return rune(b&0x0f)<<12 | rune(s[i+1]&0x3f)<<6 | rune(s[i+2]&0x3f), 3
	case i+3 < len(s):
		return rune(b&0x07)<<18 | rune(s[i+1]&0x3f)<<12 | rune(s[i+2]&0x3f)<<6 | rune(s[i+3]&0x3f), 4
	}
	return rune(b), 1
}

// repair makes text well formed the way llama.cpp does before it applies
// patterns: a byte that starts no complete sequence becomes U+FFFD, an overlong
// form becomes its code point, an encoded surrogate is kept as it is. Above
// U+10FFFF, where llama.cpp fails, it writes U+FFFD.
func repair(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text) + len(text)/8)
	for i := 0; i < len(text); {
		n := sequenceLen(text[i:])
		if n == 0 {
			b.WriteRune(utf8.RuneError)
			i++
			continue
		}
		if r, _ := decodeLax(text, i); r >= 0xd800 && r < 0xe000 {
			b.WriteString(text[i : i+n])
		} else {
			b.WriteRune(r) // writes U+FFFD for r > MaxRune
		}
		i += n
	}
	return b.String()
}

// sequenceLen returns the length of the sequence of lead byte and continuation
// bytes at the start of s, or 0 if it is broken.
func sequenceLen(s string) int {
	n := 0
	switch b := s[0]; {
	case b < 0x80:
		return 1
	case b < 0xc0 || b >= 0xf8:
		return 0
	case b < 0xe0:
		n = 2
	case b < 0xf0:
		n = 3
	default:
		n = 4
	}
	if len(s) < n {
		return 0
	}
	for i := 1; i < n; i++ {
		if s[i]&0xc0 != 0x80 {
			return 0
		}
	}
	return n
}
