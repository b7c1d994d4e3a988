package cuda

import (
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
)

// Fusion for steps of many tokens: what surrounds products on tensor cores. A norm
// or an activation writes the f16 operand at once, a product adds the residual
// stream itself.

// fuseMany is for steps of many tokens.
func (c *compiler) fuseMany() []stage {
	return c.fuse(func(f *fuser, at int, op graph.Op) {
		switch o := op.(type) {
		case *graph.RMSNorm:
			f.normThenProducts(at, o)
			f.normAdd(at, o)
		case *graph.KVStore:
			f.rotateAndStore(at, o, false)
		case *graph.GatedAct:
			f.gatedThenProduct(at, o)
		}
	}, (*fuser).productThenAdd)
}

// halves reports whether the kernels of products with so many tokens all take f16.
func (e *executor) halves(products []*graph.MatMul, tokens int) bool {
	for _, m := range products {
		w := e.weights[m.Weight]
		if w == nil {
			return false
		}
		if k, _ := kernelFor(e.c.Device, productSize{w.dtype, w.rows, w.k, tokens}); !k.half {
			return false
		}
	}
	return true
}

// variants names the products of a stage.
func (f *fuser) variants(kind string, products []*graph.MatMul) func(stepShape) string {
	return func(s stepShape) string {
		name := "fused/" + kind
		for _, m := range products {
			name += "/" + f.productVariant(f.tensor(m.Weight), s.tokens)
		}
		return name
	}
}

// normThenProducts fuses a norm over whole rows with the conversion to f16 for all
// the products that read it.
func (f *fuser) normThenProducts(at int, n *graph.RMSNorm) {
	if n.Segment != f.width(n.In) || f.taken[at] {
		return
	}
	p := stage{kind: "rmsnorm, then products", ops: []int{at}, in: []graph.ID{n.In}, out: []graph.ID{n.Out}}
	var products []*graph.MatMul
	for _, i := range f.users[n.Out] {
		m, ok := f.program.Ops[i].(*graph.MatMul)
		if !ok || f.taken[i] {
			return
		}
		products = append(products, m)
		p.ops, p.out = append(p.ops, i), append(p.out, m.Out)
	}
	if len(products) == 0 {
		return
	}
	k := n.Segment
	p.variant = f.variants(p.kind, products)
	p.launch = func(r *recorder, in, out []cuda.Ptr) error {
		s := &r.e.scratch
		if r.e.halves(products, r.shape.tokens) {
			run, err := convertNormLaunch(r.e.c, r.e.lib.find, in[0], r.e.vectors[n.Weight], n.Eps, activations{s.half, s.halfScales}, r.shape.tokens, k)
			if err != nil {
				return err
			}
			r.add(run)
			r.halved = n.Out
		} else if err := r.norm(n, in[0], out[0]); err != nil {
			return err
		}
		for i, m := range products {
			if err := r.product(r.e.weights[m.Weight], n.Out, out[0], r.e.vectors[m.Bias], out[i+1], r.shape.tokens); err != nil {
				return err
			}
		}
		return nil
	}
	f.take(p)
}

// gatedThenProduct fuses a gated activation with the conversion to f16 for the
// product that alone reads it, and that product with the sum that alone reads it.
func (f *fuser) gatedThenProduct(at int, g *graph.GatedAct) {
	m, i, ok := only[*graph.MatMul](f, g.Out)
	if !ok || f.taken[at] {
		return
	}
	width := f.width(g.Out)
	p := stage{kind: "activation, then product", ops: []int{at, i}, in: []graph.ID{g.Gate, g.Up}, out: []graph.ID{g.Out, m.Out}}
	f.addResidual(&p, m)
	p.variant = f.variants(p.kind, []*graph.MatMul{m})
	p.launch = func(r *recorder, in, out []cuda.Ptr) error {
		s := &r.e.scratch
		if r.e.halves([]*graph.MatMul{m}, r.shape.tokens) && 4*width <= r.e.c.Device.SharedMemory {
			run, err := convertGatedLaunch(r.e.c, r.e.lib.find, in[0], in[1], g.Act, activations{s.half, s.halfScales}, r.shape.tokens, width)
			if err != nil {
				return err
			}
			r.add(run)
			r.halved = g.Out
		} else if err := r.each("gated_act", width, in[0], in[1], out[0], int(g.Act)); err != nil {
			return err
		}
		return r.multiply(r.residual(m, g.Out, out[0], in[2:], out[1]))
	}
	f.take(p)
}

// productThenAdd fuses a product with the sum that alone reads it.
func (f *fuser) productThenAdd(at int, m *graph.MatMul) {
	if f.taken[at] {
		return
	}
	p := stage{kind: "product, then sum", ops: []int{at}, in: []graph.ID{m.In}, out: []graph.ID{m.Out}}
	if f.addResidual(&p, m); len(p.ops) == 1 {
		return
	}
	p.variant = f.variants(p.kind, []*graph.MatMul{m})
	p.launch = func(r *recorder, in, out []cuda.Ptr) error {
		return r.multiply(r.residual(m, m.In, in[0], in[1:], out[0]))
	}
	f.take(p)
}

// addResidual extends a stage whose last value is that of a product by the sum that
// alone reads it.
func (f *fuser) addResidual(p *stage, m *graph.MatMul) {
	a, i, ok := only[*graph.Add](f, m.Out)
	if !ok || a.A == a.B {
		return
	}
	p.ops, p.in = append(p.ops, i), append(p.in, other(a, m.Out))
	p.out[len(p.out)-1] = a.Out
}

// residual is the product of a stage that addResidual has seen; rest is empty or
// holds what is added.
func (r *recorder) residual(m *graph.MatMul, id graph.ID, x cuda.Ptr, rest []cuda.Ptr, y cuda.Ptr) operand {
	o := operand{w: r.e.weights[m.Weight], id: id, x: x, bias: r.e.vectors[m.Bias], y: y, tokens: r.shape.tokens}
	if len(rest) > 0 {
		o.residual = rest[0]
	}
	return o
}
