package cuda

import (
	"fmt"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// operand is a product to compute: y (tokens, w.rows) = x (tokens, w.k) · wᵀ + bias +
// residual.
type operand struct {
	w      *weight
	id     graph.ID // the value that x is, so that it is converted once
	x      cuda.Ptr // float32
	bias   cuda.Ptr // float32 (w.rows); 0 for none
	y      cuda.Ptr // float32
	tokens int
	// residual (tokens, w.rows) is float32; 0 for none.
	residual cuda.Ptr
}

// size is what a kernel is chosen by: a matrix and a number of tokens.
type productSize struct {
	dtype           tensor.DType
	rows, k, tokens int
}

// productKernel is a way to compute products.
type productKernel struct {
	// variant names the kernel for a product on a device; empty if it cannot do it.
	variant func(dev cuda.Device, s productSize) string
	// workspace is the scratch memory that the product needs, in bytes.
	workspace func(dev cuda.Device, s productSize) int64
	// half says that x is wanted as f16, weights that the weights are too.
	half, weights bool
	emit          func(r *recorder, o operand) error
}

// productKernels are the kernels in order of preference. The names of variants
// begin with how the numbers are multiplied: 16-bit integers, f16 on tensor cores,
// float32.
var productKernels = []productKernel{
	{variant: matvecName, workspace: noWorkspace, emit: emitMatvec},
	{variant: quantGEMMName, workspace: quantGEMMWorkspace, half: true, emit: emitQuantGEMM},
	{variant: gemmName, workspace: gemmWorkspace, half: true, weights: true, emit: emitGEMM},
	{variant: manyMatvecName, workspace: noWorkspace, emit: emitMatvec},
	{variant: plainName, workspace: noWorkspace, emit: emitPlain},
}

func noWorkspace(cuda.Device, productSize) int64 { return 0 }

// kernelFor chooses the kernel of a product.
func kernelFor(dev cuda.Device, s productSize) (*productKernel, string) {
	for i := range productKernels {
		if name := productKernels[i].variant(dev, s); name != "" {
			return &productKernels[i], name
		}
	}
	return nil, "" // not reached: the last takes everything
}

// productVariant names the kernel that multiplies a tensor.
func (e *executor) productVariant(t tensor.Tensor, tokens int) string {
	_, name := kernelFor(e.c.Device, productSize{t.Type, t.Rows(), t.Cols(), tokens})
	return name
}

// product appends y = W·x (+ bias) for some rows of x, value id of the program.
func (r *recorder) product(w *weight, id graph.ID, x, bias, y cuda.Ptr, tokens int) error {
	if w == nil {
		return fmt.Errorf("the weight is used as a vector elsewhere")
	}
	return r.multiply(operand{w: w, id: id, x: x, bias: bias, y: y, tokens: tokens})
}

func (r *recorder) multiply(o operand) error {
	k, _ := kernelFor(r.e.c.Device, productSize{o.w.dtype, o.w.rows, o.w.k, o.tokens})
	return k.emit(r, o)
}

// matvecName: decode products, for up to eight tokens.
func matvecName(dev cuda.Device, s productSize) string {
	if s.tokens > fewTokens {
		return ""
	}
	return manyMatvecName(dev, s)
}

// manyMatvecName: the same for more tokens, some at a time.
func manyMatvecName(dev cuda.Device, s productSize) string {
	most := matvecTokens(dev, s.dtype, s.rows, s.k)
	if most == 0 {
		return ""
	}
	n := min(s.tokens, most)
	if multipliesMMA(s.dtype, s.k) && n >= mmaLeast {
		return fmt.Sprintf("matmul/%s/i16/mma/tokens-%d", s.dtype, mmaRound(n))
	}
	for _, v := range matvecVariants {
		if n <= v.tokens {
			n = v.tokens
			break
		}
	}
	return fmt.Sprintf("matmul/%s/i16/tokens-%d", s.dtype, n)
}

func emitMatvec(r *recorder, o operand) error {
	most := matvecTokens(r.e.c.Device, o.w.dtype, o.w.rows, o.w.k)
	for t := 0; t < o.tokens; t += most {
		req := matvecRequest{
			tokens: min(most, o.tokens-t), k: o.w.k, x: o.x + cuda.Ptr(4*t*o.w.k),
			matrices: []matvecMatrix{{o.w.data, o.w.dtype, o.w.rows, o.bias, o.y + cuda.Ptr(4*t*o.w.rows)}},
		}
		if o.residual != 0 {
			req.residual = o.residual + cuda.Ptr(4*t*o.w.rows)
		}
		if err := r.matvec(req); err != nil {
			return err
		}
	}
	return nil
}

// roundInside is the most tokens that every block of a product rounds by itself: for
// more a kernel does it once for all.
const roundInside = 2

// roundFirst lets another kernel do what surrounds rounding, if the product wants
// integers of many tokens.
func (r *recorder) roundFirst(req *matvecRequest) error {
	if req.tokens <= roundInside || req.rounded || !aligned(req.k) {
		return nil
	}
	for _, m := range req.matrices {
		if weights, _ := piece(m.dtype); weights < 32 {
			return nil
		}
	}
	to := r.e.scratch.rounded
	if err := r.call(roundCall(req.x, req.norm, req.eps, req.tokens, req.k, to)); err != nil {
		return err
	}
	req.x, req.norm, req.rounded = to, 0, true
	return nil
}

// aligned reports whether the rounded numbers of every token begin where 16 bytes can be
// read at once, if there are k a token.
func aligned(k int) bool { return roundedBytes(k)%16 == 0 }

func (r *recorder) matvec(req matvecRequest) error {
	if err := r.roundFirst(&req); err != nil {
		return err
	}
	call, err := planMatvec(r.e.c.Device, req)
	if err != nil {
		return err
	}
	if err := r.call(call); err != nil {
		return err
	}
	if err := r.prefetch(call); err != nil {
		return err
	}
	r.last, r.lastRun = call, r.runs[len(r.runs)-1]
	return nil
}

// prefetchLeast is the fewest tokens of a step whose products prefetch for each other.
// With one token it costs 1 % (7B) to 3 % (1.5B) of the step.
var prefetchLeast = 2

// prefetch lets the decode product before this one ask the L2 cache for what this one
// reads first: between the two the memory is idle.
func (r *recorder) prefetch(next *kernelCall) error {
	if r.last == nil || r.shape.tokens < prefetchLeast {
		return nil
	}
	r.last.prefetchNext(next, matvecNext)
	for i := matvecThen; i < len(r.last.args); i++ {
		if err := r.lastRun.Set(i, r.last.args[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *recorder) call(k *kernelCall) error {
	run, err := k.launch(r.e.lib.find, r.e.c)
	if err != nil {
		return err
	}
	r.add(run)
	return nil
}

// quantGEMMName: up to 64 tokens of the more usual formats, on tensor cores.
func quantGEMMName(dev cuda.Device, s productSize) string {
	p, ok := planQuantGEMM(dev, s.dtype, s.tokens, s.rows, s.k)
	if !ok {
		return ""
	}
	return fmt.Sprintf("matmul/%s/f16/read-once/%s", s.dtype, tileName(p.Variant, p.Splits))
}

// tileName ends a variant's name with that of a plan.
func tileName(plan string, splits int) string {
	if splits > 1 {
		return plan + "/split"
	}
	return plan
}

func quantGEMMWorkspace(dev cuda.Device, s productSize) int64 {
	p, _ := planQuantGEMM(dev, s.dtype, s.tokens, s.rows, s.k)
	return p.Workspace()
}

func emitQuantGEMM(r *recorder, o operand) error {
	p, _ := planQuantGEMM(r.e.c.Device, o.w.dtype, o.tokens, o.w.rows, o.w.k)
	args, err := r.half(o, p.Workspace())
	if err != nil {
		return err
	}
	args.W = o.w.data
	runs, err := p.launches(r.e.c, r.e.lib.find, args)
	if err != nil {
		return err
	}
	r.add(runs...)
	return nil
}

// maxHalfBytes is the largest matrix that is made f16 as a whole.
const maxHalfBytes = 512 << 20

func halfBytes(rows, k int) int64 { return int64(rows) * int64(gemmWidth(k)) * 2 }

// gemmName: any number of tokens, the weights made f16 before each product.
func gemmName(dev cuda.Device, s productSize) string {
	if halfBytes(s.rows, s.k) > maxHalfBytes {
		return ""
	}
	p := planGEMM(dev, s.tokens, s.rows, s.k)
	return fmt.Sprintf("matmul/%s/f16/%s", s.dtype, tileName(p.Variant, p.Splits))
}

func gemmWorkspace(dev cuda.Device, s productSize) int64 {
	p := planGEMM(dev, s.tokens, s.rows, s.k)
	return p.Workspace()
}

func emitGEMM(r *recorder, o operand) error {
	p := planGEMM(r.e.c.Device, o.tokens, o.w.rows, o.w.k)
	args, err := r.half(o, p.Workspace())
	if err != nil {
		return err
	}
	dequant, err := dequantLaunch(r.e.c, r.e.lib.find, o.w.data, o.w.dtype, o.w.scales, r.e.scratch.weights, 0, o.w.rows, o.w.k)
	if err != nil {
		return err
	}
	r.add(dequant)
	args.W = r.e.scratch.weights
	runs, err := p.launches(r.e.c, r.e.lib.find, args)
	if err != nil {
		return err
	}
	r.add(runs...)
	return nil
}

// half converts x to f16, unless the last product had the same x, and returns the
// arguments that the kernels for f16 share.
func (r *recorder) half(o operand, workspace int64) (gemmArgs, error) {
	s := &r.e.scratch
	if r.halved != o.id || o.id == gathered {
		run, err := convertLaunch(r.e.c, r.e.lib.find, o.x, activations{s.half, s.halfScales}, o.tokens, o.w.k)
		if err != nil {
			return gemmArgs{}, err
		}
		r.add(run)
		r.halved = o.id
	}
	work, err := r.work(workspace)
	return gemmArgs{X: s.half, XScale: s.halfScales, Y: o.y, WScale: o.w.scales, Bias: o.bias, Residual: o.residual, Work: work}, err
}

// plainName: what every device takes, in float32.
func plainName(_ cuda.Device, s productSize) string {
	return fmt.Sprintf("matmul/%s/f32/plain/%s", s.dtype, amountName(s.tokens))
}

func emitPlain(r *recorder, o operand) error {
	err := r.launch("matmul_plain", [3]int{(o.w.rows + 3) / 4}, 128, 0, o.w.data, int(o.w.dtype), o.w.rows, o.w.k, o.x, o.bias, o.y, o.tokens)
	if err != nil || o.residual == 0 {
		return err
	}
	return r.eachOf("add", o.w.rows*o.tokens, o.y, o.residual, o.y)
}
