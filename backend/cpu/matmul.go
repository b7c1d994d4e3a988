package cpu

import (
	"math"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/tensor"
)

func (e *executor) runMatMulI16(p *product, bias []float32, src, dst int) func(int) {
	t, rows := p.weights, p.weights.Rows()
	return func(w int) {
		n := len(e.step.tokens)
		p.each(w, func(r0, r1 int) {
			multiplyI16(e.buffers[dst], t, r0, r1, &e.packed[src], n, &e.scratch[w].i16)
			addBias(e.buffers[dst], rows, bias, r0, r1, n)
		})
	}
}

// fewTokens is up to where multiplying row by row is faster than unpacking a
// panel of rows first; a step of so many tokens, such as some sequences that
// decode together, has the same bits as one token at a time.
const fewTokens = 7

// multiplyI16 picks the kernel for few tokens or for many.
func multiplyI16(out []float32, t tensor.Tensor, r0, r1 int, x *kernel.I16, tokens int, ws *kernel.Workspace) {
	if tokens <= fewTokens {
		kernel.MatVecsI16(out[r0:], t.Rows(), t, r0, r1, x, 0, tokens)
		return
	}
	kernel.MatMulI16(out, t.Rows(), t, r0, r1, x, 0, tokens, ws)
}

func (e *executor) runMatMulF32(p *product, bias []float32, src, dst int) func(int) {
	t, rows := p.weights, p.weights.Rows()
	return func(w int) {
		n := len(e.step.tokens)
		p.each(w, func(r0, r1 int) {
			kernel.MatMulF32(e.buffers[dst], rows, t, r0, r1, e.buffers[src], 0, n, &e.scratch[w].f32)
			addBias(e.buffers[dst], rows, bias, r0, r1, n)
		})
	}
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
	f32     []float32
	i16     kernel.I16
}

func (l *logitRowSet) arithmetic() string {
	if l.integer {
		return "i16"
	}
	return "f32"
}

// runGather collects the wanted rows on worker 0; they are few.
func (e *executor) runGather(l *logitRowSet, src int) func(int) {
	return func(w int) {
		if w != 0 || len(e.step.wanted) == 0 {
			return
		}
		if l.integer {
			l.i16.Resize(len(e.step.wanted), l.width)
		} else if need := len(e.step.wanted) * l.width; len(l.f32) < need {
			l.f32 = make([]float32, need)
		}
		for i, row := range e.step.wanted {
			x := e.buffers[src][row*l.width : (row+1)*l.width]
			if l.integer {
				kernel.QuantizeI16(&l.i16, i, x)
			} else {
				copy(l.f32[i*l.width:], x)
			}
		}
	}
}

func (e *executor) runLogits(o *graph.Logits, p *product, l *logitRowSet) func(int) {
	t, rows := p.weights, p.weights.Rows()
	return func(w int) {
		n := len(e.step.wanted)
		if n == 0 {
			return
		}
		out := e.step.logits.Data
		p.each(w, func(r0, r1 int) {
			if l.integer {
				multiplyI16(out, t, r0, r1, &l.i16, n, &e.scratch[w].i16)
			} else {
				kernel.MatMulF32(out, rows, t, r0, r1, l.f32, 0, n, &e.scratch[w].f32)
			}
			if o.SoftCap != 0 {
				for i := range n {
					softCap(out[i*rows+r0:i*rows+r1], o.SoftCap)
				}
			}
		})
	}
}

func softCap(x []float32, c float32) {
	for i, v := range x {
		x[i] = c * float32(math.Tanh(float64(v/c)))
	}
}
