package parity

import (
	"fmt"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
)

// Memory is a reference that remembers its answers, so that several candidates
// are compared with one computation. It is an executor like the one it wraps:
// a step whose logits are known for the same tokens from the first position on is
// answered at once, any other is computed. The reference gives the same bits
// however its tokens are divided into steps, so nothing depends on what was asked
// before. Like every executor it is used by one goroutine at a time.
type Memory struct {
	exec  backend.Executor
	vocab int
	// limit bounds the logits that are kept, in bytes; the texts that were used
	// longest ago are forgotten first.
	limit, bytes int
	texts        []*text // the one used last is last
	real         []*realSequence
	last         time.Duration // that the answer given last has cost when it was computed
	computed     int           // tokens computed, for tests and for people
}

// text is a run of tokens from position 0 on with what is known after each.
type text struct {
	tokens []int32
	rows   map[int][]float32 // by position
	each   []time.Duration   // that a position has cost
}

// realSequence is a sequence of the executor underneath.
type realSequence struct {
	seq    backend.Sequence
	tokens []int32
}

// realSequences is how many sequences are kept for steps that are not known: the
// next such step goes on from the one with most tokens in common.
const realSequences = 2

// Remember wraps a reference. Its logits are kept up to limit bytes.
func Remember(exec backend.Executor, vocab, limit int) *Memory {
	return &Memory{exec: exec, vocab: vocab, limit: limit}
}

// Computed is how many tokens have been computed so far.
func (m *Memory) Computed() int { return m.computed }

// Forget drops everything that is known.
func (m *Memory) Forget() {
	m.texts, m.bytes = nil, 0
	for _, r := range m.real {
		_ = r.seq.Close() // a cache, freed with the executor in any case
	}
	m.real = nil
}

// Variants names the kernels of the executor underneath.
func (m *Memory) Variants() []string { return m.exec.Variants() }

// Close closes the executor underneath.
func (m *Memory) Close() error {
	m.Forget()
	return m.exec.Close()
}

// cost is how long the answer given last took when it was computed, unless that
// was now.
func (m *Memory) cost() time.Duration { return m.last }

// Plan has no names: nothing depends on the reference's kernels.
func (m *Memory) Plan([]backend.Span) []string { return nil }

// NewSequence returns an empty sequence; the executor's own is opened when
// something has to be computed.
func (m *Memory) NewSequence(capacity int) (backend.Sequence, error) {
	if capacity < 1 {
		return nil, fmt.Errorf("sequence of %d tokens", capacity)
	}
	return &memorySequence{capacity: capacity}, nil
}

// memorySequence is nothing but the tokens that it would hold.
type memorySequence struct {
	tokens   []int32
	capacity int
}

func (s *memorySequence) Len() int      { return len(s.tokens) }
func (s *memorySequence) Capacity() int { return s.capacity }
func (s *memorySequence) Close() error  { return nil }

func (s *memorySequence) Truncate(n int) error {
	if n < 0 || n > len(s.tokens) {
		return fmt.Errorf("cannot keep %d of %d tokens", n, len(s.tokens))
	}
	s.tokens = s.tokens[:n:n]
	return nil
}

// Step answers the spans one by one.
func (m *Memory) Step(batch []backend.Span, l *backend.Logits) error {
	m.last = 0
	total := 0
	for _, s := range batch {
		total += s.Rows()
	}
	if l != nil {
		l.Resize(total, m.vocab)
	}
	row := 0
	for _, span := range batch {
		s, ok := span.Seq.(*memorySequence)
		if !ok {
			return fmt.Errorf("sequence of type %T is not this executor's", span.Seq)
		}
		if len(s.tokens)+len(span.Tokens) > s.capacity {
			return fmt.Errorf("%w: %d tokens held, %d more, room for %d", backend.ErrContextFull, len(s.tokens), len(span.Tokens), s.capacity)
		}
		all := slices.Concat(s.tokens, span.Tokens)
		t, first := m.known(all, len(s.tokens), span.Rows())
		if t == nil {
			var err error
			if t, err = m.compute(all, len(s.tokens), span.Want, s.capacity); err != nil {
				return err
			}
		} else {
			for _, d := range t.each[len(s.tokens):len(all)] {
				m.last += d
			}
		}
		for at := first; at < len(all); at++ {
			copy(l.Row(row), t.rows[at])
			row++
		}
		s.tokens = all
	}
	return nil
}

// knows reports whether all of a text's tokens have been computed.
func (m *Memory) knows(tokens []int32) bool {
	return slices.ContainsFunc(m.texts, func(t *text) bool {
		return len(t.tokens) >= len(tokens) && slices.Equal(t.tokens[:len(tokens)], tokens)
	})
}

