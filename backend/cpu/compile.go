package cpu

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/tensor"
)

// instr is one compiled operation. All workers execute it; it shares out its
// work by token (perToken) or through shares.
type instr struct {
	run func(worker int)
	// perToken operations give worker w the same tokens every time, so a chain of
	// them needs no barrier in between.
	perToken bool
	// barrier says that all workers must have finished what came before.
	barrier bool
	// aloneBarrier is the same for a step of one token (alone.go), in which operations with
	// heads leave other workers' heads alone; local says that only such operations lie between.
	aloneBarrier, heads, local bool
	// traced is the value that is complete after this instruction; -1 for none.
	traced graph.ID
	// variant names the kernel family, for Executor.Variants; empty for glue.
	variant string
	// attends marks attention, whose kernels also depend on the context's length.
	attends bool
	// label, cost and integer are for the profile: see backend.OperationTime. cost
	// is nil for operations that pass on activations.
	label   string
	cost    func(*step) cost
	integer bool

	reads, writes []resource
	gating        *gating    // that does the instruction's work if it is active
	next          *product   // of this instruction or one that follows
	attending     *attending // nil for other operations than attention
	product       *product   // the matrix; nil for other operations
}

// resource is something that two instructions can conflict over.
type resource struct {
	kind  resourceKind
	index int
	own   bool // in a step of one token each worker has its own
}

type resourceKind int

const (
	floatSlot resourceKind = iota
	packedSlot
	cacheLayer
	ropeAngles
	logitRows
)

// ropeTable is one distinct set of rotary frequencies with the angles of the
// current step: cos and sin are (T, len(inv)).
type ropeTable struct {
	inv       []float64
	magnitude float64
	misplaced *graph.Misplace // nil for right positions
	cos, sin  []float32
}

// compiler turns a program into instructions and assigns values to buffers.
type compiler struct {
	*executor
	w      graph.Weights
	at     []operand        // by value; nowhere before it is computed
	packOf []operand        // by value; nowhere if not quantised
	left   []int            // uses of a value that are still to come
	packs  [][]tensor.DType // of those, weights of uses in quantised form
	free   map[int][]int    // by width; own likewise
	own    map[int][]int
	freeP  map[packing][]int
	kind   string // of the operation being compiled
}

// packing is what quantised values have in common that share memory. The rounding of a
// value depends on the weights it meets and on nothing else: not on what else the program
// computes, or a part of it would give other bits.
type packing struct{ width, largest int }

func (c *compiler) packing(id graph.ID) packing {
	return packing{c.width(id), kernel.I16Largest(c.packs[id]...)}
}

func (e *executor) compile(w graph.Weights) error {
	n := len(e.program.Values)
	c := &compiler{executor: e, w: w, at: filled(n, nowhere), packOf: filled(n, nowhere), left: make([]int, n), packs: make([][]tensor.DType, n), free: map[int][]int{}, own: map[int][]int{}, freeP: map[packing][]int{}}
	e.ownHeads = headsOf(e.program)
	e.plans = backend.NewPlans(e.kernelsOf)
	for _, l := range e.program.Caches {
		if l.Window > 0 && (e.window == 0 || l.Window < e.window) {
			e.window = l.Window
		}
	}
	for _, op := range e.program.Ops {
		for _, in := range op.Inputs() {
			c.left[in]++
		}
		if m, ok := op.(*graph.MatMul); ok {
			if t := c.tensor(m.Weight); c.integer(t) {
				c.packs[m.In] = append(c.packs[m.In], t.Type)
			}
		}
	}
	for i, op := range e.program.Ops {
		c.kind = op.Kind()
		if err := c.op(op); err != nil {
			return fmt.Errorf("operation %d (%s): %w", i, op.Kind(), err)
		}
	}
	placeBarriers(e.code, e.opts.Trace != nil)
	placeAloneBarriers(e.code)
	linkProducts(e.code)
	return nil
}

func filled(n int, v operand) []operand {
	s := make([]operand, n)
	for i := range s {
		s[i] = v
	}
	return s
}

