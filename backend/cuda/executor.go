package cuda

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
	"unsafe"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
)

// executor runs one program on one device, in a context of its own. Everything
// below c is used inside c.Do only.
type executor struct {
	c       *cuda.Context
	program *graph.Program
	opts    backend.Options
	lib     *library
	stream  cuda.Stream

	weights    map[string]*weight
	vectors    map[string]cuda.Ptr // float32
	multiplied map[string]bool     // matrices of products, not only of embeddings
	kvSize     int                 // bytes of an element of the cache
	layerAt    []int64             // bytes that a position takes in the layers before

	plain []operation // one for each operation of the program
	few   []operation // fused, for steps of few tokens; nil if nothing could be
	many  []operation // fused, for other steps

	buffers []cuda.Ptr // by slot
	widths  []int      // of buffers, by slot: float32 numbers a token
	scratch scratch
	wrong   []*graph.Misplace // the operations with positions of their own

	input    []byte // pinned, for the rows that a program begins with; nil for others
	step     stepData
	direct   directMemory
	prepared map[stepSize]*prepared
	plans    backend.Plans[stepShape]

	watch     *watch // of loading
	allocated int64
	dead      error // of the device; every later call returns it
}

func newExecutor(c *cuda.Context, p *graph.Program, o backend.Options) (*executor, error) {
	lib, err := newLibrary(c)
	if err != nil {
		return nil, err
	}
	e := &executor{
		c: c, program: p, opts: o, lib: lib, watch: &watch{},
		weights: map[string]*weight{}, vectors: map[string]cuda.Ptr{}, multiplied: map[string]bool{},
		prepared: map[stepSize]*prepared{},
	}
	e.plans = backend.NewPlans(e.kernelsOf)
	e.kvSize = o.KV.BlockBytes()
	at := int64(0)
	for _, l := range p.Caches {
		e.layerAt = append(e.layerAt, at)
		at += 2 * int64(l.Heads*l.HeadDim*e.kvSize)
	}
	e.layerAt = append(e.layerAt, at)
	return e, nil
}

// kvPosition is the number of bytes that one position takes in all layers.
func (e *executor) kvPosition() int64 { return e.layerAt[len(e.program.Caches)] }

// load compiles the program, makes sure that there is memory for it, uploads the
// weights and, meanwhile, has the driver compile the kernels.
func (e *executor) load(w graph.Weights) error {
	start := time.Now()
	if err := e.compile(w); err != nil {
		return err
	}
	if err := e.checkMemory(w); err != nil {
		return err
	}
	var err error
	if e.stream, err = e.c.NewStream(); err != nil {
		return err
	}
	if err := e.describeWeights(w); err != nil {
		return err
	}
	if err := e.allocWorkspace(); err != nil {
		return err
	}
	listing := time.Now()
	kernels, err := e.kernels()
	if err != nil {
		return err
	}
	begun := time.Now()
	wait := e.lib.start(kernels, e.watch.step)
	err = e.loadWeights(w)
	uploaded := time.Since(begun)
	// A kernel that the driver refuses is found here, not in the middle.
	compiled, refused := wait()
	if err := cmp.Or(refused, err); err != nil {
		return err
	}
	if _, err = e.prepare(stepSize{tokens: 1, rows: 1, tiles: 1}); err != nil {
		return err
	}
	slog.Debug("cuda: loaded", "memory", bytesText(e.allocated), "upload", uploaded, "kernels", len(kernels), "compile", compiled, "list", begun.Sub(listing), "all", time.Since(start))
	return nil
}

// kernels lists those that steps of any size run; unusual sizes may need one more,
// which is then loaded in the middle.
func (e *executor) kernels() ([]string, error) {
	e.lib.listed = map[string]bool{"dequant_scales": true}
	defer func() { e.lib.listed = nil }()
	most := e.opts.MaxBatch
	// Sequences that decode together, a prompt, and all rows of one.
	sizes := []stepSize{{most, 1, most}, {most, 1, (most + tileTokens - 1) / tileTokens}}
	for n := 1; n <= most; n *= 2 {
		sizes = append(sizes, stepSize{n, n, (n + tileTokens - 1) / tileTokens})
	}
	for _, s := range sizes {
		if _, err := e.segments(s); err != nil {
			return nil, err
		}
	}
	return slices.Collect(maps.Keys(e.lib.listed)), nil
}

// allocWorkspace allocates what steps need besides weights.
func (e *executor) allocWorkspace() error {
	e.buffers = make([]cuda.Ptr, len(e.widths))
	for i, w := range e.widths {
		p, err := e.alloc(int64(e.opts.MaxBatch) * int64(w) * 4)
		if err != nil {
			return fmt.Errorf("workspace: %w", err)
		}
		e.buffers[i] = p
	}
	if err := e.allocInput(); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	if err := e.scratch.alloc(e); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	return e.step.alloc(e)
}

func sizeOf[T any](v []T) int64 {
	var t T
	return int64(len(v)) * int64(unsafe.Sizeof(t))
}

// alloc allocates device memory that lives as long as the executor.
func (e *executor) alloc(n int64) (cuda.Ptr, error) {
	if err := e.watch.step(); err != nil {
		return 0, err
	}
	p, err := e.c.Alloc(max(n, 1))
	if cuda.IsCode(err, cuda.OutOfMemory) {
		free, total, _ := e.c.Memory()
		return 0, fmt.Errorf("%w: %s needed beside %s, %s free of %s", err, bytesText(n), bytesText(e.allocated), bytesText(free), bytesText(total))
	}
	if err == nil {
		e.allocated += n
	}
	return p, err
}

// fail marks the executor dead: after an error of the device nothing in its
// context can be trusted or even called.
func (e *executor) fail(err error) error {
	if e.dead == nil {
		e.dead = fmt.Errorf("%w: %s: %w", backend.ErrLost, e.c.Device.Name, err)
	}
	return e.dead
}

// Close destroys the context with all that is in it. It does not wait for a device
// that hangs.
func (e *executor) Close() error {
	if m := e.direct.registered; m != nil && e.dead == nil {
		// The context's end does it too; this is for drivers that think otherwise.
		_ = e.c.Try(50*time.Millisecond, func() error { return e.c.Unregister(m) })
	}
	return e.c.Close()
}
