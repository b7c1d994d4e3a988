// Package bench measures how fast a model runs, beside the limits that the
// machine sets: memory bandwidth for decoding, arithmetic for prompts.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
)

// ErrCheck marks a backend whose logits differ too much from the reference's to
// be worth measuring.
var ErrCheck = errors.New("backend differs from cpu-exact")

// Options say what to measure.
type Options struct {
	Engine      engine.Options // Threads is ignored
	Prompt      []int          // lengths of prompts; 0 is skipped
	Generate    []int          // numbers of generated tokens; 0 is skipped
	Depth       []int          // tokens already in the context; none means 0
	Sequences   []int          // how many generate together; none means 1
	Threads     []int
	Repetitions int
	// Profile repeats each test once more, timing its operations.
	Profile bool
}

// Row is the result of one test at one number of threads. Speeds are in tokens
// a second.
type Row struct {
	Backend string
	// Part is the part of the model on the GPU where the CPU runs the rest; such a
	// row has no limit, because two devices take turns.
	Part     string
	Threads  int
	Prompt   int // tokens of the prompt test, or 0
	Generate int // tokens of the generation test, or 0
	Depth    int // tokens already in the context
	// Sequences is how many generate together, each the same number of tokens;
	// speeds are those of all of them.
	Sequences int
	Times     []time.Duration
	Speeds    []float64
	Mean      float64
	StdDev    float64 // of the samples
	Median    float64
	// Limit is the speed at which the machine's limit is reached, 0 if not known: with
	// Pairs, by their median reading.
	Limit   float64
	Bound   string // what sets the limit: "bandwidth" or "arithmetic"
	Check   Check
	Machine Limits
	Pairs   Pairs   // of a generation test on the CPU
	Profile Profile // empty unless asked for
	// Verified says that the parity gate has compared the backend with the reference
	// in a context as long as this test's, VerifiedContext up to how many tokens it has;
	// 0 for the reference and for what was not compared.
	Verified        bool
	VerifiedContext int
}

// Verdict says in words what the gate makes of the backend in this test.
func (r Row) Verdict() string {
	switch {
	case r.Verified:
		return "validated"
	case r.VerifiedContext > 0:
		return fmt.Sprintf("unverified beyond %d tokens", r.VerifiedContext)
	}
	return "unverified"
}

// Test names the test as llama-bench does: pp512, tg128, tg128 @ d8192; and tg128
// x8 for eight sequences together.
func (r Row) Test() string {
	name := fmt.Sprintf("tg%d", r.Generate)
	if r.Prompt > 0 {
		name = fmt.Sprintf("pp%d", r.Prompt)
	}
	if r.Sequences > 1 {
		name += fmt.Sprintf(" x%d", r.Sequences)
	}
	if r.Depth > 0 {
		name += fmt.Sprintf(" @ d%d", r.Depth)
	}
	return name
}

// OfLimit is the share of the limit that was reached, 0 if that is not known: the median
// over pairs where there are some, else the median's.
func (r Row) OfLimit() float64 {
	switch {
	case len(r.Pairs) > 0:
		return r.Pairs.Share()
	case r.Limit == 0:
		return 0
	}
	return r.Median / r.Limit
}

// Check is a comparison of a backend's logits with cpu-exact's on a short text.
type Check struct {
	Cosine    float64 // the lowest over all positions
	Positions int
}

// checkTokens is the length of the text that is compared; minCosine is the
// floor of the parity gate.
const (
	checkTokens = 16
	minCosine   = 0.99
)

// Run checks the backend and measures every test, calling yield with each row.
func Run(ctx context.Context, m *engine.Model, o Options, yield func(Row) error) error {
	work := Work(m)
	reference, err := referenceLogits(ctx, m, o)
	if err != nil {
		return err
	}
	for _, threads := range o.Threads {
		opts := o.Engine
		opts.Threads = threads
		e, err := engine.Open(m, opts)
		if err != nil {
			return err
		}
		err = runThreads(ctx, e, o, threads, work, reference, yield)
		if err := errors.Join(err, e.Close()); err != nil {
			return err
		}
	}
	return nil
}

