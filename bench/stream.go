package bench

import (
	"sync/atomic"

	"github.com/apr-engine/apr/internal/mmapfile"
	"github.com/apr-engine/apr/kernel"
)

// streamBytes is well above any cache.
const streamBytes = 256 << 20

// stream reads memory of the process, in large pages if the system gives them, at the
// highest rate that so many threads can.
type stream struct {
	threads int
	memory  *mmapfile.Memory
	at      int // in each thread's part, where the next reading begins
}

func newStream(threads int) *stream {
	return &stream{threads: threads, memory: mmapfile.NewMemory(streamBytes)}
}

// large is the share of the memory that lies in large pages.
func (s *stream) large() float64 { return float64(s.memory.Large()) / float64(len(s.memory.Data)) }

func (s *stream) close() error { return s.memory.Close() }

// readSum keeps the reads from being dropped.
var readSum atomic.Uint64

// read reads so many bytes, at most all, going on where the reading before has ended, so
// that no cache holds them; it returns the bytes read a second.
func (s *stream) read(bytes float64) float64 {
	part := len(s.memory.Data) / s.threads
	n := min(int(bytes)/s.threads, part) &^ 4095 // whole small pages
	if n == 0 {
		n = part
	}
	if s.at+n > part {
		s.at = 0
	}
	at := s.at
	s.at += n
	took := inParallel(s.threads, func(i int) {
		from := i*part + at
		readSum.Store(kernel.ReadStream(s.memory.Data[from : from+n]))
	})
	return float64(n*s.threads) / took.Seconds()
}
