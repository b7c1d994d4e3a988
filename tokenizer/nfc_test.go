package tokenizer

import (
	"testing"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// TestComposeSkipsOnlyInert checks every code point: those that compose passes
// over must be inert under NFC.
func TestComposeSkipsOnlyInert(t *testing.T) {
	c := classes()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if r >= 0xd800 && r < 0xe000 || c.of(r)&cNFC != 0 {
			continue
		}
		p := norm.NFC.PropertiesString(string(r))
		// A character that composes with nothing before it, has no combining
		// class and is its own NFC leaves text of its kind as it is.
		if p.CCC() != 0 || !norm.NFC.IsNormalString(string(r)) || !norm.NFC.IsNormalString("a"+string(r)) ||
			!p.BoundaryBefore() {
			t.Errorf("%U may change under NFC but is not marked", r)
		}
	}
}
