package cuda

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/apr-engine/apr/driver/cuda"
)

// attentionShape is what attention over one layer's cache needs to know.
type attentionShape struct {
	Heads, KVHeads, HeadDim int
	KVBytes                 int    // of a cache element: 2 for F16, 4 for F32
	Unit                    uint64 // bytes per position of all earlier layers' keys and values
	Scale, SoftCap          float32
	Window                  int
}

// attentionArgs are the device arrays of attention for a step of T tokens.
type attentionArgs struct {
	Q, Out       cuda.Ptr // (T, Heads, HeadDim) float32
	Pos, KV, Cap cuda.Ptr // (T) int32, uint64, int32: see the step's data
	// Tiles are pairs {first token, tokens} of int32, at most queryTile tokens of
	// one sequence each; for prefill alone.
	Tiles cuda.Ptr
	// Work is scratch memory of attentionPlan.Workspace bytes; may be 0 if that is 0.
	Work cuda.Ptr
	// Counters is memory of attentionPlan.Counters bytes that was set to zero once;
	// every launch leaves zeros. Launches that may overlap need their own.
	Counters cuda.Ptr
	// Rotate says that one token's queries, keys and values are as the products gave
	// them: for plans that rotate.
	Rotate *ropeStore
}

// queryTile is the number of query tokens of one block of prefill attention.
const queryTile = 64

// attentionPlan is the choice of kernels for attention of one shape.
type attentionPlan struct {
	// Variant names the choice to the parity gate.
	Variant string
	// Splits is how many parts the positions are cut into; the part of each is
	// decided on the device, so that one captured launch serves all lengths.
	Splits int

	shape           attentionShape
	module, kernel  string
	threads, shared int
	tokens, tiles   int // tiles: of prefill; 0 for decode
	least           int // positions a split has at least
	perBlock        int // query heads a block of decode
}

// fastHeads are the head sizes that have kernels on tensor cores, with the
// constants of their .cu files.
var fastHeads = map[int]struct{ stages, round int }{
	64:  {3, 64},
	96:  {2, 64},
	128: {2, 64},
	256: {2, 32},
}

// validate refuses what no kernel computes.
func (s attentionShape) validate() error {
	switch {
	case s.HeadDim < 8 || s.HeadDim > 256 || s.HeadDim%8 != 0:
		return fmt.Errorf("attention: heads of %d elements; multiples of 8 up to 256 are possible", s.HeadDim)
	case s.KVHeads < 1 || s.Heads%s.KVHeads != 0:
		return fmt.Errorf("attention: %d query heads for %d key/value heads", s.Heads, s.KVHeads)
	case s.KVBytes != 2 && s.KVBytes != 4:
		return fmt.Errorf("attention: cache elements of %d bytes", s.KVBytes)
	}
	return nil
}

// minSplit is the fewest positions worth a block of four warps: below it the block's
// start costs more than its loads.
const minSplit = 64

// maxSplits is what combining has room for.
const maxSplits = 256

// planDecode chooses the kernels for a step whose tokens attend one by one.
// longest is the longest context the plan is to serve well; any is served right.
func planDecode(dev cuda.Device, s attentionShape, tokens, longest int) (attentionPlan, error) {
	p := attentionPlan{shape: s, tokens: tokens, least: minSplit}
	if err := s.validate(); err != nil {
		return p, err
	}
	_, fast := fastHeads[s.HeadDim]
	if fast && s.KVBytes == 2 && decodeShared(s.HeadDim, 4) <= dev.SharedMemory {
		p.Variant = "attention/decode/split"
		p.module = fmt.Sprintf("attention_%d", s.HeadDim)
		p.kernel = fmt.Sprintf("attention_decode_f16_d%d", s.HeadDim)
		p.perBlock = 8
		p.useWarps(4)
	} else {
		p.vector()
	}
	// Two blocks a multiprocessor: one loads while the other computes.
	blocks := tokens * s.KVHeads * p.parts()
	p.Splits = (2*dev.SMs + blocks - 1) / blocks
	if p.countsBlocks() && 4*blocks <= dev.SMs && decodeShared(s.HeadDim, 8) <= dev.SharedMemory {
		// A large block instead, which has half the splits to combine.
		p.useWarps(8)
		p.Splits = dev.SMs / blocks
	}
	p.Splits = max(1, min(p.Splits, (longest+p.least-1)/p.least, maxSplits))
	if tokens > fewTokens {
		// A power of two: batches of about the same size are the same variant.
		p.Splits = 1 << (bits.Len(uint(p.Splits)) - 1)
	}
	return p, nil
}

// decodeShared is the shared memory of a block of decode: the rings, or for combining
// what the warps have, or the splits' weights and the threads' shares.
func decodeShared(dim, warps int) int {
	row := dim*2 + 16 // see attention_tile.h
	return max(warps*max(fastHeads[dim].stages*32*row, 8*((dim+4)*4+8)), (8*maxSplits+8)*4+warps*32*16)
}

// useWarps sets the size of the blocks of decode. Each warp should have a group of 16
// positions.
func (p *attentionPlan) useWarps(n int) {
	p.threads, p.least, p.shared = n*32, n*16, decodeShared(p.shape.HeadDim, n)
}

