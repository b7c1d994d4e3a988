//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"errors"
	"fmt"
	"math"

	"github.com/apr-engine/apr/backend/wgpu/kernels"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// angles are the tables of an operation's frequencies. Position p is 256·a + b;
// far holds the angles of 256·a from a = -1 on, near those of b.
func (c *compiler) angles(o *graph.Rope) (far, near *driver.Buffer, err error) {
	const low = 256
	key := fmt.Sprint("rotary angles ", o.Magnitude, o.InvFreq)
	row := func(table []float32, p int, magnitude float64) []float32 {
		for _, f := range o.InvFreq {
			sin, cos := math.Sincos(float64(p) * f)
			table = append(table, float32(cos*magnitude), float32(sin*magnitude))
		}
		return table
	}
	if c.vectors[key+" far"] == nil {
		var a, b []float32
		for i := -1; i <= maxPositions/low; i++ {
			a = row(a, i*low, 1)
		}
		for i := range low {
			b = row(b, i, o.Magnitude)
		}
		if _, err := c.numbers(key+" far", a); err != nil {
			return nil, nil, err
		}
		if _, err := c.numbers(key+" near", b); err != nil {
			return nil, nil, err
		}
	}
	return c.vectors[key+" far"], c.vectors[key+" near"], nil
}

// cell is the type of a cache's elements in shaders.
func (c *compiler) cell() (name string, elements int) {
	if c.opts.KV == tensor.F16 {
		return "u32", 2
	}
	return "f32", 1
}

type storeSizes struct {
	Cell      string
	Cells     int
	K, V      view
	Misplaced *graph.Misplace
}

func (c *compiler) kvStore(o *graph.KVStore, wrong *graph.Misplace) error {
	cell, elements := c.cell()
	cells := c.width(o.K) / elements
	k, v := c.values[o.K].view, c.values[o.V].view
	index, err := c.spanKernel("kvstore", storeSizes{cell, cells, k, v, wrong}, []driver.Access{in, in, in, in, out, out},
		func(s *sequence) []driver.Binding {
			return whole(c.step, s.info, k.buffer, v.buffer, s.keys(o.Layer), s.values(o.Layer))
		})
	if err != nil {
		return err
	}
	c.use(o.K, o.V)
	pipeline := c.spans[index].pipeline
	c.emit(always(func(r *recording, _ int) {
		for _, at := range r.spans {
			r.flat(kernel{pipeline: pipeline, group: r.sequence(at).groups[index]}, (at.to-at.from)*cells)
		}
	}))
	return nil
}

type attentionSizes struct {
	settings
	Cell                         string
	HeadDim, Heads, Group, Width int
	Window, PerThread            int
	Scale, SoftCap               float32
	X                            view
	Misplaced                    *graph.Misplace
}

// attention compiles the ways to attend. Each is a function that records a run.
func (c *compiler) attention(o *graph.Attention, wrong *graph.Misplace) error {
	q := c.values[o.Q].view
	y, err := c.define(o.Out)
	if err != nil {
		return err
	}
	w := ways{}
	if wrong == nil && c.fuse && q.Offset == 0 {
		if err := c.fastWays(&w, o, q, y.buffer); err != nil {
			return err
		}
	}
	if w.short == nil || w.long == nil {
		plain, err := c.plainAttention(o, wrong, q, y.buffer)
		if err != nil {
			return err
		}
		if w.short == nil {
			w.short = plain
		}
		if w.long == nil {
			w.long = plain
		}
	}
	if p := c.placeOf(o); p != nil && p.single && w.single == nil {
		return errors.New("attention does not place what was left to it")
	}
	c.use(o.Q)
	n := always(func(r *recording, _ int) {
		for _, at := range r.spans {
			if at.to-at.from <= fewRows {
				w.short(r, at)
			} else {
				w.long(r, at)
			}
		}
	})
	if w.single != nil {
		n.run[one] = func(r *recording, _ int) { w.single(r, r.spans[0]) }
	}
	n.attend = func(s shape) []string { return w.names(c.opts.KV, s) }
	c.emit(n)
	return nil
}

