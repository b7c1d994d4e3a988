package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/tensor"
)

// outcome is what became of a fault.
type outcome int

const (
	notApplicable outcome = iota
	rejected              // by the first comparison
	stopped               // in mid-generation, before the first wrong token left
	served                // wrong logits were used to the end
)

// mark is the outcome's sign in the tables.
func (o outcome) mark() string { return [...]string{"·", "✓", "s", "✗"}[o] }

// candidate is the backend that is made wrong: the one that serves.
var candidate = "cpu"

// batch is the tokens in a step, so that long prompts take several; with a large
// vocabulary more than are judged at once.
func (s subject) batch() int {
	if s.model.Program.Vocab > largeVocab {
		return 64
	}
	return 32
}

// scoring runs faults against policies on one model.
type scoring struct {
	subject
	ctx context.Context
	ref parity.Source
	// sound is the candidate's device, with the executors that are used again.
	sound   *keeper
	threads int    // of the reference
	device  string // for the engine; empty for its choice
	end     func()
	// right are the tokens of a long answer without a fault, once it is known.
	right []int32
}

// rememberedLogits bounds what is kept of the reference's logits for one model, in
// bytes: every fault is judged on the same prompts.
const rememberedLogits = 512 << 20

// newScoring loads the reference, with so many threads; 0 for one for each CPU. The
// candidate runs on the device of the given number, counted round those that are alike.
func newScoring(ctx context.Context, s subject, threads, number int) (*scoring, error) {
	d, err := device(engine.ReferenceBackend)
	if err != nil {
		return nil, err
	}
	exec, err := d.Load(s.model.Program, s.model.File, backend.Options{KV: tensor.F32, MaxBatch: backend.DefaultMaxBatch, Threads: threads})
	if err != nil {
		return nil, err
	}
	alike, err := alikeDevices(candidate)
	if err != nil {
		return nil, errors.Join(err, exec.Close())
	}
	number %= len(alike)
	c := alike[number]
	sc := &scoring{subject: s, ctx: ctx, threads: threads, ref: opened(engine.ReferenceBackend, parity.Remember(exec, s.model.Program.Vocab, rememberedLogits))}
	sc.sound = &keeper{Device: c, model: s.model, kept: map[keptOptions]backend.Executor{}}
	if candidate != "cpu" {
		sc.device = engine.DeviceID(candidate, number) // the one that is judged, even if it is software
	}
	sc.end = func() { sc.sound.end(); exec.Close() }
	return sc, nil
}

// keeper is a device that loads the model as it is once for each choice of options
// and hands the same executor out again. What a fault has changed it loads anew.
type keeper struct {
	backend.Device
	model *engine.Model
	kept  map[keptOptions]backend.Executor
	anew  bool // the last call of Load gave an executor of its own
}

// keptOptions are the options that executors are kept by.
type keptOptions struct {
	kv       tensor.DType
	maxBatch int
}

// lent is a kept executor: closing it leaves it to the next.
type lent struct{ backend.Executor }

func (lent) Close() error { return nil }

func (k *keeper) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	if k.anew = p != k.model.Program || w != graph.Weights(k.model.File); k.anew {
		return k.Device.Load(p, w, o)
	}
	key := keptOptions{o.KV, o.MaxBatch}
	if k.kept[key] == nil {
		exec, err := k.Device.Load(p, w, o)
		if err != nil {
			return nil, err
		}
		k.kept[key] = exec
	}
	return lent{k.kept[key]}, nil
}

func (k *keeper) end() {
	for _, exec := range k.kept {
		exec.Close()
	}
	clear(k.kept)
}

func device(name string) (backend.Device, error) {
	devices, err := alikeDevices(name)
	if err != nil {
		return nil, err
	}
	return devices[0], nil
}

// alikeDevices are a backend's first device and those after it that nothing tells
// from it.
func alikeDevices(name string) ([]backend.Device, error) {
	b, err := backend.Find(name)
	if err != nil {
		return nil, err
	}
	devices, err := b.Probe()
	if err != nil || len(devices) == 0 {
		return nil, fmt.Errorf("%s: no device: %w", name, err)
	}
	n := 1
	for n < len(devices) && devices[n].Identity() == devices[0].Identity() {
		n++
	}
	return devices[:n], nil
}

func opened(name string, exec backend.Executor) parity.Source {
	return parity.Source{Backend: name, Open: func() (backend.Executor, error) { return exec, nil }}
}

// hangLimit replaces the policy's deadline, so that a hang costs no half minute.
const hangLimit = 300 * time.Millisecond

