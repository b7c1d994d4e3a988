package engine

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/tensor"
)

// Options choose and adjust a backend.
type Options struct {
	// Backend is a backend's name, or "auto" or empty for the first of the chain.
	// A named backend is used or refused, never replaced.
	Backend string
	// Device names a device: "cuda:0", "1" or a part of its name; empty for the
	// first that is no software. It restricts "auto" to GPU backends, and like a
	// named backend it is used or refused, never replaced.
	Device string
	// GPULayers is how many of the model's last layers a GPU gets, with the output
	// matrix; the CPU runs the others. 0, and any number from that of the model's
	// layers on, is all of them. A run without a GPU sets NoGPU.
	GPULayers int
	// NoGPU keeps every GPU backend out of the chain before anything is opened.
	NoGPU bool
	// Threads is the number of CPU workers; 0 means one for each CPU.
	Threads int
	// KV is the cache's element type, KVDefault, KVF16, KVF32 or KVQ8; backends that
	// lack the last are passed over.
	KV KVType
	// MaxBatch is the number of prompt tokens in one step; 0 for the default.
	MaxBatch int
	// Context is how many tokens the sessions will hold together, if that is known: a
	// GPU whose memory has no room for their cache is refused before anything is loaded.
	Context int
	// Expect is the prompt that the first session will get, if it is known: while
	// weights are uploaded to a GPU the reference computes it.
	Expect []int32
	// Gate adjusts the parity gate.
	Gate GateOptions
}

// KVType is the element type of the key/value cache.
type KVType string

const (
	// KVDefault is float32 for the reference executors and half precision for
	// those that serve.
	KVDefault KVType = ""
	KVF16     KVType = "f16"
	KVF32     KVType = "f32"
	KVQ8      KVType = "q8_0"
)

// reference names the executors that others are compared with.
var reference = map[string]bool{"oracle": true, referenceBackend: true}

// chain is the order in which "auto" tries backends; those that this build has
// not are left out.
var (
	gpuChain = []string{"cuda", "wgpu"}
	cpuChain = []string{"cpu", referenceBackend}
)

// referenceBackend is what every other executor is compared with.
const referenceBackend = "cpu-exact"

// Engine is a model on a backend. It is used by one goroutine at a time.
type Engine struct {
	Model     *Model
	requested string
	options   Options
	chain     []string // still to be tried
	decisions []Decision

	cand      loaded // the one loaded
	certified parity.Certified
	unsaid    *parity.Verdict // a pass that nobody has been told of
	gate      *gate
	maxBatch  int
	beyond    bool          // the loaded one has gone where nothing was compared
	rejected  time.Duration // spent on backends that were rejected
	validate  time.Duration // spent on comparing
	aside     time.Duration // spent on judging and changing backends: no part of an answer
	now       func() time.Time
	start     StartTimes // of the loaded one
}

// loaded is a backend with the model on it.
type loaded struct {
	name   string
	device backend.Device
	exec   backend.Executor
	part   string // "14 of 28 layers" where the CPU runs the others

	release func() // the model's weights, after closing
}

// source describes the candidate to the gate.
func (c loaded) source() parity.Source {
	return parity.Source{
		Backend: c.name, Device: c.device.Name(), Identity: c.device.Identity(), Part: c.part,
		Software: backend.Describe(c.device).Software,
		Open:     func() (backend.Executor, error) { return c.exec, nil },
	}
}

// api is the graphics interface that a device is driven through, if it says so.
func (c loaded) api() string { return backend.Describe(c.device).API }

func (c loaded) close() error {
	return closeWithin(c.name, func() error {
		defer c.release()
		return errors.Join(c.exec.Close(), c.device.Close())
	})
}

// closeWithin does not wait for an executor that hangs.
func closeWithin(name string, closing func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- fmt.Errorf("%s: panic while closing: %v", name, v)
			}
		}()
		done <- closing()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(closeLimit):
		return fmt.Errorf("%s does not close", name)
	}
}

const closeLimit = 2 * time.Second

