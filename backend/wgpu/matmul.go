//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apr-engine/apr/backend/wgpu/kernels"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
)

// product is y = W·x for the matrices that read the same x, in all its variants.
// What follows in the program is part of it where one kernel can do both.
type product struct {
	x       graph.ID
	weights []*weight
	bias    *driver.Buffer // of all matrices, end to end; nil for none
	y       view           // the results, end to end
	// act makes it act(first matrix)·second. For many rows both results go to sides,
	// next to each other, and whoever reads them activates.
	act   *graph.GatedAct
	sides *driver.Buffer
	// quant takes the activated results of one and few rows, quantised for who reads
	// them; nil if they are wanted as numbers.
	quant *driver.Buffer
	// residual is added; it is y's own buffer or another one like it. nil for none.
	residual *driver.Buffer
	wanted   bool
	softCap  float32
}

// integer reports whether one and few rows are multiplied in integers.
func (p *product) integer() bool { return !p.weights[0].float() }

// matMul compiles an operation together with what can share its kernels.
func (c *compiler) matMul(o *graph.MatMul) error {
	if c.fuse {
		if act := c.gated(o); act != nil {
			return c.gatedProduct(act)
		}
		if add, other := c.residualOf(o); add != nil {
			return c.residualProduct(o, add, other)
		}
	}
	ops := []*graph.MatMul{o}
	if c.fuse {
		ops = c.siblings(o)
	}
	p := product{x: o.In}
	total := 0
	for _, m := range ops {
		w, err := c.weight(m.Weight, c.tensor(m.Weight))
		if err != nil {
			return err
		}
		p.weights = append(p.weights, w)
		total += w.Rows()
	}
	var err error
	if p.bias, err = c.biasOf(ops); err != nil {
		return err
	}
	b, err := c.alloc(4*c.rowsOf()*total, len(ops))
	if err != nil {
		return fmt.Errorf("value %s: %w", c.program.Values[o.Out].Name, err)
	}
	p.y = view{b, total, 0}
	if err := c.product(p); err != nil {
		return err
	}
	at := p.y
	for _, m := range ops {
		c.done[m] = true
		if _, err := c.put(m.Out, at); err != nil {
			return err
		}
		at.Offset += c.width(m.Out)
		c.use(m.In)
	}
	return nil
}

// siblings are the products of the same input that one kernel can take together.
func (c *compiler) siblings(o *graph.MatMul) []*graph.MatMul {
	float := func(m *graph.MatMul) bool { return (&weight{Tensor: c.tensor(m.Weight)}).float() }
	list := []*graph.MatMul{o}
	for _, u := range c.values[o.In].users {
		m, ok := u.(*graph.MatMul)
		if !ok || m == o || c.done[m] || float(m) != float(o) || c.gated(m) != nil {
			continue
		}
		if add, _ := c.residualOf(m); add == nil {
			list = append(list, m)
		}
	}
	return list
}

// together reports whether a layer's projections become one product.
func (c *compiler) together(p *place) bool {
	q, ok := c.values[p.q].producer.(*graph.MatMul)
	if !ok || c.gated(q) != nil {
		return false
	}
	list := c.siblings(q)
	return slices.Contains(list, c.values[p.k].producer.(*graph.MatMul)) && slices.Contains(list, c.values[p.v].producer.(*graph.MatMul))
}

// gated is the activation that multiplies this product with another of the same
// input and shape; nil if there is none or somebody else reads one of them.
func (c *compiler) gated(o *graph.MatMul) *graph.GatedAct {
	users := c.values[o.Out].users
	if len(users) != 1 {
		return nil
	}
	act, ok := users[0].(*graph.GatedAct)
	if !ok || act.Gate == act.Up || !onlyProducts(c.values[act.Out].users) {
		return nil
	}
	gate, okG := c.sole(act.Gate).(*graph.MatMul)
	up, okU := c.sole(act.Up).(*graph.MatMul)
	if !okG || !okU || gate.In != up.In || gate.Bias != "" || up.Bias != "" {
		return nil
	}
	a, b := c.tensor(gate.Weight), c.tensor(up.Weight)
	if (&weight{Tensor: a}).float() != (&weight{Tensor: b}).float() {
		return nil
	}
	// Matrices that are cut must be cut at the same rows.
	limit := min(c.gpu.Binding, c.gpu.Buffer)
	if a.Type != b.Type && uint64(max(len(a.Data), len(b.Data)))*2 > limit {
		return nil
	}
	return act
}