// known finds a text that begins with all these tokens and whose last rows are
// known. It returns the position of the first of the rows too.
func (m *Memory) known(all []int32, held, rows int) (*text, int) {
	first := len(all) - rows
	for i, t := range m.texts {
		if len(t.tokens) < len(all) || !slices.Equal(t.tokens[:len(all)], all) {
			continue
		}
		missing := false
		for at := first; at < len(all); at++ {
			missing = missing || t.rows[at] == nil
		}
		if !missing {
			m.texts = append(slices.Delete(m.texts, i, i+1), t)
			return t, first
		}
	}
	return nil, first
}

// compute runs a step and keeps what it gives.
func (m *Memory) compute(all []int32, held int, want backend.Want, capacity int) (*text, error) {
	r, err := m.sequence(all[:held], len(all), capacity)
	if err != nil {
		return nil, err
	}
	var l backend.Logits
	start := time.Now()
	if err := m.exec.Step([]backend.Span{{Seq: r.seq, Tokens: all[held:], Want: want}}, &l); err != nil {
		return nil, err
	}
	each := time.Since(start) / time.Duration(len(all)-held)
	m.computed += len(all) - held
	r.tokens = slices.Clone(all)
	rows := backend.Span{Tokens: all[held:], Want: want}.Rows()
	if rows > 0 && (l.Vocab != m.vocab || len(l.Data) != rows*m.vocab) {
		return nil, fmt.Errorf("%d logits of width %d, want %d rows of %d", len(l.Data), l.Vocab, rows, m.vocab)
	}
	t := m.extendable(all, held)
	for len(t.each) < len(all) {
		t.each = append(t.each, 0)
	}
	for i := range all[held:] {
		t.each[held+i] = each
	}
	for i := range rows {
		at := len(all) - rows + i
		if t.rows[at] == nil {
			m.bytes += 4 * m.vocab
		}
		t.rows[at] = slices.Clone(l.Row(i))
	}
	m.evict(t)
	return t, nil
}

// extendable is the text that a step's rows belong to: one that agrees as far as
// both go, or a new one.
func (m *Memory) extendable(all []int32, held int) *text {
	for i := len(m.texts) - 1; i >= 0; i-- {
		t := m.texts[i]
		if n := min(len(t.tokens), len(all)); n >= held && slices.Equal(t.tokens[:n], all[:n]) {
			if len(t.tokens) < len(all) {
				t.tokens = slices.Clone(all)
			}
			m.texts = append(slices.Delete(m.texts, i, i+1), t)
			return t
		}
	}
	t := &text{tokens: slices.Clone(all), rows: map[int][]float32{}, each: make([]time.Duration, len(all))}
	m.texts = append(m.texts, t)
	return t
}

// evict forgets the texts that were used longest ago, but not the given one.
func (m *Memory) evict(keep *text) {
	for len(m.texts) > 1 && m.bytes > m.limit {
		if m.texts[0] == keep {
			return
		}
		m.bytes -= 4 * m.vocab * len(m.texts[0].rows)
		m.texts = slices.Delete(m.texts, 0, 1)
	}
}

// sequence is one of the executor's that holds exactly the tokens and has room
// for total: the one with most of them already, or a new one.
func (m *Memory) sequence(held []int32, total, capacity int) (*realSequence, error) {
	best, most := -1, -1
	for i, r := range m.real {
		if n := common(r.tokens, held); r.seq.Capacity() >= total && n > most {
			best, most = i, n
		}
	}
	// An empty match is no reason to give up another text's cache.
	if best < 0 || most == 0 && len(m.real) < realSequences {
		if len(m.real) >= realSequences {
			_ = m.real[0].seq.Close()
			m.real = slices.Delete(m.real, 0, 1)
		}
		seq, err := m.exec.NewSequence(max(capacity, total))
		if err != nil {
			return nil, err
		}
		m.real = append(m.real, &realSequence{seq: seq})
		best, most = len(m.real)-1, 0
	}
	r := m.real[best]
	m.real = append(slices.Delete(m.real, best, best+1), r)
	if err := r.seq.Truncate(most); err != nil {
		return nil, err
	}
	r.tokens = r.tokens[:most]
	for len(r.tokens) < len(held) {
		n := min(referenceBatch, len(held)-len(r.tokens))
		part := held[len(r.tokens) : len(r.tokens)+n]
		if err := m.exec.Step([]backend.Span{{Seq: r.seq, Tokens: part, Want: backend.None}}, nil); err != nil {
			return nil, err
		}
		m.computed += n
		r.tokens = append(r.tokens, part...)
	}
	return r, nil
}

// common is the length of the longest common prefix.
func common(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