func runThreads(ctx context.Context, e *engine.Engine, o Options, threads int, work Cost, reference [][]float32, yield func(Row) error) error {
	check, err := compare(ctx, e, reference)
	if err != nil {
		return err
	}
	memory := newStream(threads)
	defer memory.close()
	limits := measure(memory)
	if d, ok, err := e.DeviceLimits(); err != nil {
		return err
	} else if ok {
		limits.Device = d
	}
	base := Row{Backend: e.Selection().Ran, Part: e.Selection().Part(), Threads: threads, Check: check, Machine: limits}
	for _, base.Depth = range orDefault(o.Depth, 0) {
		for _, n := range o.Prompt {
			row, err := base.prompt(ctx, e, o, n, work)
			if err != nil {
				return err
			}
			if err := yield(row); err != nil {
				return err
			}
		}
		for _, n := range o.Generate {
			for _, sequences := range orDefault(o.Sequences, 1) {
				row, err := base.generation(ctx, e, o, n, sequences, work, memory)
				if err != nil {
					return err
				}
				if err := yield(row); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// prompt measures a prompt of n tokens.
func (r Row) prompt(ctx context.Context, e *engine.Engine, o Options, n int, work Cost) (Row, error) {
	r.Prompt, r.Bound = n, "arithmetic"
	if r.Part == "" { // two devices one after the other have no common limit
		r.Limit = r.Machine.Arithmetic(r.Backend) / work.Operations
	}
	return r, r.measure(ctx, e, o, n, &group{}, prompt)
}

// generation measures n tokens of each of so many sequences. The weights are read once
// for all of them, and on average half of the generated tokens are in the context too.
func (r Row) generation(ctx context.Context, e *engine.Engine, o Options, n, sequences int, work Cost, memory *stream) (Row, error) {
	r.Generate, r.Sequences, r.Bound = n, sequences, "bandwidth"
	g := &group{need: func(context float64) float64 {
		return float64(work.Bytes) + float64(sequences)*context*work.cacheBytes(e.KV())
	}}
	limit := func(reads float64) float64 { return float64(sequences) * reads / g.need(float64(r.Depth)+float64(n)/2) }
	switch {
	case r.Part != "":
	case r.Machine.Device.Bandwidth > 0:
		r.Limit = limit(r.Machine.Device.Bandwidth)
	default:
		bytes := r.Machine.Bandwidth * readingTime.Seconds()
		g.pairing = &pairing{now: time.Now, read: func() float64 { return memory.read(bytes) }}
	}
	if err := r.measure(ctx, e, o, n, g, generate); err != nil {
		return r, err
	}
	if len(r.Pairs) > 0 {
		r.Limit = limit(r.Pairs.Reading())
	}
	return r, nil
}

func orDefault(list []int, value int) []int {
	if len(list) == 0 {
		return []int{value}
	}
	return list
}

// measure runs a test once to warm up, then as often as asked, and once more if a
// profile is wanted.
func (r *Row) measure(ctx context.Context, e *engine.Engine, o Options, n int, g *group, test func(context.Context, *group, int) error) error {
	if r.Depth+n > e.Model.Program.Context {
		return fmt.Errorf("%w: %s is longer than the model's context of %d tokens", engine.ErrInput, r.Test(), e.Model.Program.Context)
	}
	g.e, g.tokens = e, e.Model.RandomTokens(r.Depth+n)
	for range max(1, r.Sequences) {
		s, err := e.NewSession(r.Depth + n)
		if err != nil {
			return err
		}
		defer s.Close()
		g.sessions = append(g.sessions, s)
	}
	pairing := g.pairing
	run := func() (time.Duration, error) {
		start, reading := time.Now(), g.pairing.time()
		err := test(ctx, g, r.Depth+n)
		return time.Since(start) - (g.pairing.time() - reading), err
	}
	for i := range o.Repetitions + 1 {
		if err := g.rewind(ctx, r.Depth); err != nil {
			return err
		}
		g.pairing = nil
		if i > 0 {
			g.pairing = pairing
		}
		took, err := run()
		if err != nil {
			return err
		}
		if i == 0 && pairing != nil {
			pairing.usual = took / time.Duration(n)
		}
		if i > 0 {
			r.Times = append(r.Times, took)
			r.Speeds = append(r.Speeds, float64(n*len(g.sessions))/took.Seconds())
		}
	}
	r.Mean, r.StdDev, r.Median = statistics(r.Speeds)
	if pairing != nil {
		r.Pairs = pairing.pairs
	}
	g.pairing = nil
	// A test before may have gone where nothing was compared.
	s := e.Selection()
	r.VerifiedContext = s.VerifiedContext
	r.Verified = s.Verified || r.Depth+n <= s.VerifiedContext
	if !o.Profile {
		return nil
	}
	if err := g.rewind(ctx, r.Depth); err != nil {
		return err
	}
	return r.profile(e, run)
}

// group is the sequences of a test, all with the same text.
type group struct {
	e        *engine.Engine
	sessions []*engine.Session
	tokens   []int32
	next     []int32                       // one for each sequence
	need     func(context float64) float64 // bytes that a step reads, with so many tokens in each
	pairing  *pairing                      // of a run that is paired; else nil
}

// rewind makes every sequence hold the first depth tokens.
func (g *group) rewind(ctx context.Context, depth int) error {
	for _, s := range g.sessions {
		if err := s.Truncate(min(depth, len(s.Tokens()))); err != nil {
			return err
		}
		if depth > len(s.Tokens()) {
			if _, _, err := s.Prefill(ctx, g.tokens[:depth]); err != nil {
				return err
			}
		}
	}
	return nil
}

// prompt computes all tokens up to total in batches and the last one's logits.
func prompt(ctx context.Context, g *group, total int) error {
	_, _, err := g.sessions[0].Prefill(ctx, g.tokens[:total])
	return err
}

// generate computes the tokens that the sequences do not hold yet one by one,
// each with its logits. Which token the logits would choose does not matter for
// the time.
func generate(ctx context.Context, g *group, total int) error {
	g.next = make([]int32, len(g.sessions))
	g.pairing.begin()
	for i := len(g.sessions[0].Tokens()); i < total; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := g.pairing.settle(func() error { return g.attempt(ctx, i) }); err != nil {
			return err
		}
		if err := g.extend(ctx, i); err != nil {
			return err
		}
		g.pairing.step(g.need(float64(i)))
	}
	g.pairing.end()
	return nil
}

// extend makes the step that computes token i in every sequence.
func (g *group) extend(ctx context.Context, i int) (err error) {
	if len(g.sessions) == 1 {
		_, err = g.sessions[0].Extend(ctx, g.tokens[i:i+1], backend.Last)
		return err
	}
	for j := range g.next {
		g.next[j] = g.tokens[i]
	}
	_, err = g.e.ExtendTogether(ctx, g.sessions, g.next)
	return err
}

// attempt makes the same step and takes it back.
func (g *group) attempt(ctx context.Context, i int) error {
	if err := g.extend(ctx, i); err != nil {
		return err
	}
	return g.rewind(ctx, i)
}

func referenceLogits(ctx context.Context, m *engine.Model, o Options) ([][]float32, error) {
	opts := o.Engine
	opts.Backend, opts.Threads = "cpu-exact", slices.Max(o.Threads)
	e, err := engine.Open(m, opts)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	return logits(ctx, e)
}

// logits returns the logits after each token of the short text.
func logits(ctx context.Context, e *engine.Engine) ([][]float32, error) {
	tokens := e.Model.RandomTokens(min(checkTokens, e.Model.Program.Context))
	s, err := e.NewSession(len(tokens))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var rows [][]float32
	err = s.Logits(ctx, tokens, 0, func(_ int, row []float32) error {
		rows = append(rows, slices.Clone(row))
		return nil
	})
	return rows, err
}

func compare(ctx context.Context, e *engine.Engine, reference [][]float32) (Check, error) {
	rows, err := logits(ctx, e)
	if err != nil {
		return Check{}, err
	}
	c := Check{Cosine: 1, Positions: len(rows)}
	for i, row := range rows {
		cos := cosine(row, reference[i])
		if !(cos >= minCosine) {
			return c, fmt.Errorf("%w: %s: cosine of the logits is %.6f at position %d, want at least %g", ErrCheck, e.Selection().Ran, cos, i, minCosine)
		}
		c.Cosine = min(c.Cosine, cos)
	}
	return c, nil
}

// cosine of the angle between two vectors, NaN if either has a NaN or is zero.
func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab += x * y
		aa += x * x
		bb += y * y
	}
	return ab / math.Sqrt(aa*bb)
}

// statistics of at least one sample; the deviation is that of a sample (n-1).
func statistics(x []float64) (mean, deviation, median float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	if len(x) > 1 {
		for _, v := range x {
			deviation += (v - mean) * (v - mean) / float64(len(x)-1)
		}
	}
	sorted := slices.Sorted(slices.Values(x))
	median = (sorted[(len(x)-1)/2] + sorted[len(x)/2]) / 2
	return mean, math.Sqrt(deviation), median
}
