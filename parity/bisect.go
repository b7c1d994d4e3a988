package parity

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
)

// TraceLoader loads a side of a bisection with a trace function; see
// backend.Options.Trace.
type TraceLoader func(trace func(graph.Value, []float32)) (backend.Executor, error)

// ValueError is how far one value of the program is off.
type ValueError struct {
	Name      string `json:"name"`      // "blk.7.attn_q"
	Operation string `json:"operation"` // that computes it: "matmul"
	Layer     int    `json:"layer"`     // -1 outside of layers
	// Error is the largest relative error of a row: the root mean square of the
	// difference over that of the reference. It is math.MaxFloat64 for numbers that
	// are not finite.
	Error float64 `json:"error"`
	// Position is the token with that error.
	Position int `json:"position"`
	// Input is the largest Error of the values that the operation reads, Growth the
	// ratio of both.
	Input  float64 `json:"input_error"`
	Growth float64 `json:"growth"`
	// Rows has the relative error at each position; negative where the value was
	// not computed.
	Rows []float64 `json:"rows"`
}

// Bisection is a comparison of two executors value by value.
type Bisection struct {
	Reference string `json:"reference"`
	Candidate string `json:"candidate"`
	// Tokens is how many positions were compared, Decoded how many of them, at the
	// end, one by one.
	Tokens  int          `json:"tokens"`
	Decoded int          `json:"decoded"`
	Values  []ValueError `json:"values"` // in program order
	// First is the index in Values of the first one that is wrong, -1 if none is.
	First int `json:"first"`
	// Reason says in one line what First is or why there is none.
	Reason string `json:"reason"`
	// Growth is what sound executors stay within.
	Growth Growth `json:"limits"`
}

// Growth bounds the error of a value between sound executors, calibrated over
// models, prompts and arithmetics (docs/gate-calibration.md).
type Growth struct {
	// Floor is the relative error below which a value is never called wrong.
	Floor float64 `json:"floor"`
	// Factor is how many times larger than the largest error of its inputs, or than
	// the floor, the error of a value may be.
	Factor float64 `json:"factor"`
}

// SoundGrowth is the calibrated bound.
func SoundGrowth() Growth { return Growth{Floor: 2e-3, Factor: 10} }

// wrong reports whether an error cannot have grown out of that of the inputs.
func (g Growth) wrong(value, input float64) bool {
	return !(value <= g.Factor*max(g.Floor, input))
}

// BisectCase is what a bisection runs.
type BisectCase struct {
	Program *graph.Program
	Tokens  []int32
	// Decode is how many of the tokens, at the end, are fed one by one.
	Decode   int
	MaxBatch int
	// Deadline is how long one step may take, 0 for two minutes.
	Deadline time.Duration
}

// bisectDeadline ends a bisection of an executor that hangs. Traced steps of
// large models take seconds.
const bisectDeadline = 2 * time.Minute

// bisectBatch bounds the values held at once: 7 billion parameters make some
// 15 MB a token.
const bisectBatch = 32

// Bisect runs both sides with traces on the same tokens and names the first
// value, in program order, whose difference cannot have grown out of the
// differences of what it is computed from. It looks at the traced path, which
// may differ from the one that serves.
func Bisect(ctx context.Context, reference, candidate TraceLoader, c BisectCase) (Bisection, error) {
	b := Bisection{Tokens: len(c.Tokens), Decoded: c.Decode, First: -1, Growth: SoundGrowth()}
	if len(c.Tokens) == 0 || c.Decode < 0 || c.Decode > len(c.Tokens) || c.MaxBatch < 1 {
		return b, fmt.Errorf("%w: bisection of %d tokens, %d of them one by one, in batches of %d", ErrNotMeasured, len(c.Tokens), c.Decode, c.MaxBatch)
	}
	ref, err := newTraced(ctx, reference, c)
	if err != nil {
		return b, fmt.Errorf("%w: reference: %w", ErrNotMeasured, err)
	}
	defer ref.close()
	cand, err := newTraced(ctx, candidate, c)
	if err != nil {
		return b, fmt.Errorf("%w: candidate: %w", ErrNotMeasured, err)
	}
	defer cand.close()
	t := newValueTable(c.Program, len(c.Tokens))
	for from := 0; from < len(c.Tokens); {
		if err := ctx.Err(); err != nil {
			return b, err
		}
		n := 1
		if batched := len(c.Tokens) - c.Decode; from < batched {
			n = min(c.MaxBatch, bisectBatch, batched-from)
		}
		if err := ref.step(c.Tokens[from : from+n]); err != nil {
			return b, fmt.Errorf("%w: reference: %w", ErrNotMeasured, err)
		}
		if err := cand.step(c.Tokens[from : from+n]); err != nil {
			return b, fmt.Errorf("%w: candidate: %w", ErrNotMeasured, err)
		}
		t.compare(ref, cand, from, n)
		from += n
	}
	b.Values = t.finish()
	b.name()
	return b, nil
}

// name finds the first wrong value.
func (b *Bisection) name() {
	for i := range b.Values {
		v := &b.Values[i]
		if !b.Growth.wrong(v.Error, v.Input) {
			continue
		}
		b.First = i
		b.Reason = fmt.Sprintf("%s (%s) is off by %.3g at position %d, its inputs by %.3g", v.Name, v.Operation, v.Error, v.Position, v.Input)
		if v.Error == math.MaxFloat64 {
			b.Reason = fmt.Sprintf("%s (%s) is not finite at position %d, its inputs are off by %.3g", v.Name, v.Operation, v.Position, v.Input)
		}
		return
	}
	b.Reason = "no value is off by more than sound executors are; if the gate rejects the backend, its serving path differs from its traced one"
}

