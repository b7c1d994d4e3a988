package cuda

import (
	"errors"
	"fmt"
	"strings"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/tensor"
)

// Decode products: kernels/matvec.h. A plan turns a request into the kernel's name,
// shape and arguments; it touches no device.

// kernelCall is what it takes to launch a kernel.
type kernelCall struct {
	module, kernel string
	grid, gridY    int // gridY 0 is 1
	threads        int
	shared         int // dynamic shared memory in bytes
	args           []any
	weightBytes    int64 // of matrices read, for measurements
	shape          matvecShape
	rowBytes       int // of the first matrix
	pair           bool
}

// launch prepares the kernel. It must be called inside the context's Do.
func (k *kernelCall) launch(find lookup, c *cuda.Context) (*cuda.Launch, error) {
	return prepare(find, c, k.module, k.kernel, [3]int{k.grid, max(k.gridY, 1), 1}, k.threads, k.shared, k.args...)
}

// matvecMatrix is one of the matrices of a launch.
type matvecMatrix struct {
	data  cuda.Ptr // packed rows
	dtype tensor.DType
	rows  int
	bias  cuda.Ptr // (rows) float32, or 0
	out   cuda.Ptr // (tokens, rows) float32
}

// matvecRequest is one launch: up to three matrices that share their input.
type matvecRequest struct {
	tokens, k int
	x         cuda.Ptr // (tokens, k) float32; rounded: the output of round_rows
	rounded   bool
	norm      cuda.Ptr // (k) float32, the weights of an RMSNorm over k that comes first; 0 for none
	eps       float32
	matrices  []matvecMatrix
	// pair: the two matrices are gate and up, and the first's output is act(gate)·up.
	pair bool
	gelu bool // act is GELU (tanh), else SiLU
	// round: the output of a pair is what round_rows would make of it.
	round bool
	// residual (tokens, rows of the only matrix) is added; it may be the output. 0 for none.
	residual cuda.Ptr
	cap      float32 // soft cap c·tanh(y/c), 0 for none
}

// Flags of kernels/matvec.h.
const (
	matvecRounded = 1
	matvecPair    = 2
	matvecGELU    = 4
	matvecRound   = 8
)

// matvecVariant is one compiled kernel for up to so many tokens.
type matvecVariant struct {
	tokens  int
	rows    int // R: rows that a lane works on side by side
	threads int // of a block, at most
	steps   int // P: steps whose loads are in flight
}

// matvecVariants are what every matvec_*.cu has, fewest tokens first.
var matvecVariants = []matvecVariant{{1, 2, 512, 2}, {2, 2, 384, 2}, {4, 2, 384, 1}}

// matvecAlternative is the second format that a format's kernel for one token also
// reads: what llama.cpp's mixes put beside it in one attention.
var matvecAlternative = map[tensor.DType]tensor.DType{
	tensor.Q5_0: tensor.Q8_0, tensor.Q5_1: tensor.Q8_0, tensor.Q2_K: tensor.Q3_K, tensor.Q3_K: tensor.Q5_K,
	tensor.Q4_K: tensor.Q6_K, tensor.Q5_K: tensor.Q6_K, tensor.IQ4_XS: tensor.Q5_K,
}

var (
	// errMatvecMix means that the matrices of one launch have formats without a
	// common kernel: launch them one by one.
	errMatvecMix = errors.New("no kernel reads these formats together")
	// errMatvecWide means that the tokens' activations do not fit in shared memory:
	// take fewer tokens at a time (matvecTokens).
	errMatvecWide = errors.New("activations do not fit in shared memory")
)

// piece is the weights that a lane takes at a time, and the bytes of the activations
// that go with them.
func piece(t tensor.DType) (weights, bytes int) {
	switch t {
	case tensor.F32:
		return 4, 16
	case tensor.F16, tensor.BF16:
		return 8, 32
	}
	return 32, 72
}

// matvecAhead is how many bytes of its rows each warp prefetches into the L2 cache
// while the kernel before still runs; a multiple of 32.
var matvecAhead = 0

// matvecSmall lets products with little work have half the threads.
var matvecSmall = true

