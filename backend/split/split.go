// Package split runs one program on two devices: its first layers on a host, which
// is the CPU, and the last ones, with the output matrix, on another device. Weights
// and caches are where their layers are; between the two goes one row of the
// residual stream for each token, in float32.
package split

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
)

// device is the pair. What it tells about itself is what the second device tells,
// apart from its identity.
type device struct {
	backend.Device
	host   backend.Device
	layers int
}

// New returns a device that runs the last layers of programs on d and what comes
// before them on host. It owns both.
func New(host, d backend.Device, layers int) backend.Device { return device{d, host, layers} }

// Unwrap returns the device of the last layers.
func (d device) Unwrap() backend.Device { return d.Device }

// Identity is made of both and of where the program is cut: each of them could
// change a result.
func (d device) Identity() string {
	return fmt.Sprintf("%s%s%d, before them %s", d.Device.Identity(), mark, d.layers, d.host.Identity())
}

// mark comes between the identity of the second device and the rest.
const mark = "; last layers: "

// Identity is that of the device alone which a pair's identity was made from; other
// identities are left as they are.
func Identity(identity string) string {
	alone, _, _ := strings.Cut(identity, mark)
	return alone
}

func (d device) Close() error { return errors.Join(d.Device.Close(), d.host.Close()) }

// Load cuts the program and loads the halves. The second device comes first, since
// it is the one that may have too little memory.
func (d device) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	first, rest, err := p.Cut(p.Layers() - d.layers)
	if err != nil {
		return nil, fmt.Errorf("%w: %d layers on this device: %w", backend.ErrUnsupported, d.layers, err)
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = backend.DefaultMaxBatch
	}
	e := &executor{
		width: first.OutWidth(),
		names: [2]string{fmt.Sprintf("first-%d/", first.Layers()), fmt.Sprintf("last-%d/", rest.Layers())},
		plans: map[planKey][]string{},
	}
	second := o
	if trace := o.Trace; trace != nil {
		received := rest.Values[rest.Ops[0].Output()].Name
		second.Trace = func(v graph.Value, rows []float32) {
			if v.Name != received { // the host has shown it
				trace(v, rows)
			}
		}
	}
	if e.second, err = d.Device.Load(rest, w, second); err != nil {
		return nil, err
	}
	if e.host, err = d.host.Load(first, w, o); err != nil {
		return nil, errors.Join(fmt.Errorf("the first %d layers: %w", first.Layers(), err), e.second.Close())
	}
	return e, nil
}

// executor runs the halves one after the other.
type executor struct {
	host, second backend.Executor
	width        int            // of the residual stream
	rows         backend.Logits // (T, width): what the host hands over
	hostBatch    []backend.Span
	secondBatch  []backend.Span
	names        [2]string // what the halves' kernels are called after
	plans        map[planKey][]string
}

// Close closes both, the second first: it may not answer.
func (e *executor) Close() error { return errors.Join(e.second.Close(), e.host.Close()) }

// sequence has the caches of the first layers and those of the last.
type sequence struct{ host, second backend.Sequence }

// NewSequence makes room on both devices.
func (e *executor) NewSequence(capacity int) (backend.Sequence, error) {
	second, err := e.second.NewSequence(capacity)
	if err != nil {
		return nil, err
	}
	host, err := e.host.NewSequence(capacity)
	if err != nil {
		return nil, errors.Join(err, second.Close())
	}
	return &sequence{host, second}, nil
}

func (s *sequence) Len() int      { return s.second.Len() }
func (s *sequence) Capacity() int { return s.second.Capacity() }
func (s *sequence) Close() error  { return errors.Join(s.second.Close(), s.host.Close()) }

// Truncate forgets the same tokens on both sides, or on neither.
func (s *sequence) Truncate(n int) error {
	if err := s.second.Truncate(n); err != nil {
		return err
	}
	return s.host.Truncate(n)
}

// split gives each half its spans. A span without a sequence has none on either
// side either, for the executors to refuse.
func (e *executor) split(batch []backend.Span) error {
	e.hostBatch, e.secondBatch = e.hostBatch[:0], e.secondBatch[:0]
	for _, span := range batch {
		host, second := span, span
		host.Want = backend.All
		if span.Seq != nil {
			s, ok := span.Seq.(*sequence)
			if !ok {
				return fmt.Errorf("sequence of type %T is not this executor's", span.Seq)
			}
			host.Seq, second.Seq = s.host, s.second
		}
		e.hostBatch, e.secondBatch = append(e.hostBatch, host), append(e.secondBatch, second)
	}
	return nil
}

// Step runs the first layers for all tokens, hands their rows over and runs the
// rest. If the rest fails, the host's caches forget the step.
func (e *executor) Step(batch []backend.Span, logits *backend.Logits) error {
	if err := e.split(batch); err != nil {
		return err
	}
	if err := e.host.Step(e.hostBatch, &e.rows); err != nil {
		return err
	}
	done := false
	defer func() {
		if done {
			return
		}
		for _, s := range e.hostBatch {
			_ = s.Seq.Truncate(s.Seq.Len() - len(s.Tokens)) // it has just grown by them
		}
	}()
	at := 0
	for i := range e.secondBatch {
		n := len(e.secondBatch[i].Tokens) * e.width
		if at+n > len(e.rows.Data) {
			return fmt.Errorf("the first layers gave %d numbers, want %d a token", len(e.rows.Data), e.width)
		}
		e.secondBatch[i].Input = e.rows.Data[at : at+n : at+n]
		at += n
	}
	err := e.second.Step(e.secondBatch, logits)
	done = err == nil
	return err
}

// planKey is a pair of the halves' plans, which they keep for each kind of step.
type planKey struct{ host, second *string }

// Plan names the kernels of both halves, each with the number of its layers.
func (e *executor) Plan(batch []backend.Span) []string {
	if err := e.split(batch); err != nil {
		return nil // Step refuses it
	}
	host, second := e.host.Plan(e.hostBatch), e.second.Plan(e.secondBatch)
	var key planKey
	if len(host) > 0 && len(second) > 0 {
		key = planKey{&host[0], &second[0]}
		if names, ok := e.plans[key]; ok {
			return names
		}
	}
	names := e.named(host, second)
	if key.host != nil {
		e.plans[key] = names
	}
	return names
}

// Variants names the kernels that both halves have used.
func (e *executor) Variants() []string { return e.named(e.host.Variants(), e.second.Variants()) }

func (e *executor) named(host, second []string) []string {
	names := make([]string, 0, len(host)+len(second))
	for i, list := range [][]string{host, second} {
		for _, n := range list {
			names = append(names, e.names[i]+n)
		}
	}
	slices.Sort(names)
	return names
}
