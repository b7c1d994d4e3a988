package tokenizer

// A matcher returns the end of the match of one pattern that starts at s[i:],
// or i if there is none. s is one piece of text: its end is the end of input to
// look-ahead. It is called with i < len(s).
type matcher func(t *classTable, s string, i int) int

// A splitter returns the end of the segment that starts at s[i:]: a match, or
// the text before the next match. It returns more than i.
type splitter func(t *classTable, s string, i int) int

// isolate turns a matcher into a splitter, as regex-split with the behaviour
// "isolated" does: matches and the gaps between them are all segments. ASCII
// characters outside first cannot start a match, which makes gaps cheap.
func isolate(first class, m matcher) splitter {
	return func(t *classTable, s string, i int) int {
		start := i
		for {
			for i < len(s) && s[i] < 0x80 && t.ascii[s[i]]&first == 0 {
				i++
			}
			if i == len(s) {
				return i
			}
			if e := m(t, s, i); e > i {
				if i > start {
					return i
				}
				return e
			}
			_, n := t.at(s, i)
			i += n
		}
	}
}

// Masks for isolate: matches may start with any character, or with no ASCII
// character.
const (
	anyStart  = ^class(0)
	wideStart = class(0)
)

// contraction returns the length of an English clitic ('s 't 're 've 'm 'll 'd)
// at s[i:], or 0. With fold it ignores case as Unicode simple folding does, by
// which U+017F, the long s, equals s.
func contraction(s string, i int, fold bool) int {
	if len(s)-i < 2 || s[i] != '\'' {
		return 0
	}
	a := s[i+1]
	if fold {
		if a == 0xc5 && len(s)-i >= 3 && s[i+2] == 0xbf {
			return 3
		}
		a = lowerASCII(a)
	}
	switch a {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v', 'l':
		if len(s)-i < 3 {
			return 0
		}
		b := s[i+2]
		if fold {
			b = lowerASCII(b)
		}
		if a == 'l' && b == 'l' || a != 'l' && b == 'e' {
			return 3
		}
	}
	return 0
}

func lowerASCII(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		b += 'a' - 'A'
	}
	return b
}

// spaces matches \s+(?!\S)|\s+ at whitespace: all of it at the end of the
// input, otherwise all but the last, which may belong to the next word.
func spaces(t *classTable, s string, i int) int {
	last, end := i, i
	for end < len(s) {
		c, n := t.at(s, end)
		if c&cSpace == 0 {
			break
		}
		last = end
		end += n
	}
	if end < len(s) && last > i {
		return last
	}
	return end
}

// newlines matches \s*[\r\n]+ (and \s*[\r\n], whose match is the same): up to
// the last line break of the whitespace at i. It returns i without one.
func newlines(t *classTable, s string, i int) int {
	end := i
	for j := i; j < len(s); {
		c, n := t.at(s, j)
		if c&cSpace == 0 {
			break
		}
		j += n
		if c&cNewline != 0 {
			end = j
		}
	}
	return end
}

// matchGPT2 is GPT-2's pattern:
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func matchGPT2(t *classTable, s string, i int) int {
	if n := contraction(s, i, false); n > 0 {
		return i + n
	}
	j := i
	if s[i] == ' ' && i+1 < len(s) {
		j++
	}
	switch c, n := t.at(s, j); {
	case c&cLetter != 0:
		return t.run(s, j+n, cLetter)
	case c&cNumber != 0:
		return t.run(s, j+n, cNumber)
	case c&cSpace == 0:
		return t.runNot(s, j+n, cSpace|cLetter|cNumber)
	}
	return spaces(t, s, i)
}

// tail is what may follow punctuation in the patterns of the Llama 3 family.
type tail int

const (
	tailLines    tail = iota // [\r\n]*
	tailLinesDir             // [\r\n/]*
	tailOne                  // [\r\n/]?
	tailNone
)

func (k tail) end(s string, i int) int {
	for k != tailNone && i < len(s) {
		b := s[i]
		if b != '\r' && b != '\n' && (b != '/' || k == tailLines) {
			break
		}
		i++
		if k == tailOne {
			break
		}
	}
	return i
}

// A pattern of the Llama 3 family has this shape:
//
//	(?i:'s|'t|'re|'ve|'m|'ll|'d)
//	|[^\r\n\p{L}\p{N}]?LETTERS+
//	|\p{N}{1,DIGITS}
//	| ?[^\s LETTERS \p{N}]+TAIL
//	|\s*[\r\n]+|\s+(?!\S)|\s+
type llama3 struct {
	letters class // cLetter, or with cMark
	digits  int
	tail    tail
	spaces  matcher // the last two alternatives
}

func (p llama3) match(t *classTable, s string, i int) int {
	c, n := t.at(s, i)
	if c&p.letters != 0 {
		return t.run(s, i+n, p.letters)
	}
	if k := contraction(s, i, true); k > 0 {
		return i + k
	}
	if c&cNumber != 0 {
		return numbers(t, s, i, p.digits)
	}
	if c&cNewline == 0 && i+n < len(s) {
		if c2, n2 := t.at(s, i+n); c2&p.letters != 0 {
			return t.run(s, i+n+n2, p.letters)
		}
	}
	return p.rest(t, s, i)
}

// rest matches the alternatives after the numbers.
func (p llama3) rest(t *classTable, s string, i int) int {
	other := cSpace | p.letters | cNumber
	j := i
	if s[i] == ' ' && i+1 < len(s) {
		j++
	}
	if c, n := t.at(s, j); c&other == 0 {
		return p.tail.end(s, t.runNot(s, j+n, other))
	}
	if e := newlines(t, s, i); e > i {
		return e
	}
	return p.spaces(t, s, i)
}

// numbers matches \p{N}{1,limit}.
func numbers(t *classTable, s string, i, limit int) int {
	for k := 0; k < limit && i < len(s); k++ {
		c, n := t.at(s, i)
		if c&cNumber == 0 {
			break
		}
		i += n
	}
	return i
}

// spacesPow2 is Jais 2's whitespace: instead of \s+(?!\S) it has one
// alternative \s{n}(?!\S) for each n = 512, 256, … 4, then \s{1,2}(?!\S)|\s{1}.
func spacesPow2(t *classTable, s string, i int) int {
	// ends[k] is where k whitespace characters end.
	var ends [513]int
	k := 0
	ends[0] = i
	more := false // whitespace follows ends[k]
	for j := i; j < len(s); {
		c, n := t.at(s, j)
		if c&cSpace == 0 {
			break
		}
		if k == 512 {
			more = true
			break
		}
		j += n
		k++
		ends[k] = j
	}
	// n characters satisfy (?!\S) if whitespace or the end of input follows.
	free := func(n int) bool { return n < k || more || n == k && ends[k] == len(s) }
	for _, n := range [...]int{512, 256, 128, 64, 32, 16, 8, 4, 2, 1} {
		if n <= k && free(n) {
			return ends[n]
		}
	}
	return ends[min(k, 1)]
}
