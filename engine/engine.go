package engine

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/tensor"
)

// Options choose and adjust a backend.
type Options struct {
	// Backend is a backend's name, or "auto" or empty for the first of the chain.
	// A named backend is used or refused, never replaced.
	Backend string
	// NoGPU keeps every GPU backend out of the chain before anything is opened.
	NoGPU bool
	// Threads is the number of CPU workers; 0 means one for each CPU.
	Threads int
	// KV is the cache's element type, KVDefault, KVF16 or KVF32.
	KV KVType
	// MaxBatch is the number of prompt tokens in one step; 0 for the default.
	MaxBatch int
	// Trace receives intermediate values; see backend.Options.
	Trace func(name string, width int, rows []float32)
}

// KVType is the element type of the key/value cache.
type KVType string

const (
	// KVDefault is float32 for the reference executors and half precision for
	// those that serve.
	KVDefault KVType = ""
	KVF16     KVType = "f16"
	KVF32     KVType = "f32"
)

// reference names the executors that others are compared with.
var reference = map[string]bool{"oracle": true, "cpu-exact": true}

// chain is the order in which "auto" tries backends.
var chain = []string{"cpu"}

// Decision records which backend was asked for and which one runs.
type Decision struct {
	Requested string `json:"requested"`
	Ran       string `json:"ran"`
	FellBack  bool   `json:"fell_back"`
}

// Engine is a model on a backend. It is used by one goroutine at a time.
type Engine struct {
	Model    *Model
	Decision Decision
	// KV is the element type of the key/value cache, F16 or F32.
	KV       tensor.DType
	exec     backend.Executor
	device   backend.Device
	maxBatch int
}

// Open loads the model on the first backend of the chain that can run it.
func Open(m *Model, o Options) (*Engine, error) {
	requested := o.Backend
	if requested == "" {
		requested = "auto"
	}
	names := chain
	if requested != "auto" {
		names = []string{requested}
	}
	if o.Threads < 0 || o.Threads > 1024 {
		return nil, fmt.Errorf("%w: threads is %d, want 1 to 1024 (0 for one a CPU)", ErrInput, o.Threads)
	}
	var errs []error
	for _, name := range names {
		e, err := open(m, name, o)
		if err == nil {
			e.Decision = Decision{Requested: requested, Ran: name, FellBack: len(errs) > 0}
			return e, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func open(m *Model, name string, o Options) (*Engine, error) {
	b, err := backend.Find(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	devices, err := b.Probe()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBackend, name, err)
	}
	if len(devices) == 0 {
		return nil, fmt.Errorf("%w: %s: no device", ErrBackend, name)
	}
	opts := backend.Options{Threads: o.Threads, KV: tensor.F16, MaxBatch: o.MaxBatch}
	if opts.Threads == 0 {
		opts.Threads = runtime.NumCPU()
	}
	if o.KV == KVF32 || o.KV == KVDefault && reference[name] {
		opts.KV = tensor.F32
	}
	if opts.MaxBatch == 0 {
		opts.MaxBatch = backend.DefaultMaxBatch
	}
	if o.Trace != nil {
		opts.Trace = traceAdapter(o.Trace)
	}
	exec, err := devices[0].Load(m.Program, m.File, opts)
	if err != nil {
		devices[0].Close()
		return nil, fmt.Errorf("%w: %s: %s: %w", ErrLoad, m.Path, name, err)
	}
	return &Engine{Model: m, KV: opts.KV, exec: exec, device: devices[0], maxBatch: opts.MaxBatch}, nil
}

// Variants names the kernel variants in use.
func (e *Engine) Variants() []string { return e.exec.Variants() }

// Close releases the executor; the model stays open.
func (e *Engine) Close() error { return errors.Join(e.exec.Close(), e.device.Close()) }
