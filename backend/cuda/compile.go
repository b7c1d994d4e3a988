package cuda

import (
	"fmt"
	"math"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// operation is one or more operations of the program, compiled: what to launch
// for a step.
type operation struct {
	kind   string   // of the operation, for error messages
	covers int      // how many operations of the program it computes
	out    graph.ID // the value that is complete afterwards; -1 if none
	slot   int      // its buffer
	logits bool     // launched again for each piece of the rows asked for
	// emit appends the launches for the recorder's shape.
	emit func(r *recorder) error
	// variant names the kernels, if they depend on anything; nil for glue.
	variant func(s stepShape) string
}

// compiler assigns values to buffers and turns operations of the program into
// launches, one for one.
type compiler struct {
	*executor
	slotOf []int         // by value; -1 before it is computed
	left   []int         // uses of a value that are still to come
	free   map[int][]int // unused buffers by width
}

func (e *executor) compile(w graph.Weights) error {
	e.scratch.init(e)
	n := len(e.program.Values)
	c := &compiler{executor: e, slotOf: make([]int, n), left: make([]int, n), free: map[int][]int{}}
	for i := range c.slotOf {
		c.slotOf[i] = -1
	}
	for _, op := range e.program.Ops {
		for _, in := range op.Inputs() {
			c.left[in]++
		}
	}
	for i, op := range e.program.Ops {
		if err := c.op(op, w); err != nil {
			return fmt.Errorf("operation %d (%s): %w", i, op.Kind(), err)
		}
	}
	return nil
}

func (c *compiler) width(id graph.ID) int { return c.program.Values[id].Width }

// define gives a value a buffer; never one of the operation's own inputs, so that
// no kernel works in place.
func (c *compiler) define(id graph.ID) int {
	w := c.width(id)
	slot := len(c.widths)
	if f := c.free[w]; len(f) > 0 {
		slot, c.free[w] = f[len(f)-1], f[:len(f)-1]
	} else {
		c.widths = append(c.widths, w)
	}
	c.slotOf[id] = slot
	return slot
}

// use counts one use of each value and frees their buffers after the last.
func (c *compiler) use(ids ...graph.ID) {
	for _, id := range ids {
		if c.left[id]--; c.left[id] == 0 {
			c.free[c.width(id)] = append(c.free[c.width(id)], c.slotOf[id])
		}
	}
}

// add appends the compiled form of op. emit is given the buffers of the inputs and
// of the output.
func (c *compiler) add(op graph.Op, variant func(stepShape) string, emit func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error) {
	o := operation{kind: op.Kind(), covers: 1, out: op.Output(), slot: -1, variant: variant}
	var in []int
	for _, id := range op.Inputs() {
		in = append(in, c.slotOf[id])
	}
	if o.out >= 0 {
		o.slot = c.define(o.out)
	}
	c.use(op.Inputs()...)
	o.emit = func(r *recorder) error {
		src := make([]cuda.Ptr, len(in))
		for i, s := range in {
			src[i] = r.e.buffers[s]
		}
		var dst cuda.Ptr
		if o.slot >= 0 {
			dst = r.e.buffers[o.slot]
		}
		return emit(r, src, dst)
	}
	c.plain = append(c.plain, o)
}

func (c *compiler) op(op graph.Op, w graph.Weights) error {
	switch o := op.(type) {
	case *graph.Embed:
		c.embed(o)
	case *graph.RMSNorm:
		c.rmsNorm(o)
	case *graph.MatMul:
		t, _ := w.Tensor(o.Weight)
		c.matMul(o, t)
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
		t, _ := w.Tensor(o.Weight)
		c.logits(o, t)
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
	segments := c.width(o.In) / o.Segment
	threads := min(roundUp(o.Segment, 32), 256)
	c.add(o, nil, func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error {
		return r.launch("rms_norm", [3]int{segments * r.shape.tokens}, threads, 0, in[0], r.e.vectors[o.Weight], out, o.Segment, o.Eps)
	})
}

func (c *compiler) matMul(o *graph.MatMul, t tensor.Tensor) {
	c.scratch.wantProducts(t)
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

func (c *compiler) attention(o *graph.Attention, wrong *graph.Misplace) {
	pos := c.positions(wrong)
	variant := func(s stepShape) string {
		name := fmt.Sprintf("attention/kv-%s/plain/%s", c.opts.KV, amountName(s.tokens))
		if s.blocks {
			name += "/blocks"
		}
		if s.windowed {
			name += "/window"
		}
		return name
	}
	l := c.program.Caches[o.Layer]
	c.add(whole(o, wrong), variant, func(r *recorder, in []cuda.Ptr, out cuda.Ptr) error {
		return r.launch(r.e.kvName("attention_plain"), [3]int{o.Heads, r.shape.tokens}, 128, 0, in[0], out, pos(r), r.ints(r.at.kv), r.ints(r.at.cap),
			uint64(r.e.layerAt[o.Layer]), l.Heads, l.HeadDim, l.Window, o.Scale, o.SoftCap)
	})
}

func (c *compiler) logits(o *graph.Logits, t tensor.Tensor) {
	c.scratch.wantProducts(t)
	width := c.width(o.In)
	c.scratch.gatheredWidth = max(c.scratch.gatheredWidth, width)
	src := c.slotOf[o.In]
	c.use(o.In)
	emit := func(r *recorder) error {
		if r.rows == 0 {
			return nil
		}
		s := &r.e.scratch
		if err := r.launch("gather_rows", [3]int{r.rows}, min(roundUp(width, 32), 256), 0, r.e.buffers[src], r.ints(r.at.wanted+4*r.from), s.gathered, width); err != nil {
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
	c.plain = append(c.plain, operation{kind: o.Kind(), covers: 1, out: o.Out, slot: -1, logits: true, emit: emit, variant: variant})
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
