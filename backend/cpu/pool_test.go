package cpu

import (
	"strings"
	"sync/atomic"
	"testing"
)

// Every worker runs every job, and none passes a barrier before all have come.
func TestPoolBarrier(t *testing.T) {
	for _, n := range []int{1, 2, 5} {
		p := newPool(n)
		var before atomic.Int64
		for job := range 200 {
			before.Store(0)
			err := p.run(func(int) {
				before.Add(1)
				p.barrier.wait()
				if got := before.Load(); got != int64(n) {
					t.Errorf("%d workers, job %d: %d had come when one passed", n, job, got)
				}
				p.barrier.wait()
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		p.close()
	}
}

// A panic in one worker is an error of the job and does not hang the others,
// who wait for it at a barrier.
func TestPoolPanic(t *testing.T) {
	for _, culprit := range []int{0, 2} {
		p := newPool(3)
		err := p.run(func(w int) {
			if w == culprit {
				panic("broken kernel")
			}
			p.barrier.wait()
		})
		if err == nil || !strings.Contains(err.Error(), "broken kernel") {
			t.Errorf("worker %d panicked: error %v", culprit, err)
		}
		p.close()
	}
}

// Workers that are not active take no part in a job and hold nobody up, whatever the
// job before had.
func TestPoolActive(t *testing.T) {
	p := newPool(5)
	defer p.close()
	for job := range 200 {
		p.active = 1 + job*3%5
		var took [5]atomic.Int64
		err := p.run(func(w int) {
			took[w].Add(1)
			p.barrier.wait()
		})
		if err != nil {
			t.Fatal(err)
		}
		for w := range took {
			if got := took[w].Load() == 1; got != (w < p.active) {
				t.Fatalf("job %d of %d workers: worker %d took part: %v", job, p.active, w, got)
			}
		}
	}
}

// A barrier costs what lines take from one core to another.
func BenchmarkBarrier(b *testing.B) {
	p := newPool(2)
	defer p.close()
	for b.Loop() {
		_ = p.run(func(int) {
			for range 1000 {
				p.barrier.wait()
			}
		})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/barrier")
}
