// Package backend is the interface between programs and the executors that run
// them, and the registry of executors. It knows no architecture.
package backend

import (
	"errors"
	"fmt"
	"slices"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// Errors by kind, for errors.Is.
var (
	// ErrUnsupported marks a program, tensor type or option that an executor
	// cannot run; it says so at load, never in the middle.
	ErrUnsupported = errors.New("not supported by this backend")
	// ErrUnknown marks a backend name that is not registered.
	ErrUnknown = errors.New("unknown backend")
	// ErrContextFull marks a step that would exceed a sequence's capacity.
	ErrContextFull = errors.New("context is full")
	// ErrToken marks a token id outside the vocabulary.
	ErrToken = errors.New("token id outside the vocabulary")
)

// Options adjust how a program is loaded.
type Options struct {
	// Threads is the number of CPU workers; 0 means one for each CPU.
	Threads int
	// KV is the element type of the key/value cache: F16, F32, or, where the backend
	// has it, Q8_0.
	KV tensor.DType
	// MaxBatch is the largest number of tokens in one Step; 0 means 512.
	MaxBatch int
	// Context is how many tokens the sequences to come will hold together, if that is
	// known: a device that plans its memory keeps room for their caches.
	Context int
	// Trace, if set, receives every value as it is computed: rows of Width
	// float32 numbers, (T, Width), valid during the call. For diagnosis only.
	Trace func(v graph.Value, rows []float32)
}

// DefaultMaxBatch is the step size used when Options.MaxBatch is 0.
const DefaultMaxBatch = 512

// Backend finds the devices it can drive. Creating or listing backends
// initialises nothing; Probe may. device.go has what backends for hardware
// implement besides, with rules for their authors.
type Backend interface {
	Name() string
	Probe() ([]Device, error)
}

// Device can load programs.
type Device interface {
	Name() string
	// Identity names everything about the device, its driver and this build's
	// kernels for it that could change a result: a certificate holds for one
	// identity only.
	Identity() string
	Load(*graph.Program, graph.Weights, Options) (Executor, error)
	Close() error
}

// Executor runs one program. It is used by one goroutine at a time.
type Executor interface {
	// NewSequence returns an empty sequence that can hold capacity tokens.
	NewSequence(capacity int) (Sequence, error)
	// Step extends each span's sequence by its tokens and computes the logits
	// asked for. Prefill, decode and batches are the same call. On error the
	// sequences are as before the call.
	Step(batch []Span, logits *Logits) error
	// Plan names the kernel variants and captured paths that Step would use for
	// this batch, without running it: the parity gate has each of them probed
	// before its logits leave the process. Everything that can change a result and
	// depends on the batch or on the sequences' lengths has a name. It is called
	// before every step, so it must be cheap, and the caller must not change what
	// it returns.
	Plan(batch []Span) []string
	// Variants names the kernel variants used so far.
	Variants() []string
	Close() error
}

// Sharing is implemented by executors that can leave processors to others.
type Sharing interface {
	// UseThreads has the steps from the next on use at most n of the threads that the
	// executor was loaded with. Results do not depend on it.
	UseThreads(n int)
}

// Limits are what a device can do at most, measured on it.
type Limits struct {
	Bandwidth  float64 // bytes read from its memory a second
	Arithmetic float64 // operations a second of the unit that multiplies prompts; a multiply-add is two
}

// Meter is implemented by executors that can measure the limits of their device.
type Meter interface {
	// MeasureLimits takes a fraction of a second. A limit that is not known is 0.
	MeasureLimits() (Limits, error)
}

// Sequence owns a key/value cache.
type Sequence interface {
	Len() int
	Capacity() int
	// Truncate forgets all tokens from position n on.
	Truncate(n int) error
	Close() error
}

// Want says which rows of a span's logits are computed.
type Want int

const (
	// None computes no logits.
	None Want = iota
	// Last computes the logits after the span's last token.
	Last
	// All computes the logits after every token.
	All
)

// Span is a run of tokens that extends one sequence.
type Span struct {
	Seq    Sequence
	Tokens []int32
	Want   Want
	// Input has the tokens' rows, (len(Tokens), width), for a program that begins
	// with graph.Input; nil for others.
	Input []float32
}

// Rows is the number of logit rows the span asks for.
func (s Span) Rows() int {
	switch s.Want {
	case Last:
		return 1
	case All:
		return len(s.Tokens)
	}
	return 0
}

// Logits receives the rows of a step in the order of its spans: logits, or the
// value that a program ends with (graph.Output). The memory is reused by the next
// step that is given the same Logits.
type Logits struct {
	Vocab int
	Data  []float32 // (rows, Vocab)
}

// Resize prepares for rows × vocab numbers, keeping memory where it suffices.
func (l *Logits) Resize(rows, vocab int) {
	l.Vocab = vocab
	l.Data = slices.Grow(l.Data[:0], rows*vocab)[:rows*vocab]
}

// Row returns row i, (Vocab).
func (l *Logits) Row(i int) []float32 { return l.Data[i*l.Vocab : (i+1)*l.Vocab : (i+1)*l.Vocab] }

// Rows is the number of rows held.
func (l *Logits) Rows() int {
	if l.Vocab == 0 {
		return 0
	}
	return len(l.Data) / l.Vocab
}

var registry []Backend

// Register adds a backend; the order of registration has no meaning, but that a
// backend takes the place of an earlier one of its name: tests put in their own.
func Register(b Backend) {
	for i, old := range registry {
		if old.Name() == b.Name() {
			registry[i] = b
			return
		}
	}
	registry = append(registry, b)
}

// Names lists the registered backends, sorted.
func Names() []string {
	names := make([]string, len(registry))
	for i, b := range registry {
		names[i] = b.Name()
	}
	slices.Sort(names)
	return names
}

// Find returns the backend with the given name.
func Find(name string) (Backend, error) {
	for _, b := range registry {
		if b.Name() == name {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%w %q (have %v)", ErrUnknown, name, Names())
}

// CheckStep verifies what every executor must refuse before it computes: empty
// spans, unknown tokens, a sequence used twice, a full context, rows of input that
// are missing or not asked for.
func CheckStep(p *graph.Program, batch []Span, maxBatch int) error {
	total, width := 0, p.InWidth()
	for i, s := range batch {
		if s.Seq == nil || len(s.Tokens) == 0 {
			return fmt.Errorf("span %d is empty", i)
		}
		for _, other := range batch[:i] {
			if other.Seq == s.Seq {
				return fmt.Errorf("span %d uses the sequence of another span", i)
			}
		}
		for j, t := range s.Tokens {
			if t < 0 || int(t) >= p.Vocab {
				return fmt.Errorf("%w: token %d of span %d is %d, the vocabulary has %d", ErrToken, j, i, t, p.Vocab)
			}
		}
		if len(s.Input) != width*len(s.Tokens) {
			return fmt.Errorf("span %d has %d numbers of input for %d tokens, want %d each", i, len(s.Input), len(s.Tokens), width)
		}
		if s.Seq.Len()+len(s.Tokens) > s.Seq.Capacity() {
			return fmt.Errorf("%w: %d tokens held, %d more, room for %d", ErrContextFull, s.Seq.Len(), len(s.Tokens), s.Seq.Capacity())
		}
		total += len(s.Tokens)
	}
	if total > maxBatch {
		return fmt.Errorf("step of %d tokens, the limit is %d", total, maxBatch)
	}
	return nil
}
