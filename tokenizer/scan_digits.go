package tokenizer

import "unicode/utf8"

// splitDigitsFromRight isolates runs of numbers and cuts them into groups of
// three counted from the right, as AFMoE does: 1234567 is 1 234 567.
func splitDigitsFromRight(t *classTable, s string, i int) int {
	return splitGroups(t, s, i, cNumber, false)
}

// splitDigitsAtBoundary isolates \d{1,3}(?=(?:\d{3})*\b), as Tiny Aya does: the
// same groups, but only where the run of digits ends a word.
func splitDigitsAtBoundary(t *classTable, s string, i int) int {
	return splitGroups(t, s, i, cDigit, true)
}

func splitGroups(t *classTable, s string, i int, kind class, boundary bool) int {
	if insideRun(t, s, i, kind) {
		return skip(t, s, i, 3) // the first group of the run has been cut off
	}
	for j := i; j < len(s); {
		end := t.run(s, j, kind)
		if end == j {
			_, n := t.at(s, j)
			j += n
			continue
		}
		if boundary && end < len(s) {
			if c, _ := t.at(s, end); c&cWord != 0 {
				j = end
				continue
			}
		}
		if j > i {
			return j // the text before the digits
		}
		first := count(t, s[i:end]) % 3
		if first == 0 {
			first = 3
		}
		return skip(t, s, i, first)
	}
	return len(s)
}

// splitSuperBPE splits at (?=(\d{3})+(?!\d)): before every group of three
// digits counted from the right, without isolating the digits.
func splitSuperBPE(t *classTable, s string, i int) int {
	j := i
	if insideRun(t, s, i, cDigit) {
		j = skip(t, s, i, 3)
		if j < len(s) && insideRun(t, s, j, cDigit) {
			return j
		}
	}
	for j < len(s) {
		end := t.run(s, j, cDigit)
		if end == j {
			_, n := t.at(s, j)
			j += n
			continue
		}
		n := count(t, s[j:end])
		if at := skip(t, s, j, n%3); at > i && n >= 3 {
			return at
		}
		if n > 3 {
			return skip(t, s, j, 3) // j is i, and a group starts there
		}
		j = end
	}
	return len(s)
}

// insideRun reports whether the characters on both sides of s[i:] are of a kind.
func insideRun(t *classTable, s string, i int, kind class) bool {
	if i == 0 {
		return false
	}
	prev, _ := utf8.DecodeLastRuneInString(s[:i])
	c, _ := t.at(s, i)
	return t.of(prev)&c&kind != 0
}

// count returns the number of characters in s.
func count(t *classTable, s string) int {
	n := 0
	for i := 0; i < len(s); n++ {
		_, k := t.at(s, i)
		i += k
	}
	return n
}

// skip returns the end of the next n characters from i.
func skip(t *classTable, s string, i, n int) int {
	for ; n > 0 && i < len(s); n-- {
		_, k := t.at(s, i)
		i += k
	}
	return i
}

// matchSentinel is Chameleon's <sentinel:[0-9]+>.
func matchSentinel(_ *classTable, s string, i int) int {
	const head = "<sentinel:"
	if len(s)-i < len(head)+2 || s[i:i+len(head)] != head {
		return i
	}
	j := i + len(head)
	for j < len(s) && '0' <= s[j] && s[j] <= '9' {
		j++
	}
	if j == i+len(head) || j == len(s) || s[j] != '>' {
		return i
	}
	return j + 1
}

// matchImage is Chameleon's IMGIMG[A-I]{1,4}Z.
func matchImage(_ *classTable, s string, i int) int {
	const head = "IMGIMG"
	if len(s)-i < len(head)+2 || s[i:i+len(head)] != head {
		return i
	}
	j := i + len(head)
	for j < len(s) && j < i+len(head)+4 && 'A' <= s[j] && s[j] <= 'I' {
		j++
	}
	if j == i+len(head) || j == len(s) || s[j] != 'Z' {
		return i
	}
	return j + 1
}

// matchChameleonSpace is [\t\n]| {4}| {2}.
func matchChameleonSpace(_ *classTable, s string, i int) int {
	switch rest := s[i:]; {
	case rest[0] == '\t' || rest[0] == '\n':
		return i + 1
	case len(rest) >= 4 && rest[:4] == "    ":
		return i + 4
	case len(rest) >= 2 && rest[:2] == "  ":
		return i + 2
	}
	return i
}

// matchPhrase is EXAONE MoE's word: letters with their marks, words joined by
// single spaces.
//
//	[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+
func matchPhrase(t *classTable, s string, i int) int {
	c, n := t.at(s, i)
	j := i
	if c&(cLetter|cNumber|cNewline) == 0 && i+n < len(s) {
		j += n
		c, n = t.at(s, j)
	}
	if c&cLetter == 0 {
		return i
	}
	for j += n; j < len(s); {
		c, n = t.at(s, j)
		if s[j] == ' ' && j+1 < len(s) {
			if c2, n2 := t.at(s, j+1); c2&cLetter != 0 {
				j += 1 + n2
				continue
			}
		}
		if c&(cLetter|cMark) == 0 {
			break
		}
		j += n
	}
	return j
}

// matchEXAONEMoE is the pattern around matchPhrase; otherwise it is Qwen2's
// with [\r\n/]? after punctuation.
func matchEXAONEMoE(t *classTable, s string, i int) int {
	if k := contraction(s, i, true); k > 0 {
		return i + k
	}
	if e := matchPhrase(t, s, i); e > i {
		return e
	}
	if c, n := t.at(s, i); c&cNumber != 0 {
		return i + n
	}
	return llama3{letters: cLetter, tail: tailOne, spaces: spaces}.rest(t, s, i)
}

// Youtu's first pattern: runs of Korean, of full-width punctuation, of Bopomofo,
// of Chinese and kana, tried in this order.
var youtuSets = [...]runeSet{
	newRuneSet("가-힣ㄱ-ㆎ"), newRuneSet("！…“”‘’—：；，、-〿︰-﹏"),
	newRuneSet("ㄅ-ㄯ"), cjkKana,
}

func matchYoutu(_ *classTable, s string, i int) int {
	for _, set := range youtuSets {
		if e := set.run(s, i); e > i {
			return e
		}
	}
	return i
}

// afmoeScripts are AFMoE's scripts written without spaces.
var afmoeScripts = newRuneSet("一-鿿㐀-䶿\uf900-\ufaff぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-\u0e7f\u0e80-\u0effក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ")