func (c *compiler) gatedProduct(act *graph.GatedAct) error {
	gate, up := c.values[act.Gate].producer.(*graph.MatMul), c.values[act.Up].producer.(*graph.MatMul)
	p := product{x: gate.In, act: act}
	for _, m := range []*graph.MatMul{gate, up} {
		w, err := c.weight(m.Weight, c.tensor(m.Weight))
		if err != nil {
			return err
		}
		p.weights = append(p.weights, w)
		c.done[m] = true
	}
	c.done[act] = true
	b, err := c.alloc(4*c.rowsOf()*c.width(act.Out), 1)
	if err != nil {
		return fmt.Errorf("value %s: %w", c.program.Values[act.Out].Name, err)
	}
	p.y = view{b, c.width(act.Out), 0}
	if p.sides, err = c.alloc(8*c.rowsOf()*c.width(act.Out), 1); err != nil {
		return fmt.Errorf("value %s: %w", c.program.Values[act.Out].Name, err)
	}
	if p.integer() && len(p.weights[0].parts) == 1 && p.y.Stride%32 == 0 && c.onlyIntegers(act.Out) {
		if p.quant, err = c.alloc(4*fewRows*kernels.QuantWords(p.y.Stride), 1); err != nil {
			return fmt.Errorf("value %s: %w", c.program.Values[act.Out].Name, err)
		}
	}
	if err := c.product(p); err != nil {
		return err
	}
	c.use(gate.In, up.In)
	if _, err = c.put(act.Out, p.y); err != nil {
		return err
	}
	v := &c.values[act.Out]
	v.made[many], v.sides, v.act, v.quant = false, p.sides, &act.Act, p.quant
	v.quantMade = [amounts]bool{one: p.quant != nil, few: p.quant != nil}
	return nil
}

// residualOf is the addition that is all that reads this product, if the other
// operand is there already.
func (c *compiler) residualOf(o *graph.MatMul) (add *graph.Add, other graph.ID) {
	users := c.values[o.Out].users
	if len(users) != 1 {
		return nil, 0
	}
	add, ok := users[0].(*graph.Add)
	if !ok || add.A == add.B {
		return nil, 0
	}
	other = add.A
	if other == o.Out {
		other = add.B
	}
	v := &c.values[other]
	if v.buffer == nil || v.Stride != c.width(other) || v.Offset != 0 || v.made != [amounts]bool{true, true, true} {
		return nil, 0
	}
	return add, other
}

func (c *compiler) residualProduct(o *graph.MatMul, add *graph.Add, other graph.ID) error {
	w, err := c.weight(o.Weight, c.tensor(o.Weight))
	if err != nil {
		return err
	}
	v := &c.values[other]
	p := product{x: o.In, weights: []*weight{w}, residual: v.buffer}
	if p.bias, err = c.biasOf([]*graph.MatMul{o}); err != nil {
		return err
	}
	if v.left == 1 && c.holds[v.buffer] == 1 && o.In != other {
		p.y = v.view // nobody needs the sum so far: it is added to in place
		c.holds[v.buffer]++
	} else {
		b, err := c.alloc(4*c.rowsOf()*w.Rows(), 1)
		if err != nil {
			return fmt.Errorf("value %s: %w", c.program.Values[add.Out].Name, err)
		}
		p.y = view{b, w.Rows(), 0}
	}
	if err := c.product(p); err != nil {
		return err
	}
	c.done[o], c.done[add] = true, true
	c.use(o.In, other)
	_, err = c.put(add.Out, p.y)
	return err
}

