//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"

	"github.com/apr-engine/apr/backend"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// node is one compiled operation: it records its dispatches for a piece.
type node struct {
	record func(*recording)
	// variants names the kernels that a step of the given shape runs; nil for glue
	// that has one way to do it.
	variants func(shape) []string
}

// spanKernel is a kernel that is bound to each sequence's cache.
type spanKernel struct {
	pipeline *driver.Pipeline
	bindings func(*sequence) []driver.Binding
}

// compiler turns a program into nodes and assigns values to buffers.
type compiler struct {
	*executor
	w     graph.Weights
	slots []*driver.Buffer // by value; nil before it is computed
	left  []int            // uses of a value that are still to come
	free  map[int][]*driver.Buffer
	ropes map[string]ropeTable
}

func (e *executor) compile(w graph.Weights) error {
	n := len(e.program.Values)
	c := &compiler{executor: e, w: w, slots: make([]*driver.Buffer, n), left: make([]int, n), free: map[int][]*driver.Buffer{}, ropes: map[string]ropeTable{}}
	for _, op := range e.program.Ops {
		for _, in := range op.Inputs() {
			c.left[in]++
		}
	}
	for i, op := range e.program.Ops {
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
	case *graph.RMSNorm:
		return c.rmsNorm(o)
	case *graph.MatMul:
		return c.matMul(o)
	case *graph.Rope:
		return c.rope(o, nil)
	case *graph.KVStore:
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

// slot is the buffer of a value that has been computed.
func (c *compiler) slot(id graph.ID) driver.Binding { return driver.Whole(c.slots[id]) }

// define gives a value a buffer: never one of its operation's inputs, because a
// shader may not read and write the same buffer through two bindings.
func (c *compiler) define(id graph.ID) (driver.Binding, error) {
	w := c.width(id)
	if f := c.free[w]; len(f) > 0 && c.trace == nil {
		c.slots[id], c.free[w] = f[len(f)-1], f[:len(f)-1]
		return c.slot(id), nil
	}
	b, err := c.buffer(4*c.rows*w, driver.Storage|driver.CopySrc)
	if err != nil {
		return driver.Binding{}, fmt.Errorf("value %s: %w", c.program.Values[id].Name, err)
	}
	c.slots[id] = b
	if c.trace != nil {
		staging, err := c.buffer((4*c.rows*w+7)&^7, driver.MapRead|driver.CopyDst)
		if err != nil {
			return driver.Binding{}, fmt.Errorf("value %s: %w", c.program.Values[id].Name, err)
		}
		c.trace.values = append(c.trace.values, traced{index: int(id), buffer: b, staging: staging, width: w})
	}
	return c.slot(id), nil
}

// use counts uses of values and frees their buffers after the last.
func (c *compiler) use(ids ...graph.ID) {
	for _, id := range ids {
		if c.left[id]--; c.left[id] == 0 {
			c.free[c.width(id)] = append(c.free[c.width(id)], c.slots[id])
		}
	}
}

// kernel compiles a shader and binds it.
func (c *compiler) kernel(shader string, sizes any, access []driver.Access, bindings ...driver.Binding) (kernel, error) {
	p, err := c.gpu.pipeline(shader, sizes, access...)
	if err != nil {
		return kernel{}, err
	}
	g, err := c.gpu.NewGroup(p, bindings...)
	if err != nil {
		return kernel{}, fmt.Errorf("shader %s: %w", shader, err)
	}
	c.groups = append(c.groups, g)
	return kernel{p, g}, nil
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

func (c *compiler) emit(record func(*recording), variants func(shape) []string) {
	c.nodes = append(c.nodes, node{record, variants})
}

func (c *compiler) tensor(name string) tensor.Tensor {
	t, _ := c.w.Tensor(name) // check has seen it
	return t
}
