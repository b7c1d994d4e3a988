// Package cpu runs programs on the processor with the kernels of package
// kernel. It registers two backends: "cpu-exact" multiplies float32
// activations by weights dequantised on the fly and is the reference of the
// parity gate; "cpu" quantises activations to 16 bits and multiplies integers.
package cpu

import (
	"fmt"
	"hash/fnv"
	"log/slog"
	"runtime"
	"sync"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// Names of the backends in the registry.
const (
	Name      = "cpu"
	ExactName = "cpu-exact"
)

func init() {
	backend.Register(cpu{Name, false})
	backend.Register(cpu{ExactName, true})
}

type cpu struct {
	name  string
	exact bool
}

func (c cpu) Name() string { return c.name }

func (c cpu) Probe() ([]backend.Device, error) { return []backend.Device{device(c)}, nil }

type device cpu

func (d device) Name() string { return runtime.GOARCH }

// Identity is the processor's architecture and the level of every kernel in use:
// a kernel that the self-test has replaced makes another device.
func (d device) Identity() string {
	selfTest()
	h := fnv.New64a()
	for _, v := range kernel.Variants() {
		fmt.Fprintf(h, "%s %s\n", v.Kernel, v.Level)
	}
	return fmt.Sprintf("%s %s kernels %016x", runtime.GOARCH, cpufeat.Best(), h.Sum64())
}

func (d device) Close() error { return nil }

// selfTest compares each vector kernel with plain Go, once a process and before
// the first use; one that is wrong on this machine is replaced, with a warning.
var selfTest = sync.OnceFunc(func() {
	for _, f := range kernel.SelfTest() {
		slog.Warn("kernel failed its self-test and runs in plain Go", "kernel", f.Kernel, "level", f.Level, "error", f.Err)
	}
})

// Load compiles the program for this processor. Weights stay where they are.
func (d device) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	selfTest()
	if o.Threads <= 0 {
		o.Threads = runtime.NumCPU()
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = backend.DefaultMaxBatch
	}
	switch o.KV {
	case tensor.F16, tensor.F32:
	case tensor.Q8_0:
		for i, c := range p.Caches {
			if c.HeadDim%tensor.Q8_0.BlockLen() != 0 {
				return nil, fmt.Errorf("%w: KV cache of type Q8_0 with heads of %d elements (layer %d)", backend.ErrUnsupported, c.HeadDim, i)
			}
		}
	default:
		return nil, fmt.Errorf("%w: KV cache of type %s (want F16, F32 or Q8_0)", backend.ErrUnsupported, o.KV)
	}
	for _, op := range p.Ops {
		for _, name := range op.Weights() {
			t, ok := w.Tensor(name)
			if !ok {
				return nil, fmt.Errorf("%w: tensor %s is missing", graph.ErrInvalid, name)
			}
			if _, ok := quant.Lookup(t.Type); !ok {
				return nil, fmt.Errorf("%w: tensor %v", backend.ErrUnsupported, t)
			}
		}
	}
	e := &executor{program: p, opts: o, exact: d.exact}
	if err := e.compile(w); err != nil {
		return nil, err
	}
	e.pool = newPool(o.Threads)
	e.plain, e.timed = e.execute, e.executeTimed
	e.scratch = make([]scratch, o.Threads)
	return e, nil
}

// executor runs one compiled program.
type executor struct {
	program *graph.Program
	opts    backend.Options
	exact   bool
	code    []instr
	buffers [][]float32  // by slot, (tokens, width); grown on demand
	packed  []kernel.I16 // by slot: activations quantised to 16 bits
	widths  []int        // of buffers, by slot
	packedW []int        // of packed, by slot
	ownW    []int        // widths of each worker's own buffers
	// alone and byHead are about the present step: see alone.go.
	alone, byHead bool
	ownHeads      int // key/value heads of each layer; 0 if attention cannot be shared out by them
	ropes         []ropeTable
	pool          *pool
	scratch       []scratch // by worker
	step          step
	parts         []kernel.AttentionParts // by head and unit of the layer at work
	profile       *profile                // nil unless operations are timed
	// plain and timed are execute and executeTimed; making a function value of a
	// method allocates.
	plain, timed func(worker int)
	plans        backend.Plans[stepShape]
	window       int // of the layer with the shortest attention window; 0 if none has one
}

// scratch is what one worker needs beside the shared buffers.
type scratch struct {
	i16  kernel.Workspace
	f32  kernel.WorkspaceF32
	attn kernel.AttentionWorkspace
	part kernel.I16 // a chunk of a value
	// floats and packed are this worker's values in a step that is alone.
	floats [][]float32
	packed []kernel.I16
	// starts holds the visible range's start of each token of an attention unit.
	starts []int
	_      [64]byte // keeps workers' headers on separate cache lines
}

// NewSequence allocates caches for capacity tokens.
func (e *executor) NewSequence(capacity int) (backend.Sequence, error) {
	s, err := newSequence(e.program, capacity, e.opts.KV)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// UseThreads has the steps from the next on leave processors to others; see
// backend.Sharing.
func (e *executor) UseThreads(n int) { e.pool.active = min(max(n, 1), e.pool.n) }

// Close stops the workers.
func (e *executor) Close() error { e.pool.close(); return nil }