// ways are the ways to attend with a run of tokens of one sequence.
type ways struct {
	single func(*recording, run) // the only token of its piece; nil for short
	short  func(*recording, run) // at most fewRows
	long   func(*recording, run)
}

// names names the kernels that attend in steps of a shape.
func (w *ways) names(kv tensor.DType, s shape) []string {
	family := fmt.Sprintf("attention/kv-%s", kv)
	var names []string
	add := func(n string) {
		n = family + n
		if s.blocks {
			n += "/blocks"
		}
		if s.windowed {
			n += "/window"
		}
		names = append(names, n)
	}
	if s.tokens[one] {
		if w.single != nil {
			add("/decode")
		} else {
			add("/few")
		}
	}
	if s.short {
		add("/few")
	}
	if s.long {
		add("/batch")
	}
	return names
}

// plainAttention compiles the way that works for every shape: a workgroup a query
// head and token.
func (c *compiler) plainAttention(o *graph.Attention, wrong *graph.Misplace, q view, y *driver.Buffer) (func(*recording, run), error) {
	cache := c.program.Caches[o.Layer]
	cell, _ := c.cell()
	sizes := attentionSizes{
		settings: c.gpu.settings, Cell: cell, HeadDim: cache.HeadDim, Heads: o.Heads, Group: o.Heads / cache.Heads,
		Width: cache.Heads * cache.HeadDim, Window: cache.Window, PerThread: (cache.HeadDim + 63) / 64,
		Scale: o.Scale, SoftCap: o.SoftCap, X: q, Misplaced: wrong,
	}
	index, err := c.spanKernel("attention", sizes, []driver.Access{in, in, in, in, in, out}, func(s *sequence) []driver.Binding {
		return whole(c.step, s.info, q.buffer, s.keys(o.Layer), s.values(o.Layer), y)
	})
	if err != nil {
		return nil, err
	}
	pipeline := c.spans[index].pipeline
	return func(r *recording, at run) {
		r.Dispatch(pipeline, r.sequence(at).groups[index], o.Heads, at.to-at.from, 1)
	}, nil
}

// attend describes attention with the keys divided among workgroups.
func (c *compiler) attend(o *graph.Attention, stride int) kernels.Attend {
	cache := c.program.Caches[o.Layer]
	return kernels.Attend{
		Heads: o.Heads, KVHeads: cache.Heads, HeadDim: cache.HeadDim, Width: stride, Window: cache.Window,
		Scale: o.Scale, SoftCap: o.SoftCap, Half: c.opts.KV == tensor.F16, Splits: c.stretches,
	}
}

// singleKernel is the kernel that rotates, stores and attends with a single token;
// nil if there is none for the shape or the device. Workgroups hand each other
// their parts, for which only Vulkan's memory model suffices.
func (c *compiler) singleKernel(o *graph.Attention, p *place) *kernels.Kernel {
	if p == nil || c.gpu.API != driver.Vulkan {
		return nil
	}
	a := c.attend(o, c.values[p.q].Stride)
	r := c.rotation(p)
	a.Place, a.Merge, a.Quantise = &r, true, c.onlyIntegers(o.Out)
	k, err := a.Kernel(c.gpu.caps)
	if err != nil {
		return nil
	}
	return &k
}