// biasOf uploads the biases of products that are made together, with zeros for
// those that have none.
func (c *compiler) biasOf(ops []*graph.MatMul) (*driver.Buffer, error) {
	var key []string
	var all [][]float32
	any := false
	for _, m := range ops {
		b := make([]float32, c.width(m.Out))
		if m.Bias != "" {
			var err error
			if b, err = floats(c.tensor(m.Bias)); err != nil {
				return nil, err
			}
			any = true
		}
		key, all = append(key, c.program.Values[m.Out].Name), append(all, b)
	}
	if !any {
		return nil, nil
	}
	return c.numbers("biases of "+strings.Join(key, ", "), all...)
}

// product compiles a product and emits it.
func (c *compiler) product(p product) error {
	n := node{wanted: p.wanted}
	types := []string{}
	for _, w := range p.weights {
		types = append(types, w.Type.String())
	}
	slices.Sort(types)
	name := "matmul/" + strings.Join(slices.Compact(types), "+")
	for a := range amounts {
		var err error
		if a == many {
			n.run[a], err = c.matMulMany(p)
			n.names[a] = name + manyArithmetic(c.gpu.F16) + amountNames[a]
		} else {
			n.run[a], err = c.matVec(p, a)
			arithmetic := "/f32/"
			if p.integer() {
				arithmetic = "/i16/"
			}
			n.names[a] = name + arithmetic + amountNames[a]
		}
		if err != nil {
			return err
		}
	}
	c.emit(n)
	return nil
}

func manyArithmetic(half bool) string {
	if half {
		return "/f16/"
	}
	return "/f32/"
}

// bundle is matrices in one kernel: the parts with the buffers that hold them.
type bundle struct {
	parts   []kernels.Part
	buffers []*driver.Buffer
	first   int // element of y's rows
}

// work is what the kernel must do at least.
func (b bundle) work(k int, integer bool) work {
	w := work{integer: integer}
	for i, p := range b.parts {
		w.bytes += float64(b.buffers[i].Size)
		w.operations += 2 * float64(p.Rows) * float64(k)
	}
	return w
}

// bundles divides a product's matrices among kernels, by the number of bindings
// that the device has.
func (c *compiler) bundles(p product, a amount) []bundle {
	if p.act != nil && a != many {
		var list []bundle
		for i, g := range p.weights[0].parts {
			u := p.weights[1].parts[i]
			list = append(list, bundle{
				[]kernels.Part{{Type: p.weights[0].Type, Rows: g.rows}, {Type: p.weights[1].Type, Rows: u.rows}},
				[]*driver.Buffer{g.buffer, u.buffer}, g.first,
			})
		}
		return list
	}
	others := 4 // x, bias, residual, y
	if a == many {
		others = 6 // step, scale
	}
	most := max(1, min(c.gpu.caps.StorageBuffers, 16)-others)
	var list []bundle
	first := 0
	for _, w := range p.weights {
		for _, part := range w.parts {
			if len(list) == 0 || len(list[len(list)-1].parts) == most {
				list = append(list, bundle{first: first})
			}
			b := &list[len(list)-1]
			b.parts = append(b.parts, kernels.Part{Type: w.Type, Rows: part.rows})
			b.buffers = append(b.buffers, part.buffer)
			first += part.rows
		}
	}
	return list
}

// matVec compiles the kernels for one or few rows.
func (c *compiler) matVec(p product, a amount) (func(*recording, int), error) {
	tokens := 1
	if a == few {
		tokens = fewRows
	}
	v := &c.values[p.x]
	// For one row every workgroup does the norm itself, which takes less than a
	// dispatch.
	if v.norm != nil && !p.wanted && a == one && p.integer() && c.fuse {
		norm, err := c.vector(v.norm.Weight)
		if err != nil {
			return nil, err
		}
		x, err := c.endToEnd(v.norm.In)
		if err != nil {
			return nil, err
		}
		run, err := c.matVecs(p, a, kernels.MatVec{Tokens: tokens, Norm: true, Eps: v.norm.Eps}, map[string]*driver.Buffer{"x": x, "norm": norm})
		if err == nil {
			return run, nil
		} // else the row is too long for the workgroup's memory, or the bindings are too many
	}
	x, err := c.operand(p, a)
	if err != nil {
		return nil, err
	}
	return c.matVecs(p, a, kernels.MatVec{Tokens: tokens}, map[string]*driver.Buffer{"x": x.rows})
}

