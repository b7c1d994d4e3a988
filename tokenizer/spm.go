package tokenizer

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// spaceMark is U+2581, which SentencePiece writes for a space.
const (
	spaceMark     = "▁"
	spaceMarkRune = '▁'
)

// spmModel is SentencePiece BPE: any two neighbours whose texts together are a
// token may merge, the token with the highest score first.
type spmModel struct {
	prio   []uint32 // for each token; smaller merges first
	byteID [256]int32
	// Pairs of characters that stand side by side inside some token. Nothing
	// merges across any other pair, so text can be cut there and the parts
	// merged, and remembered, on their own.
	ascii  [128][2]uint64 // for pairs of ASCII characters
	others *pairTable
}

func (t *Tokenizer) initSPM(s *Spec) error {
	if len(s.Scores) != 0 && len(s.Scores) < len(t.texts) {
		return fmt.Errorf("%w: %d scores for %d tokens", ErrFormat, len(s.Scores), len(t.texts))
	}
	m := &spmModel{prio: make([]uint32, len(t.texts)), others: newPairTable(len(t.texts))}
	t.sp = m
	for i := range m.prio {
		score := float32(0)
		if len(s.Scores) != 0 {
			score = s.Scores[i]
		}
		m.prio[i] = priority(score)
	}
	for b := range m.byteID {
		id, ok := t.table.find(fmt.Sprintf("<0x%02X>", b))
		if !ok {
			if id, ok = t.table.find(string([]byte{byte(b)})); !ok {
				id = t.unk
			}
		}
		m.byteID[b] = id
	}
	for _, text := range t.texts {
		if utf8.ValidString(text) { // others match no valid text
			m.addPairs(text)
		}
	}
	return nil
}

// priority maps scores to integers in the opposite order. The largest integer
// is kept free for "no merge"; NaN comes last.
func priority(score float32) uint32 {
	switch {
	case score != score:
		return math.MaxUint32 - 1
	case score == 0:
		score = 0 // -0 equals 0
	}
	b := math.Float32bits(score)
	if b>>31 != 0 {
		b = ^b
	} else {
		b |= 1 << 31
	}
	return min(^b, math.MaxUint32-1)
}

func (m *spmModel) addPairs(text string) {
	prev := rune(-1)
	for _, r := range text {
		switch {
		case prev < 0:
		case prev < 128 && r < 128:
			m.ascii[prev][r>>6] |= 1 << (r & 63)
		default:
			m.others.add(prev, r, 0)
		}
		prev = r
	}
}

// joins reports whether a merge may span a and b.
func (m *spmModel) joins(a, b rune) bool {
	if a < 128 && b < 128 {
		return m.ascii[a][b>>6]>>(b&63)&1 != 0
	}
	return m.others.find(a, b) != noMerge
}

// findMerge returns the merge that makes the token with this text.
func (t *Tokenizer) findMerge(text []byte) merge {
	id, ok := t.table.findBytes(text)
	if !ok {
		return noMerge
	}
	return merge(t.sp.prio[id])<<32 | merge(id)
}

// encodeSPM appends the tokens of text, which has no special tokens, with a
// space before it if asked.
func (e *encoder) encodeSPM(dst []int32, text string, space bool) []int32 {
	if !utf8.ValidString(text) {
		// A broken sequence swallows bytes of the next character in llama.cpp,
		// so cutting between characters would not be the same.
		return e.mergeSPM(dst, text, space)
	}
	m := e.t.sp
	start, prev := 0, rune(-1)
	if space {
		prev = spaceMarkRune
	}
	for i, r := range text {
		if r == ' ' {
			r = spaceMarkRune
		}
		if prev >= 0 && !m.joins(prev, r) {
			dst = e.encodePart(dst, text[start:i], space)
			start, space = i, false
		}
		prev = r
	}
	return e.encodePart(dst, text[start:], space)
}

// encodePart appends the tokens of a part that merges on its own.
func (e *encoder) encodePart(dst []int32, part string, space bool) []int32 {
	if space || len(part) > maxCached {
		return e.mergeSPM(dst, part, space)
	}
	h := e.cache.hash(part)
	if ids, ok := e.cache.get(h, part); ok {
		return append(dst, ids...)
	}
	start := len(dst)
	dst = e.mergeSPM(dst, part, false)
	e.cache.put(h, part, dst[start:])
	return dst
}

