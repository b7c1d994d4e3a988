package tokenizer

import "golang.org/x/text/unicode/norm"

// nfcRanges are, beside marks, the code points that are not always themselves
// under NFC: those with a canonical decomposition that is not composed again,
// and vowels and finals of Hangul syllables. They are rounded up to ranges;
// being in one only means that package norm is asked.
var nfcRanges = [][2]rune{
	{0x374, 0x374}, {0x37e, 0x37e}, {0x387, 0x387}, {0x958, 0x95f}, {0x9dc, 0x9df},
	{0xa33, 0xa36}, {0xa59, 0xa5e}, {0xb5c, 0xb5d}, {0xf43, 0xf69}, {0x1160, 0x11ff},
	{0x1f71, 0x1fff}, {0x2000, 0x2001}, {0x2126, 0x212b}, {0x2329, 0x232a}, {0x2adc, 0x2adc},
	{0xf900, 0xfaff}, {0xfb1d, 0xfb4e}, {0x1d15e, 0x1d164}, {0x1d1bb, 0x1d1c0}, {0x2f800, 0x2fa1f},
}

// compose returns text in Unicode normal form C. Nearly all text is, and is
// recognised faster here than by package norm.
func (t *classTable) compose(text string) string {
	if t.runNot(text, 0, cNFC) == len(text) {
		return text
	}
	return norm.NFC.String(text)
}
