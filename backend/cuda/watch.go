package cuda

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/apr-engine/apr/backend"
)

// loadPatience is how long loading may go without a step forward (memory allocated, a
// piece of the weights sent, a module compiled) before the driver is taken to hang. It is
// far above the compiler's time for all kernels on one slow processor.
var loadPatience = 2 * time.Minute

// watch is what a load tells the one who waits for it.
type watch struct {
	steps     atomic.Int64
	abandoned atomic.Bool
}

// errAbandoned ends a load that nobody waits for any more: the weights' file may be
// closed by now.
var errAbandoned = errors.New("loading took too long and was given up")

// step notes a step forward; an error means that there should be no other.
func (w *watch) step() error {
	w.steps.Add(1)
	if w.abandoned.Load() {
		return errAbandoned
	}
	return nil
}

// loaded runs load on a goroutine of its own, so that a driver that hangs does not hang
// its caller. A panic is the caller's. What a load that was given up has made is closed
// should it end after all.
func (w *watch) loaded(load func() (*executor, error)) (*executor, error) {
	type result struct {
		e      *executor
		err    error
		panics any
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			r.panics = recover()
			done <- r
		}()
		r.e, r.err = load()
	}()
	seen := w.steps.Load()
	tick := time.NewTicker(loadPatience)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			if r.panics != nil {
				panic(r.panics)
			}
			return r.e, r.err
		case <-tick.C:
		}
		if now := w.steps.Load(); now != seen {
			seen = now
			continue
		}
		w.abandoned.Store(true)
		go func() {
			if r := <-done; r.e != nil {
				_ = r.e.Close()
			}
		}()
		return nil, fmt.Errorf("%w: no answer within %v while loading", backend.ErrLost, loadPatience)
	}
}
