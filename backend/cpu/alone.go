package cpu

import (
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/kernel"
)

// A step of one token with several workers is alone: operations on the token are so short
// that one worker would spend most of their time on fetching what others have written, and
// the others more on fetching what it has. So each worker does all of them, in buffers of
// its own, and only products, the cache and attention's results are shared. Every bit is
// as it would be with one worker.

// operand is where a value lies: in a buffer of all workers and, if own is not -1, during
// a step that is alone in one of each worker's own instead.
type operand struct{ slot, own int }

var nowhere = operand{-1, -1}

func (o operand) resource(kind resourceKind) resource { return resource{kind, o.slot, o.own >= 0} }

// floats is where worker w finds a value.
func (e *executor) floats(w int, o operand) []float32 {
	if e.alone && o.own >= 0 {
		return e.scratch[w].floats[o.own]
	}
	return e.buffers[o.slot]
}

// quantised is where worker w finds a value in 16 bits.
func (e *executor) quantised(w int, o operand) *kernel.I16 {
	if e.alone && o.own >= 0 {
		return &e.scratch[w].packed[o.own]
	}
	return &e.packed[o.slot]
}

// setAlone decides whether a step is alone and makes room for its values.
func (e *executor) setAlone() {
	s := &e.step
	e.alone = len(s.tokens) == 1 && e.pool.active > 1 && e.opts.Trace == nil
	e.byHead = e.alone && e.ownHeads > 0 && s.ends[0] <= kernel.AttentionChunk
	if !e.alone || e.scratch[0].floats != nil {
		return
	}
	for w := range e.scratch {
		ws := &e.scratch[w]
		ws.floats, ws.packed = make([][]float32, len(e.ownW)), make([]kernel.I16, len(e.packed))
		for i, width := range e.ownW {
			ws.floats[i] = make([]float32, width)
		}
		for i, width := range e.packedW {
			e.packed[i].Like(&ws.packed[i])
			ws.packed[i].Resize(1, width)
		}
	}
}

// headsOf is how many key/value heads every layer has, so that a worker can do all that
// belongs to some of them; 0 if they differ, if some rope cannot be divided likewise, or if
// what it rotates goes elsewhere than into attention.
func headsOf(p *graph.Program) int {
	heads := 0
	for _, c := range p.Caches {
		if heads != 0 && c.Heads != heads {
			return 0
		}
		heads = c.Heads
	}
	if heads == 0 {
		return 0
	}
	rotated := map[graph.ID]bool{}
	for _, op := range p.Ops {
		if wrong, ok := op.(*graph.Misplace); ok {
			op = wrong.Op
		}
		switch o := op.(type) {
		case *graph.Rope:
			if p.Values[o.In].Width/o.HeadDim%heads != 0 {
				return 0
			}
			rotated[o.Out] = true
		case *graph.KVStore, *graph.Attention:
		default:
			for _, in := range op.Inputs() {
				if rotated[in] {
					return 0
				}
			}
		}
	}
	return heads
}

// ownPart is worker w's part of n things that belong to heads.
func (e *executor) ownPart(w, n int) (from, to int) {
	return n * w / e.pool.active, n * (w + 1) / e.pool.active
}

// placeAloneBarriers is placeBarriers for a step that is alone. What gating does counts as
// the product's.
func placeAloneBarriers(code []instr) {
	start := 0
	for i := range code {
		for j := start; j < i; j++ {
			if code[i].gating == nil && code[j].gating == nil && conflict(&code[j], &code[i], true) {
				in := &code[i]
				in.aloneBarrier = true
				// All must wait behind it, as nobody may have waited here.
				in.local = in.attends && i+1 < len(code) && conflict(in, &code[i+1], true)
				for k := start; k < i; k++ {
					in.local = in.local && code[k].heads
				}
				start = i
				break
			}
		}
	}
}
