package cuda

import (
	"errors"
	"slices"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// Fusion looks for groups of operations that one kernel computes: norm and products,
// products and residual sums, gate and up with their activation, rotation and
// cache. What belongs to no group runs as it is. Nothing here knows an
// architecture. This file is for steps of few tokens, where starting kernels and
// passing values through memory cost more than arithmetic; fuse_many.go for others.

// fuser finds groups in a program.
type fuser struct {
	*compiler
	made   []int   // the operation that writes each value; -1 for none
	users  [][]int // the operations that read each value
	taken  []bool  // operations that belong to a group
	stages []stage
	// rounded are the values that are passed on as integers: see roundGated.
	rounded map[graph.ID]bool
}

// newFuser looks at who writes and reads each value.
func newFuser(c *compiler) *fuser {
	f := &fuser{compiler: c, made: make([]int, len(c.program.Values)), users: make([][]int, len(c.program.Values)), taken: make([]bool, len(c.program.Ops)), rounded: map[graph.ID]bool{}}
	for i := range f.made {
		f.made[i] = -1
	}
	for i, op := range c.program.Ops {
		for _, in := range op.Inputs() {
			f.users[in] = append(f.users[in], i)
		}
		if out := op.Output(); out >= 0 {
			f.made[out] = i
		}
	}
	return f
}

// fuse returns the program in stages, in an order in which they can run; nil if no
// operations could be fused. group looks for one that begins with an operation; then
// product sees the products, of which those that belong to no group are left.
func (c *compiler) fuse(group func(f *fuser, at int, op graph.Op), product func(f *fuser, at int, m *graph.MatMul)) []stage {
	f := newFuser(c)
	for i, op := range c.program.Ops {
		group(f, i, op)
	}
	for i, op := range c.program.Ops {
		if m, ok := op.(*graph.MatMul); ok {
			product(f, i, m)
		}
	}
	return f.ordered()
}

// fuseFew is for steps of few tokens.
func (c *compiler) fuseFew() []stage {
	return c.fuse(func(f *fuser, at int, op graph.Op) {
		switch o := op.(type) {
		case *graph.RMSNorm:
			f.normProducts(at, o)
			f.normAdd(at, o)
		case *graph.KVStore:
			f.rotateAndStore(at, o, rotateInside)
		}
	}, (*fuser).productAdd)
}

// ordered adds the operations that belong to no group and sorts the stages by their
// last operation, which is where all that a group reads has been computed. It
// checks that it is so.
func (f *fuser) ordered() []stage {
	if len(f.stages) == 0 {
		return nil
	}
	for i, p := range f.compiler.stages {
		if !f.taken[i] {
			f.stages = append(f.stages, p)
		}
	}
	slices.SortStableFunc(f.stages, func(a, b stage) int { return slices.Max(a.ops) - slices.Max(b.ops) })
	there := make([]bool, len(f.program.Values))
	stored := make([]bool, len(f.program.Caches))
	for _, p := range f.stages {
		for _, in := range p.in {
			if !there[in] {
				return nil
			}
		}
		for _, i := range p.ops {
			switch o := f.program.Ops[i].(type) {
			case *graph.KVStore:
				stored[o.Layer] = true
			case *graph.Attention:
				if !stored[o.Layer] && f.storeOf(o.Layer) >= 0 {
					return nil
				}
			}
		}
		for _, out := range p.out {
			there[out] = true
		}
	}
	return f.stages
}

// storeOf is the plain operation that fills a layer's cache, -1 for none.
func (f *fuser) storeOf(layer int) int {
	return slices.IndexFunc(f.program.Ops, func(op graph.Op) bool {
		s, ok := op.(*graph.KVStore)
		return ok && s.Layer == layer
	})
}

// take adds a stage and marks its operations.
func (f *fuser) take(p stage) {
	for _, i := range p.ops {
		f.taken[i] = true
	}
	f.stages = append(f.stages, p)
}

// only returns the operation of type T that alone reads a value.
func only[T graph.Op](f *fuser, id graph.ID) (op T, at int, ok bool) {
	if len(f.users[id]) != 1 || f.taken[f.users[id][0]] {
		return op, 0, false
	}
	at = f.users[id][0]
	op, ok = f.program.Ops[at].(T)
	return op, at, ok
}

// maker returns the operation of type T that writes a value which only one other
// operation reads.
func maker[T graph.Op](f *fuser, id graph.ID) (op T, at int, ok bool) {
	at = f.made[id]
	if at < 0 || f.taken[at] || len(f.users[id]) != 1 {
		return op, 0, false
	}
	op, ok = f.program.Ops[at].(T)
	return op, at, ok
}

// multiplies reports whether the decode kernels take a matrix.
func (f *fuser) multiplies(t tensor.Tensor) bool {
	return matvecTokens(f.c.Device, t.Type, t.Rows(), t.Cols()) > 0
}

// normProducts fuses a norm over whole rows with all the products, or the logits,
// that read it.
func (f *fuser) normProducts(at int, n *graph.RMSNorm) {
	if n.Segment != f.width(n.In) || f.taken[at] {
		return
	}
	if l, i, ok := only[*graph.Logits](f, n.Out); ok && f.multiplies(f.tensor(l.Weight)) {
		f.take(f.normLogits(at, i, n, l))
		return
	}
	p := stage{kind: "rmsnorm and products", ops: []int{at}, in: []graph.ID{n.In}}
	var products []*graph.MatMul
	for _, i := range f.users[n.Out] {
		m, ok := f.program.Ops[i].(*graph.MatMul)
		if !ok || f.taken[i] || !f.multiplies(f.tensor(m.Weight)) {
			return
		}
		products = append(products, m)
		p.ops = append(p.ops, i)
	}
	if len(products) == 0 {
		return
	}
	if g, i, ok := f.gated(products); ok {
		p.ops, p.out = append(p.ops, i), []graph.ID{g.Out}
		f.rounded[g.Out] = f.roundsGated(g, products[0])
		f.finish(&p, matvecRequest{eps: n.Eps, pair: true, gelu: g.Act == graph.GELU, round: f.rounded[g.Out]}, n.Weight, f.named(g, products))
		return
	}
	for _, m := range products {
		p.out = append(p.out, m.Out)
	}
	f.finish(&p, matvecRequest{eps: n.Eps}, n.Weight, products)
}

// gated finds the activation that alone reads two products of one format.
func (f *fuser) gated(products []*graph.MatMul) (*graph.GatedAct, int, bool) {
	if len(products) != 2 || f.tensor(products[0].Weight).Type != f.tensor(products[1].Weight).Type || products[0].Bias+products[1].Bias != "" {
		return nil, 0, false
	}
	g, i, ok := only[*graph.GatedAct](f, products[0].Out)
	_, j, also := only[*graph.GatedAct](f, products[1].Out)
	return g, i, ok && also && i == j && g.Gate != g.Up
}

// roundGated lets the kernel that makes the input of the product after gate and up round
// it at once: else every block of that product would, and read twice as many bytes.
var roundGated = true

// roundsGated reports whether it is possible: one product alone reads the value, and as
// integers.
func (f *fuser) roundsGated(g *graph.GatedAct, gate *graph.MatMul) bool {
	m, _, ok := only[*graph.MatMul](f, g.Out)
	if !ok || !roundGated {
		return false
	}
	from, to := f.tensor(gate.Weight), f.tensor(m.Weight)
	integers := func(t tensor.Tensor) bool { weights, _ := piece(t.Type); return weights == 32 }
	return f.multiplies(to) && integers(from) && integers(to) && to.Cols()%32 == 0 && aligned(to.Cols())
}

// named returns gate and up in this order.
func (f *fuser) named(g *graph.GatedAct, products []*graph.MatMul) []*graph.MatMul {
	if products[0].Out == g.Gate {
		return products
	}
	return []*graph.MatMul{products[1], products[0]}
}

// finish completes a stage of products that share their input, norm being the
// weight of the norm before them, and takes it.
func (f *fuser) finish(p *stage, req matvecRequest, norm string, products []*graph.MatMul) {
	var ts []tensor.Tensor
	for _, m := range products {
		ts = append(ts, f.tensor(m.Weight))
		f.multiplied[m.Weight] = true
	}
	req.k = ts[0].Cols()
	p.variant = func(s stepShape) string {
		name := "fused/" + p.kind
		for _, t := range ts {
			name += "/" + matvecName(f.c.Device, productSize{t.Type, t.Rows(), t.Cols(), s.tokens})
		}
		return name
	}
	p.launch = func(r *recorder, in, out []cuda.Ptr) error {
		req := req
		req.x, req.norm = in[0], r.e.vectors[norm]
		if len(in) > 1 {
			req.residual = in[1]
		}
		for i, m := range products {
			w := r.e.weights[m.Weight]
			x := matvecMatrix{w.data, w.dtype, w.rows, r.e.vectors[m.Bias], 0}
			if i < len(out) {
				x.out = out[i]
			}
			req.matrices = append(req.matrices, x)
		}
		return r.matvecs(req)
	}
	f.take(*p)
}

// matvecs appends products that share their input: in one launch if a kernel reads
// all their formats, else in one a format, for as many tokens at a time as fit.
func (r *recorder) matvecs(req matvecRequest) error {
	most := fewTokens
	for _, m := range req.matrices {
		most = min(most, matvecTokens(r.e.c.Device, m.dtype, m.rows, req.k))
	}
	for whole := req; most > 1; most /= 2 {
		// Together they can need more shared memory than each.
		whole.tokens = min(most, r.shape.tokens)
		if _, err := planMatvec(r.e.c.Device, whole); !errors.Is(err, errMatvecWide) {
			break
		}
	}
	for t := 0; t < r.shape.tokens; t += most {
		part := req
		part.tokens = min(most, r.shape.tokens-t)
		part.x += cuda.Ptr(t * rowBytes(req.k, req.rounded))
		part.matrices = slices.Clone(req.matrices)
		for i := range part.matrices {
			if m := &part.matrices[i]; m.out != 0 {
				m.out += cuda.Ptr(t * rowBytes(m.rows, req.round))
			}
		}
		if part.residual != 0 {
			part.residual += cuda.Ptr(4 * t * part.matrices[0].rows)
		}
		if err := r.together(part); err != nil {
			return err
		}
	}
	return nil
}

// rowBytes is what a token's n numbers take, as float32 or rounded.
func rowBytes(n int, rounded bool) int {
	if rounded {
		return roundedBytes(n)
	}
	return 4 * n
}

// together appends the products of one run of tokens.
func (r *recorder) together(req matvecRequest) error {
	if len(req.matrices) <= 3 {
		err := r.matvec(req)
		if !errors.Is(err, errMatvecMix) && !errors.Is(err, errMatvecWide) {
			return err
		}
	}
	if req.pair || len(req.matrices) == 1 {
		return errMatvecMix // not reached: formats and width were looked at before
	}
	for _, m := range req.matrices {
		one := req
		one.matrices = []matvecMatrix{m}
		if err := r.matvec(one); err != nil {
			return err
		}
	}
	return nil
}

// normLogits gathers the rows whose logits are wanted before the norm instead of
// after it.
func (f *fuser) normLogits(at, i int, n *graph.RMSNorm, l *graph.Logits) stage {
	t, width := f.tensor(l.Weight), f.width(l.In)
	return stage{
		kind: "rmsnorm and logits", ops: []int{at, i}, in: []graph.ID{n.In}, logits: true,
		variant: func(s stepShape) string {
			if s.rows == 0 {
				return ""
			}
			return "fused/logits/" + manyMatvecName(f.c.Device, productSize{t.Type, t.Rows(), t.Cols(), s.rows})
		},
		launch: func(r *recorder, in, _ []cuda.Ptr) error {
			if r.rows == 0 {
				return nil
			}
			x := in[0]
			if r.shape.tokens > 1 || r.rows > 1 {
				if err := r.gather(x, width); err != nil {
					return err
				}
				x = r.e.scratch.gathered
			}
			w := r.e.weights[l.Weight]
			most := matvecTokens(r.e.c.Device, w.dtype, w.rows, w.k)
			for t := 0; t < r.rows; t += most {
				req := matvecRequest{
					tokens: min(most, r.rows-t), k: w.k, x: x + cuda.Ptr(4*t*w.k), norm: r.e.vectors[n.Weight], eps: n.Eps, cap: l.SoftCap,
					matrices: []matvecMatrix{{w.data, w.dtype, w.rows, 0, r.e.scratch.logits + cuda.Ptr(4*t*w.rows)}},
				}
				if err := r.matvec(req); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// productAdd fuses a product with the sum that alone reads it: the residual stream.
func (f *fuser) productAdd(at int, m *graph.MatMul) {
	if f.taken[at] || !f.multiplies(f.tensor(m.Weight)) {
		return
	}
	p := stage{kind: "product", ops: []int{at}, in: []graph.ID{m.In}, out: []graph.ID{m.Out}}
	if a, i, ok := only[*graph.Add](f, m.Out); ok && a.A != a.B {
		p.kind, p.ops, p.out = "product and sum", append(p.ops, i), []graph.ID{a.Out}
		p.in = append(p.in, other(a, m.Out))
	}
	f.finish(&p, matvecRequest{rounded: f.rounded[m.In]}, "", []*graph.MatMul{m})
}

// other is the summand beside a value.
func other(a *graph.Add, id graph.ID) graph.ID {
	if a.A == id {
		return a.B
	}
	return a.A
}

// normAdd fuses a norm over whole rows with the sum that alone reads it.
func (f *fuser) normAdd(at int, n *graph.RMSNorm) {
	if n.Segment != f.width(n.In) || f.taken[at] {
		return
	}
	a, i, ok := only[*graph.Add](f, n.Out)
	if !ok || a.A == a.B {
		return
	}
	width := f.width(n.In)
	f.take(stage{
		kind: "rmsnorm and sum", ops: []int{at, i}, in: []graph.ID{n.In, other(a, n.Out)}, out: []graph.ID{a.Out},
		variant: func(stepShape) string { return "fused/rmsnorm and sum" },
		launch: func(r *recorder, in, out []cuda.Ptr) error {
			return r.call(normAddCall(in[0], r.e.vectors[n.Weight], n.Eps, in[1], out[0], r.shape.tokens, width))
		},
	})
}

// head is a rotation of queries or keys with the norm of each head before it, if
// there is one.
type head struct {
	rope *graph.Rope
	norm *graph.RMSNorm
	in   graph.ID
	ops  []int
}

// headOf finds what makes a value from a product.
func (f *fuser) headOf(id graph.ID) (head, bool) {
	r, at, ok := maker[*graph.Rope](f, id)
	if !ok {
		return head{}, false
	}
	h := head{rope: r, in: r.In, ops: []int{at}}
	if n, at, ok := maker[*graph.RMSNorm](f, r.In); ok && n.Segment == r.HeadDim {
		h.norm, h.in, h.ops = n, n.In, append(h.ops, at)
	}
	return h, true
}

// like reports whether two rotations can share a launch.
func (h head) like(o head) bool {
	a, b := h.rope, o.rope
	same := a.HeadDim == b.HeadDim && a.Pairing == b.Pairing && a.Magnitude == b.Magnitude && slices.Equal(a.InvFreq, b.InvFreq)
	if h.norm == nil || o.norm == nil {
		return same && h.norm == o.norm
	}
	return same && h.norm.Eps == o.norm.Eps
}

// rotateInside lets attention of one token rotate and store by itself.
var rotateInside = true

// rotateAndStore fuses the rotations of a layer's queries and keys with filling the
// cache, and inside with attention, which does all that where one token decodes.
func (f *fuser) rotateAndStore(at int, s *graph.KVStore, inside bool) {
	cache := f.program.Caches[s.Layer]
	i := slices.IndexFunc(f.program.Ops, func(op graph.Op) bool {
		a, ok := op.(*graph.Attention)
		return ok && a.Layer == s.Layer
	})
	if i < 0 || f.taken[at] {
		return
	}
	attention := f.program.Ops[i].(*graph.Attention)
	q, ok := f.headOf(attention.Q)
	k, also := f.headOf(s.K)
	if !ok || !also || !q.like(k) || q.rope.HeadDim != cache.HeadDim {
		return
	}
	freq := frequencies(q.rope.InvFreq)
	prepare := func(r *recorder, in []cuda.Ptr, qOut cuda.Ptr) (ropeStore, error) {
		table, err := r.constant(freq)
		rs := ropeStore{
			tokens: r.shape.tokens, heads: attention.Heads, kvHeads: cache.Heads, headDim: cache.HeadDim,
			q: in[0], k: in[1], v: in[2], qOut: qOut, ropePos: r.ints(r.at.pos), pos: r.ints(r.at.pos),
			freq: table, pairs: len(freq), interleaved: q.rope.Pairing == graph.Interleaved, magnitude: float32(q.rope.Magnitude),
			kv: r.ints(r.at.kv), cap: r.ints(r.at.cap), layer: uint64(r.e.layerAt[s.Layer]), f16: r.e.opts.KV == tensor.F16,
		}
		if q.norm != nil {
			rs.qNorm, rs.kNorm, rs.eps = r.e.vectors[q.norm.Weight], r.e.vectors[k.norm.Weight], q.norm.Eps
		}
		return rs, err
	}
	p := stage{
		kind: "rotation and cache", ops: slices.Concat(q.ops, k.ops, []int{at}), in: []graph.ID{q.in, k.in, s.V}, out: []graph.ID{attention.Q},
		variant: func(stepShape) string { return "fused/rotation and cache" },
		launch: func(r *recorder, in, out []cuda.Ptr) error {
			rs, err := prepare(r, in, out[0])
			if err != nil {
				return err
			}
			return r.call(rs.call())
		},
	}
	shape := f.attentionShape(attention)
	one, ok := f.attentionPlanFor(shape, stepSize{tokens: 1, rows: 1, tiles: 1})
	if inside && ok && one.rotates() && q.norm == nil && len(f.users[attention.Q]) == 1 && !f.taken[i] {
		f.rotateAndAttend(p, i, attention, prepare)
		return
	}
	f.take(p)
}

// rotateAndAttend extends the stage that rotates and stores by attention, operation i:
// with one token in one launch.
func (f *fuser) rotateAndAttend(p stage, i int, attention *graph.Attention, prepare func(*recorder, []cuda.Ptr, cuda.Ptr) (ropeStore, error)) {
	shape, store := f.attentionShape(attention), p.launch
	p.kind, p.ops, p.out = "rotation, cache and attention", append(p.ops, i), append(p.out, attention.Out)
	p.variant = func(s stepShape) string {
		if s.tokens == 1 {
			return "fused/rotation, cache and " + f.attentionVariant(shape, s)
		}
		return "fused/rotation and cache/" + f.attentionVariant(shape, s)
	}
	p.launch = func(r *recorder, in, out []cuda.Ptr) error {
		pos := r.ints(r.at.pos)
		if r.shape.tokens > 1 {
			if err := store(r, in, out); err != nil {
				return err
			}
			return r.attend(shape, out[0], out[1], pos, nil)
		}
		rs, err := prepare(r, in, out[0])
		if err != nil {
			return err
		}
		return r.attend(shape, in[0], out[1], pos, &rs)
	}
	f.take(p)
}
