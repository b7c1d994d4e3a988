//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"maps"

	"github.com/apr-engine/apr/backend/wgpu/kernels"
	driver "github.com/apr-engine/apr/driver/wgpu"
)

// halfLimit bounds the memory for half-precision numbers of packed weights.
const halfLimit = 512 << 20

// halfMul compiles a product for many rows whose weights are made half-precision
// numbers first, all of them once a step.
func (c *compiler) halfMul(p product, x operand) (func(*recording, int), error) {
	m := kernels.HalfMul{K: p.weights[0].Cols(), Bias: p.bias != nil, SoftCap: p.softCap, Wanted: p.wanted, Out: p.y.Stride}
	for _, w := range p.weights {
		m.Rows += w.Rows()
	}
	buffers := map[string]*driver.Buffer{"step": c.step, "x": x.rows, "scale": x.scale, "bias": p.bias, "y": p.y.buffer}
	if p.act != nil { // the gate's rows and the other's lie side by side until they are read
		buffers["y"], m.Out = p.sides, 2*p.y.Stride
	}
	m.Residual = c.addTo(p, buffers)
	product, err := m.Kernel(c.gpu.caps)
	if err != nil {
		return nil, err
	}
	if buffers["w"], err = c.unpacked(2 * m.Rows * m.K); err != nil {
		return nil, err
	}
	var list []kernel
	first := 0
	for _, w := range p.weights {
		for _, part := range w.parts {
			u, err := kernels.Unpack{Part: kernels.Part{Type: w.Type, Rows: part.rows}, K: m.K, First: first}.Kernel(c.gpu.caps)
			if err != nil {
				return nil, err
			}
			bound, err := c.made(u, map[string]*driver.Buffer{"w": part.buffer, "y": buffers["w"]})
			if err != nil {
				return nil, err
			}
			c.work[bound.pipeline] = work{bytes: float64(part.buffer.Size) + 2*float64(part.rows*m.K)}
			list = append(list, bound)
			first += part.rows
		}
	}
	bound, err := c.made(product, buffers)
	if err != nil {
		return nil, err
	}
	c.work[bound.pipeline] = work{bytes: 2 * float64(m.Rows*m.K), operations: 2 * float64(m.Rows*m.K)}
	split, err := c.split(m, buffers)
	if err != nil {
		return nil, err
	}
	return func(r *recording, n int) {
		for _, k := range list {
			r.Dispatch(k.pipeline, k.group, k.grid[0], k.grid[1], k.grid[2])
		}
		if split != nil && split(r, n) {
			return
		}
		r.Dispatch(bound.pipeline, bound.group, m.TokenTiles(n), bound.grid[1], 1)
	}, nil
}

// split compiles a product's columns divided among workgroups, for steps in which its tiles
// alone are too few; nil if that is never so or not possible. What it returns reports
// whether it has run.
func (c *compiler) split(m kernels.HalfMul, buffers map[string]*driver.Buffer) (func(*recording, int) bool, error) {
	divided := kernels.HalfMul{K: m.K, Rows: m.Rows, Wanted: m.Wanted, Split: true}
	gather := kernels.Gather{Rows: m.Rows, Bias: m.Bias, Residual: m.Residual, SoftCap: m.SoftCap, Wanted: m.Wanted, First: m.First, Out: m.Out}
	most := c.rows
	if m.Wanted {
		most = c.logitRows
	}
	size := divided.PartsBytes(most)
	first, err := divided.Kernel(c.gpu.caps)
	if err != nil || divided.Splits(1) == 1 || uint64(size) > min(c.gpu.Binding, c.gpu.Buffer, halfLimit) {
		return nil, nil
	}
	second, err := gather.Kernel(c.gpu.caps)
	if err != nil {
		return nil, nil
	}
	if c.partial == nil || c.partial.Size < uint64(size) {
		if c.partial, err = c.buffer(size, driver.Storage); err != nil {
			return nil, err
		}
	}
	buffers = maps.Clone(buffers)
	buffers["parts"] = c.partial
	into := maps.Clone(buffers)
	into["y"] = c.partial
	product, err := c.made(first, into)
	if err != nil {
		return nil, err
	}
	c.work[product.pipeline] = work{bytes: 2 * float64(m.Rows*m.K), operations: 2 * float64(m.Rows*m.K)}
	sum, err := c.made(second, buffers)
	if err != nil {
		return nil, err
	}
	return func(r *recording, n int) bool {
		s := divided.Splits(n)
		if s > 1 {
			r.Dispatch(product.pipeline, product.group, divided.TokenTiles(n), product.grid[1], s)
			r.Dispatch(sum.pipeline, sum.group, gather.Groups(c.gpu.caps, n, s), s, 1)
		}
		return s > 1
	}, nil
}

// unpacked is a buffer of at least so many bytes for weights in half precision, which
// products that follow each other share.
func (c *compiler) unpacked(size int) (*driver.Buffer, error) {
	if limit := min(c.gpu.Binding, c.gpu.Buffer, halfLimit); uint64(size) > limit {
		return nil, fmt.Errorf("weights of %d bytes in half precision", size)
	}
	for _, b := range c.halves {
		if b.Size >= uint64(size) {
			return b, nil
		}
	}
	b, err := c.buffer(size, driver.Storage)
	if err == nil {
		c.halves = append(c.halves, b)
	}
	return b, err
}
