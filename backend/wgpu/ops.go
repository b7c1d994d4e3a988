//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"math"

	"github.com/apr-engine/apr/backend"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// Each method compiles one kind of operation. The structures hold what the
// shader of the same name puts into its source.

type embedSizes struct {
	format
	Cols, First, Rows int
}

func (c *compiler) embed(o *graph.Embed) error {
	w, err := c.weight(o.Weight, c.tensor(o.Weight))
	if err != nil {
		return err
	}
	y, err := c.define(o.Out)
	if err != nil {
		return err
	}
	var kernels []kernel
	for _, p := range w.parts {
		k, err := c.kernel("embed", embedSizes{w.format, w.Cols(), p.first, p.rows}, []driver.Access{in, in, out},
			driver.Whole(c.step), driver.Whole(p.buffer), y)
		if err != nil {
			return err
		}
		kernels = append(kernels, k)
	}
	groups := w.Cols() / plainGroup
	c.emit(func(r *recording) {
		for _, k := range kernels {
			r.flat(k, r.tokens*groups)
		}
	}, nil)
	return nil
}

type normSizes struct {
	settings
	Segment, Segments int
	Eps               float32
}

func (c *compiler) rmsNorm(o *graph.RMSNorm) error {
	w, err := c.vector(o.Weight, c.tensor(o.Weight))
	if err != nil {
		return err
	}
	y, err := c.define(o.Out)
	if err != nil {
		return err
	}
	segments := c.width(o.In) / o.Segment
	k, err := c.kernel("rmsnorm", normSizes{c.gpu.settings, o.Segment, segments, o.Eps}, []driver.Access{in, in, in, out},
		driver.Whole(c.step), c.slot(o.In), driver.Whole(w), y)
	if err != nil {
		return err
	}
	c.use(o.In)
	c.emit(func(r *recording) { r.plane(k, r.tokens*segments, 1) }, nil)
	return nil
}

type ropeSizes struct {
	Heads, HeadDim, Pairs int
	Interleaved           bool
	Misplaced             *graph.Misplace
}

// ropeTable holds the angles of one set of frequencies.
type ropeTable struct{ far, near *driver.Buffer }

func (c *compiler) rope(o *graph.Rope, wrong *graph.Misplace) error {
	table, err := c.ropeTable(o)
	if err != nil {
		return err
	}
	y, err := c.define(o.Out)
	if err != nil {
		return err
	}
	heads := c.width(o.In) / o.HeadDim
	k, err := c.kernel("rope", ropeSizes{heads, o.HeadDim, len(o.InvFreq), o.Pairing == graph.Interleaved, wrong},
		[]driver.Access{in, in, in, in, out},
		driver.Whole(c.step), driver.Whole(table.far), driver.Whole(table.near), c.slot(o.In), y)
	if err != nil {
		return err
	}
	c.use(o.In)
	threads := heads * (o.HeadDim - len(o.InvFreq))
	c.emit(func(r *recording) { r.flat(k, r.tokens*threads) }, nil)
	return nil
}

// ropeTable returns the tables of an operation's frequencies. Position p is
// 256·a + b; far holds the angles of 256·a from a = -1 on, near those of b.
func (c *compiler) ropeTable(o *graph.Rope) (ropeTable, error) {
	const low = 256
	key := fmt.Sprint(o.Magnitude, o.InvFreq)
	if t, ok := c.ropes[key]; ok {
		return t, nil
	}
	var far, near []float32
	for a := -1; a <= maxPositions/low; a++ {
		for _, f := range o.InvFreq {
			sin, cos := math.Sincos(float64(a*low) * f)
			far = append(far, float32(cos), float32(sin))
		}
	}
	for b := range low {
		for _, f := range o.InvFreq {
			sin, cos := math.Sincos(float64(b) * f)
			near = append(near, float32(cos*o.Magnitude), float32(sin*o.Magnitude))
		}
	}
	t := ropeTable{}
	for _, x := range []struct {
		to   **driver.Buffer
		data []float32
	}{{&t.far, far}, {&t.near, near}} {
		b, err := c.upload(bytesOf(x.data), 0)
		if err != nil {
			return t, fmt.Errorf("rotary angles: %w", err)
		}
		*x.to = b
		c.owned = append(c.owned, b)
	}
	c.ropes[key] = t
	return t, nil
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
	Misplaced *graph.Misplace
}

