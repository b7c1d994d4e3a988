//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"

	"github.com/apr-engine/apr/backend/wgpu/kernels"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
)

// operand is a product's input in the form that its kernels take.
type operand struct {
	rows  *driver.Buffer
	scale *driver.Buffer // of each row; nil for none
}

// operand makes a product's input for an amount of rows: quantised rows for one
// and few if the weights are quantised, half-precision rows for many if the device
// has such numbers, else float32 rows end to end. A form is made at its first use.
func (c *compiler) operand(p product, a amount) (operand, error) {
	switch {
	case p.wanted:
		return c.wantedOperand(p, a)
	case a == many:
		return c.halved(p.x)
	case p.integer():
		b, err := c.quantised(p.x, a)
		return operand{rows: b}, err
	}
	b, err := c.rowsFor(p.x, a)
	return operand{rows: b}, err
}

// quantised makes a value's quantised rows in steps of one or few rows, after its
// norm if that was put off.
func (c *compiler) quantised(id graph.ID, a amount) (*driver.Buffer, error) {
	v := &c.values[id]
	if v.quant == nil {
		b, err := c.alloc(4*fewRows*kernels.QuantWords(c.width(id)), 1)
		if err != nil {
			return nil, fmt.Errorf("value %s: %w", c.program.Values[id].Name, err)
		}
		v.quant = b
	}
	if v.quantMade[a] {
		return v.quant, nil
	}
	k, err := c.quantizer(id, v.quant, false)
	if err != nil {
		return nil, err
	}
	n := node{}
	n.run[a] = func(r *recording, n int) { r.Dispatch(k.pipeline, k.group, n, 1, 1) }
	c.emit(n)
	v.quantMade[a] = true
	return v.quant, nil
}

// quantizer compiles the kernel that quantises a value's rows.
func (c *compiler) quantizer(id graph.ID, to *driver.Buffer, wanted bool) (kernel, error) {
	q := kernels.Quantize{K: c.width(id), Rows: fewRows, Wanted: wanted}
	buffers := map[string]*driver.Buffer{"step": c.step, "q": to}
	v := &c.values[id]
	if v.norm != nil {
		w, err := c.vector(v.norm.Weight)
		if err != nil {
			return kernel{}, err
		}
		q.Norm, q.Eps = true, v.norm.Eps
		buffers["w"] = w
		x, err := c.endToEnd(v.norm.In)
		if err != nil {
			return kernel{}, err
		}
		buffers["x"] = x
	} else {
		x, err := c.endToEnd(id)
		if err != nil {
			return kernel{}, err
		}
		buffers["x"] = x
	}
	k, err := q.Kernel(c.gpu.caps)
	if err != nil {
		return kernel{}, err
	}
	return c.made(k, buffers)
}

// endToEnd is a value's float32 rows without gaps, copied if they have any.
func (c *compiler) endToEnd(id graph.ID) (*driver.Buffer, error) {
	v := &c.values[id]
	width := c.width(id)
	if v.Stride == width && v.Offset == 0 {
		return v.buffer, nil
	}
	b, err := c.alloc(4*c.rowsOf()*width, 1)
	if err != nil {
		return nil, fmt.Errorf("value %s: %w", c.program.Values[id].Name, err)
	}
	k, err := c.pointwiseKernel(pointwise{Op: "copy", Width: width, A: v.view}, b)
	if err != nil {
		return nil, err
	}
	c.emit(always(func(r *recording, n int) { r.flat(k, n*width) }))
	c.drop(v.buffer)
	v.view = view{b, width, 0}
	return b, nil
}

// rowsFor makes sure that a value's float32 rows exist in steps of one or few
// rows, and returns them end to end.
func (c *compiler) rowsFor(id graph.ID, a amount) (*driver.Buffer, error) {
	v := &c.values[id]
	if v.norm == nil {
		return c.endToEnd(id)
	}
	if v.buffer == nil {
		b, err := c.alloc(4*c.rowsOf()*c.width(id), 1)
		if err != nil {
			return nil, fmt.Errorf("value %s: %w", c.program.Values[id].Name, err)
		}
		v.view = view{b, c.width(id), 0}
	}
	if v.made[a] {
		return v.buffer, nil
	}
	run, err := c.halver(id, kernels.Halve{}, v.buffer, nil)
	if err != nil {
		return nil, err
	}
	n := node{}
	n.run[a] = run
	c.emit(n)
	v.made[a] = true
	return v.buffer, nil
}

