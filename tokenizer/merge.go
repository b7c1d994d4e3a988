package tokenizer

// Merging repeats one step until nothing merges: of all adjacent pairs that
// form a token, take the best (lowest rank, or highest score), the leftmost of
// equals, and replace it by that token.

// maxScan is the number of symbols up to which searching all pairs at each step
// beats keeping them in a heap.
const maxScan = 64

// mergeScan merges e.ids; e.merges[i] must hold the merge of ids i and i+1. In
// SentencePiece e.starts goes along.
func (e *encoder) mergeScan() {
	ids, merges := e.ids, e.merges
	for len(merges) > 0 {
		best, at := noMerge, -1
		for i, m := range merges {
			if m>>32 < best>>32 {
				best, at = m, i
			}
		}
		if at < 0 {
			break
		}
		ids[at] = best.id()
		copy(ids[at+1:], ids[at+2:])
		ids = ids[:len(ids)-1]
		copy(merges[at:], merges[at+1:])
		merges = merges[:len(merges)-1]
		if e.t.spm {
			copy(e.starts[at+1:], e.starts[at+2:])
			e.starts = e.starts[:len(e.starts)-1]
		}
		e.ids = ids
		if at > 0 {
			merges[at-1] = e.link(at - 1)
		}
		if at < len(merges) {
			merges[at] = e.link(at)
		}
	}
	e.ids = ids
}

// link returns the merge of e.ids[i] and its neighbour.
func (e *encoder) link(i int) merge {
	if e.t.spm {
		return e.t.findMerge(e.buf[e.starts[i]:e.starts[i+2]])
	}
	return e.t.bpe.pairs.find(e.ids[i], e.ids[i+1])
}

// symbol is a stretch of text that has become one token so far, in a list.
type symbol struct {
	start, end int32 // empty once merged into the symbol before
	prev, next int32 // -1 at the ends
	id         int32
}

// candidate is a possible merge of the symbol left with its neighbour.
type candidate struct {
	m    merge
	left int32
	size int32 // of the result; differs if either side has changed since
}

func (c candidate) before(d candidate) bool {
	if c.m>>32 != d.m>>32 {
		return c.m>>32 < d.m>>32
	}
	return c.left < d.left
}

// mergeHeap merges e.syms, whose start, end and id are set, in n log n steps.
func (e *encoder) mergeHeap() {
	syms := e.syms
	e.heap = e.heap[:0]
	for i := range syms {
		syms[i].prev, syms[i].next = int32(i)-1, int32(i)+1
	}
	syms[len(syms)-1].next = -1
	for i := range len(syms) - 1 {
		e.push(int32(i), int32(i)+1)
	}
	for len(e.heap) > 0 {
		c := e.pop()
		l := &syms[c.left]
		if l.start == l.end || l.next < 0 || syms[l.next].end-l.start != c.size {
			continue
		}
		r := &syms[l.next]
		l.end, l.id, l.next = r.end, c.m.id(), r.next
		r.start = r.end
		if l.next >= 0 {
			syms[l.next].prev = c.left
			e.push(c.left, l.next)
		}
		if l.prev >= 0 {
			e.push(l.prev, c.left)
		}
	}
}

// push adds the merge of two adjacent symbols to the heap, if there is one.
func (e *encoder) push(left, right int32) {
	l, r := &e.syms[left], &e.syms[right]
	var m merge
	if e.t.spm {
		m = e.t.findMerge(e.buf[l.start:r.end])
	} else {
		m = e.t.bpe.pairs.find(l.id, r.id)
	}
	if m == noMerge {
		return
	}
	c := candidate{m, left, r.end - l.start}
	h := append(e.heap, c)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !c.before(h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = c
	e.heap = h
}

// pop takes the best candidate off the heap.
func (e *encoder) pop() candidate {
	h := e.heap
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	e.heap = h
	i := 0
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1].before(h[down]) {
			down++
		}
		if !h[down].before(last) {
			break
		}
		h[i] = h[down]
		i = down
	}
	if len(h) > 0 {
		h[i] = last
	}
	return top
}