func (p *attentionPlan) vector() {
	p.Variant = "attention/decode/vector"
	p.module, p.kernel = "attention", fmt.Sprintf("attention_vector_f%d", p.shape.KVBytes*8)
	p.threads, p.shared, p.perBlock = 128, 0, 4
}

// parts is how many blocks share the query heads of a key/value head.
func (p *attentionPlan) parts() int {
	return (p.shape.Heads/p.shape.KVHeads + p.perBlock - 1) / p.perBlock
}

// planPrefill chooses the kernels for a step that extends sequences by many
// tokens, cut into tiles. longest is the longest context among them.
func planPrefill(dev cuda.Device, s attentionShape, tokens, tiles, longest int) (attentionPlan, error) {
	p := attentionPlan{shape: s, tokens: tokens, tiles: tiles, threads: 128}
	if err := s.validate(); err != nil {
		return p, err
	}
	f, fast := fastHeads[s.HeadDim]
	p.shared = 2 * 2 * f.round * (s.HeadDim*2 + 16)
	if s.HeadDim > 128 {
		p.shared += 4 * s.HeadDim / 16 * 64 * 16 // the queries, as fragments
	}
	if !fast || p.shared > dev.SharedMemory {
		// The kernel without them takes prefill as many single tokens.
		p.tiles, p.Splits, p.least = 0, 1, minSplit
		p.vector()
		return p, nil
	}
	p.Variant = "attention/prefill/mma"
	p.module = fmt.Sprintf("attention_%d", s.HeadDim)
	p.kernel = fmt.Sprintf("attention_prefill_f%d_d%d", s.KVBytes*8, s.HeadDim)
	// Few tiles over a long context leave the device idle: split the positions too.
	p.Splits = 1
	if blocks := s.Heads * tiles; blocks < dev.SMs {
		p.Splits = max(1, min(2*dev.SMs/blocks, longest/(4*f.round), maxSplits))
	}
	return p, nil
}

// countsBlocks reports whether the last block of the splits combines them.
func (p *attentionPlan) countsBlocks() bool { return p.tiles == 0 && p.module != "attention" }

// rotates reports whether decode can also do what ropeStore does.
func (p *attentionPlan) rotates() bool {
	return p.countsBlocks() && p.tokens == 1 && (p.shape.HeadDim == 64 || p.shape.HeadDim == 128)
}

// Counters is the memory of counters in bytes.
func (p *attentionPlan) Counters() int64 {
	if !p.countsBlocks() {
		return 0
	}
	return int64(p.tokens) * int64(p.shape.KVHeads) * int64(p.parts()) * 4
}

// Workspace is the scratch memory in bytes: the sums, maxima and weights of the splits.
func (p *attentionPlan) Workspace() int64 {
	if p.tiles > 0 && p.Splits == 1 {
		return 0
	}
	rows := int64(p.tokens) * int64(p.shape.Heads) * int64(p.Splits)
	return rows * int64(p.shape.HeadDim+2) * 4
}

// launches prepares the kernels of the plan, in order. They read Pos, KV, Cap and
// Tiles when they run.
func (p *attentionPlan) launches(c *cuda.Context, find lookup, a attentionArgs) ([]*cuda.Launch, error) {
	s := p.shape
	if p.countsBlocks() && a.Counters == 0 {
		return nil, fmt.Errorf("%s: no counters", p.Variant)
	}
	sums := a.Work
	weights := sums + cuda.Ptr(int64(p.tokens)*int64(s.Heads)*int64(p.Splits)*int64(s.HeadDim)*4)
	cache := []any{a.Pos, a.KV, a.Cap, s.Unit, s.KVHeads, s.Scale, s.SoftCap, s.Window, s.Heads}
	var grid [3]int
	var args []any
	switch {
	case p.tiles > 0:
		grid = [3]int{s.Heads, p.tiles, p.Splits}
		args = slices.Concat([]any{a.Q, a.Out, sums, weights, a.Tiles}, cache)
	case p.module == "attention":
		grid = [3]int{p.Splits, s.KVHeads * p.parts(), p.tokens}
		args = slices.Concat([]any{a.Q, sums, weights}, cache, []any{s.HeadDim, p.least})
	default:
		grid = [3]int{p.Splits, s.KVHeads * p.parts(), p.tokens}
		args = slices.Concat([]any{a.Q, a.Out, sums, weights, a.Counters}, cache, []any{p.tokens, p.least})
	}
	kernel, shared := p.kernel, p.shared
	if r := a.Rotate; r != nil {
		kernel = fmt.Sprintf("attention_decode_rotate_f16_d%d", s.HeadDim)
		shared += 8 * (s.HeadDim + 8) * 4
		args = append(args, r.k, r.v, r.freq, r.pairs, r.order(), r.magnitude)
	}
	l, err := prepare(find, c, p.module, kernel, grid, p.threads, shared, args...)
	if err != nil {
		return nil, err
	}
	if p.countsBlocks() || p.tiles > 0 && p.Splits == 1 {
		return []*cuda.Launch{l}, nil
	}
	combine, err := prepare(find, c, "attention", "attention_combine", [3]int{s.Heads, p.tokens, 1}, 256, 0, sums, weights, a.Out, p.Splits, s.HeadDim)
	return []*cuda.Launch{l, combine}, err
}
