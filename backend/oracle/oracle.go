// Package oracle is the executor that defines what is right: plain Go loops
// over dequantised weights, float32 values between operations, float64
// accumulation inside them, no vector code, no fusion and a float32 KV cache.
// It is written to be read; it is far too slow to serve.
package oracle

import (
	"fmt"
	"runtime"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
)

// Name is the backend's name in the registry.
const Name = "oracle"

func init() { backend.Register(oracle{}) }

type oracle struct{}

func (oracle) Name() string { return Name }

func (oracle) Probe() ([]backend.Device, error) { return []backend.Device{device{}}, nil }

type device struct{}

func (device) Name() string     { return "plain Go" }
func (device) Identity() string { return "plain Go " + runtime.GOARCH }
func (device) Close() error     { return nil }

// Load prepares a program. Options.KV is ignored: the oracle's cache is float32.
func (device) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
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
	if o.MaxBatch == 0 {
		o.MaxBatch = backend.DefaultMaxBatch
	}
	if o.Threads <= 0 {
		o.Threads = runtime.NumCPU()
	}
	return &executor{p: p, w: w, opts: o}, nil
}

type executor struct {
	p    *graph.Program
	w    graph.Weights
	opts backend.Options
}

func (e *executor) Close() error       { return nil }
func (e *executor) Variants() []string { return plain }

// Plan is the same for every step: there is one way to do each operation.
func (e *executor) Plan([]backend.Span) []string { return plain }

var plain = []string{"oracle/plain"}

// sequence keeps keys and values as float32 rows, one slice a layer.
type sequence struct {
	keys, values [][]float32 // [layer](position, heads·head_dim)
	width        []int       // of a row, by layer
	length       int
	capacity     int
}

func (e *executor) NewSequence(capacity int) (backend.Sequence, error) {
	if capacity <= 0 {
		return nil, fmt.Errorf("sequence capacity %d is not positive", capacity)
	}
	s := &sequence{capacity: capacity}
	for _, c := range e.p.Caches {
		s.keys = append(s.keys, nil)
		s.values = append(s.values, nil)
		s.width = append(s.width, c.Heads*c.HeadDim)
	}
	return s, nil
}

func (s *sequence) Len() int      { return s.length }
func (s *sequence) Capacity() int { return s.capacity }
func (s *sequence) Close() error  { s.keys, s.values = nil, nil; return nil }

func (s *sequence) Truncate(n int) error {
	if n < 0 || n > s.length {
		return fmt.Errorf("cannot truncate a sequence of %d tokens to %d", s.length, n)
	}
	for l, w := range s.width {
		s.keys[l] = s.keys[l][:min(n*w, len(s.keys[l]))]
		s.values[l] = s.values[l][:min(n*w, len(s.values[l]))]
	}
	s.length = n
	return nil
}

// step is the state of one call: the tokens in a row with their places, and
// the values computed so far.
type step struct {
	*executor
	tokens []int32
	seqs   []*sequence // of each token
	pos    []int       // of each token in its sequence
	wanted []int       // rows whose logits are asked for
	input  []float32   // (T, width) for programs that begin with rows
	values [][]float32 // by graph.ID, (T, width)
	logits *backend.Logits
}

// Step runs the program over all spans at once.
func (e *executor) Step(batch []backend.Span, logits *backend.Logits) error {
	if err := backend.CheckStep(e.p, batch, e.opts.MaxBatch); err != nil {
		return err
	}
	s := &step{executor: e, values: make([][]float32, len(e.p.Values)), logits: logits}
	for _, span := range batch {
		seq, ok := span.Seq.(*sequence)
		if !ok {
			return fmt.Errorf("sequence of type %T is not the oracle's", span.Seq)
		}
		for i, t := range span.Tokens {
			if span.Want == backend.All || span.Want == backend.Last && i == len(span.Tokens)-1 {
				s.wanted = append(s.wanted, len(s.tokens))
			}
			s.tokens = append(s.tokens, t)
			if width := e.p.InWidth(); width > 0 {
				s.input = append(s.input, span.Input[i*width:(i+1)*width]...)
			}
			s.seqs = append(s.seqs, seq)
			s.pos = append(s.pos, seq.length+i)
		}
	}
	for i, op := range e.p.Ops {
		if err := s.run(op); err != nil {
			for _, seq := range s.seqs {
				_ = seq.Truncate(seq.length) // drop what the failed step stored
			}
			return fmt.Errorf("operation %d (%s): %w", i, op.Kind(), err)
		}
		if out := op.Output(); out >= 0 && e.opts.Trace != nil {
			e.opts.Trace(e.p.Values[out], s.values[out])
		}
	}
	for _, span := range batch {
		span.Seq.(*sequence).length += len(span.Tokens)
	}
	return nil
}

// row is row i of a value.
func (s *step) row(id graph.ID, i int) []float32 {
	w := s.p.Values[id].Width
	return s.values[id][i*w : (i+1)*w]
}

// alloc makes a value with one row a token.
func (s *step) alloc(id graph.ID) { s.values[id] = make([]float32, len(s.tokens)*s.p.Values[id].Width) }
