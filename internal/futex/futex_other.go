//go:build !linux

package futex

import "sync"

// rest is a lock and a condition, for systems without a call to sleep on a number.
type rest struct {
	mu   sync.Mutex
	cond *sync.Cond
}

func (w *Word) condition() *sync.Cond {
	if w.cond == nil {
		w.cond = sync.NewCond(&w.mu)
	}
	return w.cond
}

// sleep sleeps until the number is not value.
func (w *Word) sleep(value uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.n.Load() == value {
		w.condition().Wait()
	}
}

func (w *Word) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.condition().Broadcast()
}