func (c *compiler) tensor(name string) tensor.Tensor {
	t, _ := c.w.Tensor(name)
	return t
}

// integer reports whether a weight is multiplied in integers.
func (c *compiler) integer(t tensor.Tensor) bool { return !c.exact && kernel.SupportsI16(t.Type) }

func (c *compiler) width(id graph.ID) int { return c.program.Values[id].Width }

// emit appends an instruction.
func (c *compiler) emit(in instr) {
	if in.label == "" {
		in.label = cmp.Or(in.variant, c.kind)
	}
	c.code = append(c.code, in)
}

// define gives a value a buffer.
func (c *compiler) define(id graph.ID) operand {
	w := c.width(id)
	slot := len(c.buffers)
	if f := c.free[w]; len(f) > 0 {
		slot, c.free[w] = f[len(f)-1], f[:len(f)-1]
	} else {
		c.buffers = append(c.buffers, nil)
		c.widths = append(c.widths, w)
	}
	c.at[id] = operand{slot, -1}
	return c.at[id]
}

// defineOwn gives a value a buffer, and one of each worker's own for steps of one token.
func (c *compiler) defineOwn(id graph.ID) operand {
	o, w := c.define(id), c.width(id)
	if f := c.own[w]; len(f) > 0 {
		o.own, c.own[w] = f[len(f)-1], f[:len(f)-1]
	} else {
		o.own = len(c.ownW)
		c.ownW = append(c.ownW, w)
	}
	c.at[id] = o
	return o
}

// use counts one use of a value and frees its buffers after the last.
func (c *compiler) use(id graph.ID) {
	c.left[id]--
	if c.left[id] > 0 {
		return
	}
	w := c.width(id)
	c.free[w] = append(c.free[w], c.at[id].slot)
	if own := c.at[id].own; own >= 0 {
		c.own[w] = append(c.own[w], own)
	}
	if p := c.packOf[id]; p.slot >= 0 {
		k := c.packing(id)
		c.freeP[k] = append(c.freeP[k], p.slot)
	}
}

// pack emits the quantisation of a value if a later operation wants it.
func (c *compiler) pack(id graph.ID) {
	if len(c.packs[id]) == 0 {
		return
	}
	w, k := c.width(id), c.packing(id)
	slot := len(c.packed)
	if f := c.freeP[k]; len(f) > 0 {
		slot, c.freeP[k] = f[len(f)-1], f[:len(f)-1]
	} else {
		c.packed = append(c.packed, kernel.I16{})
		c.packedW = append(c.packedW, w)
	}
	p := operand{slot, slot}
	c.packOf[id] = p
	c.packed[p.slot].For(c.packs[id]...)
	src := c.at[id]
	c.emit(instr{
		run:      c.runPack(src, p, w),
		perToken: true, traced: -1, variant: "quantise/i16",
		reads: []resource{src.resource(floatSlot)}, writes: []resource{p.resource(packedSlot)},
	})
}

// elementwise compiles an operation that works on one token at a time and may
// overwrite an input that nobody needs any more.
func (c *compiler) elementwise(out graph.ID, inputs []graph.ID, make func(dst operand, src []operand) func(int), extra ...resource) {
	src := []operand{}
	reads := slices.Clone(extra)
	for _, in := range inputs {
		src = append(src, c.at[in])
		reads = append(reads, c.at[in].resource(floatSlot))
	}
	for _, in := range inputs {
		c.use(in)
	}
	dst := c.defineOwn(out)
	c.emit(instr{run: make(dst, src), perToken: true, traced: out, reads: reads, writes: []resource{dst.resource(floatSlot)}})
	c.pack(out)
}

