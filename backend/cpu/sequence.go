package cpu

import (
	"fmt"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/tensor"
)

// sequence owns the key/value caches of one token sequence. Each layer's keys
// are laid out (head, position, head_dim), so that a head's keys are one
// stream; values likewise. Memory that no token has reached is never touched,
// so an unused context costs address space only.
type sequence struct {
	layers   []layerCache
	length   int
	capacity int
}

// layerCache holds one layer's keys and values in the type the executor was
// loaded with; the slices of the other types are nil.
type layerCache struct {
	graph.Cache
	k16, v16 []uint16
	k32, v32 []float32
	k8, v8   []byte // blocks of Q8_0
}

func newSequence(p *graph.Program, capacity int, kv tensor.DType) (*sequence, error) {
	if capacity <= 0 {
		return nil, fmt.Errorf("sequence capacity %d is not positive", capacity)
	}
	s := &sequence{capacity: capacity}
	for _, c := range p.Caches {
		l := layerCache{Cache: c}
		n := c.Heads * c.HeadDim * capacity
		switch kv {
		case tensor.F32:
			l.k32, l.v32 = make([]float32, n), make([]float32, n)
		case tensor.Q8_0:
			n = n / c.HeadDim * kernel.CacheRowBytes(c.HeadDim)
			l.k8, l.v8 = make([]byte, n), make([]byte, n)
		default:
			l.k16, l.v16 = make([]uint16, n), make([]uint16, n)
		}
		s.layers = append(s.layers, l)
	}
	return s, nil
}

func (s *sequence) Len() int      { return s.length }
func (s *sequence) Capacity() int { return s.capacity }
func (s *sequence) Close() error  { s.layers = nil; return nil }

func (s *sequence) Truncate(n int) error {
	if n < 0 || n > s.length {
		return fmt.Errorf("cannot truncate a sequence of %d tokens to %d", s.length, n)
	}
	s.length = n
	return nil
}
