package parity

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/apr-engine/apr/backend"
)

// Ahead is a reference that begins before it is asked: while a candidate's
// weights are still being uploaded it computes the prompt, and a probe that comes
// later gets these answers at once. It leaves the continuation to the probe: the
// reference checks what the candidate proposes in batches, each for little more than
// one token takes, while token by token it would hold up the upload for longer than
// it saves. Its executor is like the one it wraps in all other respects; several
// probes, one after the other, may use the same answers.
type Ahead struct {
	exec     backend.Executor
	seq      backend.Sequence
	capacity int
	vocab    int
	tokens   []int32 // in seq
	rows     []aheadRow
	bytes    int
	taken    bool          // the sequence is in a probe's hands
	rooms    *rooms        // for the first probe; nil if it must be sparing
	last     time.Duration // that the answer given last has cost

	stop   sync.Once
	halted chan struct{}
	done   chan struct{}
	err    error
}

// aheadRow is what is known after a token: its logits, nil if they were not
// wanted, and what they cost.
type aheadRow struct {
	logits []float32
	cost   time.Duration
}

// maxAhead bounds the logits computed ahead, in bytes.
const maxAhead = 64 << 20

// RunAhead starts to compute what a probe of the case will ask the reference, on as
// many threads as are given, or if that is 0 on all that the reference has: whatever
// loads the candidate needs the others. From Open on it has all of them.
func RunAhead(open func() (backend.Executor, error), threads int, c Case, p Policy) *Ahead {
	a := &Ahead{vocab: c.Vocab, halted: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(a.done)
		defer func() {
			if v := recover(); v != nil {
				a.err = fmt.Errorf("panic: %v", v)
			}
		}()
		if a.exec, a.err = open(); a.err != nil {
			return
		}
		if sharing, ok := a.exec.(backend.Sharing); ok && threads > 0 {
			sharing.UseThreads(threads)
			defer sharing.UseThreads(math.MaxInt)
		}
		a.err = a.run(c, p)
	}()
	return a
}

func (a *Ahead) run(c Case, p Policy) error {
	prompt := c.Tokens[:min(len(c.Tokens), p.Probe.PromptPositions)]
	if len(prompt) == 0 || c.MaxBatch < 1 || p.Probe.OneByOne {
		return nil
	}
	pr := &probe{c: c, policy: p}
	a.capacity = pr.total(len(c.Tokens))
	var err error
	if a.seq, err = a.exec.NewSequence(a.capacity); err != nil {
		return err
	}
	for len(prompt) > 0 { // in the steps that the probe takes
		n := min(referenceRows, len(prompt), c.MaxBatch)
		if ok, err := a.compute(prompt[:n]); !ok || err != nil {
			return err
		}
		prompt = prompt[n:]
	}
	if c.Roomy {
		a.rooms = newRooms(min(len(c.Tokens), referenceRows)*c.Vocab, min(a.capacity-len(a.tokens), proposalsMost)*c.Vocab)
	}
	return nil
}

// rooms are memory for logits that the operating system has already given: asking for
// it takes longer than a GPU's step.
type rooms struct{ reference, candidate, proposals []float32 }

// newRooms makes room for numbers of the prompt and of what comes after it.
func newRooms(prompt, later int) *rooms {
	later = max(later, 0)
	r := &rooms{make([]float32, max(prompt, later)), make([]float32, prompt), make([]float32, later)}
	const page = 1024 // numbers
	for _, x := range [][]float32{r.reference, r.candidate, r.proposals} {
		for i := 0; i < len(x); i += page {
			x[i] = 1
		}
	}
	return r
}

// compute takes one step, unless it is time to stop or memory is used up.
func (a *Ahead) compute(tokens []int32) (ok bool, err error) {
	select {
	case <-a.halted:
		return false, nil
	default:
	}
	if a.bytes += 4 * a.vocab * len(tokens); a.bytes > maxAhead {
		return false, nil
	}
	start := time.Now()
	var l backend.Logits
	if err := a.exec.Step([]backend.Span{{Seq: a.seq, Tokens: tokens, Want: backend.All}}, &l); err != nil {
		return false, err
	}
	if l.Rows() != len(tokens) || l.Vocab != a.vocab {
		return false, fmt.Errorf("%d rows of %d logits, want %d of %d", l.Rows(), l.Vocab, len(tokens), a.vocab)
	}
	each := time.Since(start) / time.Duration(len(tokens))
	for i := range tokens {
		a.rows = append(a.rows, aheadRow{l.Row(i), each})
	}
	a.tokens = append(a.tokens, tokens...)
	return true, nil
}

