package cpu

import (
	"math"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/tensor"
)

func (e *executor) runMatMulI16(p *product, bias []float32, src operand, dst int) func(int) {
	t, rows := p.weights, p.weights.Rows()
	p.multiply = func(w, r0, r1 int) {
		n := len(e.step.tokens)
		multiplyI16(e.buffers[dst], t, r0, r1, e.quantised(w, src), n, &e.scratch[w].i16)
		addBias(e.buffers[dst], rows, bias, r0, r1, n)
	}
	return p.run
}

// fewTokens is up to how many tokens have the same bits together as one at a time.
const fewTokens = kernel.FewTokens

// multiplyI16 picks the kernel for few tokens or for many.
func multiplyI16(out []float32, t tensor.Tensor, r0, r1 int, x *kernel.I16, tokens int, ws *kernel.Workspace) {
	if tokens <= fewTokens {
		kernel.MatVecsI16(out[r0:], t.Rows(), t, r0, r1, x, 0, tokens)
		return
	}
	kernel.MatMulI16(out, t.Rows(), t, r0, r1, x, 0, tokens, ws)
}

func (e *executor) runMatMulF32(p *product, bias []float32, src operand, dst int) func(int) {
	t, rows := p.weights, p.weights.Rows()
	p.multiply = func(w, r0, r1 int) {
		n := len(e.step.tokens)
		kernel.MatMulF32(e.buffers[dst], rows, t, r0, r1, e.floats(w, src), 0, n, &e.scratch[w].f32)
		addBias(e.buffers[dst], rows, bias, r0, r1, n)
	}
	return p.run
}

func addBias(out []float32, stride int, bias []float32, r0, r1, tokens int) {
	if bias == nil {
		return
	}
	for i := range tokens {
		row := out[i*stride+r0 : i*stride+r1]
		kernel.Add(row, row, bias[r0:r1])
	}
}

// logitRowSet is the input of the output matrix: the rows that were asked for.
type logitRowSet struct {
	width   int
	integer bool
	rows    []logitInput // by worker if a step is alone, else the first is for all
}

type logitInput struct {
	f32 []float32
	i16 kernel.I16
}

func (c *compiler) newLogitRowSet(width int, t tensor.Tensor) *logitRowSet {
	l := &logitRowSet{width: width, integer: c.integer(t), rows: make([]logitInput, c.opts.Threads)}
	for i := range l.rows {
		l.rows[i].i16.For(t.Type)
	}
	return l
}

// of is what worker w reads.
func (l *logitRowSet) of(w int, alone bool) *logitInput {
	if alone {
		return &l.rows[w]
	}
	return &l.rows[0]
}

func (l *logitRowSet) arithmetic() string {
	if l.integer {
		return "i16"
	}
	return "f32"
}

// runGather collects the wanted rows on worker 0; they are few.
func (e *executor) runGather(l *logitRowSet, src operand) func(int) {
	return func(w int) {
		if w != 0 && !e.alone || len(e.step.wanted) == 0 {
			return
		}
		rows := l.of(w, e.alone)
		if l.integer {
			rows.i16.Resize(len(e.step.wanted), l.width)
		} else if need := len(e.step.wanted) * l.width; len(rows.f32) < need {
			rows.f32 = make([]float32, need)
		}
		for i, row := range e.step.wanted {
			x := e.floats(w, src)[row*l.width : (row+1)*l.width]
			if l.integer {
				kernel.QuantizeI16(&rows.i16, i, x)
			} else {
				copy(rows.f32[i*l.width:], x)
			}
		}
	}
}

func (e *executor) runLogits(o *graph.Logits, p *product, l *logitRowSet) func(int) {
	t, rows := p.weights, p.weights.Rows()
	p.multiply = func(w, r0, r1 int) {
		n, out, in := len(e.step.wanted), e.step.logits.Data, l.of(w, e.alone)
		if l.integer {
			multiplyI16(out, t, r0, r1, &in.i16, n, &e.scratch[w].i16)
		} else {
			kernel.MatMulF32(out, rows, t, r0, r1, in.f32, 0, n, &e.scratch[w].f32)
		}
		if o.SoftCap != 0 {
			for i := range n {
				softCap(out[i*rows+r0:i*rows+r1], o.SoftCap)
			}
		}
	}
	return func(w int) {
		if len(e.step.wanted) > 0 {
			p.run(w)
		}
	}
}

func softCap(x []float32, c float32) {
	for i, v := range x {
		x[i] = c * float32(math.Tanh(float64(v/c)))
	}
}
