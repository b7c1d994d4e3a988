package cpu

import (
	"slices"
	"sync/atomic"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/kernel"
)

// gating is the gate of a feed-forward and the quantisation of its result, for few tokens:
// whoever multiplies the last rows of a chunk does both with the chunk at once, while it is
// in that core's cache, and nobody waits for it.
type gating struct {
	*executor
	act           func(dst, gate, up []float32)
	gate, up, dst int
	packed        int
	width         int
	done          []tally // by chunk: rows of both matrices that are multiplied
}

// tally counts what several workers do. It has a cache line of its own.
type tally struct {
	atomic.Int32
	_ [60]byte
}

// active reports whether the step's tokens are few enough and somebody else would wait.
func (g *gating) active() bool {
	return len(g.step.tokens) <= fewTokens && g.pool.active > 1 && g.opts.Trace == nil
}

func (g *gating) reset() {
	for i := range g.done {
		g.done[i].Store(0)
	}
}

// completed is called when rows of one of the matrices are multiplied.
func (g *gating) completed(w, r0, r1 int) {
	for r0 < r1 {
		c := r0 / kernel.I16Chunk
		from, end := c*kernel.I16Chunk, min((c+1)*kernel.I16Chunk, g.width)
		to := min(r1, end)
		if int(g.done[c].Add(int32(to-r0))) == 2*(end-from) {
			g.chunk(w, c, from, end)
		}
		r0 = to
	}
}

func (g *gating) chunk(w, c, from, to int) {
	part := &g.scratch[w].part
	g.executor.packed[g.packed].Part(part, c, c+1)
	for t := range len(g.step.tokens) {
		a, b := t*g.width+from, t*g.width+to
		g.act(g.buffers[g.dst][a:b], g.buffers[g.gate][a:b], g.buffers[g.up][a:b])
		kernel.QuantizeI16(part, t, g.buffers[g.dst][a:b])
	}
}

// gatedAct compiles a gate. What follows the products that it needs, and nobody else does,
// is done along with them.
func (c *compiler) gatedAct(o *graph.GatedAct) {
	n := len(c.code)
	fused := n >= 2 && len(c.packs[o.Out]) > 0 && c.left[o.Gate] == 1 && c.left[o.Up] == 1 &&
		c.code[n-2].product != nil && c.code[n-1].product != nil &&
		c.code[n-2].traced == o.Gate && c.code[n-1].traced == o.Up
	gate, up := c.at[o.Gate].slot, c.at[o.Up].slot
	c.elementwise(o.Out, []graph.ID{o.Gate, o.Up}, func(dst operand, src []operand) func(int) {
		return c.runGatedAct(o, src[0], src[1], dst, c.width(o.Out))
	})
	if !fused || c.at[o.Out].slot != up {
		return
	}
	dst, p := c.at[o.Out], c.packOf[o.Out]
	for _, r := range slices.Concat(c.code[n-2].reads, c.code[n-1].reads) {
		if r.kind == packedSlot && r.index == p.slot {
			return // the products still read what would be overwritten
		}
	}
	// The result is shared even in a step that is alone.
	c.own[c.width(o.Out)] = append(c.own[c.width(o.Out)], dst.own)
	c.at[o.Out].own, c.packOf[o.Out].own = -1, -1
	g := &gating{executor: c.executor, act: gatedActs[o.Act], gate: gate, up: up, dst: dst.slot, packed: p.slot, width: c.width(o.Out)}
	g.done = make([]tally, (g.width+kernel.I16Chunk-1)/kernel.I16Chunk)
	c.code[n-2].product.gating, c.code[n-1].product.gating = g, g
	c.code[n-1].writes = append(c.code[n-1].writes, resource{kind: packedSlot, index: p.slot})
	for i := n; i < len(c.code); i++ {
		c.code[i].gating = g
	}
}
