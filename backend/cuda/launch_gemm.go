package cuda

import (
	"fmt"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/tensor"
)

// gemmPad is what the length of a sum is padded to, with zeros, in both operands.
const gemmPad = 64

// gemmWidth is the padded length of rows of k numbers.
func gemmWidth(k int) int { return (k + gemmPad - 1) / gemmPad * gemmPad }

// gemmTile is a kernel of gemm.cu: a block computes tokens × rows of the output.
type gemmTile struct {
	name           string // of the variant, after "gemm/f16/"
	module, kernel string
	tokens, rows   int
	threads        int
	shared         int
	// Times on an H200 in microseconds, from TestSpeedGEMM: a step of gemmPad numbers
	// of a block when multiprocessors are full of such blocks, and when it has one to
	// itself; and what a round of blocks costs beside its steps.
	full, alone, round float64
	// capability is the compute capability the kernel is for; 0 for any.
	capability int
}

var gemmTiles = []gemmTile{
	{name: "wgmma/128x256", module: "gemm_sm90a", kernel: "gemm_wgmma_128x256", tokens: 128, rows: 256, threads: 256, shared: 4 * 384 * 128, full: 0.845, alone: 0.80, round: 6, capability: 90},
	{name: "wgmma/128x128", module: "gemm_sm90a", kernel: "gemm_wgmma_128x128", tokens: 128, rows: 128, threads: 256, shared: 3 * 256 * 128, full: 0.50, alone: 0.85, round: 5, capability: 90},
	{name: "128x128", module: "gemm", kernel: "gemm_128x128", tokens: 128, rows: 128, threads: 128, shared: 3 * 256 * 128, full: 0.67, alone: 0.72, round: 5},
	{name: "64x128", module: "gemm", kernel: "gemm_64x128", tokens: 64, rows: 128, threads: 128, shared: 3 * 192 * 128, full: 0.43, alone: 0.50, round: 1.5},
	{name: "32x128", module: "gemm", kernel: "gemm_32x128", tokens: 32, rows: 128, threads: 128, shared: 4 * 160 * 128, full: 0.28, alone: 0.34, round: 1.5},
	{name: "16x128", module: "gemm", kernel: "gemm_16x128", tokens: 16, rows: 128, threads: 128, shared: 4 * 144 * 128, full: 0.22, alone: 0.34, round: 0.8},
}

// gemmPlan is the choice of kernels for one product y (T, N) = x (T, K) · wᵀ (N, K).
type gemmPlan struct {
	// Variant names the choice to the parity gate.
	Variant string
	// Splits is how many parts the sum over K is cut into; they are added in order.
	Splits  int
	T, N, K int

	tile gemmTile
}

// Rough costs for choosing a plan, of an H200.
const (
	gemmStart     = 2.5   // microseconds: a kernel's start and its first loads
	gemmReduce    = 2     // microseconds: the same of the kernel that adds splits
	gemmBandwidth = 2.5e6 // bytes a microsecond of partial sums, mostly in the L2 cache
	gemmWeights   = 4e6   // bytes a microsecond of weights
	maxGEMMSplits = 8
)

// planGEMM chooses tile and splits by an estimate of the time.
func planGEMM(dev cuda.Device, t, n, k int) gemmPlan {
	best, fastest := gemmPlan{}, 0.0
	for _, tile := range gemmTiles {
		if tile.shared > dev.SharedMemory || tile.capability != 0 && tile.capability != dev.Capability() {
			continue
		}
		for splits := 1; splits <= maxGEMMSplits; splits++ {
			// A split should have four steps, or its start is most of its time.
			if cost := tile.cost(dev, t, n, k, splits); splits == 1 || splits*4 <= gemmWidth(k)/gemmPad {
				if best.Splits == 0 || cost < fastest {
					best, fastest = gemmPlan{Splits: splits, T: t, N: n, K: k, tile: tile}, cost
				}
			}
		}
	}
	best.Variant = "gemm/f16/" + best.tile.name
	return best
}

