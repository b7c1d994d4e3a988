package tokenizer

import (
	"fmt"
	"strings"
)

// bpeModel is the vocabulary of byte-level BPE in the form that merging needs:
// ids, not texts.
type bpeModel struct {
	byteID       [256]int32
	pairs        *pairTable
	ignoreMerges bool
	size         int32 // of the vocabulary
	// Merges may go through texts that are no tokens. They get ids from size
	// up, and these are the tokens written for them: the vocabulary's entries
	// for the single bytes of their text, as in llama.cpp, if any.
	spelled [][]int32
}

func (t *Tokenizer) initBPE(s *Spec) error {
	rule, err := findPre(s.Pre)
	if err != nil {
		return err
	}
	if len(s.Merges) > 1<<26 {
		return fmt.Errorf("%w: %d merges", ErrFormat, len(s.Merges))
	}
	t.rule = rule
	m := &bpeModel{size: int32(len(t.texts)), ignoreMerges: rule.ignoreMerges}
	t.bpe = m
	extra := map[string]int32{}
	for b := range m.byteID {
		m.byteID[b] = m.idOf(t, extra, byteToText[b])
	}

	// Looking up the texts takes most of the time of opening a tokenizer, and
	// its halves are independent.
	parts := make([]mergeIDs, len(s.Merges))
	half := len(parts) / 2
	done := make(chan struct{})
	go func() {
		t.resolve(parts[half:], s.Merges[half:])
		close(done)
	}()
	t.resolve(parts[:half], s.Merges[:half])
	<-done

	m.pairs = newPairTable(len(parts))
	for rank, p := range parts {
		if !p.ok {
			continue
		}
		if p.left == None || p.right == None || p.whole == None {
			left, right := splitMerge(s.Merges[rank])
			p.left, p.right = m.idOf(t, extra, left), m.idOf(t, extra, right)
			p.whole = m.idOf(t, extra, left+right)
		}
		m.pairs.add(p.left, p.right, merge(rank)<<32|merge(p.whole))
	}
	return nil
}

// mergeIDs is a merge as ids, None where a text is no token.
type mergeIDs struct {
	left, right, whole int32
	ok                 bool
}

// splitMerge cuts "left right" at the first space that is not its first byte.
func splitMerge(text string) (left, right string) {
	if text == "" {
		return "", ""
	}
	k := strings.IndexByte(text[1:], ' ') + 1
	if k == 0 {
		return "", ""
	}
	return text[:k], text[k+1:]
}

// resolve looks up merges. Vocabularies usually list merged tokens in the order
// of the merges, so the token after the last one is tried before the table.
func (t *Tokenizer) resolve(dst []mergeIDs, merges []string) {
	next := int32(0)
	for i, text := range merges {
		left, right := splitMerge(text)
		if left == "" || right == "" {
			continue // llama.cpp keeps such a merge, but it never applies
		}
		l, _ := t.table.find(left)
		r, _ := t.table.find(right)
		if int(next) >= len(t.texts) || !isConcat(t.texts[next], left, right) {
			next, _ = t.table.find(left + right)
		}
		dst[i] = mergeIDs{l, r, next, true}
		next++
	}
}

// idOf returns the token with this text, or an id beyond the vocabulary.
func (m *bpeModel) idOf(t *Tokenizer, extra map[string]int32, text string) int32 {
	if id, ok := t.table.find(text); ok {
		return id
	}
	return m.spell(t, extra, text)
}

func isConcat(s, left, right string) bool {
	return len(s) == len(left)+len(right) && s[:len(left)] == left && s[len(left):] == right
}

// spell gives a text outside the vocabulary an id beyond it.
func (m *bpeModel) spell(t *Tokenizer, extra map[string]int32, text string) int32 {
	if id, ok := extra[text]; ok {
		return id
	}
	id := m.size + int32(len(m.spelled))
	extra[text] = id
	var ids []int32
	for i := range len(text) {
		if b, ok := t.table.find(text[i : i+1]); ok {
			ids = append(ids, b)
		}
	}
	m.spelled = append(m.spelled, ids)
	return id
}

// emit appends a token, or the tokens of a text that is none.
func (m *bpeModel) emit(dst []int32, id int32) []int32 {
	if id < m.size {
		return append(dst, id)
	}
	return append(dst, m.spelled[id-m.size]...)
}

// mergeWord appends the tokens of one pre-token.
func (e *encoder) mergeWord(dst []int32, word string) []int32 {
	m := e.t.bpe
	if m.ignoreMerges {
		e.buf = appendByteLevel(e.buf[:0], word)
		if id, ok := e.t.table.findBytes(e.buf); ok {
			return append(dst, id)
		}
	}
	if len(word) > maxScan {
		e.syms = e.syms[:0]
		for i := range len(word) {
			e.syms = append(e.syms, symbol{start: int32(i), end: int32(i) + 1, id: m.byteID[word[i]]})
		}
		e.mergeHeap()
		for i := int32(0); i >= 0; i = e.syms[i].next {
			dst = m.emit(dst, e.syms[i].id)
		}
		return dst
	}
	e.ids, e.merges = e.ids[:0], e.merges[:0]
	for i := range len(word) {
		e.ids = append(e.ids, m.byteID[word[i]])
		if i > 0 {
			e.merges = append(e.merges, m.pairs.find(e.ids[i-1], e.ids[i]))
		}
	}
	e.mergeScan()
	for _, id := range e.ids {
		dst = m.emit(dst, id)
	}
	return dst
}
