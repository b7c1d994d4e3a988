// Package futex lets threads sleep until a number in memory changes, and wakes all of
// them at once.
//
// Goroutines that wait for a sync.Cond are handed out by Go's scheduler, which wakes the
// threads to run them one after the other, two wake-ups for each goroutine that is
// locked to its thread: 4 ms for 15 workers on a virtual machine. The system wakes
// threads that sleep in it all together, in 0.1 ms.
package futex

import "sync/atomic"

// Word is a number to wait for. The zero Word is ready for use; it must not be copied.
type Word struct {
	n        atomic.Uint32
	sleepers atomic.Int32
	rest
}

// Load returns the number.
func (w *Word) Load() uint32 { return w.n.Load() }

// Increment adds 1 to the number and wakes all who wait.
func (w *Word) Increment() {
	w.n.Add(1)
	// Who begins to wait counts itself first and looks at the number again after that.
	if w.sleepers.Load() > 0 {
		w.wakeAll()
	}
}

// Wait returns when the number is not value any more.
func (w *Word) Wait(value uint32) {
	w.sleepers.Add(1)
	defer w.sleepers.Add(-1)
	for w.n.Load() == value {
		w.sleep(value)
	}
}