// cost estimates microseconds: rounds of blocks over the multiprocessors, the
// weights' way from memory, the traffic of partial sums.
func (g *gemmTile) cost(dev cuda.Device, t, n, k, splits int) float64 {
	blocks := ((t + g.tokens - 1) / g.tokens) * ((n + g.rows - 1) / g.rows) * splits
	steps := float64((gemmWidth(k)/gemmPad + splits - 1) / splits)
	rounds := float64((blocks + dev.SMs - 1) / dev.SMs)
	us := gemmStart + max(max(steps*g.alone, rounds*steps*g.full)+rounds*g.round, float64(n*gemmWidth(k)*2)/gemmWeights)
	if splits > 1 {
		us += gemmReduce + float64(splits*t*n*8)/gemmBandwidth
	}
	return us
}

// Workspace is the scratch memory for partial sums, in bytes.
func (p *gemmPlan) Workspace() int64 {
	if p.Splits == 1 {
		return 0
	}
	return int64(p.Splits) * int64(p.T) * int64(p.N) * 4
}

// gemmArgs are the device arrays of a product.
type gemmArgs struct {
	X, W cuda.Ptr // (T, gemmWidth(K)), (N, gemmWidth(K)) f16
	Y    cuda.Ptr // (T, N) float32
	// XScale (T) and WScale (N) multiply the sums; Bias (N) and Residual (T, N),
	// which may be Y, are added. All float32; 0 is none.
	XScale, WScale, Bias, Residual cuda.Ptr
	Work                           cuda.Ptr // Workspace bytes
}

// launches prepares the kernels of the plan, in order.
func (p *gemmPlan) launches(c *cuda.Context, find lookup, a gemmArgs) ([]*cuda.Launch, error) {
	t := p.tile
	args := []any{a.X, a.W, a.Y, a.Work, a.XScale, a.WScale, a.Bias, a.Residual, p.T, p.N, gemmWidth(p.K)}
	tiles := ((p.T + t.tokens - 1) / t.tokens) * ((p.N + t.rows - 1) / t.rows)
	l, err := prepare(find, c, t.module, t.kernel, [3]int{tiles, 1, p.Splits}, t.threads, t.shared, args...)
	if err != nil || p.Splits == 1 {
		return []*cuda.Launch{l}, err
	}
	reduce, err := prepare(find, c, "gemm", "gemm_reduce", [3]int{(p.N + 1023) / 1024, p.T, 1}, 256, 0, append(args, p.Splits)...)
	return []*cuda.Launch{l, reduce}, err
}

// dequantLaunch prepares rows row0 … row0+rows-1 of a packed matrix of k columns as
// f16 (rows, gemmWidth(k)), divided by scale (all rows of the matrix; 0 for none).
func dequantLaunch(c *cuda.Context, find lookup, w cuda.Ptr, dtype tensor.DType, scale, out cuda.Ptr, row0, rows, k int) (*cuda.Launch, error) {
	groups := int64(rows) * int64(gemmWidth(k)/32)
	if groups > 1<<31-1 {
		return nil, fmt.Errorf("dequantise %d rows of %d weights: more than one launch can do", rows, k)
	}
	return prepare(find, c, "dequant", "dequant_f16", [3]int{int((groups + 127) / 128), 1, 1}, 128, 0, w, int(dtype), scale, out, row0, rows, k, gemmWidth(k))
}

// rowScalesLaunch prepares the scales (rows) that dequantLaunch divides by and
// gemmArgs.WScale multiplies by. They depend on the weights alone.
func rowScalesLaunch(c *cuda.Context, find lookup, w cuda.Ptr, dtype tensor.DType, scale cuda.Ptr, rows, k int) (*cuda.Launch, error) {
	return prepare(find, c, "dequant", "dequant_scales", [3]int{rows, 1, 1}, 128, 0, w, int(dtype), k, scale)
}
