package cuda

import (
	"fmt"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
)

// attention compiles attention. Positions may be wrong on purpose.
func (c *compiler) attention(o *graph.Attention, wrong *graph.Misplace) {
	pos := c.positions(wrong)
	a := c.attentionShape(o)
	variant := func(s stepShape) string { return c.attentionVariant(a, s) }
	c.wantAttention(a)
	c.add(whole(o, wrong), variant, func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error { return r.attend(a, in[0], out, pos(r), nil) })
}

func (e *executor) attentionShape(o *graph.Attention) attentionShape {
	l := e.program.Caches[o.Layer]
	return attentionShape{
		Heads: o.Heads, KVHeads: l.Heads, HeadDim: l.HeadDim, KVBytes: e.kvSize, Unit: uint64(e.layerAt[o.Layer]),
		Scale: o.Scale, SoftCap: o.SoftCap, Window: l.Window,
	}
}

// tokensForTile is how many tokens of a sequence, on average, are worth a tile of
// the kernels for prompts, which read the keys once for each query head. Sequences
// that decode together have one each.
const tokensForTile = 8

// attentionPlanFor chooses the kernels of attention; false if only the plain one can.
func (e *executor) attentionPlanFor(a attentionShape, s stepSize) (attentionPlan, bool) {
	if a.validate() != nil {
		return attentionPlan{}, false
	}
	var p attentionPlan
	var err error
	if s.few() || s.tokens < tokensForTile*s.tiles {
		p, err = planDecode(e.c.Device, a, s.tokens, e.longest())
	} else {
		p, err = planPrefill(e.c.Device, a, s.tokens, s.tiles, e.longest())
	}
	return p, err == nil
}

// maxLongest bounds the context that attention is cut for: beyond it there are
// enough parts for any device.
const maxLongest = 32768

// longest is the context that decode attention is laid out for. One layout serves
// all lengths, so that one captured graph does.
func (e *executor) longest() int {
	if e.program.Context <= 0 {
		return maxLongest
	}
	return min(e.program.Context, maxLongest)
}

// attentionVariant names kernels and what decides how they go over the positions.
func (e *executor) attentionVariant(a attentionShape, s stepShape) string {
	name := "attention/plain/" + amountName(s.tokens)
	if p, ok := e.attentionPlanFor(a, s.stepSize); ok {
		name = fmt.Sprintf("%s/splits-%d", p.Variant, p.Splits)
	}
	name += fmt.Sprintf("/kv-%s", e.opts.KV)
	if s.blocks {
		name += "/blocks"
	}
	if s.windowed {
		name += "/window"
	}
	return name
}

// wantAttention makes room for the partial results of steps of any size.
func (c *compiler) wantAttention(a attentionShape) {
	// Every token of a step may be of another sequence.
	if p, ok := c.attentionPlanFor(a, stepSize{tokens: c.opts.MaxBatch, tiles: c.opts.MaxBatch}); ok {
		c.scratch.counterBytes = max(c.scratch.counterBytes, p.Counters())
	}
	for n := 1; ; n = min(2*n, c.opts.MaxBatch) {
		tiles := (n + tileTokens - 1) / tileTokens
		if p, ok := c.attentionPlanFor(a, stepSize{tokens: n, tiles: tiles}); ok {
			c.scratch.workBytes = max(c.scratch.workBytes, p.Workspace())
		}
		if n == c.opts.MaxBatch {
			return
		}
	}
}

// attend appends attention with the queries q, which the kernel rotates, with the key
// and value, if rotate is given.
func (r *recorder) attend(a attentionShape, q, out, pos cuda.Ptr, rotate *ropeStore) error {
	kv, capacity := r.ints(r.at.kv), r.ints(r.at.cap)
	p, ok := r.e.attentionPlanFor(a, r.shape)
	if !ok {
		return r.launch(r.e.kvName("attention_plain"), [3]int{a.Heads, r.shape.tokens}, 128, 0, q, out, pos, kv, capacity,
			a.Unit, a.KVHeads, a.HeadDim, a.Window, a.Scale, a.SoftCap)
	}
	work, err := r.work(p.Workspace())
	if err != nil {
		return err
	}
	if n := p.Counters(); n > r.e.scratch.counterBytes {
		return fmt.Errorf("attention of %d tokens needs %d bytes of counters, there are %d", r.shape.tokens, n, r.e.scratch.counterBytes)
	}
	runs, err := p.launches(r.e.c, r.e.lib.find, attentionArgs{Q: q, Out: out, Pos: pos, KV: kv, Cap: capacity, Tiles: r.ints(r.at.tiles), Work: work, Counters: r.e.scratch.counters, Rotate: rotate})
	if err != nil {
		return err
	}
	r.add(runs...)
	return nil
}