func (c *compiler) kvStore(o *graph.KVStore, wrong *graph.Misplace) error {
	cell, elements := c.cell()
	cells := c.width(o.K) / elements
	k, v := c.slot(o.K), c.slot(o.V)
	index, err := c.spanKernel("kvstore", storeSizes{cell, cells, wrong}, []driver.Access{in, in, in, in, out, out},
		func(s *sequence) []driver.Binding {
			return []driver.Binding{driver.Whole(c.step), driver.Whole(s.info), k, v, s.keys(o.Layer), s.values(o.Layer)}
		})
	if err != nil {
		return err
	}
	c.use(o.K, o.V)
	pipeline := c.spans[index].pipeline
	c.emit(func(r *recording) {
		for _, at := range r.spans {
			r.flat(kernel{pipeline, r.sequence(at).groups[index]}, (at.to-at.from)*cells)
		}
	}, nil)
	return nil
}

type attentionSizes struct {
	settings
	Cell                         string
	HeadDim, Heads, Group, Width int
	Window, PerThread            int
	Scale, SoftCap               float32
	Misplaced                    *graph.Misplace
}

func (c *compiler) attention(o *graph.Attention, wrong *graph.Misplace) error {
	cache := c.program.Caches[o.Layer]
	cell, _ := c.cell()
	q := c.slot(o.Q)
	y, err := c.define(o.Out)
	if err != nil {
		return err
	}
	sizes := attentionSizes{
		settings: c.gpu.settings, Cell: cell, HeadDim: cache.HeadDim, Heads: o.Heads, Group: o.Heads / cache.Heads,
		Width: cache.Heads * cache.HeadDim, Window: cache.Window, PerThread: (cache.HeadDim + 63) / 64,
		Scale: o.Scale, SoftCap: o.SoftCap, Misplaced: wrong,
	}
	index, err := c.spanKernel("attention", sizes, []driver.Access{in, in, in, in, in, out}, func(s *sequence) []driver.Binding {
		return []driver.Binding{driver.Whole(c.step), driver.Whole(s.info), q, s.keys(o.Layer), s.values(o.Layer), y}
	})
	if err != nil {
		return err
	}
	c.use(o.Q)
	pipeline := c.spans[index].pipeline
	name := fmt.Sprintf("attention/kv-%s", c.opts.KV)
	c.emit(func(r *recording) {
		for _, at := range r.spans {
			r.Dispatch(pipeline, r.sequence(at).groups[index], o.Heads, at.to-at.from, 1)
		}
	}, func(s shape) []string {
		n := name
		if s.blocks {
			n += "/blocks"
		}
		if s.windowed {
			n += "/window"
		}
		return byTokens(n, s.one, s.many)
	})
	return nil
}

// pointwise describes an operation on numbers at the same place.
type pointwise struct {
	Op     string
	Two    bool // inputs
	Factor float32
	Width  int
}

func (c *compiler) pointwise(p pointwise, result graph.ID, inputs ...graph.ID) error {
	p.Width = c.width(result)
	y, err := c.define(result)
	if err != nil {
		return err
	}
	access, bindings := []driver.Access{in}, []driver.Binding{driver.Whole(c.step)}
	for _, id := range inputs {
		access, bindings = append(access, in), append(bindings, c.slot(id))
	}
	k, err := c.kernel("pointwise", p, append(access, out), append(bindings, y)...)
	if err != nil {
		return err
	}
	c.use(inputs...)
	c.emit(func(r *recording) { r.flat(k, r.tokens*p.Width) }, nil)
	return nil
}

type tamperSizes struct {
	How                       string
	Width, Unit, Units, Group int
	Amount                    float32
	Rows                      graph.Rows
	Order                     []int
}

var spoilings = map[graph.Spoiling]string{
	graph.Replace: "replace", graph.Multiply: "multiply", graph.Drift: "drift", graph.Half: "half", graph.Int8: "int8", graph.Heads: "heads",
}

func (c *compiler) tamper(o *graph.Tamper) error {
	how, ok := spoilings[o.How]
	if !ok {
		return fmt.Errorf("%w: spoiling %d", backend.ErrUnsupported, o.How)
	}
	y, err := c.define(o.Out)
	if err != nil {
		return err
	}
	s := tamperSizes{How: how, Width: c.width(o.In), Unit: 1, Group: o.Group, Amount: o.Amount, Rows: o.Rows, Order: o.Order}
	if o.How == graph.Int8 {
		s.Unit = o.Group
	}
	s.Units = (s.Width + s.Unit - 1) / s.Unit
	access, bindings := []driver.Access{in, in}, []driver.Binding{driver.Whole(c.step), c.slot(o.In)}
	if o.How == graph.Replace {
		access, bindings = append(access, in), append(bindings, c.slot(o.Alt))
	}
	k, err := c.kernel("tamper", s, append(access, out), append(bindings, y)...)
	if err != nil {
		return err
	}
	c.use(o.Inputs()...)
	c.emit(func(r *recording) { r.flat(k, r.tokens*s.Units) }, nil)
	return nil
}