func (c *compiler) op(op graph.Op) error {
	switch o := op.(type) {
	case *graph.Embed:
		t := c.tensor(o.Weight)
		c.elementwise(o.Out, nil, func(dst operand, _ []operand) func(int) { return c.runEmbed(t, dst) })
	case *graph.Input:
		c.elementwise(o.Out, nil, func(dst operand, _ []operand) func(int) { return c.runInput(dst, c.width(o.Out)) })
	case *graph.RMSNorm:
		weight := c.vector(o.Weight)
		c.elementwise(o.Out, []graph.ID{o.In}, func(dst operand, src []operand) func(int) {
			return c.runNorm(o, weight, src[0], dst, c.width(o.In))
		})
	case *graph.MatMul:
		c.matMul(o)
	case *graph.Rope:
		c.rope(o, nil)
	case *graph.KVStore:
		c.kvStore(o, nil)
	case *graph.Attention:
		c.attention(o, nil)
	case *graph.GatedAct:
		c.gatedAct(o)
	case *graph.Add:
		c.elementwise(o.Out, []graph.ID{o.A, o.B}, func(dst operand, src []operand) func(int) {
			return c.runAdd(src[0], src[1], dst, c.width(o.Out))
		})
	case *graph.Scale:
		c.elementwise(o.Out, []graph.ID{o.In}, func(dst operand, src []operand) func(int) {
			return c.runScale(o.Factor, src[0], dst, c.width(o.Out))
		})
	case *graph.Logits:
		c.logits(o)
	case *graph.Output:
		src := c.at[o.In]
		c.emit(instr{
			run: c.runOutput(src, c.width(o.In)), traced: -1,
			reads: []resource{src.resource(floatSlot)}, writes: []resource{{kind: logitRows, index: 1}},
		})
	case *graph.Tamper:
		c.elementwise(o.Out, o.Inputs(), func(dst operand, src []operand) func(int) {
			return c.runTamper(o, src[0], src[len(src)-1], dst, c.width(o.Out))
		})
	case *graph.Misplace:
		return c.misplace(o)
	default:
		return fmt.Errorf("%w: operation %T", backend.ErrUnsupported, op)
	}
	return nil
}

// vector dequantises a tensor of one row; empty for an empty name.
func (c *compiler) vector(name string) []float32 {
	if name == "" {
		return nil
	}
	t := c.tensor(name)
	v := make([]float32, t.Elements())
	kernel.Dequantize(t.Type, v, t.Data)
	return v
}

func (c *compiler) matMul(o *graph.MatMul) {
	t, bias := c.tensor(o.Weight), c.vector(o.Bias)
	in := instr{traced: o.Out, product: c.newProduct(t)}
	src := c.at[o.In]
	if c.integer(t) {
		p := c.packOf[o.In]
		dst := c.define(o.Out)
		in.run = c.runMatMulI16(in.product, bias, p, dst.slot)
		in.reads, in.writes = []resource{p.resource(packedSlot)}, []resource{dst.resource(floatSlot)}
		in.variant = fmt.Sprintf("matmul/%s/i16", t.Type)
	} else {
		dst := c.define(o.Out)
		in.run = c.runMatMulF32(in.product, bias, src, dst.slot)
		in.reads, in.writes = []resource{src.resource(floatSlot)}, []resource{dst.resource(floatSlot)}
		in.variant = fmt.Sprintf("matmul/%s/f32", t.Type)
	}
	in.label, in.cost, in.integer = label(in.variant, o.Weight), matrixCost(t, stepTokens), c.integer(t)
	c.emit(in)
	c.use(o.In)
	c.pack(o.Out)
}

// misplace compiles an operation whose positions are wrong on purpose.
func (c *compiler) misplace(o *graph.Misplace) error {
	switch op := o.Op.(type) {
	case *graph.Rope:
		c.rope(op, o)
	case *graph.KVStore:
		c.kvStore(op, o)
	case *graph.Attention:
		c.attention(op, o)
	default:
		return fmt.Errorf("%w: misplaced operation %T", backend.ErrUnsupported, op)
	}
	return nil
}