// fastWays compiles the ways that there are for the shape. If quantised products
// are all that reads the result, it is made for them in pieces of few tokens.
func (c *compiler) fastWays(w *ways, o *graph.Attention, q view, y *driver.Buffer) error {
	a := c.attend(o, q.Stride)
	f := kernels.Flash{Heads: a.Heads, KVHeads: a.KVHeads, HeadDim: a.HeadDim, Width: a.Width, Window: a.Window, Scale: a.Scale, SoftCap: a.SoftCap, Half: a.Half}
	// Compiling tiles takes minutes where a CPU plays the device.
	if k, err := f.Kernel(c.gpu.caps); err == nil && !c.gpu.caps.Software {
		record, err := c.spanMade(k, o.Layer, map[string]*driver.Buffer{"step": c.step, "q": q.buffer, "y": y})
		if err != nil {
			return err
		}
		caps := c.gpu.caps
		w.long = func(r *recording, at run) { record(r, at, k.Grid[0], f.Tiles(caps, at.to-at.from), 1) }
	}
	attend, err := a.Kernel(c.gpu.caps)
	if err != nil {
		return nil // the shape is not one of those
	}
	parts, err := c.scratch(4 * a.PartsWords(fewRows))
	if err != nil {
		return err
	}
	first, err := c.spanMade(attend, o.Layer, map[string]*driver.Buffer{"step": c.step, "q": q.buffer, "parts": parts})
	if err != nil {
		return err
	}
	second, err := c.combine(a, o.Layer, parts, y)
	if err != nil {
		return err
	}
	quantised, to := second, y
	if c.onlyIntegers(o.Out) {
		if to, err = c.alloc(4*fewRows*kernels.QuantWords(c.width(o.Out)), 1); err != nil {
			return err
		}
		v := &c.values[o.Out]
		v.quant, v.quantMade = to, [amounts]bool{one: true, few: true}
		a.Quantise = true
		if quantised, err = c.combine(a, o.Layer, parts, to); err != nil {
			return err
		}
	}
	w.short = func(r *recording, at run) {
		rows := at.to - at.from
		first(r, at, attend.Grid[0], attend.Grid[1], rows)
		if r.tokens <= fewRows {
			quantised(r, at, o.Heads, 1, rows)
		} else {
			second(r, at, o.Heads, 1, rows)
		}
	}
	return c.singleWay(w, o, q, parts, to)
}

func (c *compiler) combine(a kernels.Attend, layer int, parts, y *driver.Buffer) (func(r *recording, at run, x, y, z int), error) {
	k, err := a.Combine(c.gpu.caps)
	if err != nil {
		return nil, err
	}
	return c.spanMade(k, layer, map[string]*driver.Buffer{"step": c.step, "parts": parts, "y": y})
}

// singleWay compiles the kernel for a single token, where there is one.
func (c *compiler) singleWay(w *ways, o *graph.Attention, q view, parts, y *driver.Buffer) error {
	p := c.placeOf(o)
	k := c.singleKernel(o, p)
	if k == nil {
		return nil
	}
	far, near, err := c.angles(p.ropeQ)
	if err != nil {
		return err
	}
	// Counters are zero between dispatches, so nothing else may use their buffer.
	if c.counts == nil {
		most := 0
		for _, op := range c.program.Ops {
			if a, ok := op.(*graph.Attention); ok {
				most = max(most, c.attend(a, 0).CountsWords(1))
			}
		}
		if c.counts, err = c.buffer(4*most, driver.Storage); err != nil {
			return err
		}
	}
	buffers := map[string]*driver.Buffer{"step": c.step, "far": far, "near": near, "q": q.buffer, "parts": parts, "counts": c.counts, "y": y}
	if p.normQ != nil {
		if buffers["qnorm"], err = c.vector(p.normQ.Weight); err != nil {
			return err
		}
		if buffers["knorm"], err = c.vector(p.normK.Weight); err != nil {
			return err
		}
	}
	record, err := c.spanMade(*k, o.Layer, buffers)
	if err != nil {
		return err
	}
	w.single = func(r *recording, at run) { record(r, at, k.Grid[0], k.Grid[1], 1) }
	return nil
}

// placeOf is the place whose queries a layer attends with; nil if it has none.
func (c *compiler) placeOf(o *graph.Attention) *place {
	for _, p := range c.placed {
		if p.attention == o {
			return p
		}
	}
	return nil
}

// onlyIntegers reports whether products with quantised weights are all that reads
// a value.
func (c *compiler) onlyIntegers(id graph.ID) bool {
	for _, u := range c.values[id].users {
		m, ok := u.(*graph.MatMul)
		if !ok || (&weight{Tensor: c.tensor(m.Weight)}).float() {
			return false
		}
	}
	return true
}
