package cuda

import (
	"fmt"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
)

// kvSequence owns the key/value cache of one token sequence: for each layer the keys
// and then the values, each (head, position, head_dim) in F16 or F32.
type kvSequence struct {
	e        *executor
	data     cuda.Ptr // 0 when closed
	length   int
	capacity int
}

// NewSequence allocates the cache of capacity tokens.
func (e *executor) NewSequence(capacity int) (backend.Sequence, error) {
	if capacity <= 0 {
		return nil, fmt.Errorf("sequence capacity %d is not positive", capacity)
	}
	s := &kvSequence{e: e, capacity: capacity}
	err := e.c.Do(func() error {
		if e.dead != nil {
			return e.dead
		}
		n := int64(capacity) * e.kvPosition()
		var err error
		s.data, err = e.c.Alloc(max(n, 1))
		if cuda.IsCode(err, cuda.OutOfMemory) {
			free, total, _ := e.c.Memory()
			return fmt.Errorf("%w: the cache of %d tokens needs %s of GPU memory, free are %s of %s", err, capacity, bytesText(n), bytesText(free), bytesText(total))
		}
		if err != nil {
			return e.fail(err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *kvSequence) Len() int      { return s.length }
func (s *kvSequence) Capacity() int { return s.capacity }

func (s *kvSequence) Truncate(n int) error {
	if n < 0 || n > s.length {
		return fmt.Errorf("cannot truncate a sequence of %d tokens to %d", s.length, n)
	}
	s.length = n
	return nil
}

// sequencePatience is how long freeing a cache waits for a step that is under way.
const sequencePatience = 10 * time.Second

// Close frees the cache. After the executor has been closed or has failed there is
// nothing left to free; while it hangs, what there is goes with its context.
func (s *kvSequence) Close() error {
	return s.e.c.Try(sequencePatience, func() error {
		p := s.data
		s.data = 0
		if p == 0 || s.e.dead != nil {
			return nil
		}
		return s.e.c.Free(p)
	})
}