func (c *compiler) rope(o *graph.Rope, wrong *graph.Misplace) {
	table := c.ropeTable(o, wrong)
	c.elementwise(o.Out, []graph.ID{o.In}, func(dst operand, src []operand) func(int) {
		return c.runRope(o, table, src[0], dst, c.width(o.In))
	}, resource{ropeAngles, table, true})
	c.code[len(c.code)-1].heads = true
}

func (c *compiler) kvStore(o *graph.KVStore, wrong *graph.Misplace) {
	k, v := c.at[o.K], c.at[o.V]
	c.emit(instr{
		run: c.runKVStore(o, wrong, k, v), perToken: true, traced: -1, heads: true,
		reads:  []resource{k.resource(floatSlot), v.resource(floatSlot)},
		writes: []resource{{kind: cacheLayer, index: o.Layer}},
	})
	c.use(o.K)
	c.use(o.V)
}

// ropeTable returns the index of the table with the operation's frequencies,
// adding it, with the instruction that fills it, at its first use.
func (c *compiler) ropeTable(o *graph.Rope, wrong *graph.Misplace) int {
	for i, t := range c.ropes {
		if t.magnitude == o.Magnitude && slices.Equal(t.inv, o.InvFreq) && t.misplaced == nil && wrong == nil {
			return i
		}
	}
	c.ropes = append(c.ropes, ropeTable{inv: o.InvFreq, magnitude: o.Magnitude, misplaced: wrong})
	i := len(c.ropes) - 1
	c.emit(instr{run: c.runAngles(i), label: "rope angles", perToken: true, traced: -1, heads: true, writes: []resource{{ropeAngles, i, true}}})
	return i
}

func (c *compiler) attention(o *graph.Attention, wrong *graph.Misplace) {
	src := c.at[o.Q]
	c.use(o.Q)
	dst := c.define(o.Out)
	a := c.newAttending(o, wrong, src, dst.slot)
	c.emit(instr{
		run: a.run, attending: a, traced: o.Out,
		variant: fmt.Sprintf("attention/kv-%s", c.opts.KV), attends: true, cost: c.attentionCost(o.Layer, o.Heads),
		reads:  []resource{src.resource(floatSlot), {kind: cacheLayer, index: o.Layer}},
		writes: []resource{dst.resource(floatSlot)},
	})
	c.pack(o.Out)
}

func (c *compiler) logits(o *graph.Logits) {
	t, src := c.tensor(o.Weight), c.at[o.In]
	rows := c.newLogitRowSet(c.width(o.In), t)
	c.emit(instr{
		run: c.runGather(rows, src), traced: -1, label: "gather",
		reads: []resource{src.resource(floatSlot)}, writes: []resource{{logitRows, 0, true}},
	})
	in := instr{traced: o.Out, product: c.newProduct(t), reads: []resource{{logitRows, 0, true}}, writes: []resource{{kind: logitRows, index: 1}}}
	in.variant = fmt.Sprintf("matmul/%s/%s", t.Type, rows.arithmetic())
	in.label, in.cost, in.integer = label(in.variant, o.Weight), matrixCost(t, stepWanted), rows.integer
	in.run = c.runLogits(o, in.product, rows)
	c.emit(in)
}

// placeBarriers marks each instruction that touches what an earlier one, run
// since the last barrier and divided differently, has written, or writes what
// it has read.
func placeBarriers(code []instr, every bool) {
	start := 0
	for i := range code {
		for j := start; j < i; j++ {
			if every || !(code[j].perToken && code[i].perToken) && conflict(&code[j], &code[i], false) {
				code[i].barrier, start = true, i
				break
			}
		}
	}
}

// conflict says whether the order of two instructions matters that several workers run;
// alone says that it is a step of one token.
func conflict(a, b *instr, alone bool) bool {
	overlap := func(x, y []resource) bool {
		for _, r := range x {
			if alone && r.own {
				continue
			}
			for _, s := range y {
				if r.kind == s.kind && r.index == s.index && !(alone && s.own) {
					return true
				}
			}
		}
		return false
	}
	return overlap(a.writes, b.reads) || overlap(a.reads, b.writes) || overlap(a.writes, b.writes)
}