// Halt ends running ahead and waits for the step in progress.
func (a *Ahead) Halt() {
	a.stop.Do(func() { close(a.halted) })
	<-a.done
}

// Forget halts and frees what was computed ahead, once no probe needs it.
func (a *Ahead) Forget() {
	a.Halt()
	a.tokens, a.rows, a.taken, a.rooms = nil, nil, true, nil
	if a.seq != nil {
		_ = a.seq.Close() // a cache, freed with the executor in any case
		a.seq = nil
	}
}

// Open returns the reference, halting what it does ahead.
func (a *Ahead) Open() (backend.Executor, error) {
	a.Halt()
	if a.err != nil || a.exec == nil {
		return nil, fmt.Errorf("ahead of the probe: %w", a.err)
	}
	return aheadExecutor{a}, nil
}

// Executor is the executor underneath; nil if it was not opened.
func (a *Ahead) Executor() backend.Executor {
	a.Halt()
	return a.exec
}

// aheadExecutor answers from what was computed ahead where it can.
type aheadExecutor struct{ a *Ahead }

func (e aheadExecutor) Variants() []string { return e.a.exec.Variants() }
func (e aheadExecutor) Close() error       { return e.a.exec.Close() }

// takeRooms hands over memory for a probe's logits, once.
func (e aheadExecutor) takeRooms() (r *rooms) {
	r, e.a.rooms = e.a.rooms, nil
	return r
}

// cost is how long the last step took that was computed ahead.
func (e aheadExecutor) cost() time.Duration { return e.a.last }

func (e aheadExecutor) NewSequence(capacity int) (backend.Sequence, error) {
	a := e.a
	if a.seq == nil || a.taken || capacity > a.capacity {
		return a.exec.NewSequence(capacity)
	}
	a.taken = true
	return &aheadSequence{a: a}, nil
}

// aheadSequence is at position n of what is known; the real sequence may be
// further.
type aheadSequence struct {
	a *Ahead
	n int
}

func (s *aheadSequence) Len() int      { return s.n }
func (s *aheadSequence) Capacity() int { return s.a.capacity }

func (s *aheadSequence) Truncate(n int) error {
	if n > s.n {
		return fmt.Errorf("cannot keep %d of %d tokens", n, s.n)
	}
	s.n = n
	return nil
}

// Close gives the sequence back for the next probe.
func (s *aheadSequence) Close() error {
	s.a.taken = false
	return nil
}

// settle cuts the real sequence to where the probe is.
func (s *aheadSequence) settle() (backend.Sequence, error) {
	a := s.a
	if a.seq.Len() > s.n {
		if err := a.seq.Truncate(s.n); err != nil {
			return nil, err
		}
		a.tokens, a.rows = a.tokens[:s.n], a.rows[:min(s.n, len(a.rows))]
	}
	return a.seq, nil
}

func (e aheadExecutor) Plan(batch []backend.Span) []string {
	s, ok := batch[0].Seq.(*aheadSequence)
	if !ok {
		return e.a.exec.Plan(batch)
	}
	// Nothing depends on the reference's kernels; its names are for the table.
	real := slices.Clone(batch)
	real[0].Seq = s.a.seq
	return e.a.exec.Plan(real)
}

func (e aheadExecutor) Step(batch []backend.Span, l *backend.Logits) error {
	e.a.last = 0
	s, ok := batch[0].Seq.(*aheadSequence)
	if !ok || len(batch) != 1 {
		return e.a.exec.Step(batch, l)
	}
	if e.recall(s, batch[0], l) {
		return nil
	}
	real := slices.Clone(batch)
	seq, err := s.settle()
	if err != nil {
		return err
	}
	real[0].Seq = seq
	if err := e.a.exec.Step(real, l); err != nil {
		return err
	}
	s.n += len(batch[0].Tokens)
	e.a.tokens = append(e.a.tokens, batch[0].Tokens...)
	return nil
}

// recall answers a step from what was computed ahead, if all of it was.
func (e aheadExecutor) recall(s *aheadSequence, span backend.Span, l *backend.Logits) bool {
	a, end := e.a, s.n+len(span.Tokens)
	if end > len(a.rows) || !slices.Equal(a.tokens[s.n:end], span.Tokens) {
		return false
	}
	rows := a.rows[s.n:end]
	for _, r := range rows {
		a.last += r.cost
	}
	rows = rows[len(rows)-span.Rows():]
	l.Resize(len(rows), a.vocab)
	for i, r := range rows {
		copy(l.Row(i), r.logits)
	}
	s.n = end
	return true
}
