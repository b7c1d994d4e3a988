package futex

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Every change wakes everybody, whether they sleep already or are about to.
func TestAllAreWoken(t *testing.T) {
	const workers, changes = 8, 400
	var w Word
	var seen [workers]atomic.Uint32
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() {
			runtime.LockOSThread()
			for n := uint32(0); n < changes; n++ {
				w.Wait(n)
				seen[i].Add(1)
			}
		})
	}
	for n := uint32(1); n <= changes; n++ {
		if n%20 == 0 {
			time.Sleep(2 * time.Millisecond) // all sleep now
		}
		w.Increment()
		for i := range seen {
			for deadline := time.Now().Add(time.Minute); seen[i].Load() < n; {
				if time.Now().After(deadline) {
					t.Fatalf("worker %d sleeps through change %d", i, n)
				}
				runtime.Gosched()
			}
		}
	}
	group.Wait()
	if s := w.sleepers.Load(); s != 0 || w.Load() != changes {
		t.Errorf("%d sleepers, number %d", s, w.Load())
	}
}

// Threads that sleep do not hold up the collector, which stops all goroutines.
func TestCollectorDoesNotWait(t *testing.T) {
	var w Word
	var group sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		group.Go(func() { w.Wait(0) })
	}
	time.Sleep(10 * time.Millisecond)
	done := make(chan bool)
	go func() { runtime.GC(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Error("the collector waits for sleeping threads")
	}
	w.Increment()
	group.Wait()
}
