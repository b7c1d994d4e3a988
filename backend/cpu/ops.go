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
	return n * w / e.pool.active, n * (w + 1) / e.pool.active
}

func (e *executor) runEmbed(t tensor.Tensor, dst int) func(int) {
	width := t.Cols()
	return func(w int) {
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			kernel.Dequantize(t.Type, e.buffers[dst][i*width:(i+1)*width], t.Row(int(e.step.tokens[i])))
		}
	}
}

// runInput copies the rows that come with the tokens.
func (e *executor) runInput(dst, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			copy(e.buffers[dst][i*width:(i+1)*width], e.step.input[i])
		}
	}
}

// runOutput copies the rows asked for to where logits go.
func (e *executor) runOutput(src, width int) func(int) {
	return func(w int) {
		if w != 0 {
			return // copies of some kilobytes a token are not worth sharing out
		}
		for i, row := range e.step.wanted {
			copy(e.step.logits.Data[i*width:(i+1)*width], e.buffers[src][row*width:])
		}
	}
}

func (e *executor) runPack(src, dst, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			kernel.QuantizeI16(&e.packed[dst], i, e.buffers[src][i*width:(i+1)*width])
		}
	}
}

func (e *executor) runNorm(o *graph.RMSNorm, weight []float32, src, dst, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		x, y := e.buffers[src], e.buffers[dst]
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
			cos, sin := r.cos[i*n:(i+1)*n], r.sin[i*n:(i+1)*n]
			pos := float64(e.position(r.misplaced, i))
			for j, f := range r.inv {
				s, c := math.Sincos(pos * f)
				cos[j], sin[j] = float32(c*r.magnitude), float32(s*r.magnitude)
			}
		}
	}
}

func (e *executor) runRope(o *graph.Rope, table, src, dst, width int) func(int) {
	rotate := kernel.RopeNeoX
	if o.Pairing == graph.Interleaved {
		rotate = kernel.RopeNorm
	}
	return func(w int) {
		t0, t1 := e.mine(w)
		r := &e.ropes[table]
		n := len(r.inv)
		if src != dst {
			copy(e.buffers[dst][t0*width:t1*width], e.buffers[src][t0*width:t1*width])
		}
		for i := t0; i < t1; i++ {
			cos, sin := r.cos[i*n:(i+1)*n], r.sin[i*n:(i+1)*n]
			for head := i * width; head < (i+1)*width; head += o.HeadDim {
				rotate(e.buffers[dst][head:head+o.HeadDim], cos, sin)
			}
		}
	}
}

func (e *executor) runKVStore(o *graph.KVStore, wrong *graph.Misplace, k, v int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			seq, pos := e.step.seqs[i], e.position(wrong, i)
			if pos < 0 || pos >= seq.capacity {
				continue // only a misplaced one
			}
			l := &seq.layers[o.Layer]
			width := l.Heads * l.HeadDim
			keys, values := e.buffers[k][i*width:(i+1)*width], e.buffers[v][i*width:(i+1)*width]
			for h := range l.Heads {
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

func (e *executor) runGatedAct(o *graph.GatedAct, gate, up, dst, width int) func(int) {
	act := kernel.SiLUMul
	if o.Act == graph.GELU {
		act = kernel.GELUMul
	}
	return func(w int) {
		t0, t1 := e.mine(w)
		from, to := t0*width, t1*width
		act(e.buffers[dst][from:to], e.buffers[gate][from:to], e.buffers[up][from:to])
	}
}

func (e *executor) runAdd(a, b, dst, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		from, to := t0*width, t1*width
		kernel.Add(e.buffers[dst][from:to], e.buffers[a][from:to], e.buffers[b][from:to])
	}
}

func (e *executor) runScale(factor float32, src, dst, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		from, to := t0*width, t1*width
		kernel.Scale(e.buffers[dst][from:to], e.buffers[src][from:to], factor)
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

func (e *executor) runTamper(o *graph.Tamper, src, alt, dst, width int) func(int) {
	return func(w int) {
		t0, t1 := e.mine(w)
		for i := t0; i < t1; i++ {
			from, to := i*width, (i+1)*width
			backend.Spoil(o, e.buffers[dst][from:to], e.buffers[src][from:to], e.buffers[alt][from:to], e.step.pos[i], len(e.step.tokens))
		}
	}
}