// mergeSPM appends the tokens of part.
func (e *encoder) mergeSPM(dst []int32, part string, space bool) []int32 {
	e.buf = e.buf[:0]
	if space {
		e.buf = append(e.buf, spaceMark...)
	}
	e.buf = appendEscaped(e.buf, part)
	e.syms = e.syms[:0]
	for i := 0; i < len(e.buf); {
		n := min(leadLen(e.buf[i]), len(e.buf)-i)
		id, ok := e.t.table.findBytes(e.buf[i : i+n])
		if !ok {
			id = None
		}
		e.syms = append(e.syms, symbol{start: int32(i), end: int32(i + n), id: id})
		i += n
	}
	if len(e.syms) <= maxScan {
		e.mergeSymbols()
	} else if len(e.syms) > 0 {
		e.mergeHeap()
	}
	if len(e.syms) == 0 {
		return dst
	}
	for i := int32(0); i >= 0; i = e.syms[i].next {
		dst = e.emitSPM(dst, &e.syms[i])
	}
	return dst
}

// mergeSymbols merges the few symbols in e.syms and links the rest in a list.
func (e *encoder) mergeSymbols() {
	e.ids, e.merges, e.starts = e.ids[:0], e.merges[:0], e.starts[:0]
	for i, s := range e.syms {
		e.ids = append(e.ids, s.id)
		e.starts = append(e.starts, s.start)
		if i > 0 {
			e.merges = append(e.merges, e.t.findMerge(e.buf[e.syms[i-1].start:s.end]))
		}
	}
	e.starts = append(e.starts, int32(len(e.buf)))
	e.mergeScan()
	e.syms = e.syms[:len(e.ids)]
	for i, id := range e.ids {
		e.syms[i] = symbol{start: e.starts[i], end: e.starts[i+1], next: int32(i) + 1, id: id}
	}
	if n := len(e.syms); n > 0 {
		e.syms[n-1].next = -1
	}
}

// emitSPM appends a symbol's token, or the tokens of its bytes if it is none.
func (e *encoder) emitSPM(dst []int32, s *symbol) []int32 {
	if s.id != None {
		return append(dst, s.id)
	}
	for _, b := range e.buf[s.start:s.end] {
		if id := e.t.sp.byteID[b]; id != None {
			dst = append(dst, id)
		}
	}
	return dst
}

// leadLen is the length of a character by its first byte; broken text gets the
// same treatment as in llama.cpp.
func leadLen(b byte) int {
	switch {
	case b < 0xc0:
		return 1
	case b < 0xe0:
		return 2
	case b < 0xf0:
		return 3
	}
	return 4
}

// appendEscaped appends text with spaces written as ▁.
func appendEscaped(dst []byte, text string) []byte {
	for {
		k := strings.IndexByte(text, ' ')
		if k < 0 {
			return append(dst, text...)
		}
		dst = append(dst, text[:k]...)
		dst = append(dst, spaceMark...)
		text = text[k+1:]
	}
}

// appendUnescaped appends the bytes of a SentencePiece token: ▁ is a space, and
// a byte token is its byte.
func appendUnescaped(dst []byte, text string, kind Kind) []byte {
	if kind == Byte {
		if len(text) == 6 && text[:3] == "<0x" && text[5] == '>' {
			hi, lo := hexDigit(text[3]), hexDigit(text[4])
			if hi >= 0 && lo >= 0 {
				return append(dst, byte(hi<<4|lo))
			}
		}
		return append(dst, text...)
	}
	for {
		k := strings.Index(text, spaceMark)
		if k < 0 {
			return append(dst, text...)
		}
		dst = append(dst, text[:k]...)
		dst = append(dst, ' ')
		text = text[k+len(spaceMark):]
	}
}

func hexDigit(b byte) int {
	switch {
	case '0' <= b && b <= '9':
		return int(b - '0')
	case 'A' <= b && b <= 'F':
		return int(b-'A') + 10
	case 'a' <= b && b <= 'f':
		return int(b-'a') + 10
	}
	return -1
}
