package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/tensor"
)

// Verify says how much of a generation is compared with the reference.
type Verify string

// The ways to verify.
const (
	// VerifyProbe compares what each token rests on before it is shown: the prompt
	// before the first, single-token steps before the second, and a new kernel or a
	// longer context where it comes in; generations longer than ShadowAfter tokens are
	// followed from there on.
	VerifyProbe Verify = "probe"
	// VerifyShadow also follows every token in the background.
	VerifyShadow Verify = "shadow"
	// VerifyOff compares nothing; whatever runs is marked as unverified.
	VerifyOff Verify = "off"
)

// Wrap returns a device that is wrong on purpose, or the device itself if its
// backend is to stay sound.
type Wrap func(backendName string, d backend.Device) backend.Device

// GateOptions adjust the parity gate. The zero value gates with the standard
// policy and remembers nothing.
type GateOptions struct {
	// Policy is the standard one unless it has a name.
	Policy parity.Policy
	// Store remembers verdicts; nil for none.
	Store *parity.Store
	// Renew measures again in spite of a certificate.
	Renew bool
	// Verify is VerifyProbe unless set.
	Verify Verify
	// Override bypasses the gate; its text says who asked for that. Verify off does
	// the same.
	Override string
	// Fault injects faults and names them; with it, verdicts are neither looked up
	// nor remembered.
	Fault     Wrap
	FaultSpec string
	// Child is a command that calls SelfTest with the two further arguments it is
	// given, a backend and a device (which may be empty). Drivers that may kill the
	// process are tried with it first; without it they are not tried. ChildLimit is
	// how long it may take, 0 for a minute.
	Child      []string
	ChildLimit time.Duration
	// Notify is told each decision about a backend as it is made.
	Notify func(Decision)
	// Roomy lets a probe leave memory to the collector's usual pace: it need not stay
	// within what serving takes. A GPU's probe never need: that start takes more memory
	// for the driver alone.
	Roomy bool
}

func (o GateOptions) overrideReason() string {
	if o.Override != "" {
		return o.Override
	}
	return "--verify=off"
}

func (o GateOptions) override() bool { return o.Override != "" || o.Verify == VerifyOff }

// gate connects the parity gate with a model.
type gate struct {
	parity.Gate
	m        *Model
	options  Options
	maxBatch int
	ref      loaded            // loaded when it is first needed
	ahead    *parity.Ahead     // the reference, running before it is asked; nil if it does not
	ready    sync.Mutex        // guards prepare
	faults   map[string]string // injected, by backend
	program  func() string     // the program's hash
	release  func()            // the model's weights, after closing
}

func newGate(m *Model, o Options, maxBatch int) *gate {
	g := &gate{m: m, options: o, maxBatch: maxBatch, faults: map[string]string{}, release: m.hold()}
	g.program = sync.OnceValue(func() string { return parity.ProgramHash(m.Program) })
	g.Policy = o.Gate.Policy
	if g.Policy.Name == "" {
		g.Policy = parity.Standard()
	}
	g.Override, g.Renew = o.Gate.override(), o.Gate.Renew
	g.File = filepath.Base(m.Path)
	if o.Gate.Fault == nil {
		g.Store = o.Gate.Store
		if g.Store != nil {
			go g.program() // while the model is loaded
		}
	} else {
		g.Fault = func(name string) string { return g.faults[name] }
	}
	return g
}

// wrap applies the faults injected into the backend called at to its device, which
// is part of what runs as name.
func (g *gate) wrap(name, at string, d backend.Device) backend.Device {
	if g.options.Gate.Fault == nil {
		return d
	}
	wrapped := g.options.Gate.Fault(at, d)
	if reflect.TypeOf(wrapped) != reflect.TypeOf(d) { // devices need not be comparable
		g.faults[name] = cmp.Or(g.options.Gate.FaultSpec, "without a name")
	}
	return wrapped
}