// Open loads the model on the first backend of the chain that can run it. It
// may not serve yet: the first use compares it with the reference on the tokens
// at hand, and goes on with the next of the chain if it is wrong.
func Open(m *Model, o Options) (*Engine, error) {
	if o.GPULayers < 0 {
		return nil, fmt.Errorf("%w: %d layers on the GPU", ErrInput, o.GPULayers)
	}
	if o.Threads < 0 || o.Threads > 1024 {
		return nil, fmt.Errorf("%w: threads is %d, want 1 to 1024 (0 for one a CPU)", ErrInput, o.Threads)
	}
	e := &Engine{Model: m, requested: o.Backend, options: o, maxBatch: o.MaxBatch, now: time.Now}
	if e.requested == "" {
		e.requested = "auto"
	}
	if e.maxBatch == 0 {
		e.maxBatch = backend.DefaultMaxBatch
	}
	e.chain = []string{e.requested}
	if e.requested == "auto" {
		e.chain = chainFor(o.NoGPU)
		if o.Device != "" {
			e.chain = slices.DeleteFunc(e.chain, func(n string) bool { return !slices.Contains(gpuChain, n) })
		}
	}
	e.gate = newGate(m, o, e.maxBatch)
	if err := e.loadNext(); err != nil {
		// The reference may be running ahead on weights that the caller unmaps next.
		return nil, errors.Join(err, e.gate.close())
	}
	return e, nil
}

// chainFor lists the backends of "auto".
func chainFor(noGPU bool) []string {
	names := cpuChain
	if !noGPU {
		names = slices.Concat(gpuChain, cpuChain)
	}
	have := backend.Names()
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !slices.Contains(have, n) })
}

// loadNext loads the first backend of the rest of the chain that can run the
// model.
func (e *Engine) loadNext() error {
	var first error
	var absent []string
	for len(e.chain) > 0 {
		name := e.chain[0]
		e.chain = e.chain[1:]
		start := e.now()
		c, err := e.load(name)
		if err == nil {
			e.cand = c
			return nil
		}
		if first == nil {
			first = err
		}
		if errors.Is(err, errNoDevice) {
			// A machine without a device is no news; one whose device fails is.
			absent = append(absent, name+": "+absence(err))
			e.decide(Decision{Backend: name, Reason: absence(err), absent: true})
			continue
		}
		if e.options.Gate.Fault != nil {
			return err // a fault that cannot be injected must not look like a rejection
		}
		e.rejected += e.now().Sub(start)
		d := Decision{Backend: name, Reason: cause(err, name)}
		if e.options.Device != "" {
			e.chain = nil // what was asked for by name is not replaced
		}
		if len(e.chain) > 0 {
			d.Line = rejectedLine(name, d.Reason)
		}
		e.decide(d)
		if e.options.Device != "" {
			return err
		}
	}
	switch {
	case e.options.Device != "":
		return fmt.Errorf("%w: no GPU that is called %q (%s)", ErrBackend, e.options.Device, strings.Join(absent, "; "))
	case first == nil:
		first = fmt.Errorf("%w: no backend is left", ErrBackend)
	}
	return first
}

// cause is an error of load without what a decision says already.
func cause(err error, name string) string {
	if _, text, ok := strings.Cut(err.Error(), ": "+name+": "); ok {
		return text
	}
	return err.Error()
}

// errNoDevice marks a backend that finds nothing to drive.
var errNoDevice = backend.ErrNoDevice

func (e *Engine) load(name string) (loaded, error) {
	b, err := backend.Find(name)
	if err != nil {
		return loaded{}, fmt.Errorf("%w: %w", ErrInput, err)
	}
	e.start = StartTimes{}
	found := e.gate.runAhead(name)
	start := time.Now()
	device, err := e.options.find(b)
	e.start.Find = time.Since(start)
	if err != nil {
		found(nil)
		return loaded{}, fmt.Errorf("%w: %s: %w", ErrBackend, name, err)
	}
	if device, err = e.gate.place(name, device); err != nil {
		found(nil)
		return loaded{}, fmt.Errorf("%w: %s: %w", ErrLoad, name, err)
	}
	c := loaded{name: name, device: device, part: e.gate.part(name), release: e.Model.hold()}
	found(&c)
	start = time.Now()
	c.exec, err = safeLoad(device, e.Model, backendOptions(name, e.options, e.maxBatch))
	e.start.Load = time.Since(start)
	if err != nil {
		device.Close()
		c.release()
		kind := ErrLoad
		if e.requested == name && slices.Contains(gpuChain, name) {
			kind = ErrBackend // the file is sound, the device that was asked for cannot run it
		}
		return loaded{}, fmt.Errorf("%w: %s: %s: %w", kind, e.Model.Path, name, e.Model.adviseLayers(err))
	}
	return c, nil
}

