//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/wgpu/kernels"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// amount is how many rows a kernel works on, as far as the choice of kernel goes.
type amount int

const (
	one  amount = iota
	few         // at most fewRows
	many        // more
	amounts
)

// fewRows is up to where products are those of a matrix with vectors.
const fewRows = kernels.MaxTokens

func amountOf(n int) amount {
	switch {
	case n <= 1:
		return one
	case n <= fewRows:
		return few
	}
	return many
}

var amountNames = [amounts]string{"decode", "few", "batch"}

// node is one or several operations, compiled: for each amount of rows what is
// recorded and the names of the kernels, which glue that has one way to do it
// lacks.
type node struct {
	run    [amounts]func(r *recording, n int)
	names  [amounts]string
	wanted bool                   // rows are those that logits are wanted of
	attend func(s shape) []string // names of attention, whose choice is by span
}

// always is a node that does the same for any amount of rows.
func always(f func(r *recording, n int)) node {
	return node{run: [amounts]func(*recording, int){f, f, f}}
}

// spanKernel is a kernel that is bound to each sequence's cache.
type spanKernel struct {
	pipeline *driver.Pipeline
	bindings func(*sequence) []driver.Binding
}

// view is where a value is: row r begins at element r·Stride + Offset.
type view struct {
	buffer         *driver.Buffer
	Stride, Offset int
}

// value is what the compiler knows about a value of the program.
type value struct {
	view                   // buffer is nil while there are no float32 rows for any amount
	made     [amounts]bool // float32 rows exist in steps of so many rows
	left     int           // uses that are still to come
	users    []graph.Op    // in order
	producer graph.Op

	// norm is an operation that its users do: they take it in the form they need.
	norm *graph.RMSNorm
	// act is the activation that its users do for many rows, whose two inputs lie
	// next to each other in rows of sides.
	act   *graph.Activation
	sides *driver.Buffer

	quant         *driver.Buffer // rows quantised to 16 bits, for one and few
	quantMade     [amounts]bool
	halved, scale *driver.Buffer // rows for products of many, with their scales
}

// compiler turns a program into nodes and assigns values to buffers.
type compiler struct {
	*executor
	w      graph.Weights
	values []value
	done   map[graph.Op]bool
	free   map[uint64][]*driver.Buffer
	holds  map[*driver.Buffer]int // live values in a buffer
	placed map[*graph.KVStore]*place
	fuse   bool
	counts *driver.Buffer   // of attention's workgroups that have finished
	halves []*driver.Buffer // weights in half precision, for the product at hand
	// partial takes the sums of a product whose columns are divided.
	partial *driver.Buffer
}

func (e *executor) compile(w graph.Weights) error {
	c := &compiler{
		executor: e, w: w, values: make([]value, len(e.program.Values)), done: map[graph.Op]bool{},
		free: map[uint64][]*driver.Buffer{}, holds: map[*driver.Buffer]int{}, placed: map[*graph.KVStore]*place{},
		// A trace shows every value, so each must exist.
		fuse: e.trace == nil && !e.gpu.Unfused,
	}
	for _, op := range e.program.Ops {
		for _, id := range op.Inputs() {
			c.values[id].left++
			c.values[id].users = append(c.values[id].users, op)
		}
		if id := op.Output(); id >= 0 {
			c.values[id].producer = op
		}
	}
	if c.fuse {
		c.findPlaces()
	}
	for i, op := range e.program.Ops {
		if c.done[op] {
			continue
		}
		if err := c.op(op); err != nil {
			return fmt.Errorf("operation %d (%s): %w", i, op.Kind(), err)
		}
	}
	return nil
}

func (c *compiler) op(op graph.Op) error {
	switch o := op.(type) {
	case *graph.Embed:
		return c.embed(o)
	case *graph.Input:
		return c.rowsFrom(o)
	case *graph.RMSNorm:
		return c.rmsNorm(o)
	case *graph.MatMul:
		return c.matMul(o)
	case *graph.Rope:
		return c.rope(o, nil)
	case *graph.KVStore:
		if p := c.placed[o]; p != nil {
			return c.place(p)
		}
		return c.kvStore(o, nil)
	case *graph.Attention:
		return c.attention(o, nil)
	case *graph.GatedAct:
		name := "silu"
		if o.Act == graph.GELU {
			name = "gelu"
		}
		return c.pointwise(pointwise{Op: name, Two: true}, o.Out, o.Gate, o.Up)
	case *graph.Add:
		return c.pointwise(pointwise{Op: "add", Two: true}, o.Out, o.A, o.B)
	case *graph.Scale:
		return c.pointwise(pointwise{Op: "scale", Factor: o.Factor}, o.Out, o.In)
	case *graph.Logits:
		return c.logitRowsOf(o)
	case *graph.Tamper:
		return c.tamper(o)
	case *graph.Misplace:
		return c.misplace(o)
	}
	return fmt.Errorf("%w: operation %T", backend.ErrUnsupported, op)
}

func (c *compiler) misplace(o *graph.Misplace) error {
	switch op := o.Op.(type) {
	case *graph.Rope:
		return c.rope(op, o)
	case *graph.KVStore:
		return c.kvStore(op, o)
	case *graph.Attention:
		return c.attention(op, o)
	}
	return fmt.Errorf("%w: misplaced operation %T", backend.ErrUnsupported, o.Op)
}