// prepare fills in what costs time and is not needed for the reference itself.
func (g *gate) prepare() error {
	g.ready.Lock()
	defer g.ready.Unlock()
	if g.Gate.Reference.Open != nil {
		return nil
	}
	device, err := firstDevice(referenceBackend)
	if err != nil {
		return err
	}
	g.Gate.Reference = parity.Source{
		Backend: referenceBackend, Device: device.Name(), Identity: device.Identity(),
		Open: func() (backend.Executor, error) { return g.openReference(device) },
	}
	if g.Store != nil {
		if err := g.identify(); err != nil && g.Store.Warn != nil {
			g.Store.Warn(fmt.Sprintf("certificates are not used: %v", err))
		}
	}
	return nil
}

// openReference loads the reference, or takes the one that is running ahead.
func (g *gate) openReference(device backend.Device) (backend.Executor, error) {
	if g.ahead != nil && g.ahead.Executor() != nil {
		return g.ahead.Open()
	}
	if g.ref.exec == nil {
		exec, err := g.loadReference(device, g.threads())
		if err != nil {
			return nil, err
		}
		g.ref = loaded{name: referenceBackend, device: device, exec: exec}
	}
	return g.ref.exec, nil
}

func (g *gate) fault(name string) string {
	if g.Fault == nil {
		return ""
	}
	return g.Fault(name)
}

// firstDevice is the only device of the CPU's backends.
func firstDevice(name string) (backend.Device, error) {
	b, err := backend.Find(name)
	if err != nil {
		return nil, fmt.Errorf("the reference: %w", err)
	}
	devices, err := b.Probe()
	if err != nil {
		return nil, fmt.Errorf("the reference %s: %w", name, err)
	}
	if len(devices) == 0 {
		return nil, fmt.Errorf("the reference %s: %w", name, backend.ErrNoDevice)
	}
	return devices[0], nil
}

// identify finds out what is judged, for verdicts and certificates.
func (g *gate) identify() error {
	sum, _, err := g.Store.FileHash(g.m.File.Paths())
	g.Key.Model, g.Key.Program, g.Key.Build = sum, g.program(), parity.BuildID()
	return err
}

// loadReference loads the reference as the candidate's cache asks for it: one that rounds
// comes with one that does not.
func (g *gate) loadReference(device backend.Device, threads int) (backend.Executor, error) {
	o := g.referenceOptions(threads)
	exec, err := device.Load(g.m.Program, g.m.File, o)
	if err != nil || o.KV != tensor.Q8_0 {
		return exec, err
	}
	o.KV = tensor.F32
	plain, err := device.Load(g.m.Program, g.m.File, o)
	if err != nil {
		return nil, errors.Join(err, exec.Close())
	}
	return parity.Rounded(exec, plain), nil
}

func (g *gate) threads() int {
	if g.options.Threads > 0 {
		return g.options.Threads
	}
	return runtime.NumCPU()
}

// referenceOptions give the reference a float32 cache: rounding keys and values to half
// precision is part of what is judged. Q8_0 is a choice that costs precision, as that of the
// weights' type is: there the reference rounds too, so that what is judged is the computing.
// Its steps may be larger than those that serve: a probe checks several tokens at once.
func (g *gate) referenceOptions(threads int) backend.Options {
	kv := tensor.F32
	if g.options.KV == KVQ8 {
		kv = tensor.Q8_0
	}
	return backend.Options{Threads: threads, KV: kv, MaxBatch: max(g.maxBatch, backend.DefaultMaxBatch)}
}

// keyOptions are the options that change a backend's results. The number of
// threads is not one of them; the backends' conformance tests hold them to that.
func (g *gate) keyOptions(name string) string { return g.keyOptionsWith(name, g.options) }

func (g *gate) keyOptionsWith(name string, options Options) string {
	o := backendOptions(name, options, g.maxBatch)
	text := fmt.Sprintf("kv=%s batch=%d", o.KV, o.MaxBatch)
	if g.splits(name) {
		text += fmt.Sprintf(" gpu-layers=%d/%d", g.options.GPULayers, g.m.Program.Layers())
	}
	return text
}

// parityCase describes what is compared.
func (g *gate) parityCase(tokens []int32) parity.Case {
	c := g.caseOf(tokens)
	c.Hashes = parity.Hashes{Model: g.Key.Model, Program: g.Key.Program, Build: g.Key.Build}
	return c
}