// safeLoad turns a panic of a backend into an error.
func safeLoad(d backend.Device, m *Model, o backend.Options) (exec backend.Executor, err error) {
	defer func() {
		if v := recover(); v != nil {
			exec, err = nil, fmt.Errorf("panic while loading: %v", v)
		}
	}()
	return d.Load(m.Program, m.File, o)
}

func backendOptions(name string, o Options, maxBatch int) backend.Options {
	opts := backend.Options{Threads: o.Threads, KV: tensor.F16, MaxBatch: maxBatch, Context: o.Context}
	if opts.Threads == 0 {
		opts.Threads = runtime.NumCPU()
	}
	switch {
	case o.KV == KVF32 || o.KV == KVDefault && reference[name]:
		opts.KV = tensor.F32
	case o.KV == KVQ8:
		opts.KV = tensor.Q8_0
	}
	return opts
}

// decide records a decision and tells whoever wants to know.
func (e *Engine) decide(d Decision) {
	e.decisions = append(e.decisions, d)
	if e.options.Gate.Notify != nil {
		e.options.Gate.Notify(d)
	}
}

// Selection says which backend was asked for and which one serves. Before the
// first use that is the one that will be judged next.
func (e *Engine) Selection() Selection {
	s := Selection{Requested: e.requested, Ran: e.cand.name, Decisions: slices.Clone(e.decisions)}
	s.GPULayers, s.Layers = e.gate.layersOn(e.cand.name), e.Model.Program.Layers()
	if s.Decisions == nil {
		s.Decisions = []Decision{}
	}
	if n := len(e.decisions); n > 0 && e.decisions[n-1].Accepted {
		// Something else serves than what was tried first. A backend that this
		// machine has no device for was not tried.
		s.FellBack = slices.ContainsFunc(e.decisions, func(d Decision) bool { return !d.Accepted && d.Line != "" })
	}
	switch e.certified.How() {
	case parity.ByProbe, parity.ByCertificate, parity.ByReference:
		s.Verified = e.certified.Allows(e.cand.exec) == nil && !e.beyond
	}
	if n := e.certified.Context(); n < math.MaxInt {
		s.VerifiedContext = n
	}
	return s
}

// GateTimes is how long comparing took, and how long was lost on backends that
// were rejected.
func (e *Engine) GateTimes() (validate, rejected time.Duration) { return e.validate, e.rejected }

// KV is the element type of the key/value cache.
func (e *Engine) KV() tensor.DType { return backendOptions(e.cand.name, e.options, e.maxBatch).KV }

// DeviceLimits measures what the serving device can do at most; ok is false for
// a backend that does not measure itself.
func (e *Engine) DeviceLimits() (l backend.Limits, ok bool, err error) {
	m, ok := e.cand.exec.(backend.Meter)
	if !ok {
		return l, false, nil
	}
	if l, err = m.MeasureLimits(); err != nil {
		err = fmt.Errorf("%w: %s: limits of the device: %w", ErrInference, e.cand.name, err)
	}
	return l, true, err
}

// SetProfile begins or ends the timing of the serving backend's operations. It
// is an error if that backend cannot time them.
func (e *Engine) SetProfile(on bool) error {
	p, ok := e.cand.exec.(backend.Profiler)
	if !ok {
		return fmt.Errorf("%w: the operations of %s cannot be timed", ErrInput, e.cand.name)
	}
	p.SetProfile(on)
	return nil
}

// Profile is what was timed since SetProfile(true), by operation.
func (e *Engine) Profile() []backend.OperationTime {
	if p, ok := e.cand.exec.(backend.Profiler); ok {
		return p.Profile()
	}
	return nil
}

// Variants names the kernel variants in use.
func (e *Engine) Variants() []string { return e.cand.exec.Variants() }

// Close releases the executors; the model stays open.
func (e *Engine) Close() error {
	e.certified.Abandon()
	return errors.Join(e.cand.close(), e.gate.close())
}
