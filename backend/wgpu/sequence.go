//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"errors"
	"fmt"

	"github.com/apr-engine/apr/backend"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/tensor"
)

// sequence owns the key/value caches of one token sequence, on the device. Each
// layer's keys are laid out (position, head, head_dim), values likewise.
type sequence struct {
	e        *executor
	info     *driver.Buffer   // first row, rows, capacity of the piece at hand
	placed   [4]uint32        // what info holds
	caches   []*driver.Buffer // keys and values of each layer
	memory   *driver.Buffer   // what caches are parts of; nil if each has memory of its own
	groups   []*driver.Group  // by executor.spans
	length   int
	capacity int
}

// NewSequence allocates caches for capacity tokens.
func (e *executor) NewSequence(capacity int) (backend.Sequence, error) {
	if e.dead != nil {
		return nil, e.dead
	}
	if capacity <= 0 || capacity >= maxPositions {
		return nil, fmt.Errorf("sequence capacity %d, want 1 to %d", capacity, maxPositions-1)
	}
	s := &sequence{e: e, capacity: capacity}
	if err := s.allocate(); err != nil {
		s.Close()
		return nil, fmt.Errorf("sequence of %d tokens: %w", capacity, err)
	}
	return s, nil
}

func (s *sequence) allocate() error {
	var err error
	if s.info, err = s.e.gpu.NewBuffer(16, driver.Storage|driver.CopyDst); err != nil {
		return err
	}
	element := 4
	if s.e.opts.KV == tensor.F16 {
		element = 2
	}
	var sizes []uint64
	total := uint64(0)
	for layer, c := range s.e.program.Caches {
		size := uint64(c.Heads) * uint64(c.HeadDim) * uint64(s.capacity) * uint64(element)
		if limit := min(s.e.gpu.Binding, s.e.gpu.Buffer); size > limit {
			return fmt.Errorf("%w: the cache of layer %d needs %d bytes, the device's binding limit is %d", backend.ErrUnsupported, layer, size, limit)
		}
		for range 2 {
			sizes = append(sizes, (size+3)&^3)
			total += (size + driver.PartAlignment - 1) / driver.PartAlignment * driver.PartAlignment
		}
	}
	if err := s.allocateCaches(sizes, total); err != nil {
		return err
	}
	for _, k := range s.e.spans {
		g, err := s.e.gpu.NewGroup(k.pipeline, k.bindings(s)...)
		if err != nil {
			return err
		}
		s.groups = append(s.groups, g)
	}
	return nil
}

// commonBytes is the most that all caches of a sequence have as one buffer: with one, a step's
// submission has less to look at, and what is larger is easier to find room for in pieces.
const commonBytes = 1 << 30

// allocateCaches makes a buffer for each size, or parts of a common one of total bytes.
func (s *sequence) allocateCaches(sizes []uint64, total uint64) error {
	var err error
	if total > 0 && total <= min(commonBytes, s.e.gpu.Buffer) {
		if s.memory, err = s.e.gpu.NewBuffer(total, driver.Storage); err != nil {
			return err
		}
	}
	at := uint64(0)
	for _, size := range sizes {
		if s.memory != nil {
			s.caches = append(s.caches, s.memory.Part(at, size))
			at += (size + driver.PartAlignment - 1) / driver.PartAlignment * driver.PartAlignment
			continue
		}
		b, err := s.e.gpu.NewBuffer(size, driver.Storage)
		if err != nil {
			return err
		}
		s.caches = append(s.caches, b)
	}
	return nil
}

func (s *sequence) keys(layer int) *driver.Buffer   { return s.caches[2*layer] }
func (s *sequence) values(layer int) *driver.Buffer { return s.caches[2*layer+1] }

func (s *sequence) Len() int      { return s.length }
func (s *sequence) Capacity() int { return s.capacity }

// Close releases the caches.
func (s *sequence) Close() error {
	if s.e != nil {
		s.e.whenIdle(s.release)
	}
	return nil
}

func (s *sequence) release() {
	if s.e == nil {
		return // closed twice
	}
	s.e.ahead.forget(s)
	for _, g := range s.groups {
		g.Release()
	}
	for _, b := range append(s.caches, s.memory, s.info) {
		b.Release()
	}
	s.e.gpu.Reclaim()
	s.groups, s.caches, s.memory, s.info, s.e = nil, nil, nil, nil, nil
}

func (s *sequence) Truncate(n int) error {
	if n < 0 || n > s.length {
		return fmt.Errorf("cannot truncate a sequence of %d tokens to %d", s.length, n)
	}
	s.length = n
	return nil
}

var errSequence = errors.New("the sequence is closed or not this executor's")