// halved makes a value's rows for products of many.
func (c *compiler) halved(id graph.ID) (operand, error) {
	v := &c.values[id]
	if v.halved != nil {
		return operand{v.halved, v.scale}, nil
	}
	if !c.gpu.F16 && v.norm == nil && v.act == nil {
		b, err := c.endToEnd(id)
		return operand{rows: b}, err
	}
	rows, scale, err := c.halfRows(c.width(id), c.rowsOf(), c.alloc1)
	if err != nil {
		return operand{}, fmt.Errorf("value %s: %w", c.program.Values[id].Name, err)
	}
	run, err := c.halver(id, kernels.Halve{F16: c.gpu.F16}, rows, scale)
	if err != nil {
		return operand{}, err
	}
	v.halved, v.scale = rows, scale
	n := node{}
	n.run[many] = run
	c.emit(n)
	return operand{rows, scale}, nil
}

func (c *compiler) alloc1(size int) (*driver.Buffer, error) { return c.alloc(size, 1) }

// halfRows allocates rows for products of many and, if they are in half precision,
// their scales.
func (c *compiler) halfRows(width, rows int, alloc func(int) (*driver.Buffer, error)) (half, scale *driver.Buffer, err error) {
	if !c.gpu.F16 {
		half, err = alloc(4 * rows * width)
		return half, nil, err
	}
	if half, err = alloc(2 * rows * width); err != nil {
		return nil, nil, err
	}
	scale, err = alloc(4 * rows)
	return half, scale, err
}

// halver compiles the kernel that makes rows of a value, with whatever was left to
// its users.
func (c *compiler) halver(id graph.ID, h kernels.Halve, rows, scale *driver.Buffer) (func(*recording, int), error) {
	v := &c.values[id]
	h.K = c.width(id)
	buffers := map[string]*driver.Buffer{"step": c.step, "y": rows, "scale": scale}
	var err error
	switch {
	case v.norm != nil:
		h.Norm, h.Eps = true, v.norm.Eps
		if buffers["w"], err = c.vector(v.norm.Weight); err != nil {
			return nil, err
		}
		buffers["x"], err = c.endToEnd(v.norm.In)
	case v.act != nil:
		h.Act, buffers["x"] = v.act, v.sides
	default:
		buffers["x"], err = c.endToEnd(id)
	}
	if err != nil {
		return nil, err
	}
	k, err := h.Kernel(c.gpu.caps)
	if err != nil {
		return nil, err
	}
	bound, err := c.made(k, buffers)
	if err != nil {
		return nil, err
	}
	return func(r *recording, n int) { r.Dispatch(bound.pipeline, bound.group, n, 1, 1) }, nil
}

// wantedOperand makes the rows that logits are wanted of, in the form for an
// amount of them.
func (c *compiler) wantedOperand(p product, a amount) (operand, error) {
	width := c.width(p.x)
	n := node{wanted: true}
	if a != many && p.integer() {
		b, err := c.scratch(4 * fewRows * kernels.QuantWords(width))
		if err != nil {
			return operand{}, err
		}
		k, err := c.quantizer(p.x, b, true)
		if err != nil {
			return operand{}, err
		}
		n.run[a] = func(r *recording, n int) { r.Dispatch(k.pipeline, k.group, n, 1, 1) }
		c.emit(n)
		return operand{rows: b}, nil
	}
	var x operand
	var err error
	h := kernels.Halve{Wanted: true, F16: a == many && c.gpu.F16}
	if a == many {
		x.rows, x.scale, err = c.halfRows(width, c.logitRows, c.scratch)
	} else {
		x.rows, err = c.scratch(4 * fewRows * width)
	}
	if err != nil {
		return operand{}, err
	}
	if n.run[a], err = c.halver(p.x, h, x.rows, x.scale); err != nil {
		return operand{}, err
	}
	c.emit(n)
	return x, nil
}

// logitRowsOf multiplies the rows that logits are wanted of.
func (c *compiler) logitRowsOf(o *graph.Logits) error {
	w, err := c.weight(o.Weight, c.tensor(o.Weight))
	if err != nil {
		return err
	}
	if c.trace != nil {
		c.trace.values = append(c.trace.values, traced{index: int(o.Out), wanted: true})
	}
	return c.product(product{x: o.In, weights: []*weight{w}, y: view{c.executor.logits, c.program.Vocab, 0}, wanted: true, softCap: o.SoftCap})
}

// scratch is a buffer whose contents live only from one kernel to the next; all
// that ask for the same size share it.
func (c *compiler) scratch(size int) (*driver.Buffer, error) {
	if b := c.scratches[size]; b != nil {
		return b, nil
	}
	b, err := c.buffer(size, driver.Storage)
	if err == nil {
		c.scratches[size] = b
	}
	return b, err
}
