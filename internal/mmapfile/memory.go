package mmapfile

import "runtime"

// Memory is memory of this process with no file behind it.
type Memory struct {
	Data   []byte
	mapped []byte // what holds Data, to be unmapped; nil if that is the heap
}

// NewMemory returns size bytes, none of them still to be provided by the system when it
// is touched, in large pages where there are such and the system gives them.
func NewMemory(size int) *Memory {
	m := newMemory(size)
	for i := 0; i < len(m.Data); i += 4096 {
		m.Data[i] = 1 // pages that were never written share one page of zeros
	}
	return m
}

// Large is how many of the bytes lie in large pages; 0 where that is not known.
func (m *Memory) Large() int {
	n := min(m.large(), len(m.Data))
	runtime.KeepAlive(m)
	return n
}
