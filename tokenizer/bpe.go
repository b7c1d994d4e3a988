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
	t.rule = rule
	m := &bpeModel{size: int32(len(t.texts)), ignoreMerges: rule.ignoreMerges}
	t.bpe = m
	extra := map[string]int32{}
	idOf := func(text string) int32 {
		if id, ok := t.table.find(text); ok {
			return id
		}
		return m.spell(t, extra, text)
	}
	for b := range m.byteID {
		m.byteID[b] = idOf(byteToText[b])
	}
	if len(s.Merges) > 1<<26 {
		return fmt.Errorf("%w: %d merges", ErrFormat, len(s.Merges))
	}
	m.pairs = newPairTable(len(s.Merges))
	next := int32(0)
	for rank, text := range s.Merges {
		if text == "" {
			continue
		}
		k := strings.IndexByte(text[1:], ' ') + 1
		if k == 0 {
			continue // llama.cpp, too, keeps a merge without a space as one of nothing
		}
		left, right := text[:k], text[k+1:]
		if left == "" || right == "" {
			continue
		}
		// Vocabularies usually list merged tokens in the order of the merges,
		// so the token after the last one is tried before the table.
		if int(next) >= len(t.texts) || !isConcat(t.texts[next], left, right) {
			next = idOf(left + right)
		}
		m.pairs.add(idOf(left), idOf(right), merge(rank)<<32|merge(next))
		next++
	}
	return nil
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