// caseOf is parityCase before it is known what is compared.
func (g *gate) caseOf(tokens []int32) parity.Case {
	return parity.Case{Tokens: tokens, MaxBatch: g.maxBatch, Vocab: g.m.Program.Vocab, Context: g.m.Program.Context}
}

// certify judges a candidate on tokens; with promptFirst a GPU only on them so far,
// and complete does the rest.
func (g *gate) certify(ctx context.Context, c loaded, tokens []int32, promptFirst bool) (parity.Certified, parity.Verdict) {
	if g.Override {
		g.Gate.Reference.Backend = referenceBackend // nothing more of it is needed
	} else if err := g.prepare(); err != nil {
		return parity.Certified{}, parity.Verdict{Backend: c.name, Reason: err.Error()}
	}
	g.ready.Lock()
	g.Key.Options = g.keyOptions(c.name)
	g.ready.Unlock()
	pc := g.parityCase(tokens)
	pc.Roomy = g.memory(c)
	// The probe's sequence stays beside the session's: no matter as long as it is short.
	pc.PromptFirst = promptFirst && slices.Contains(gpuChain, c.name) && len(tokens) <= g.Policy.Probe.PromptPositions
	if g.rounds(c) {
		if v := g.unrounded(ctx, c, pc, false); !v.Passed() {
			return parity.Certified{}, v
		}
	}
	cert, v := g.Certify(ctx, c.source(), pc)
	if cert.Allows(c.exec) == nil && !cert.Pending() {
		g.forget()
	}
	return cert, v
}

// complete judges the rest of a candidate whose prompt alone has been judged.
func (g *gate) complete(ctx context.Context, cert parity.Certified, c loaded) parity.Verdict {
	g.memory(c)
	v := g.Complete(ctx, cert, c.source())
	if v.Passed() {
		g.forget()
	}
	return v
}

// forget frees what the reference has computed ahead: nothing will be compared on
// these tokens again.
func (g *gate) forget() {
	if g.ahead != nil {
		g.ahead.Forget()
	}
}

// tight counts the probes that run in this process; usual is what is set otherwise.
var tight struct {
	sync.Mutex
	probes, usual int
}

// tightMemory collects early while a probe runs, whose logits and caches are
// larger than what serving needs, and gives back what it took.
func tightMemory() (done func()) {
	const percent = 1
	tight.Lock()
	defer tight.Unlock()
	if tight.probes++; tight.probes == 1 {
		tight.usual = debug.SetGCPercent(percent)
	}
	return func() {
		tight.Lock()
		defer tight.Unlock()
		if tight.probes--; tight.probes == 0 {
			debug.SetGCPercent(tight.usual)
		}
		debug.FreeOSMemory()
	}
}

// memory has a candidate's probe stay within what serving takes, or not: it reports
// which.
func (g *gate) memory(c loaded) (roomy bool) {
	roomy = g.options.Gate.Roomy || slices.Contains(gpuChain, c.name)
	g.ready.Lock()
	defer g.ready.Unlock()
	g.Probing = nil
	if !roomy {
		g.Probing = tightMemory
	}
	return roomy
}

// extend judges a step in mid-generation; unhurried however long it takes.
func (g *gate) extend(ctx context.Context, cert parity.Certified, c loaded, s parity.Step, unhurried bool) parity.Verdict {
	pc := g.parityCase(nil)
	pc.Unhurried, pc.Roomy = unhurried, g.memory(c)
	return g.Extend(ctx, cert, c.source(), pc, s)
}

// extendTogether judges a step of several sequences.
func (g *gate) extendTogether(ctx context.Context, cert parity.Certified, c loaded, steps []parity.Step) parity.Verdict {
	pc := g.parityCase(nil)
	pc.Unhurried, pc.Roomy = true, g.memory(c)
	return g.ExtendTogether(ctx, cert, c.source(), pc, steps)
}

func (g *gate) close() error {
	defer g.release()
	var err error
	if g.ahead != nil {
		if exec := g.ahead.Executor(); exec != nil {
			g.ahead.Forget()
			err = exec.Close()
		}
	}
	if g.ref.exec == nil {
		return err
	}
	return errors.Join(err, g.ref.exec.Close(), g.ref.device.Close())
}
