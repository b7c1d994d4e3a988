package kernel

import "sync"

// scratch is memory that a plain Go version expands its operands into. It is kept for the
// next call: decoding allocates nothing at any level.
type scratch struct{ x []float32 }

// scratchLen is a block of keys of heads of 256, the most that most models ask for: blocks
// fill up with the context, and memory that grew with them would be allocated again and again.
const scratchLen = attnBlock * 256

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// scratchF32 has n numbers, which may be anything. The caller frees it.
func scratchF32(n int) *scratch {
	s := scratchPool.Get().(*scratch)
	if cap(s.x) < n {
		s.x = make([]float32, max(n, scratchLen))
	}
	s.x = s.x[:n]
	return s
}

func (s *scratch) free() { scratchPool.Put(s) }
