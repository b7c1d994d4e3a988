//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"

	"github.com/apr-engine/apr/backend"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
)

// Each method compiles one kind of operation. The structures hold what the
// shader of the same name puts into its source.

type embedSizes struct {
	Reader              string
	Groups, First, Rows int
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
	groups := w.Cols() / 32
	var parts []kernel
	for _, p := range w.parts {
		k, err := c.kernel("embed", embedSizes{w.reader, groups, p.first, p.rows}, []driver.Access{in, in, out}, c.step, p.buffer, y.buffer)
		if err != nil {
			return err
		}
		parts = append(parts, k)
	}
	c.emit(always(func(r *recording, n int) {
		for _, k := range parts {
			r.flat(k, n*groups)
		}
	}))
	return nil
}

type normSizes struct {
	settings
	Segment, Segments int
	Eps               float32
	X                 view
}

// rmsNorm puts the norm of whole rows off if only products read it: they take it
// in the form that they need.
func (c *compiler) rmsNorm(o *graph.RMSNorm) error {
	if c.fuse && o.Segment == c.width(o.In) && onlyProducts(c.values[o.Out].users) {
		c.values[o.Out].norm = o
		return nil
	}
	y, err := c.define(o.Out)
	if err != nil {
		return err
	}
	w, err := c.vector(o.Weight)
	if err != nil {
		return err
	}
	x := c.values[o.In].view
	segments := c.width(o.In) / o.Segment
	k, err := c.kernel("rmsnorm", normSizes{c.gpu.settings, o.Segment, segments, o.Eps, x}, []driver.Access{in, in, in, out}, c.step, x.buffer, w, y.buffer)
	if err != nil {
		return err
	}
	c.use(o.In)
	c.emit(always(func(r *recording, n int) { r.plane(k, n*segments, 1) }))
	return nil
}

func onlyProducts(users []graph.Op) bool {
	for _, u := range users {
		switch u.(type) {
		case *graph.MatMul, *graph.Logits:
		default:
			return false
		}
	}
	return true
}

type ropeSizes struct {
	Heads, HeadDim, Pairs int
	Interleaved           bool
	X                     view
	Misplaced             *graph.Misplace
}

func (c *compiler) rope(o *graph.Rope, wrong *graph.Misplace) error {
	far, near, err := c.angles(o)
	if err != nil {
		return err
	}
	y, err := c.define(o.Out)
	if err != nil {
		return err
	}
	x := c.values[o.In].view
	heads := c.width(o.In) / o.HeadDim
	k, err := c.kernel("rope", ropeSizes{heads, o.HeadDim, len(o.InvFreq), o.Pairing == graph.Interleaved, x, wrong},
		[]driver.Access{in, in, in, in, out}, c.step, far, near, x.buffer, y.buffer)
	if err != nil {
		return err
	}
	c.use(o.In)
	threads := heads * (o.HeadDim - len(o.InvFreq))
	c.emit(always(func(r *recording, n int) { r.flat(k, n*threads) }))
	return nil
}

// pointwise describes an operation on numbers at the same place.
type pointwise struct {
	Op     string
	Two    bool // inputs
	Factor float32
	Width  int
	A, B   view
}

func (c *compiler) pointwise(p pointwise, result graph.ID, inputs ...graph.ID) error {
	y, err := c.define(result)
	if err != nil {
		return err
	}
	p.Width, p.A, p.B = c.width(result), c.values[inputs[0]].view, c.values[inputs[len(inputs)-1]].view
	k, err := c.pointwiseKernel(p, y.buffer)
	if err != nil {
		return err
	}
	c.use(inputs...)
	c.emit(always(func(r *recording, n int) { r.flat(k, n*p.Width) }))
	return nil
}

func (c *compiler) pointwiseKernel(p pointwise, y *driver.Buffer) (kernel, error) {
	if p.Two {
		return c.kernel("pointwise", p, []driver.Access{in, in, in, out}, c.step, p.A.buffer, p.B.buffer, y)
	}
	return c.kernel("pointwise", p, []driver.Access{in, in, out}, c.step, p.A.buffer, y)
}

type tamperSizes struct {
	How                       string
	Width, Unit, Units, Group int
	Amount                    float32
	Rows                      graph.Rows
	Order                     []int
	X, Alt                    view
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
	s := tamperSizes{How: how, Width: c.width(o.In), Unit: 1, Group: o.Group, Amount: o.Amount, Rows: o.Rows, Order: o.Order, X: c.values[o.In].view, Alt: c.values[o.Alt].view}
	if o.How == graph.Int8 {
		s.Unit = o.Group
	}
	s.Units = (s.Width + s.Unit - 1) / s.Unit
	access, buffers := []driver.Access{in, in}, []*driver.Buffer{c.step, s.X.buffer}
	if o.How == graph.Replace {
		access, buffers = append(access, in), append(buffers, s.Alt.buffer)
	}
	k, err := c.kernel("tamper", s, append(access, out), append(buffers, y.buffer)...)
	if err != nil {
		return err
	}
	c.use(o.Inputs()...)
	c.emit(always(func(r *recording, n int) { r.flat(k, n*s.Units) }))
	return nil
}