// matvecTokens is the most tokens of one launch on a device for a matrix of a type,
// rows of k weights: 8, 4, 2, 1, or 0 if not even one row of activations fits.
func matvecTokens(dev cuda.Device, t tensor.DType, rows, k int) int {
	if multipliesMMA(t, k) {
		if n := mmaMost(dev, rows, k); n > 0 {
			return n
		}
	}
	weights, bytes := piece(t)
	for i := len(matvecVariants) - 1; i >= 0; i-- {
		v := matvecVariants[i]
		// Padding to whole steps and the partial sums of a hundred rows a block.
		if need := v.tokens*(roundUp(k/weights, 32)*bytes+128*4*v.rows) + 4096; need <= dev.SharedMemory {
			return v.tokens
		}
	}
	return 0
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// planMatvec chooses kernel and shape.
func planMatvec(dev cuda.Device, r matvecRequest) (*kernelCall, error) {
	if len(r.matrices) == 0 || len(r.matrices) > 3 || r.pair && len(r.matrices) != 2 || r.residual != 0 && len(r.matrices) != 1 && !r.pair {
		return nil, fmt.Errorf("matvec: %d matrices", len(r.matrices))
	}
	if k := r.planMMA(dev); k != nil {
		return k, nil
	}
	for _, v := range matvecVariants {
		if r.tokens <= v.tokens {
			return r.plan(dev, v)
		}
	}
	return nil, fmt.Errorf("matvec: %w: %d tokens", errMatvecWide, r.tokens)
}

// formats finds the format whose kernel reads all matrices, and the matrices (bits)
// that are of its alternative, if the kernel may have one.
func (r *matvecRequest) formats(mixed bool) (main tensor.DType, alt int, err error) {
	main = r.matrices[0].dtype
	for _, m := range r.matrices[1:] {
		if m.dtype != main && matvecAlternative[m.dtype] == main {
			main = m.dtype
		}
	}
	for i, m := range r.matrices {
		switch {
		case m.dtype == main:
		case mixed && !r.pair && m.dtype == matvecAlternative[main]:
			alt |= 1 << i
		default:
			return main, 0, fmt.Errorf("matvec: %w: %s and %s", errMatvecMix, main, m.dtype)
		}
	}
	return main, alt, nil
}

func (r *matvecRequest) plan(dev cuda.Device, v matvecVariant) (*kernelCall, error) {
	main, alt, err := r.formats(v.tokens == 1)
	if err != nil {
		return nil, err
	}
	for _, m := range r.matrices {
		if _, err := packedRowBytes(m.dtype, r.k); err != nil {
			return nil, fmt.Errorf("matvec: %w", err)
		}
	}
	// Half the threads do where all loads of a warp are in flight at once and x is read
	// in one batch: the next kernel then finds room beside this one.
	if small := v; r.tokens == 1 && matvecSmall && r.k <= 20*v.threads/2 {
		small.threads /= 2
		if s := r.shape(dev, small, main, 32); s.run <= v.steps {
			v = small
		}
	}
	best := r.shape(dev, v, main, 32)
	for _, lanes := range []int{16, 8} {
		if s := r.shape(dev, v, main, lanes); s.better(best) {
			best = s
		}
	}
	if best.shared > dev.SharedMemory {
		return nil, fmt.Errorf("matvec: %w: %d tokens of %d numbers", errMatvecWide, r.tokens, r.k)
	}
	module := "matvec_" + strings.ToLower(main.String())
	return r.call(best, module, fmt.Sprintf("%s_%d", module, v.tokens), v.threads, alt), nil
}

// matvecShape is a way to cut the rows.
type matvecShape struct {
	lanes  int // of a row; 0 in matvec_mma.h
	rows   int // of a block
	starts [3]int
	grid   int
	run    int // steps of a warp
	work   int // steps of a block
	shared int
}

// better: fewer steps in a row, then less in all.
func (s matvecShape) better(than matvecShape) bool {
	return s.run < than.run || s.run == than.run && s.work < than.work
}

// shape cuts the matrices for a number of lanes.
func (r *matvecRequest) shape(dev cuda.Device, v matvecVariant, main tensor.DType, lanes int) matvecShape {
	weights, bytes := piece(main)
	side := 32 / lanes
	group := v.rows * side
	matrices := r.matrices
	if r.pair {
		group, matrices = side, matrices[:1]
	}
	whole := group
	if r.round {
		whole = 32
	}
	blocks, total := max(dev.SMs, len(matrices)), 0
	for _, m := range matrices {
		total += m.rows
	}
	s := matvecShape{lanes: lanes, rows: roundUp(max(total/blocks, 1), whole)}
	for ; ; s.rows += whole {
		s.grid = 0
		for i, m := range matrices {
			s.starts[i] = s.grid
			s.grid += (m.rows + s.rows - 1) / s.rows
		}
		if s.grid <= blocks {
			break
		}
	}
	steps := (r.k/weights + lanes - 1) / lanes
	groups := (s.rows + group - 1) / group
	warps := v.threads / 32
	s.work = groups * steps
	s.run = (s.work + warps - 1) / warps
	parts := max((groups+warps)*v.rows*v.tokens*side, 32)
	s.shared = v.tokens*steps*lanes*bytes + 4*parts
	return s
}

// call writes the arguments; see MATVEC in kernels/matvec.h.
func (r *matvecRequest) call(s matvecShape, module, kernel string, threads, alt int) *kernelCall {
	flags := 0
	for bit, on := range map[int]bool{matvecRounded: r.rounded, matvecPair: r.pair, matvecGELU: r.gelu, matvecRound: r.round} {
		if on {
			flags |= bit
		}
	}
	var m [3]matvecMatrix
	copy(m[:], r.matrices)
	first1, first2 := s.grid, s.grid
	if len(r.matrices) > 1 && !r.pair {
		first1 = s.starts[1]
	}
	if len(r.matrices) > 2 {
		first2 = s.starts[2]
	}
	c := &kernelCall{
		module: module, kernel: kernel, grid: s.grid, threads: threads, shared: s.shared, shape: s,
		args: []any{
			r.x, r.norm, r.eps, flags, r.tokens, r.k, s.lanes,
			m[0].data, m[1].data, m[2].data, m[0].bias, m[1].bias, m[2].bias, m[0].out, m[1].out, m[2].out,
			m[0].rows, m[1].rows, m[2].rows, s.rows, first1, first2, alt, r.residual, r.cap, matvecAhead,
			cuda.Ptr(0), cuda.Ptr(0), 0, 0, 0, 0,
		},
	}
	c.pair = r.pair
	for i, m := range r.matrices {
		n, _ := packedRowBytes(m.dtype, r.k) // checked
		if i == 0 {
			c.rowBytes = n
		}
		c.weightBytes += int64(n) * int64(m.rows)
	}
	return c
}

// matvecNext is how many bytes each warp asks the L2 cache for at its end, for the next
// product: 9 MB on 132 multiprocessors, what the memory gives in two microseconds.
var matvecNext = 4096

// matvecThen is where the arguments of prefetchNext begin.
const matvecThen = 26

// prefetchNext makes the kernel, when it has loaded all of its own weights, ask the L2
// cache for the first bytes that each warp of a later product needs. It is worth while
// where what lies between leaves the memory idle.
func (k *kernelCall) prefetchNext(next *kernelCall, bytesOfWarp int) {
	rows, warps := next.shape.rows, k.threads/32
	if next.pair {
		bytesOfWarp /= 2 // of each matrix
	}
	n := min(bytesOfWarp, roundUp(rows*next.rowBytes/warps, 32)) / 32 * 32
	if n == 0 {
		return
	}
	then1 := cuda.Ptr(0)
	if next.pair {
		then1 = next.args[8].(cuda.Ptr)
	}
	copy(k.args[matvecThen:], []any{next.args[7], then1, next.rowBytes, rows, next.args[16], n})
}

// roundedBytes is what round_rows writes for a token of k numbers.
func roundedBytes(k int) int { return k / 32 * 72 }

// roundCall writes x (tokens, k) as matvecRequest.rounded wants it, after an RMSNorm
// if norm is not 0.
func roundCall(x, norm cuda.Ptr, eps float32, tokens, k int, out cuda.Ptr) *kernelCall {
	return &kernelCall{module: "round", kernel: "round_rows", grid: tokens, threads: 256, shared: 4 * 32, args: []any{x, norm, eps, k, out}}
}

// embedCall looks tokens (count) up in a packed matrix: out (count, k) float32.
func embedCall(w cuda.Ptr, t tensor.DType, rows, k int, tokens, out cuda.Ptr, count int) *kernelCall {
	return &kernelCall{module: "embed", kernel: "embed_tokens", grid: count, threads: 128, args: []any{w, int(t), rows, k, tokens, out}}
}
