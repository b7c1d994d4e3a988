package tokenizer

import (
	"sync"
	"unicode"
)

// class is a set of Unicode properties of one code point: the ones that
// pre-tokenizer patterns ask for.
type class uint16

const (
	cLetter   class = 1 << iota // \p{L}
	cNumber                     // \p{N}
	cSpace                      // \s, the White_Space property
	cPunct                      // \p{P}
	cSymbol                     // \p{S}
	cMark                       // \p{M}
	cUpper                      // \p{Lu} \p{Lt}
	cLower                      // \p{Ll}
	cCaseless                   // \p{Lm} \p{Lo}
	cHan                        // \p{Han}
	cDigit                      // \p{Nd}
	cNewline                    // \r \n
	cWord                       // \w: letters, marks, decimal digits, connectors
	cNFC                        // may change, or change others, under NFC
	cControl                    // an ASCII control character: so every ASCII character has a class
)

// classTable maps code points to classes in two steps: a page number for each
// block of 256, then the entry. Blocks without any property share page 0.
type classTable struct {
	ascii [128]class
	index [(unicode.MaxRune + 1) >> 8]uint16
	pages [][256]class
}

// classes is built on first use (about 1 ms) from the tables of package
// unicode, so that importing this package costs nothing.
var classes = sync.OnceValue(buildClasses)

func buildClasses() *classTable {
	t := &classTable{pages: make([][256]class, 1, 900)}
	for _, p := range []struct {
		set *unicode.RangeTable
		bit class
	}{
		{unicode.L, cLetter}, {unicode.N, cNumber}, {unicode.White_Space, cSpace},
		{unicode.P, cPunct}, {unicode.S, cSymbol}, {unicode.M, cMark},
		{unicode.Lu, cUpper}, {unicode.Lt, cUpper}, {unicode.Ll, cLower},
		{unicode.Lm, cCaseless}, {unicode.Lo, cCaseless}, {unicode.Han, cHan},
		{unicode.Nd, cDigit}, {unicode.M, cNFC},
		{unicode.L, cWord}, {unicode.M, cWord}, {unicode.Nd, cWord}, {unicode.Pc, cWord},
	} {
		for _, r := range p.set.R16 {
			t.add(rune(r.Lo), rune(r.Hi), rune(r.Stride), p.bit)
		}
		for _, r := range p.set.R32 {
			t.add(rune(r.Lo), rune(r.Hi), rune(r.Stride), p.bit)
		}
	}
	t.add('\n', '\r', '\r'-'\n', cNewline)
	t.add(0, 0x1f, 1, cControl)
	t.add(0x7f, 0x7f, 1, cControl)
	for _, r := range nfcRanges {
		t.add(r[0], r[1], 1, cNFC)
	}
	for i := range t.ascii {
		t.ascii[i] = t.of(rune(i))
	}
	return t
}

func (t *classTable) add(lo, hi, stride rune, bit class) {
	for r := lo; r <= hi; r += stride {
		p := &t.index[r>>8]
		if *p == 0 {
			*p = uint16(len(t.pages))
			t.pages = append(t.pages, [256]class{})
		}
		t.pages[*p][r&0xff] |= bit
	}
}

func (t *classTable) of(r rune) class {
	if uint32(r) > unicode.MaxRune {
		return 0
	}
	return t.pages[t.index[r>>8]][r&0xff]
}

// at returns the class and the length in bytes of the code point at s[i:].
func (t *classTable) at(s string, i int) (class, int) {
	if b := s[i]; b < 0x80 {
		return t.ascii[b], 1
	}
	return t.atWide(s, i)
}

// atWide is at for characters outside ASCII. Three bytes cover most of them.
func (t *classTable) atWide(s string, i int) (class, int) {
	if b := s[i]; b >= 0xe0 && b < 0xf0 && i+2 < len(s) {
		page := t.index[uint(b&0x0f)<<4|uint(s[i+1]&0x3f)>>2]
		return t.pages[page][s[i+1]&3<<6|s[i+2]&0x3f], 3
	}
	r, n := decodeLax(s, i)
	return t.of(r), n
}

// run returns the end of the longest run from i of code points with any of the
// properties in mask.
func (t *classTable) run(s string, i int, mask class) int {
	for i < len(s) {
		if b := s[i]; b < 0x80 {
			if t.ascii[b]&mask == 0 {
				break
			}
			i++
			continue
		}
		c, n := t.atWide(s, i)
		if c&mask == 0 {
			break
		}
		i += n
	}
	return i
}

// runNot returns the end of the longest run from i of code points with none of
// the properties in mask.
func (t *classTable) runNot(s string, i int, mask class) int {
	for i < len(s) {
		if b := s[i]; b < 0x80 {
			if t.ascii[b]&mask != 0 {
				break
			}
			i++
			continue
		}
		c, n := t.atWide(s, i)
		if c&mask != 0 {
			break
		}
		i += n
	}
	return i
}