// traced is an executor with the values of its last step.
type traced struct {
	side   // for its guard
	ctx    context.Context
	wait   time.Duration
	values map[string][]float32
}

func newTraced(ctx context.Context, load TraceLoader, c BisectCase) (*traced, error) {
	t := &traced{ctx: ctx, wait: cmp.Or(c.Deadline, bisectDeadline), values: map[string][]float32{}}
	err := t.guard(ctx, loadDeadline, func() (err error) {
		if t.exec, err = load(t.record); err == nil {
			t.seq, err = t.exec.NewSequence(len(c.Tokens))
		}
		return err
	})
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *traced) record(v graph.Value, rows []float32) {
	t.values[v.Name] = append(t.values[v.Name][:0], rows...)
}

// step feeds tokens; a panic or a hang is an error like any other.
func (t *traced) step(tokens []int32) error {
	for name := range t.values {
		t.values[name] = t.values[name][:0]
	}
	err := t.guard(t.ctx, t.wait, func() error {
		return t.exec.Step([]backend.Span{{Seq: t.seq, Tokens: tokens, Want: backend.All}}, &t.logits)
	})
	if err != nil {
		return err
	}
	t.values[returnedLogits] = append(t.values[returnedLogits][:0], t.logits.Data...)
	return nil
}

// close frees the executor. One that is stuck is told to close and not waited
// for.
func (t *traced) close() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }() // nothing depends on it any more
		if t.seq != nil && !t.stuck {
			_ = t.seq.Close()
		}
		if t.exec != nil {
			_ = t.exec.Close()
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}

// returnedLogits is the name of what Step hands out, as opposed to what the
// last operation computed.
const returnedLogits = "logits (returned)"

// valueTable collects errors by value.
type valueTable struct {
	program *graph.Program
	values  []ValueError
	inputs  [][]int // of each value: indices of what it is computed from
}

func newValueTable(p *graph.Program, positions int) *valueTable {
	t := &valueTable{program: p}
	at := map[graph.ID]int{}
	stored := make([][]int, len(p.Caches)) // by layer: keys and values
	for _, op := range p.Ops {
		var in []int
		for _, id := range op.Inputs() {
			in = append(in, at[id])
		}
		switch o := op.(type) {
		case *graph.KVStore:
			stored[o.Layer] = in
			continue
		case *graph.Attention:
			in = append(in, stored[o.Layer]...)
		}
		id := op.Output()
		at[id] = len(t.values)
		t.add(p.Values[id].Name, op.Kind(), in, positions)
	}
	t.add(returnedLogits, "step", []int{len(t.values) - 1}, positions)
	return t
}

func (t *valueTable) add(name, operation string, inputs []int, positions int) {
	rows := make([]float64, positions)
	for i := range rows {
		rows[i] = -1
	}
	t.values = append(t.values, ValueError{Name: name, Operation: operation, Layer: layerOf(name), Rows: rows})
	t.inputs = append(t.inputs, inputs)
}

// layerOf reads the layer out of "blk.7.attn_q"; -1 if there is none.
func layerOf(name string) int {
	rest, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return -1
	}
	number, _, _ := strings.Cut(rest, ".")
	layer, err := strconv.Atoi(number)
	if err != nil {
		return -1
	}
	return layer
}

// compare adds the rows of a step. A backend that fuses operations has no trace
// of some values; they are left out.
func (t *valueTable) compare(ref, cand *traced, from, n int) {
	for i := range t.values {
		v := &t.values[i]
		want, got := ref.values[v.Name], cand.values[v.Name]
		if len(want) == 0 || len(want)%n != 0 || len(got) == 0 {
			continue
		}
		width := len(want) / n
		for r := range n {
			v.Rows[from+r] = math.MaxFloat64
			if len(got) == len(want) {
				v.Rows[from+r] = relative(want[r*width:(r+1)*width], got[r*width:(r+1)*width])
			}
		}
	}
}

// relative is the root mean square of the difference over that of the
// reference, math.MaxFloat64 if it is not a number.
func relative(want, got []float32) float64 {
	var diff, sum float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		diff += d * d
		sum += float64(w) * float64(w)
	}
	switch e := math.Sqrt(diff / sum); {
	case diff == 0:
		return 0
	case e <= math.MaxFloat64:
		return e
	}
	return math.MaxFloat64
}

// finish computes the errors of values and of their inputs. A value without a
// trace takes the error of its own inputs, so that its consumers are not blamed.
func (t *valueTable) finish() []ValueError {
	for i := range t.values {
		v := &t.values[i]
		for _, in := range t.inputs[i] {
			v.Input = max(v.Input, t.values[in].Error)
		}
		measured := false
		for p, e := range v.Rows {
			if e < 0 {
				continue
			}
			if !measured || e > v.Error {
				v.Error, v.Position = e, p
			}
			measured = true
		}
		if !measured {
			v.Error = v.Input
		}
		if v.Input > 0 {
			v.Growth = min(v.Error/v.Input, math.MaxFloat64)
		}
	}
	return slices.Clone(t.values)
}
