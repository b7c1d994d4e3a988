package cuda

import (
	"fmt"
	"strings"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/tensor"
)

// quantGEMMTypes are the formats that have kernels of gemm_quant.h; others are
// made f16 first.
var quantGEMMTypes = map[tensor.DType]bool{
	tensor.Q4_0: true, tensor.Q8_0: true, tensor.Q3_K: true, tensor.Q4_K: true, tensor.Q5_K: true, tensor.Q6_K: true, tensor.IQ4_XS: true,
}

// maxQuantTokens is the most tokens of a step that such a kernel takes: beyond,
// it pays to make the weights f16 once.
const maxQuantTokens = 64

// quantGEMMPlan is the choice of a kernel for y (T, N) = x (T, K) · wᵀ (N, K) with
// quantised weights that are read once.
type quantGEMMPlan struct {
	// Variant names the choice to the parity gate.
	Variant string
	// Splits is how many parts the sum over K is cut into; they are added in order.
	Splits  int
	T, N, K int

	module, kernel string
	shared         int
}

// planQuantGEMM returns false if there is no such kernel for the weights, the
// number of tokens or the device.
func planQuantGEMM(dev cuda.Device, dtype tensor.DType, t, n, k int) (quantGEMMPlan, bool) {
	if !quantGEMMTypes[dtype] || t > maxQuantTokens || k%32 != 0 {
		return quantGEMMPlan{}, false
	}
	tile := 16
	for tile < t {
		tile *= 2
	}
	stage := min(512, 16384/tile) // numbers of a sum in shared memory at a time
	format := strings.ToLower(dtype.String())
	p := quantGEMMPlan{
		Variant: fmt.Sprintf("gemm/%s/%d", dtype, tile), T: t, N: n, K: k,
		module: "gemm_" + format, kernel: fmt.Sprintf("gemm_%s_%d", format, tile),
		shared: max(2*tile*(2*stage+64), tile*(64+8)*4),
	}
	if p.shared > dev.SharedMemory {
		return p, false
	}
	if p.stage(dev, dtype, tile) {
		return p, true
	}
	// Two blocks a multiprocessor, if the sums are long enough to be cut.
	blocks, stages := (n+63)/64, (gemmWidth(k)+stage-1)/stage
	p.Splits = max(1, min((2*dev.SMs+blocks/2)/blocks, stages, maxGEMMSplits))
	return p, true
}

// stageKernel is a kernel of gemm_stage.h.
type stageKernel struct {
	stages, bytes int // in shared memory at a time, and of the weights of one
	blocks        int // that fit on a multiprocessor
}

// stageKernels are those that there are, by the number of tokens.
var stageKernels = map[tensor.DType]map[int]stageKernel{
	tensor.Q4_K: {16: {3, 64 * 288, 2}, 32: {2, 64 * 288, 2}},
	tensor.Q6_K: {16: {2, 64 * 420, 2}, 32: {3, 64 * 420, 1}},
}

// stageBytes is what 512 activations of a token take in a stage.
const stageBytes = 512*2 + 64

// stage has the plan use a kernel of gemm_stage.h for a number of tokens, if there is one
// and the device has shared memory for it.
func (p *quantGEMMPlan) stage(dev cuda.Device, dtype tensor.DType, tile int) bool {
	k, ok := stageKernels[dtype][tile]
	shared := k.stages * (tile*stageBytes + k.bytes)
	if !ok || p.K%256 != 0 || shared > dev.SharedMemory {
		return false
	}
	p.module = "gemm_stage_" + strings.ToLower(dtype.String())
	p.kernel = fmt.Sprintf("%s_%d", p.module, tile)
	p.Variant += "/stages"
	p.shared = shared
	p.Splits = stageSplits((p.N+63)/64, (p.K+511)/512, k.blocks*dev.SMs)
	return true
}

// stageSplits is how many parts to cut sums of so many stages into, for the least time:
// that of a block, which takes about a stage to begin and to end, times the rounds that
// blocks times parts take where room of them run at once; adding parts up takes one more.
func stageSplits(blocks, stages, room int) int {
	best, least := 1, 0
	for splits := 1; splits <= min(stages, maxGEMMSplits); splits++ {
		rounds := (blocks*splits + room - 1) / room
		cost := rounds * ((stages+splits-1)/splits + 1)
		if splits > 1 {
			cost++
		}
		if splits == 1 || cost < least {
			best, least = splits, cost
		}
	}
	return best
}

// Workspace is the scratch memory for partial sums, in bytes.
func (p *quantGEMMPlan) Workspace() int64 {
	if p.Splits == 1 {
		return 0
	}
	return int64(p.Splits) * int64(p.T) * int64(p.N) * 4
}

// launches prepares the kernels of the plan, in order. a.W are the packed rows, and
// a.WScale what rowScalesLaunch gives for them.
func (p *quantGEMMPlan) launches(c *cuda.Context, find lookup, a gemmArgs) ([]*cuda.Launch, error) {
	args := []any{a.X, a.W, a.Y, a.Work, a.XScale, a.WScale, a.Bias, a.Residual, p.T, p.N}
	l, err := prepare(find, c, p.module, p.kernel, [3]int{(p.N + 63) / 64, 1, p.Splits}, 256, p.shared, append(args[:10:10], p.K, gemmWidth(p.K))...)
	if err != nil || p.Splits == 1 {
		return []*cuda.Launch{l}, err
	}
	reduce, err := prepare(find, c, "gemm", "gemm_reduce", [3]int{(p.N + 1023) / 1024, p.T, 1}, 256, 0, append(args[:10:10], gemmWidth(p.K), p.Splits)...)
	return []*cuda.Launch{l, reduce}, err
}
