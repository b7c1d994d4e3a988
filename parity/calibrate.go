package parity

import (
	"context"
	"fmt"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// Arithmetic is a sound way to compute a model: what it differs by from another
// sound way is noise, and no threshold of a policy may be below it.
type Arithmetic struct {
	Name    string
	Backend string
	KV      tensor.DType
	// Batch is the number of tokens in a step.
	Batch int
	// Rounding, if set, rounds what every matrix is multiplied with, as executors
	// with narrow activations do.
	Rounding *graph.Tamper
	// Positions bounds the prompt, for executors that are slow; 0 for all.
	Positions int
}

// exact is what arithmetics are compared with: the reference of the gate.
var exact = Arithmetic{Name: "cpu-exact", Backend: "cpu-exact", KV: tensor.F32, Batch: 64}

// Arithmetics lists the sound ways to compute that calibration compares with
// cpu-exact: another order of addition, a narrower cache, other batches, and
// the activations that CPU and GPU kernels use.
func Arithmetics() []Arithmetic {
	return []Arithmetic{
		{Name: "float64 sums (oracle)", Backend: "oracle", KV: tensor.F32, Batch: 64, Positions: 24},
		{Name: "single steps", Backend: "cpu-exact", KV: tensor.F32, Batch: 1},
		{Name: "batches of 7", Backend: "cpu-exact", KV: tensor.F32, Batch: 7},
		{Name: "half-precision cache", Backend: "cpu-exact", KV: tensor.F16, Batch: 64},
		{Name: "16-bit activations (cpu)", Backend: "cpu", KV: tensor.F16, Batch: 64},
		{Name: "16-bit activations, single steps", Backend: "cpu", KV: tensor.F16, Batch: 1},
		{Name: "half-precision activations", Backend: "cpu-exact", KV: tensor.F16, Batch: 64, Rounding: &graph.Tamper{How: graph.Half, Amount: 1}},
		{Name: "8-bit activations, one scale for 32", Backend: "cpu-exact", KV: tensor.F16, Batch: 64, Rounding: &graph.Tamper{How: graph.Int8, Group: 32}},
	}
}

// Noise is how far one arithmetic is from cpu-exact on one model, the worst
// over all positions of all prompts.
type Noise struct {
	Model      string  `json:"model"`
	Arithmetic string  `json:"arithmetic"`
	Positions  int     `json:"positions"`
	MinCosine  float64 `json:"min_cosine"`
	MaxKL      float64 `json:"max_kl"`
	MinClose   float64 `json:"min_close"`
	MaxRMS     float64 `json:"max_rms"`
	MaxP99     float64 `json:"max_p99"`
	MaxP999    float64 `json:"max_p999"`
	MaxPeak    float64 `json:"max_peak"`
	// MaxPeakRatio is the largest error over the 99th percentile.
	MaxPeakRatio float64 `json:"max_peak_ratio"`
	// Flips counts positions with another argmax, MaxMargin is the largest margin
	// of one.
	Flips     int     `json:"flips"`
	MaxMargin float64 `json:"max_margin"`
}

// add takes the metrics of a position into account.
func (n *Noise) add(m Metrics) {
	if n.Positions == 0 {
		n.MinCosine, n.MinClose = 1, 1
	}
	n.Positions++
	n.MinCosine, n.MinClose = min(n.MinCosine, m.Cosine), min(n.MinClose, m.Close)
	n.MaxKL, n.MaxRMS = max(n.MaxKL, m.KL), max(n.MaxRMS, m.RMS)
	n.MaxP99, n.MaxP999, n.MaxPeak = max(n.MaxP99, m.P99), max(n.MaxP999, m.P999), max(n.MaxPeak, m.Peak)
	if m.P99 > 0 {
		n.MaxPeakRatio = max(n.MaxPeakRatio, m.Peak/m.P99)
	}
	if m.ReferenceArgmax != m.CandidateArgmax {
		n.Flips++
		n.MaxMargin = max(n.MaxMargin, m.ReferenceMargin, m.CandidateMargin)
	}
}

// Merge returns the worst of both.
func (n Noise) Merge(o Noise) Noise {
	if n.Positions == 0 {
		n.MinCosine, n.MinClose = 1, 1
	}
	if o.Positions == 0 {
		return n
	}
	n.Positions, n.Flips = n.Positions+o.Positions, n.Flips+o.Flips
	n.MinCosine, n.MinClose = min(n.MinCosine, o.MinCosine), min(n.MinClose, o.MinClose)
	n.MaxKL, n.MaxRMS = max(n.MaxKL, o.MaxKL), max(n.MaxRMS, o.MaxRMS)
	n.MaxP99, n.MaxP999, n.MaxPeak = max(n.MaxP99, o.MaxP99), max(n.MaxP999, o.MaxP999), max(n.MaxPeak, o.MaxPeak)
	n.MaxPeakRatio, n.MaxMargin = max(n.MaxPeakRatio, o.MaxPeakRatio), max(n.MaxMargin, o.MaxMargin)
	return n
}

// CalibrationModel is a model to calibrate with.
type CalibrationModel struct {
	Name    string
	Program *graph.Program
	Weights graph.Weights
	Prompts [][]int32
}

// Calibrate measures the noise of each arithmetic on a model.
func Calibrate(ctx context.Context, m CalibrationModel, arithmetics []Arithmetic) ([]Noise, error) {
	var table []Noise
	want := make([][][]float32, len(m.Prompts))
	for i, prompt := range m.Prompts {
		rows, err := exact.run(ctx, m, prompt)
		if err != nil {
			return nil, err
		}
		want[i] = rows
	}
	for _, a := range arithmetics {
		n := Noise{Model: m.Name, Arithmetic: a.Name}
		for i, prompt := range m.Prompts {
			if a.Positions > 0 {
				prompt = prompt[:min(len(prompt), a.Positions)]
			}
			rows, err := a.run(ctx, m, prompt)
			if err != nil {
				return nil, err
			}
			for j, row := range rows {
				n.add(Compare(want[i][j], row))
			}
		}
		table = append(table, n)
	}
	return table, nil
}

// run returns the logits after each token of a prompt.
func (a Arithmetic) run(ctx context.Context, m CalibrationModel, prompt []int32) (rows [][]float32, err error) {
	fail := func(err error) error { return fmt.Errorf("%w: %s on %s: %w", ErrNotMeasured, a.Name, m.Name, err) }
	b, err := backend.Find(a.Backend)
	if err != nil {
		return nil, fail(err)
	}
	devices, err := b.Probe()
	if err != nil || len(devices) == 0 {
		return nil, fail(fmt.Errorf("no device: %w", err))
	}
	p := m.Program
	if a.Rounding != nil {
		p = roundActivations(p, *a.Rounding)
	}
	exec, err := devices[0].Load(p, m.Weights, backend.Options{KV: a.KV, MaxBatch: max(a.Batch, 1)})
	if err != nil {
		return nil, fail(err)
	}
	defer exec.Close()
	seq, err := exec.NewSequence(len(prompt))
	if err != nil {
		return nil, fail(err)
	}
	defer seq.Close()
	for from := 0; from < len(prompt); from += a.Batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		to := min(from+a.Batch, len(prompt))
		var l backend.Logits
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: prompt[from:to], Want: backend.All}}, &l); err != nil {
			return nil, fail(err)
		}
		for i := range l.Rows() {
			rows = append(rows, l.Row(i))
		}
	}
	return rows, nil
}

// roundActivations returns a program that rounds each value before matrices are
// multiplied with it.
func roundActivations(p *graph.Program, how graph.Tamper) *graph.Program {
	q := *p
	q.Values, q.Ops = append([]graph.Value(nil), p.Values...), nil
	rounded := map[graph.ID]graph.ID{}
	round := func(in graph.ID) graph.ID {
		out, ok := rounded[in]
		if !ok {
			out = graph.ID(len(q.Values))
			rounded[in] = out
			q.Values = append(q.Values, graph.Value{Name: p.Values[in].Name + " (rounded)", Width: p.Values[in].Width})
			op := how
			op.In, op.Alt, op.Out = in, in, out
			q.Ops = append(q.Ops, &op)
		}
		return out
	}
	for _, op := range p.Ops {
		switch o := op.(type) {
		case *graph.MatMul:
			c := *o
			c.In = round(o.In)
			op = &c
		case *graph.Logits:
			c := *o
			c.In = round(o.In)
			op = &c
		}
		q.Ops = append(q.Ops, op)
	}
	return &q
}
