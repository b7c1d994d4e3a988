//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"

	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
)

// matmulSizes is what the shader of the same name puts into its source.
type matmulSizes struct {
	format
	Cols, First, Rows, Out int
	Tile                   int  // tokens a workgroup
	Wanted                 bool // rows are those that logits are wanted of
	Bias                   bool
	SoftCap                float32
}

// product is y = W·x in all its variants.
type product struct {
	w       *weight
	x, y    driver.Binding
	bias    *driver.Buffer // nil for none
	wanted  bool
	softCap float32
}

// batchTile is the number of tokens that a workgroup takes at a time in steps of
// several.
const batchTile = 8

// rowsPerGroup is the number of rows that a workgroup computes.
const rowsPerGroup = 8

// product compiles a product and emits it.
func (c *compiler) product(p product) error {
	one, err := c.tiles(p, 1)
	if err != nil {
		return err
	}
	many, err := c.tiles(p, batchTile)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("matmul/%s/f32", p.w.Type)
	c.emit(func(r *recording) {
		n := r.tokens
		if p.wanted {
			n = r.wanted
		}
		if n == 1 {
			one(r, n)
		} else {
			many(r, n)
		}
	}, func(s shape) []string {
		if p.wanted {
			return byTokens(name, s.oneW, s.manyW)
		}
		return byTokens(name, s.one, s.many)
	})
	return nil
}

// tiles compiles the kernels, one a part of the weight, that take tile tokens at
// a time.
func (c *compiler) tiles(p product, tile int) (func(r *recording, tokens int), error) {
	sizes := matmulSizes{format: p.w.format, Cols: p.w.Cols(), Out: p.w.Rows(), Tile: tile, Wanted: p.wanted, Bias: p.bias != nil, SoftCap: p.softCap}
	var kernels []kernel
	for _, part := range p.w.parts {
		sizes.First, sizes.Rows = part.first, part.rows
		access := []driver.Access{in, in, in, out}
		bindings := []driver.Binding{driver.Whole(c.step), driver.Whole(part.buffer), p.x, p.y}
		if p.bias != nil {
			access, bindings = append(access, in), append(bindings, driver.Whole(p.bias))
		}
		k, err := c.kernel("matmul", sizes, access, bindings...)
		if err != nil {
			return nil, err
		}
		kernels = append(kernels, k)
	}
	return func(r *recording, tokens int) {
		for i, k := range kernels {
			r.plane(k, (p.w.parts[i].rows+rowsPerGroup-1)/rowsPerGroup, (tokens+tile-1)/tile)
		}
	}, nil
}

func (c *compiler) matMul(o *graph.MatMul) error {
	w, err := c.weight(o.Weight, c.tensor(o.Weight))
	if err != nil {
		return err
	}
	p := product{w: w, x: c.slot(o.In)}
	if o.Bias != "" {
		if p.bias, err = c.vector(o.Bias, c.tensor(o.Bias)); err != nil {
			return err
		}
	}
	if p.y, err = c.define(o.Out); err != nil {
		return err
	}
	c.use(o.In)
	return c.product(p)
}

// logitRowsOf collects the rows that logits are wanted of and multiplies them.
func (c *compiler) logitRowsOf(o *graph.Logits) error {
	w, err := c.weight(o.Weight, c.tensor(o.Weight))
	if err != nil {
		return err
	}
	width := c.width(o.In)
	rows, err := c.buffer(4*c.logitRows*width, driver.Storage)
	if err != nil {
		return err
	}
	gather, err := c.kernel("pointwise", pointwise{Op: "gather", Width: width}, []driver.Access{in, in, out},
		driver.Whole(c.step), c.slot(o.In), driver.Whole(rows))
	if err != nil {
		return err
	}
	c.emit(func(r *recording) { r.flat(gather, r.wanted*width) }, nil)
	if c.trace != nil {
		c.trace.values = append(c.trace.values, traced{index: int(o.Out), wanted: true})
	}
	return c.product(product{w: w, x: driver.Whole(rows), y: driver.Whole(c.executor.logits), wanted: true, softCap: o.SoftCap})
}