func (c *compiler) width(id graph.ID) int { return c.program.Values[id].Width }

// rowsOf is the number of rows that buffers hold: kernels for few rows write all
// of them whatever the step has.
func (c *compiler) rowsOf() int { return max(c.rows, fewRows) }

// alloc takes a buffer of so many bytes for so many values.
func (c *compiler) alloc(size, values int) (*driver.Buffer, error) {
	n := uint64(size+15) &^ 15
	if f := c.free[n]; len(f) > 0 && c.trace == nil {
		b := f[len(f)-1]
		c.free[n] = f[:len(f)-1]
		c.holds[b] = values
		return b, nil
	}
	b, err := c.buffer(int(n), driver.Storage|driver.CopySrc)
	if err == nil {
		c.holds[b] = values
	}
	return b, err
}

// drop ends one value's hold on a buffer.
func (c *compiler) drop(b *driver.Buffer) {
	if c.holds[b]--; c.holds[b] == 0 {
		c.free[b.Size] = append(c.free[b.Size], b)
	}
}

// define gives a value rows of its own: never a buffer of its operation's
// inputs, because a shader may not see the same buffer through two bindings of
// which one writes.
func (c *compiler) define(id graph.ID) (view, error) {
	w := c.width(id)
	b, err := c.alloc(4*c.rowsOf()*w, 1)
	if err != nil {
		return view{}, fmt.Errorf("value %s: %w", c.program.Values[id].Name, err)
	}
	return c.put(id, view{b, w, 0})
}

// put says where a value is, for all amounts of rows.
func (c *compiler) put(id graph.ID, at view) (view, error) {
	v := &c.values[id]
	v.view, v.made = at, [amounts]bool{true, true, true}
	return at, c.traceValue(id)
}

func (c *compiler) traceValue(id graph.ID) error {
	if c.trace == nil {
		return nil
	}
	w := c.width(id)
	staging, err := c.buffer((4*c.rows*w+7)&^7, driver.MapRead|driver.CopyDst)
	if err != nil {
		return fmt.Errorf("value %s: %w", c.program.Values[id].Name, err)
	}
	c.trace.values = append(c.trace.values, traced{index: int(id), buffer: c.values[id].buffer, staging: staging, width: w})
	return nil
}

// use counts uses of values and frees what nobody needs any more.
func (c *compiler) use(ids ...graph.ID) {
	for _, id := range ids {
		v := &c.values[id]
		if v.left--; v.left > 0 {
			continue
		}
		for _, b := range []*driver.Buffer{v.buffer, v.quant, v.sides, v.halved, v.scale} {
			if b != nil {
				c.drop(b)
			}
		}
		if v.norm != nil {
			c.use(v.norm.In) // its own use was put off with it
		}
	}
}

// kernel compiles a shader and binds it.
func (c *compiler) kernel(shader string, sizes any, access []driver.Access, buffers ...*driver.Buffer) (kernel, error) {
	p, err := c.gpu.pipeline(shader, sizes, access...)
	if err != nil {
		return kernel{}, err
	}
	return c.bind(p, shader, buffers...)
}

// made compiles a kernel of package kernels and binds it; by names the buffers.
func (c *compiler) made(k kernels.Kernel, buffers map[string]*driver.Buffer) (kernel, error) {
	p, err := c.gpu.compiled(k.Desc(c.gpu.Checked))
	if err != nil {
		return kernel{}, err
	}
	var list []*driver.Buffer
	for _, b := range k.Bindings {
		if buffers[b.Name] == nil {
			return kernel{}, fmt.Errorf("%w: kernel %s binds %s", backend.ErrUnsupported, k.Name, b.Name)
		}
		list = append(list, buffers[b.Name])
	}
	bound, err := c.bind(p, k.Name, list...)
	bound.grid = k.Grid
	return bound, err
}

func (c *compiler) bind(p *driver.Pipeline, name string, buffers ...*driver.Buffer) (kernel, error) {
	g, err := c.gpu.NewGroup(p, whole(buffers...)...)
	if err != nil {
		return kernel{}, fmt.Errorf("shader %s: %w", name, err)
	}
	c.groups = append(c.groups, g)
	return kernel{pipeline: p, group: g}, nil
}

func whole(buffers ...*driver.Buffer) []driver.Binding {
	list := make([]driver.Binding, len(buffers))
	for i, b := range buffers {
		list[i] = driver.Whole(b)
	}
	return list
}

// spanKernel compiles a shader that each sequence binds to its cache.
func (c *compiler) spanKernel(shader string, sizes any, access []driver.Access, bindings func(*sequence) []driver.Binding) (index int, err error) {
	p, err := c.gpu.pipeline(shader, sizes, access...)
	if err != nil {
		return 0, err
	}
	c.spans = append(c.spans, spanKernel{p, bindings})
	return len(c.spans) - 1, nil
}

func (c *compiler) emit(n node) { c.nodes = append(c.nodes, n) }

func (c *compiler) tensor(name string) tensor.Tensor {
	t, _ := c.w.Tensor(name) // check has seen it
	return t
}

// vector uploads a tensor of one row as float32 numbers.
func (c *compiler) vector(name string) (*driver.Buffer, error) {
	v, err := floats(c.tensor(name))
	if err != nil {
		return nil, err
	}
	return c.numbers(name, v)
}
