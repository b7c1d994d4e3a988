package bench

import (
	"sync"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/tensor"
)

// Limits are what the machine can do with a given number of threads.
type Limits struct {
	Bandwidth float64 // bytes read from memory of the process a second
	Large     float64 // the share of that memory that lay in large pages
	F32       float64 // float32 operations a second; a multiply-add is two
	I16       float64 // 16-bit integer operations a second, counted likewise
	// Device has the limits of the device that serves, if it is not the CPU.
	Device backend.Limits
}

// Reads is the bandwidth that limits decoding: the device's own, else the
// machine's.
func (l Limits) Reads() float64 {
	if l.Device.Bandwidth > 0 {
		return l.Device.Bandwidth
	}
	return l.Bandwidth
}

// Arithmetic is the limit that applies to a backend's matrix products, in
// operations a second; 0 if it is not known.
func (l Limits) Arithmetic(name string) float64 {
	switch name {
	case "cuda", "wgpu":
		return l.Device.Arithmetic
	case "cpu":
		return l.I16
	case "cpu-exact":
		return l.F32
	}
	return 0
}

// Cost is what one token asks of the machine.
type Cost struct {
	// Bytes of weights that decoding one token reads. The key/value cache comes on
	// top and grows with the context.
	Bytes int64
	// Operations of the matrix products of one prompt token. The output matrix is
	// left out, since it is needed for the last token only, and so is attention.
	Operations float64
	// CacheValues is how many numbers a token adds to the key/value cache.
	CacheValues int
}

// cacheBytes is what decoding reads of the cache for each token of the context. A
// sliding window, beyond which nothing is read, is not taken into account.
func (c Cost) cacheBytes(kv tensor.DType) float64 {
	return float64(c.CacheValues) * float64(kv.BlockBytes()) / float64(kv.BlockLen())
}

// Work adds up the weights of a model's program.
func Work(m *engine.Model) Cost {
	var c Cost
	for _, l := range m.Program.Caches {
		c.CacheValues += 2 * l.Heads * l.HeadDim
	}
	for _, op := range m.Program.Ops {
		for _, name := range op.Weights() {
			t, ok := m.File.Tensor(name)
			if !ok {
				continue // loading the model has checked that there is none
			}
			if _, ok := op.(*graph.Embed); ok {
				c.Bytes += int64(len(t.Row(0)))
				continue
			}
			c.Bytes += int64(len(t.Data))
			if _, ok := op.(*graph.MatMul); ok && len(t.Shape) > 1 {
				c.Operations += 2 * float64(t.Elements())
			}
		}
	}
	return c
}

// Measuring takes the best of several rounds: other work on the machine can
// only make a round slower.
const (
	rounds    = 5
	roundTime = 20 * time.Millisecond
)

// measure finds the machine's limits with the stream's threads in a fraction of a second.
func measure(s *stream) Limits {
	threads := s.threads
	l := Limits{Large: s.large()}
	for range rounds {
		l.Bandwidth = max(l.Bandwidth, s.read(streamBytes))
	}
	l.F32 = peak(threads, kernel.PeakF32Flops)
	l.I16 = peak(threads, func(n int) int { return int(kernel.PeakI16Ops(n)) })
	return l
}

// peak times an arithmetic kernel on all threads at once.
func peak(threads int, work func(iterations int) int) float64 {
	iterations := 1 << 10
	for { // find a number that takes long enough to time
		start := time.Now()
		work(iterations)
		if time.Since(start) >= roundTime || iterations > 1<<40 {
			break
		}
		iterations *= 2
	}
	best := 0.0
	for range rounds {
		operations := make([]int, threads)
		took := inParallel(threads, func(i int) { operations[i] = work(iterations) })
		sum := 0.0
		for _, n := range operations {
			sum += float64(n)
		}
		best = max(best, sum/took.Seconds())
	}
	return best
}

// inParallel runs work on n threads and returns how long all of them took.
func inParallel(n int, work func(i int)) time.Duration {
	var wg sync.WaitGroup
	start := time.Now()
	for i := range n {
		wg.Go(func() { work(i) })
	}
	wg.Wait()
	return time.Since(start)
}
