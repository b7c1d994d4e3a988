package tokenizer

import "unicode/utf8"

// A pattern of the GPT-4o family tells capitals from small letters:
//
//	PREFIX?UPPER*LOWER+CLITIC?|PREFIX?UPPER+LOWER*CLITIC?
//	|\p{N}{1,DIGITS}
//	| ?[^\s\p{L}\p{N}]+TAIL
//	|\s*[\r\n]+|\s+(?!\S)|\s+
//
// with PREFIX [^\r\n\p{L}\p{N}], UPPER [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], LOWER
// [\p{Ll}\p{Lm}\p{Lo}\p{M}] and CLITIC (?i:'s|'t|'re|'ve|'m|'ll|'d).
// llama.cpp approximates the two sets by ASCII; here they are as published, so
// Greek and Cyrillic words split where the model's own tokenizer splits them.
type cased struct {
	digits int
	tail   tail
	clitic bool
	han    bool // Kimi: [\p{Han}]+ comes first and other words exclude Han
}

func (p cased) match(t *classTable, s string, i int) int {
	if p.han {
		if e := t.run(s, i, cHan); e > i {
			return e
		}
	}
	c, n := t.at(s, i)
	if e := p.word(t, s, i, c, n); e > i {
		if p.clitic {
			e += contraction(s, e, true)
		}
		return e
	}
	if c&cNumber != 0 {
		return numbers(t, s, i, p.digits)
	}
	return llama3{letters: cLetter, tail: p.tail, spaces: spaces}.rest(t, s, i)
}

// word tries the two word alternatives, each with the prefix and without.
func (p cased) word(t *classTable, s string, i int, c class, n int) int {
	prefix := c&(cLetter|cNumber|cNewline) == 0
	for _, alt := range [...]func(*classTable, string, int) int{p.lowerWord, p.upperWord} {
		if prefix {
			if e := alt(t, s, i+n); e > i+n {
				return e
			}
		}
		if e := alt(t, s, i); e > i {
			return e
		}
	}
	return i
}

// lowerWord matches UPPER*LOWER+. When nothing follows the capitals, the match
// backs up to the last character that is in both sets.
func (p cased) lowerWord(t *classTable, s string, i int) int {
	u := p.runCase(t, s, i, cUpper)
	if e := p.runCase(t, s, u, cLower); e > u {
		return e
	}
	for u > i {
		_, n := utf8.DecodeLastRuneInString(s[i:u])
		if c, _ := t.at(s, u-n); c&(cCaseless|cMark) != 0 {
			return u
		}
		u -= n
	}
	return i
}

// upperWord matches UPPER+LOWER*.
func (p cased) upperWord(t *classTable, s string, i int) int {
	u := p.runCase(t, s, i, cUpper)
	if u == i {
		return i
	}
	return p.runCase(t, s, u, cLower)
}

// runCase returns the end of the run from i of UPPER or LOWER characters.
func (p cased) runCase(t *classTable, s string, i int, kind class) int {
	kind |= cCaseless | cMark
	for i < len(s) {
		c, n := t.at(s, i)
		if c&kind == 0 || p.han && c&cHan != 0 {
			break
		}
		i += n
	}
	return i
}
