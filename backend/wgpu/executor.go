//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"errors"
	"fmt"
	"sync"

	"github.com/apr-engine/apr/backend"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// executor runs one compiled program.
type executor struct {
	gpu     *gpu
	program *graph.Program
	opts    backend.Options
	weights map[string]*weight
	vectors map[string]*driver.Buffer // biases, norms: float32
	owned   []*driver.Buffer          // everything else, and what weights and vectors are parts of
	// arena has room for more weights after arenaUsed bytes.
	arena     *driver.Buffer
	arenaUsed uint64
	// scratches are buffers by size whose contents do not outlive two kernels.
	scratches map[int]*driver.Buffer
	groups    []*driver.Group

	nodes []node
	spans []spanKernel // those bound to a sequence's cache

	rows      int // tokens in a piece at most
	logitRows int // wanted rows in a piece at most
	step      *driver.Buffer
	decoded   *driver.Upload // what step is to hold for decoded tokens, whose commands copy it
	input     *driver.Buffer // the rows that a program begins with; nil for tokens
	logits    *driver.Buffer // (logitRows, Vocab)
	staging   *driver.Buffer // the same, readable here
	trace     *tracer        // nil without Options.Trace

	host  [][4]uint32 // what is written to step
	plans backend.Plans[shape]
	// stretches is among how many workgroups attention divides the keys of a head.
	stretches int
	window    int        // of the layer with the shortest attention window; 0 if none has one
	busy      sync.Mutex // held by a step
	dead      error      // why no step runs any more
	ahead     ahead      // commands of the step to come
	work      map[*driver.Pipeline]work
	profile   *profile // nil while no step is timed
}

// maxPositions is the reach of the tables of rotary angles.
const maxPositions = 1 << 20

// logitBytes bounds the memory of a piece's logits.
const logitBytes = 64 << 20

// Load uploads the weights and compiles the program's kernels.
func (d *device) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	if o.MaxBatch <= 0 {
		o.MaxBatch = backend.DefaultMaxBatch
	}
	if err := check(p, w, o); err != nil {
		return nil, err
	}
	g, err := d.open()
	if err != nil {
		return nil, err
	}
	e := &executor{
		gpu: g, program: p, opts: o,
		weights: map[string]*weight{}, vectors: map[string]*driver.Buffer{},
		scratches: map[int]*driver.Buffer{},
		work:      map[*driver.Pipeline]work{},
	}
	e.plans = backend.NewPlans(e.kernelsOf)
	err = e.build(w)
	// Also after an error: what is being compiled belongs to this executor.
	if failed := g.settle(); err == nil {
		err = failed
	}
	if err == nil {
		err = g.Wait() // for the uploads, whose memory is short now if ever
	}
	if err != nil {
		e.release()
		return nil, err
	}
	return e, nil
}

// check refuses what no device can do.
func check(p *graph.Program, w graph.Weights, o backend.Options) error {
	switch o.KV {
	case tensor.F16:
		for i, c := range p.Caches {
			if c.HeadDim%2 != 0 {
				return fmt.Errorf("%w: KV cache of type F16 with heads of %d elements (layer %d)", backend.ErrUnsupported, c.HeadDim, i)
			}
		}
	case tensor.F32:
	default:
		return fmt.Errorf("%w: KV cache of type %s (want F16 or F32)", backend.ErrUnsupported, o.KV)
	}
	for _, op := range p.Ops {
		for _, name := range op.Weights() {
			t, ok := w.Tensor(name)
			if !ok {
				return fmt.Errorf("%w: tensor %s is missing", graph.ErrInvalid, name)
			}
			if _, ok := quant.Lookup(t.Type); !ok {
				return fmt.Errorf("%w: tensor %v", backend.ErrUnsupported, t)
			}
		}
	}
	return nil
}

// build allocates the buffers that do not depend on operations and compiles the
// program.
func (e *executor) build(w graph.Weights) error {
	widest := e.program.Hidden
	for _, v := range e.program.Values {
		if v.Width != e.program.Vocab { // logits have a buffer of their own
			widest = max(widest, v.Width)
		}
	}
	limit := int(min(e.gpu.Binding, e.gpu.Buffer))
	e.rows = min(e.opts.MaxBatch, limit/(4*widest))
	e.logitRows = min(e.opts.MaxBatch, max(1, logitBytes/(4*e.program.Vocab)), limit/(4*e.program.Vocab))
	if e.rows < 1 || e.logitRows < 1 {
		return fmt.Errorf("%w: one token's values (%d and %d numbers) are more than the device's binding limit of %d bytes", backend.ErrUnsupported, widest, e.program.Vocab, limit)
	}
	// So many workgroups a layer, or twice, keep a large device busy.
	const workgroups, fewest, most = 128, 8, 32
	e.stretches = most
	for _, l := range e.program.Caches {
		e.stretches = min(e.stretches, max(fewest, workgroups/l.Heads))
		if l.Window > 0 && (e.window == 0 || l.Window < e.window) {
			e.window = l.Window
		}
	}
	var err error
	if e.step, err = e.buffer(16*(1+e.rows), driver.Storage|driver.CopyDst); err != nil {
		return err
	}
	if e.decoded, err = e.gpu.NewUpload(16 * (1 + uint64(e.rows))); err != nil {
		return err
	}
	// Kernels for few rows write all of them whatever is wanted.
	size := 4 * max(e.logitRows, fewRows) * e.program.Vocab
	if e.logits, err = e.buffer(size, driver.Storage|driver.CopySrc); err != nil {
		return err
	}
	if e.staging, err = e.buffer((4*e.logitRows*e.program.Vocab+7)&^7, driver.MapRead|driver.CopyDst); err != nil {
		return err
	}
	if e.opts.Trace != nil {
		e.trace = &tracer{}
	}
	return e.compile(w)
}

// buffer allocates memory that lives as long as the executor.
func (e *executor) buffer(size int, usage driver.Usage) (*driver.Buffer, error) {
	b, err := e.gpu.NewBuffer(uint64(size+3)&^3, usage)
	if err == nil {
		e.owned = append(e.owned, b)
	}
	return b, err
}

// Close releases the device's memory. It does not wait for the device: if a step
// hangs, its end will do the rest.
func (e *executor) Close() error {
	e.whenIdle(func() {
		if e.dead == nil {
			e.dead = errClosed
		}
		e.release()
	})
	return nil
}

var errClosed = errors.New("the executor is closed")

// whenIdle runs f at once if no step runs, else after it. What a step uses must not
// be released under its feet: the library would reach for memory that is gone.
func (e *executor) whenIdle(f func()) {
	if e.busy.TryLock() {
		defer e.busy.Unlock()
		f()
		return
	}
	go func() {
		e.busy.Lock()
		defer e.busy.Unlock()
		f()
	}()
}

func (e *executor) release() {
	e.ahead.forget(nil)
	for _, g := range e.groups {
		g.Release()
	}
	for _, w := range e.weights {
		for _, p := range w.parts {
			p.buffer.Release()
		}
	}
	for _, b := range e.vectors {
		b.Release()
	}
	for _, b := range e.owned {
		b.Release()
	}
	e.decoded.Release()
	e.groups, e.weights, e.vectors, e.owned, e.decoded = nil, nil, nil, nil, nil
	e.gpu.Reclaim()
}
