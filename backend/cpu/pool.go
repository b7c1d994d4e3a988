package cpu

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/apr-engine/apr/internal/osyield"
	"github.com/apr-engine/apr/kernel"
)

// pool is a fixed set of workers that run one function together, worker 0 on
// the caller's goroutine. Between jobs the others spin briefly, because the
// next decode step usually follows at once, and then sleep.
type pool struct {
	n       int
	active  int // workers that take part in the next job, the first ones
	job     func(worker int)
	seq     atomic.Uint32 // number of jobs started, and one more when closed
	last    atomic.Uint64 // the last job's number and who takes part: see lastJob; written before seq
	pending atomic.Int32  // workers still in the current job
	closed  atomic.Bool
	crowded bool // more workers than Go runs at once
	failed  atomic.Pointer[workerPanic]

	mu       sync.Mutex
	wake     *sync.Cond
	sleeping int

	barrier barrier
}

// workerPanic is a panic in a worker, kept so that Step can return it.
type workerPanic struct {
	value any
	stack []byte
}

func (p *workerPanic) Error() string { return fmt.Sprintf("panic in a worker: %v", p.value) }

// spins before a waiting worker yields or sleeps: about 50 µs.
const spins = 1 << 11

func newPool(n int) *pool {
	p := &pool{n: n, active: n, crowded: n > runtime.GOMAXPROCS(0)}
	p.wake = sync.NewCond(&p.mu)
	p.barrier.pool = p
	for w := 1; w < n; w++ {
		go p.work(w)
	}
	return p
}

// run executes job once on every active worker and waits for all. A panic in any
// worker is returned as an error; the pool must not be used afterwards.
func (p *pool) run(job func(worker int)) error {
	p.job, p.barrier.n = job, int32(p.active)
	p.pending.Store(int32(p.active - 1))
	number, _ := p.lastJob()
	p.last.Store(uint64(number+1)<<activeBits | uint64(p.active))
	p.begin()
	p.guarded(0)
	for i := 0; p.pending.Load() > 0; i++ {
		p.relax(i)
	}
	if f := p.failed.Load(); f != nil {
		return f
	}
	return nil
}

func (p *pool) work(w int) {
	// A worker that migrates between threads loses its warm cache and delays
	// every barrier.
	runtime.LockOSThread()
	for done := uint32(0); ; {
		p.await(done)
		if p.closed.Load() {
			return
		}
		// Nobody waits for who takes no part, so that one may miss jobs, or see one
		// before it is counted in seq; who takes part sees each.
		number, active := p.lastJob()
		if number == done {
			continue
		}
		done = number
		if w < active {
			p.guarded(w)
			p.pending.Add(-1)
		}
	}
}

// activeBits is how many bits of pool.last hold the number of active workers. They are
// in one number with the job's, so that a worker that is late does not take a job for
// another.
const activeBits = 16

func (p *pool) lastJob() (number uint32, active int) {
	last := p.last.Load()
	return uint32(last >> activeBits), int(last & (1<<activeBits - 1))
}

// await returns when job number done has been followed by another.
func (p *pool) await(done uint32) {
	for range spins {
		if p.seq.Load() != done {
			return
		}
		kernel.Pause()
	}
	p.mu.Lock()
	p.sleeping++
	for p.seq.Load() == done {
		p.wake.Wait()
	}
	p.sleeping--
	p.mu.Unlock()
}

// begin counts a job, or the end, and wakes whoever sleeps.
func (p *pool) begin() {
	p.seq.Add(1)
	p.mu.Lock()
	if p.sleeping > 0 {
		p.wake.Broadcast()
	}
	p.mu.Unlock()
}

func (p *pool) guarded(w int) {
	defer func() {
		if v := recover(); v != nil {
			if _, abandoned := v.(abandon); !abandoned {
				p.failed.CompareAndSwap(nil, &workerPanic{v, debug.Stack()})
			}
		}
	}()
	p.job(w)
}

// close ends the workers.
func (p *pool) close() {
	p.closed.Store(true)
	p.begin()
}

// abandon unwinds a worker whose peer has panicked.
type abandon struct{}

// barrier makes all workers wait for each other.
type barrier struct {
	n       int32
	arrived atomic.Int32
	phase   atomic.Uint32
	pool    *pool
}

func (b *barrier) wait() { b.waitReading(nil) }

// waitReading reads meanwhile, as long as there is anything, what the worker will need.
func (b *barrier) waitReading(next []byte) {
	if b.n == 1 {
		return
	}
	phase := b.phase.Load()
	if b.arrived.Add(1) == b.n {
		b.arrived.Store(0)
		b.phase.Add(1)
		return
	}
	for b.phase.Load() == phase && len(next) > 0 {
		n := min(len(next), readTurn)
		kernel.ReadStream(next[:n])
		next = next[n:]
	}
	for i := 0; b.phase.Load() == phase; i++ {
		if b.pool.failed.Load() != nil {
			panic(abandon{})
		}
		b.pool.relax(i)
	}
}

// relax is one turn of a waiting loop: cheap at first, then it gives the
// processor to whoever needs it.
func (p *pool) relax(i int) {
	switch {
	case i < spins:
		kernel.Pause()
	case p.crowded:
		runtime.Gosched() // the worker we wait for may be a goroutine without a processor
	default:
		osyield.Yield() // or a thread that lost its processor to another process
	}
}

// readTurn is how many bytes are read before a waiting worker looks again: some 50 ns.
const readTurn = 2 << 10
