//go:build !linux

package mmapfile

func newMemory(size int) *Memory { return &Memory{Data: make([]byte, size)} }

// Close gives the memory back; Data must not be used any more.
func (m *Memory) Close() error {
	m.Data = nil
	return nil
}

func (m *Memory) large() int { return 0 }