// matVecs compiles a product's kernels for one or few rows, given how they take
// their input.
func (c *compiler) matVecs(p product, a amount, m kernels.MatVec, input map[string]*driver.Buffer) (func(*recording, int), error) {
	var list []kernel
	for _, b := range c.bundles(p, a) {
		m.K, m.Parts, m.Bias, m.SoftCap, m.First, m.Out = p.weights[0].Cols(), b.parts, p.bias != nil, p.softCap, b.first, p.y.Stride
		buffers := maps.Clone(input)
		buffers["bias"], buffers["y"] = p.bias, p.y.buffer
		if p.act != nil {
			m.Act = &p.act.Act
			if p.quant != nil {
				m.QuantOut, m.Out, buffers["y"] = true, 0, p.quant
			}
		}
		m.Residual = c.addTo(p, buffers)
		for i, w := range b.buffers {
			buffers[fmt.Sprintf("w%d", i)] = w
		}
		k, err := m.Kernel(c.gpu.caps)
		if err != nil {
			return nil, err
		}
		bound, err := c.made(k, buffers)
		if err != nil {
			return nil, err
		}
		c.work[bound.pipeline] = b.work(m.K, p.integer())
		list = append(list, bound)
	}
	return func(r *recording, _ int) {
		for _, k := range list {
			r.Dispatch(k.pipeline, k.group, k.grid[0], k.grid[1], k.grid[2])
		}
	}, nil
}

// matMulMany compiles the kernels for many rows.
func (c *compiler) matMulMany(p product) (func(*recording, int), error) {
	x, err := c.operand(p, many)
	if err != nil {
		return nil, err
	}
	if c.gpu.F16 {
		// Matrices too large for that, and devices short of memory, do without.
		if run, err := c.halfMul(p, x); err == nil {
			return run, nil
		}
	}
	type tiles struct {
		kernel
		kernels.MatMul
	}
	var list []tiles
	for _, b := range c.bundles(p, many) {
		m := kernels.MatMul{K: p.weights[0].Cols(), Parts: b.parts, F16: c.gpu.F16, Bias: p.bias != nil, SoftCap: p.softCap, Wanted: p.wanted, First: b.first, Out: p.y.Stride}
		buffers := map[string]*driver.Buffer{"step": c.step, "x": x.rows, "scale": x.scale, "bias": p.bias, "y": p.y.buffer}
		if p.act != nil { // the gate's rows and the other's lie side by side until they are read
			buffers["y"], m.Out = p.sides, 2*p.y.Stride
		}
		m.Residual = c.addTo(p, buffers)
		for i, w := range b.buffers {
			buffers[fmt.Sprintf("w%d", i)] = w
		}
		k, err := m.Kernel(c.gpu.caps)
		if err != nil {
			return nil, err
		}
		bound, err := c.made(k, buffers)
		if err != nil {
			return nil, err
		}
		c.work[bound.pipeline] = b.work(m.K, false)
		list = append(list, tiles{bound, m})
	}
	caps := c.gpu.caps
	return func(r *recording, n int) {
		for i := range list {
			t := &list[i]
			r.Dispatch(t.pipeline, t.group, t.grid[0], t.TokenTiles(caps, n), 1)
		}
	}, nil
}

// addTo binds what a product is added to.
func (c *compiler) addTo(p product, buffers map[string]*driver.Buffer) kernels.Residual {
	switch p.residual {
	case nil:
		return kernels.NoResidual
	case p.y.buffer:
		return kernels.InPlace
	}
	buffers["residual"] = p.residual
	return kernels.FromBuffer
}
