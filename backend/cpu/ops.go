package cpu

import (
	"math"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/tensor"
)

// The run… methods return the code of one instruction. Rows are tokens; a
// buffer of width n holds token t at [t·n, (t+1)·n).

// mine is the range of tokens that belongs to worker w in per-token operations.
func (e *executor) mine(w int) (t0, t1 int) {
	n := len(e.step.tokens)
	if e.alone {
		return 0, n
	}
	return n * w / e.pool.active, n * (w + 1) / e.pool.active
}

func (e *executor) runEmbed(t tensor.Tensor, dst operand) func(int) {
	width := t.Cols()
	return func(w int) {
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			kernel.Dequantize(t.Type, e.floats(w, dst)[i*width:(i+1)*width], t.Row(int(e.step.tokens[i])))
		}
	}
}

// runInput copies the rows that come with the tokens.
func (e *executor) runInput(dst operand, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			copy(e.floats(w, dst)[i*width:(i+1)*width], e.step.input[i])
		}
	}
}

// runOutput copies the rows asked for to where logits go.
func (e *executor) runOutput(src operand, width int) func(int) {
	return func(w int) {
		if w != 0 {
			return // copies of some kilobytes a token are not worth sharing out
		}
		for i, row := range e.step.wanted {
			copy(e.step.logits.Data[i*width:(i+1)*width], e.floats(w, src)[row*width:])
		}
	}
}

func (e *executor) runPack(src, dst operand, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			kernel.QuantizeI16(e.quantised(w, dst), i, e.floats(w, src)[i*width:(i+1)*width])
		}
	}
}

func (e *executor) runNorm(o *graph.RMSNorm, weight []float32, src, dst operand, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		x, y := e.floats(w, src), e.floats(w, dst)
		for at := t0 * width; at < t1*width; at += o.Segment {
			kernel.RMSNorm(y[at:at+o.Segment], x[at:at+o.Segment], weight, o.Eps)
		}
	}
}

// runAngles fills a rope table for the positions of the step. Angles are
// formed in float64: at position 100,000 a float32 angle is off by 0.004.
func (e *executor) runAngles(table int) func(int) {
	return func(w int) {
		r := &e.ropes[table]
		n := len(r.inv)
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			row := e.ropeRow(w, i)
			cos, sin := r.cos[row*n:(row+1)*n], r.sin[row*n:(row+1)*n]
			pos := float64(e.position(r.misplaced, i))
			for j, f := range r.inv {
				s, c := math.Sincos(pos * f)
				cos[j], sin[j] = float32(c*r.magnitude), float32(s*r.magnitude)
			}
		}
	}
}

// ropeRow is which row of a rope table token i has: in a step that is alone each worker has
// its own.
func (e *executor) ropeRow(w, i int) int {
	if e.alone {
		return w
	}
	return i
}

func (e *executor) runRope(o *graph.Rope, table int, src, dst operand, width int) func(int) {
	rotate := kernel.RopeNeoX
	if o.Pairing == graph.Interleaved {
		rotate = kernel.RopeNorm
	}
	return func(w int) {
		t0, t1 := e.mine(w)
		r := &e.ropes[table]
		n := len(r.inv)
		from, to := t0*width, t1*width
		if e.byHead {
			h0, h1 := e.ownPart(w, e.ownHeads)
			from, to = h0*(width/e.ownHeads), h1*(width/e.ownHeads)
		}
		x, y := e.floats(w, src), e.floats(w, dst)
		if from < to && &x[0] != &y[0] {
			copy(y[from:to], x[from:to])
		}
		for head := from; head < to; head += o.HeadDim {
			row := e.ropeRow(w, head/width)
			rotate(y[head:head+o.HeadDim], r.cos[row*n:(row+1)*n], r.sin[row*n:(row+1)*n])
		}
	}
}

func (e *executor) runKVStore(o *graph.KVStore, wrong *graph.Misplace, k, v operand) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			seq, pos := e.step.seqs[i], e.position(wrong, i)
			if pos < 0 || pos >= seq.capacity {
				continue // only a misplaced one
			}
			l := &seq.layers[o.Layer]
			width := l.Heads * l.HeadDim
			keys, values := e.floats(w, k)[i*width:(i+1)*width], e.floats(w, v)[i*width:(i+1)*width]
			h0, h1 := 0, l.Heads
			if e.alone {
				h0, h1 = e.ownPart(w, l.Heads)
			}
			for h := h0; h < h1; h++ {
				at := (h*seq.capacity + pos) * l.HeadDim
				from, to := h*l.HeadDim, (h+1)*l.HeadDim
				switch {
				case l.k32 != nil:
					copy(l.k32[at:], keys[from:to])
					copy(l.v32[at:], values[from:to])
				case l.k8 != nil:
					row := kernel.CacheRowBytes(l.HeadDim)
					at = (h*seq.capacity + pos) * row
					kernel.QuantizeQ8(l.k8[at:at+row], keys[from:to])
					kernel.QuantizeQ8(l.v8[at:at+row], values[from:to])
				default:
					kernel.F32ToF16Slice(l.k16[at:at+l.HeadDim], keys[from:to])
					kernel.F32ToF16Slice(l.v16[at:at+l.HeadDim], values[from:to])
				}
			}
		}
	}
}

var gatedActs = map[graph.Activation]func(dst, gate, up []float32){graph.SiLU: kernel.SiLUMul, graph.GELU: kernel.GELUMul}

func (e *executor) runGatedAct(o *graph.GatedAct, gate, up, dst operand, width int) func(int) {
	act := gatedActs[o.Act]
	return func(w int) {
		t0, t1 := e.mine(w)
		from, to := t0*width, t1*width
		act(e.floats(w, dst)[from:to], e.floats(w, gate)[from:to], e.floats(w, up)[from:to])
	}
}

func (e *executor) runAdd(a, b, dst operand, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		from, to := t0*width, t1*width
		kernel.Add(e.floats(w, dst)[from:to], e.floats(w, a)[from:to], e.floats(w, b)[from:to])
	}
}

func (e *executor) runScale(factor float32, src, dst operand, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		from, to := t0*width, t1*width
		kernel.Scale(e.floats(w, dst)[from:to], e.floats(w, src)[from:to], factor)
	}
}

// position is the position that an operation uses for row i of the step: the
// token's own unless the operation is misplaced.
func (e *executor) position(wrong *graph.Misplace, i int) int {
	pos := e.step.pos[i]
	if wrong == nil {
		return pos
	}
	return wrong.Position(pos, pos-e.step.seqs[i].length, len(e.step.tokens))
}

func (e *executor) runTamper(o *graph.Tamper, src, alt, dst operand, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			from, to := i*width, (i+1)*width
			backend.Spoil(o, e.floats(w, dst)[from:to], e.floats(w, src)[from:to], e.floats(w, alt)[from:to], e.step.pos[i], len(e.step.tokens))
		}
	}
}