// judge probes the candidate with a fault on prompts, one after the other, until
// it is not rejected.
func (s *scoring) judge(f fault.Fault, p parity.Policy, prompts ...[]int32) (v parity.Verdict, err error) {
	if f.Name == "hang" {
		p.Probe.Deadline, p.Probe.DeadlineFactor = hangLimit, 0
	}
	var exec backend.Executor
	for i, prompt := range prompts {
		// A fault that only surrounds an executor begins from its first step again;
		// one that is in program or weights stays loaded.
		if i == 0 || !s.sound.anew {
			exec, err = fault.Wrap(s.sound, f).Load(s.model.Program, s.model.File, backend.Options{KV: tensor.F16, MaxBatch: s.batch(), Threads: s.threads})
			if err != nil {
				return v, err
			}
			defer exec.Close()
		}
		v = parity.Probe(s.ctx, s.ref, opened(candidate, exec), s.parityCase(prompt, s.batch()), p)
		if v.Status == parity.NotMeasured {
			return v, fmt.Errorf("%s with %s: %w", s.name, f, v.Err())
		}
		if v.Passed() {
			break
		}
	}
	return v, nil
}

func (s *scoring) parityCase(prompt []int32, maxBatch int) parity.Case {
	return parity.Case{Tokens: prompt, MaxBatch: maxBatch, Vocab: s.model.Program.Vocab, Context: s.model.Program.Context}
}

// scored are the prompts that faults are judged on: a short one, which the
// probe extends, and one of several batches.
var scored = []int{0, 3}

// fault returns what becomes of a fault under a policy. A fault counts as
// rejected only if it is on every prompt.
func (s *scoring) fault(f fault.Fault, p parity.Policy) (outcome, error) {
	var prompts [][]int32
	for _, i := range scored {
		prompts = append(prompts, s.prompts[i])
	}
	v, err := s.judge(f, p, prompts...)
	switch {
	case errors.Is(err, fault.ErrNotApplicable):
		return notApplicable, nil
	case err != nil:
		return served, err
	case !v.Passed():
		return rejected, nil
	case !f.Late || p.CosineOnly:
		return served, nil // the weaker policies know nothing but their probe
	}
	return s.generate(f, p)
}

// Late faults are met by a generation that goes past position 500.
const (
	latePrompt = 470
	lateTokens = 96
)

// generate lets the engine answer with the faulty backend, as apr run does, and
// returns whether it was stopped before a wrong token left. Right are the tokens
// of the same backend without the fault.
func (s *scoring) generate(f fault.Fault, p parity.Policy) (outcome, error) {
	if s.right == nil {
		res, err := s.answer(p, nil)
		if err != nil {
			return served, fmt.Errorf("%s without a fault: %w", s.name, err)
		}
		s.right = res.TokenIDs
	}
	res, err := s.answer(p, &f)
	n := len(res.TokenIDs)
	switch {
	case err != nil && !errors.Is(err, engine.ErrRejected):
		return served, fmt.Errorf("%s with %s: %w", s.name, f, err)
	case err == nil || n > len(s.right) || !slices.Equal(res.TokenIDs, s.right[:n]):
		return served, nil
	case n == 0:
		return rejected, nil
	}
	return stopped, nil
}

// answer continues the long prompt beyond position 500.
func (s *scoring) answer(p parity.Policy, f *fault.Fault) (engine.Result, error) {
	o := engine.Options{Backend: candidate, Threads: s.threads, MaxBatch: s.batch(), Gate: engine.GateOptions{Policy: p, Roomy: true}}
	if f != nil {
		o.Gate.FaultSpec = f.Name
		o.Gate.Fault = func(name string, d backend.Device) backend.Device {
			if name != candidate {
				return d
			}
			return fault.Wrap(d, *f)
		}
	}
	o.Device = s.device
	e, err := engine.Open(s.model, o)
	if err != nil {
		return engine.Result{}, err
	}
	defer e.Close()
	session, err := e.NewSession(latePrompt + lateTokens)
	if err != nil {
		return engine.Result{}, err
	}
	defer session.Close()
	return session.Generate(s.ctx, engine.Request{Prompt: s.long[:latePrompt], MaxTokens: lateTokens, IgnoreEOS: true})
}

// config is a sound way to run.
type config struct {
	backend string
	kv      tensor.DType
	batch   int
	threads int
	prompt  int
}

// configs lists the sound configurations of one model.
func configs(prompts int) []config {
	var all []config
	for _, name := range []string{candidate, engine.ReferenceBackend} {
		for _, kv := range []tensor.DType{tensor.F16, tensor.F32} {
			for _, size := range []int{5, 32, 512} {
				for _, threads := range []int{1, 2} {
					for prompt := range prompts {
						all = append(all, config{name, kv, size, threads, prompt})
					}
				}
			}
		}
	}
	return all
}

// soundRun probes a sound configuration.
func (s *scoring) soundRun(c config, p parity.Policy) (parity.Verdict, error) {
	d, err := device(c.backend)
	if err != nil {
		return parity.Verdict{}, err
	}
	exec, err := d.Load(s.model.Program, s.model.File, backend.Options{KV: c.kv, MaxBatch: c.batch, Threads: c.threads})
	if err != nil {
		return parity.Verdict{}, err
	}
	defer exec.Close()
	v := parity.Probe(s.ctx, s.ref, opened(c.backend, exec), s.parityCase(s.prompts[c.prompt], c.batch), p)
	if v.Status == parity.NotMeasured {
		return v, fmt.Errorf("%s, %+v: %w", s.name, c, v.Err())
	}
	return v, nil
}
