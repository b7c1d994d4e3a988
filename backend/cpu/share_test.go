package cpu

import (
	"sync"
	"sync/atomic"
	"testing"
)

// Whatever the workers' order and speed, every row is handed out exactly once, in
// pieces that begin at multiples of the kernels' tiles.
func TestSharesCoverRowsOnce(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 7} {
		for _, rows := range []int{1, 31, 32, 33, 100, 256, 1536, 8961} {
			for _, idle := range []bool{false, true} { // the first worker does not come at all
				s := make(shares, workers)
				for range 3 {
					s.reset(rows)
					seen := make([]atomic.Int32, rows)
					var wg sync.WaitGroup
					for w := range workers {
						if idle && w == 0 && workers > 1 {
							continue
						}
						wg.Go(func() {
							s.each(w, rows, func(r0, r1 int) {
								if r0%rowAlign != 0 || r0 >= r1 {
									t.Errorf("rows %d to %d", r0, r1)
								}
								for r := r0; r < r1; r++ {
									seen[r].Add(1)
								}
							})
						})
					}
					wg.Wait()
					for r := range seen {
						if n := seen[r].Load(); n != 1 {
							t.Fatalf("%d workers, %d rows: row %d was handed out %d times", workers, rows, r, n)
						}
					}
				}
			}
		}
	}
}

// A worker by itself reads its part in the order of memory.
func TestSharesInOrder(t *testing.T) {
	const rows = 8960
	s := make(shares, 2)
	s.reset(rows)
	for w := range s {
		at, end := w*rows/2, (w+1)*rows/2
		for at < end {
			from, to, ok := s[w].take(true)
			if !ok || from*rowAlign != at {
				t.Fatalf("worker %d takes units %d to %d (%v), want row %d", w, from, to, ok, at)
			}
			at = to * rowAlign
		}
	}
}
