package tokenizer

import (
	"sort"
	"strings"
)

// runeSet is a set of code points: ranges sorted by their first.
type runeSet [][2]rune

// newRuneSet reads a set written as in a regex character class, without
// escapes: "a-z_" has a range and a single character.
func newRuneSet(text string) runeSet {
	var set runeSet
	rs := []rune(text)
	for i := 0; i < len(rs); i++ {
		r := [2]rune{rs[i], rs[i]}
		if i+2 < len(rs) && rs[i+1] == '-' {
			r[1] = rs[i+2]
			i += 2
		}
		set = append(set, r)
	}
	sort.Slice(set, func(a, b int) bool { return set[a][0] < set[b][0] })
	// Merge what overlaps, so that one range decides each look-up.
	merged := set[:1]
	for _, r := range set[1:] {
		if last := &merged[len(merged)-1]; r[0] <= last[1] {
			last[1] = max(last[1], r[1])
		} else {
			merged = append(merged, r)
		}
	}
	return merged
}

func (rs runeSet) has(r rune) bool {
	k := sort.Search(len(rs), func(k int) bool { return rs[k][0] > r })
	return k > 0 && r <= rs[k-1][1]
}

// run returns the end of the run from i of members of the set.
func (rs runeSet) run(s string, i int) int {
	for i < len(s) {
		r, n := decodeLax(s, i)
		if !rs.has(r) {
			break
		}
		i += n
	}
	return i
}

// matchRun matches [set]+.
func matchRun(set runeSet) matcher {
	return func(_ *classTable, s string, i int) int { return set.run(s, i) }
}

// matchSpacedRun matches \s?[set]+.
func matchSpacedRun(set runeSet) matcher {
	return func(t *classTable, s string, i int) int {
		if c, n := t.at(s, i); c&cSpace != 0 {
			if e := set.run(s, i+n); e > i+n {
				return e
			}
		}
		return set.run(s, i)
	}
}

// matchClassRun matches [mask]+.
func matchClassRun(mask class) matcher {
	return func(t *classTable, s string, i int) int { return t.run(s, i, mask) }
}

// matchSpacedClassRun matches \s?[mask]+.
func matchSpacedClassRun(mask class) matcher {
	return func(t *classTable, s string, i int) int {
		if c, n := t.at(s, i); c&cSpace != 0 {
			if e := t.run(s, i+n, mask); e > i+n {
				return e
			}
		}
		return t.run(s, i, mask)
	}
}

// matchNumbers matches \p{N}{1,limit}.
func matchNumbers(limit int) matcher {
	return func(t *classTable, s string, i int) int { return numbers(t, s, i, limit) }
}

// matchPunct matches [\p{P} extra]+, extra being ASCII characters.
func matchPunct(extra string) matcher {
	return func(t *classTable, s string, i int) int {
		for i < len(s) {
			c, n := t.at(s, i)
			if c&cPunct == 0 && strings.IndexByte(extra, s[i]) < 0 {
				break
			}
			i += n
		}
		return i
	}
}

// matchOneOf matches one byte of set.
func matchOneOf(set string) matcher {
	return func(_ *classTable, s string, i int) int {
		if strings.IndexByte(set, s[i]) >= 0 {
			return i + 1
		}
		return i
	}
}

// matchThreeDigits matches [0-9][0-9][0-9].
func matchThreeDigits(_ *classTable, s string, i int) int {
	if len(s)-i < 3 {
		return i
	}
	for _, b := range []byte(s[i : i+3]) {
		if b < '0' || b > '9' {
			return i
		}
	}
	return i + 3
}

// splitTrailingSpace splits by \s+$: whitespace at the end of the piece. It
// looks from the end, since trying each position would take quadratic time on
// long runs of spaces.
func splitTrailingSpace(t *classTable, s string, i int) int {
	start := i
	for j := i; j < len(s); {
		c, n := t.at(s, j)
		j += n
		if c&cSpace == 0 {
			start = j
		}
	}
	if start == i || start == len(s) {
		return len(s)
	}
	return start
}

// notWordBLOOM, with whitespace, are the characters outside the words of BLOOM, Poro and
// Viking.
var notWordBLOOM = newRuneSet("(|.,!?…。，、।۔،)")

// matchBLOOM matches ` ?[^(\s|.,!?…。，、।۔،)]+`.
func matchBLOOM(t *classTable, s string, i int) int {
	j := i
	if s[i] == ' ' {
		j++
	}
	end := j
	for end < len(s) {
		r, n := decodeLax(s, end)
		if t.of(r)&cSpace != 0 || notWordBLOOM.has(r) {
			break
		}
		end += n
	}
	if end == j {
		return i
	}
	return end
}

// Letters of scripts with case, as DeepSeek LLM lists them.
var deepseekLetters = newRuneSet("A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃")

var (
	deepseekPunct = newRuneSet("!-/:-~！-／：-～‘-‟　-。")
	deepseekCJK   = newRuneSet("一-龥ࠀ-一가-\ud7ff")
	cjkKana       = newRuneSet("一-龥぀-ゟ゠-ヿ")
)

// asciiPunct are the ASCII characters of \p{P} and \p{S}.
const asciiPunct = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

// matchDeepSeek3 is the last pattern of DeepSeek V3:
//
//	[ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
//	| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func matchDeepSeek3(t *classTable, s string, i int) int {
	if strings.IndexByte(asciiPunct, s[i]) >= 0 {
		e := i + 1
		for e < len(s) && lowerASCII(s[e]) >= 'a' && lowerASCII(s[e]) <= 'z' {
			e++
		}
		if e > i+1 {
			return e
		}
	}
	c, n := t.at(s, i)
	if c&(cNewline|cLetter|cPunct|cSymbol) == 0 {
		if e := t.run(s, i+n, cLetter|cMark); e > i+n {
			return e
		}
	}
	if e := t.run(s, i, cLetter|cMark); e > i {
		return e
	}
	j := i
	if s[i] == ' ' {
		j++
	}
	if e := t.run(s, j, cPunct|cSymbol); e > j {
		return tailLines.end(s, e)
	}
	if c&cSpace == 0 {
		return i
	}
	if e := newlines(t, s, i); e > i {
		return e
	}
	return spaces(t, s, i)
}
