package cuda

import (
	"fmt"
	"math"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// stage is one or more operations of the program with what to launch for them.
type stage struct {
	kind   string // of the operation, for error messages
	ops    []int  // which of the program it computes
	in     []graph.ID
	out    []graph.ID
	logits bool // launched again for each part of the rows asked for
	// launch appends the launches for the recorder's step; in and out are the buffers
	// of the values.
	launch func(r *recorder, in, out []cuda.Ptr) error
	// variant names the kernels, if they depend on anything; nil for glue.
	variant func(s stepShape) string
}

// operation is a stage whose values have buffers.
type operation struct {
	stage
	inSlots, outSlots []int
}

// emit appends the operation's launches.
func (o *operation) emit(r *recorder) error {
	buffers := func(slots []int) []cuda.Ptr {
		out := make([]cuda.Ptr, len(slots))
		for i, s := range slots {
			out[i] = r.e.buffers[s]
		}
		return out
	}
	if err := o.launch(r, buffers(o.inSlots), buffers(o.outSlots)); err != nil {
		return fmt.Errorf("%s: %w", o.kind, err)
	}
	return nil
}

// compiler turns operations of the program into launches.
type compiler struct {
	*executor
	w      graph.Weights
	stages []stage
}

func (e *executor) compile(w graph.Weights) error {
	e.scratch.init(e)
	c := &compiler{executor: e, w: w}
	for i, op := range e.program.Ops {
		if err := c.op(op); err != nil {
			return fmt.Errorf("operation %d (%s): %w", i, op.Kind(), err)
		}
		c.stages[i].ops = []int{i}
	}
	e.plain = e.assign(c.stages)
	if e.opts.Trace != nil {
		return nil
	}
	if few := c.fuseFew(); few != nil {
		e.few = e.assign(few)
	}
	if many := c.fuseMany(); many != nil {
		e.many = e.assign(many)
	}
	return nil
}

// assign gives each value a buffer from before it is computed until after its last
// use; never one of the inputs of the stage that makes it, so that no kernel works
// in place. Lists of stages share buffers: only one of them runs at a time.
func (e *executor) assign(stages []stage) []operation {
	left := make([]int, len(e.program.Values))
	for _, p := range stages {
		for _, id := range p.in {
			left[id]++
		}
	}
	free := map[int][]int{}
	for slot, w := range e.widths {
		free[w] = append(free[w], slot)
	}
	slotOf := make([]int, len(e.program.Values))
	var out []operation
	for _, p := range stages {
		o := operation{stage: p}
		for _, id := range p.in {
			o.inSlots = append(o.inSlots, slotOf[id])
		}
		for _, id := range p.out {
			w := e.program.Values[id].Width
			if f := free[w]; len(f) > 0 {
				slotOf[id], free[w] = f[len(f)-1], f[:len(f)-1]
			} else {
				slotOf[id] = len(e.widths)
				e.widths = append(e.widths, w)
			}
			o.outSlots = append(o.outSlots, slotOf[id])
		}
		release := func(id graph.ID) {
			w := e.program.Values[id].Width
			free[w] = append(free[w], slotOf[id])
		}
		for _, id := range p.in {
			if left[id]--; left[id] == 0 {
				release(id)
			}
		}
		for _, id := range p.out {
			if left[id] == 0 {
				release(id) // nobody reads it
			}
		}
		out = append(out, o)
	}
	return out
}

func (c *compiler) width(id graph.ID) int { return c.program.Values[id].Width }

// add appends the compiled form of op.
func (c *compiler) add(op graph.Op, variant func(stepShape) string, emit func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error) {
	p := stage{kind: op.Kind(), in: op.Inputs(), variant: variant}
	if out := op.Output(); out >= 0 {
		p.out = []graph.ID{out}
	}
	p.launch = func(r *recorder, in, out []cuda.Ptr) error {
		var to cuda.Ptr
		if len(out) > 0 {
			to = out[0]
		}
		return emit(r, in, to)
	}
	c.stages = append(c.stages, p)
}

func (c *compiler) tensor(name string) tensor.Tensor {
	t, _ := c.w.Tensor(name)
	return t
}

func (c *compiler) op(op graph.Op) error {
	switch o := op.(type) {
	case *graph.Embed:
		c.embed(o)
	case *graph.Input:
		// The rows are copied to its buffer before the first kernel: see input.go.
		c.add(o, nil, func(*recorder, []cuda.Ptr, cuda.Ptr) error { return nil })
	case *graph.RMSNorm:
		c.rmsNorm(o)
	case *graph.MatMul:
		c.matMul(o)
	case *graph.Rope:
		return c.rope(o, nil)
	case *graph.KVStore:
		c.kvStore(o, nil)
	case *graph.Attention:
		c.attention(o, nil)
	case *graph.GatedAct:
		n := c.width(o.Out)
		c.add(o, nil, func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error {
			return r.each("gated_act", n, in[0], in[1], out, int(o.Act))
		})
	case *graph.Add:
		n := c.width(o.Out)
		c.add(o, nil, func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error { return r.each("add", n, in[0], in[1], out) })
	case *graph.Scale:
		n := c.width(o.Out)
		c.add(o, nil, func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error { return r.each("scale", n, in[0], out, o.Factor) })
	case *graph.Logits:
		c.logits(o)
	case *graph.Tamper:
		return c.tamper(o)
	case *graph.Misplace:
		return c.misplace(o)
	default:
		return fmt.Errorf("%w: operation %T", backend.ErrUnsupported, op)
	}
	return nil
}

func (c *compiler) embed(o *graph.Embed) {
	k := c.width(o.Out)
	c.add(o, nil, func(r *recorder, _ []cuda.Ptr, out cuda.Ptr) error {
		w := r.e.weights[o.Weight]
		return r.launch("embed_tokens", [3]int{r.shape.tokens}, 128, 0, w.data, int(w.dtype), w.rows, k, r.ints(r.at.token), out)
	})
}

func (c *compiler) rmsNorm(o *graph.RMSNorm) {
	c.add(o, nil, func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error { return r.norm(o, in[0], out) })
}

func (r *recorder) norm(o *graph.RMSNorm, x, y cuda.Ptr) error {
	segments := r.e.program.Values[o.In].Width / o.Segment
	return r.launch("rms_norm", [3]int{segments * r.shape.tokens}, min(roundUp(o.Segment, 32), 256), 0, x, r.e.vectors[o.Weight], y, o.Segment, o.Eps)
}

// wantProduct prepares for products with a tensor.
func (c *compiler) wantProduct(t tensor.Tensor, tokens int) {
	c.multiplied[t.Name] = true
	c.scratch.wantProducts(c.c.Device, t, tokens)
}

func (c *compiler) matMul(o *graph.MatMul) {
	t := c.tensor(o.Weight)
	c.wantProduct(t, c.opts.MaxBatch)
	variant := func(s stepShape) string { return c.productVariant(t, s.tokens) }
	c.add(o, variant, func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error {
		return r.product(r.e.weights[o.Weight], o.In, in[0], r.e.vectors[o.Bias], out, r.shape.tokens)
	})
}

// frequencies converts radians a position to turns in units of 2^-64; see
// kernels/rope.h.
func frequencies(inv []float64) []uint64 {
	out := make([]uint64, len(inv))
	for i, f := range inv {
		_, part := math.Modf(math.Abs(f) / (2 * math.Pi))
		out[i] = uint64(math.Ldexp(part, 64))
		if f < 0 {
			out[i] = -out[i]
		}
	}
	return out
}

// positions says where the positions of an operation are: its token's own or wrong
// ones.
func (c *compiler) positions(wrong *graph.Misplace) func(r *recorder) cuda.Ptr {
	if wrong == nil {
		return func(r *recorder) cuda.Ptr { return r.ints(r.at.pos) }
	}
	i := len(c.wrong)
	c.wrong = append(c.wrong, wrong)
	return func(r *recorder) cuda.Ptr { return r.ints(r.at.wrong[i]) }
}

// whole is the operation as the program has it, with its wrong positions if any.
func whole(op graph.Op, wrong *graph.Misplace) graph.Op {
	if wrong != nil {
		return wrong
	}
	return op
}

func (c *compiler) rope(o *graph.Rope, wrong *graph.Misplace) error {
	freq := frequencies(o.InvFreq)
	pos := c.positions(wrong)
	heads := c.width(o.In) / o.HeadDim
	threads := min(roundUp(o.HeadDim/2, 32), 256)
	c.add(whole(o, wrong), nil, func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error {
		f, err := r.constant(freq)
		if err != nil {
			return err
		}
		return r.launch("rope", [3]int{heads, r.shape.tokens}, threads, 0, in[0], out, pos(r), f, len(freq), o.HeadDim, int(o.Pairing), float32(o.Magnitude))
	})
	return nil
}

// kvName ends the names of kernels that come for each type of the cache.
func (e *executor) kvName(kernel string) string {
	if e.opts.KV == tensor.F32 {
		return kernel + "_f32"
	}
	return kernel + "_f16"
}

func (c *compiler) kvStore(o *graph.KVStore, wrong *graph.Misplace) {
	pos := c.positions(wrong)
	l := c.program.Caches[o.Layer]
	c.add(whole(o, wrong), nil, func(r *recorder, in []cuda.Ptr, _ cuda.Ptr) error {
		return r.launch(r.e.kvName("kv_store"), [3]int{l.Heads, r.shape.tokens}, min(roundUp(l.HeadDim, 32), 256), 0,
			in[0], in[1], pos(r), r.ints(r.at.kv), r.ints(r.at.cap), uint64(r.e.layerAt[o.Layer]), l.HeadDim)
	})
}

func (c *compiler) logits(o *graph.Logits) {
	t, width := c.tensor(o.Weight), c.width(o.In)
	c.wantProduct(t, c.scratch.logitRows)
	c.scratch.gatheredWidth = max(c.scratch.gatheredWidth, width)
	launch := func(r *recorder, in, _ []cuda.Ptr) error {
		if r.rows == 0 {
			return nil
		}
		s := &r.e.scratch
		if err := r.gather(in[0], width); err != nil {
			return err
		}
		if err := r.product(r.e.weights[o.Weight], gathered, s.gathered, 0, s.logits, r.rows); err != nil {
			return err
		}
		if o.SoftCap > 0 {
			return r.eachOf("soft_cap", r.rows*r.e.program.Vocab, s.logits, o.SoftCap)
		}
		return nil
	}
	variant := func(s stepShape) string {
		if s.rows == 0 {
			return ""
		}
		return c.productVariant(t, min(s.rows, c.scratch.logitRows))
	}
	c.stages = append(c.stages, stage{kind: o.Kind(), in: o.Inputs(), logits: true, launch: launch, variant: variant})
}

// gather copies the rows whose logits are asked for, of a value of a width.
func (r *recorder) gather(x cuda.Ptr, width int) error {
	return r.launch("gather_rows", [3]int{r.rows}, min(roundUp(width, 32), 256), 0, x, r.ints(r.at.wanted+4*r.from), r.e.scratch.gathered, width)
}

// gathered is the name, among values, of the rows that logits are computed from.
const gathered graph.ID = -2

func (c *compiler) tamper(o *graph.Tamper) error {
	n := c.width(o.Out)
	order := make([]int32, max(len(o.Order), 1))
	for i, h := range o.Order {
		order[i] = int32(h)
	}
	c.add(o, nil, func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error {
		active := 0
		if o.Rows.Touches(o.Rows.From, r.shape.tokens) {
			active = 1
		}
		p, err := r.constant32(order)
		if err != nil {
			return err
		}
		return r.launch("tamper", [3]int{r.shape.tokens}, 256, 0, in[0], in[len(in)-1], out, r.ints(r.at.pos), p, n, int(o.How), o.Amount, max(o.Group, 1), o.Rows.From, active)
	})
	return nil
}

// misplace compiles an operation whose positions are wrong on purpose.
func (c *compiler) misplace(o *graph.Misplace) error {
	switch op := o.Op.(type) {
	case *graph.Rope:
		return c.rope(op, o)
	case *graph.KVStore:
		c.kvStore(op, o)
	case *graph.Attention:
		c.attention(op, o)
	default:
		return fmt.Errorf("%w: misplaced operation %T", backend.ErrUnsupported, op)
	}
	return nil
}
