package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/tensor"
)

// outcome is what became of a fault.
type outcome int

const (
	notApplicable outcome = iota
	rejected              // before the first token
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
	end func()
	// right are the tokens of a long answer without a fault, once it is known.
	right []int32
}

func newScoring(ctx context.Context, s subject) (*scoring, error) {
	d, err := device(engine.ReferenceBackend)
	if err != nil {
		return nil, err
	}
	exec, err := d.Load(s.model.Program, s.model.File, backend.Options{KV: tensor.F32, MaxBatch: backend.DefaultMaxBatch})
	if err != nil {
		return nil, err
	}
	return &scoring{subject: s, ctx: ctx, ref: opened(engine.ReferenceBackend, exec), end: func() { exec.Close() }}, nil
}

func device(name string) (backend.Device, error) {
	b, err := backend.Find(name)
	if err != nil {
		return nil, err
	}
	devices, err := b.Probe()
	if err != nil || len(devices) == 0 {
		return nil, fmt.Errorf("%s: no device: %w", name, err)
	}
	return devices[0], nil
}

func opened(name string, exec backend.Executor) parity.Source {
	return parity.Source{Backend: name, Open: func() (backend.Executor, error) { return exec, nil }}
}

// hangLimit replaces the policy's deadline, so that a hang costs no half minute.
const hangLimit = 300 * time.Millisecond

// judge probes the candidate with a fault on a prompt.
func (s *scoring) judge(f fault.Fault, p parity.Policy, prompt []int32) (parity.Verdict, error) {
	d, err := device(candidate)
	if err != nil {
		return parity.Verdict{}, err
	}
	exec, err := fault.Wrap(d, f).Load(s.model.Program, s.model.File, backend.Options{KV: tensor.F16, MaxBatch: s.batch()})
	if err != nil {
		return parity.Verdict{}, err
	}
	if f.Name == "hang" {
		p.Probe.Deadline, p.Probe.DeadlineFactor = hangLimit, 0
	}
	v := parity.Probe(s.ctx, s.ref, opened(candidate, exec), s.parityCase(prompt, s.batch()), p)
	exec.Close()
	if v.Status == parity.NotMeasured {
		return v, fmt.Errorf("%s with %s: %w", s.name, f, v.Err())
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
	for _, i := range scored {
		v, err := s.judge(f, p, s.prompts[i])
		if errors.Is(err, fault.ErrNotApplicable) {
			return notApplicable, nil
		}
		if err != nil {
			return served, err
		}
		if v.Passed() {
			// The weaker policies know nothing but their probe.
			if !f.Late || p.CosineOnly {
				return served, nil
			}
			return s.generate(f, p)
		}
	}
	return rejected, nil
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
	o := engine.Options{Backend: candidate, MaxBatch: s.batch(), Gate: engine.GateOptions{Policy: p}}
	if f != nil {
		o.Gate.FaultSpec = f.Name
		o.Gate.Fault = func(name string, d backend.Device) backend.Device {
			if name != candidate {
				return d
			}
			return fault.Wrap(d, *f)
		}
	}
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

// sound probes a sound configuration.
func (s *scoring) sound(c config, p parity.Policy) (parity.Verdict, error) {
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
