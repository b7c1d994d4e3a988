package kernel

import (
	"math"

	"github.com/apr-engine/apr/tensor"
)

// attnBlock is the number of positions whose scores, weights and partial sums
// are formed together. Blocks start at multiples of it, whatever range a query
// sees, so the order of addition of one query depends on nothing else.
const attnBlock = 64

// AttentionBlock is the context above which Attention combines several blocks.
const AttentionBlock = attnBlock

// attnQueries is the most query vectors that share one pass over keys and values.
const attnQueries = 24

// slotWeighted adds weighted rows of v to each query's sum:
//
//	acc[q*dim+i] += Σ_p weight[q*attnBlock+p]·v[p*dim+i]
//
// for q in [0,queries), p in [0,n), i in [0,dim), p ascending, each product
// added with one fused rounding or two.
var slotWeighted = newSlot("f32/weighted", weightedGeneric)

// slotWeightedF16 is slotWeighted with v in half precision; at one level it gives
// the bits of slotWeighted with v converted.
var slotWeightedF16 = newSlot("f16/weighted", weightedF16Generic)

// halfQueries is up to how many queries read a cache of half precision as it is. More
// share the work of converting it first.
const halfQueries = 8

// AttentionJob is the attention of some consecutive tokens of one sequence, for
// the query heads that share one key/value head.
type AttentionJob struct {
	// Out and Q: head g of token t is at [t*OutStride+g*HeadDim] and
	// [t*QStride+g*HeadDim]. Out and Q must not overlap unless they are the same.
	Out, Q             []float32
	OutStride, QStride int

	HeadDim int
	Group   int // query heads that share the key/value head

	// The cache of one key/value head: (positions, HeadDim), contiguous, in IEEE half
	// precision, in float32, or in blocks of Q8_0, which HeadDim is a multiple of.
	K16, V16 []uint16
	K32, V32 []float32
	K8, V8   []byte

	// Token t sees positions [Starts[t], Ends[t]). Both must not decrease with t.
	Starts, Ends []int

	Scale   float32 // of the scores, usually 1/√HeadDim
	SoftCap float32 // scores become cap·tanh(score/cap); 0 for none
}

// AttentionWorkspace is the scratch memory of Attention, one for each worker;
// the zero value is ready.
type AttentionWorkspace struct {
	q      []float32 // (attnQueries, dim)
	k16    []uint16  // (attnBlock, dim)
	k, v   []float32 // (attnBlock, dim)
	scores []float32 // (attnQueries, attnBlock)
	part   []float32 // (attnQueries, dim) weighted values of one block
	out    []float32 // (attnQueries, dim) weighted values so far
	max    [attnQueries]float32
	sum    [attnQueries]float32
}

// Attention computes, for each token and query head of the job,
//
//	Σ_p softmax_p(softcap(scale·q·k_p))·v_p   over the positions p the token sees,
//
// with float32 scores, an online softmax (Milakov and Gimelshein,
// arXiv:1805.02867) over blocks of positions, and float32 sums. A token that
// sees no position, or only scores of -Inf, gets zeros; a NaN among what it
// sees stays NaN. Values that no token of the job sees are not read. At one CPU
// level the result for a token and head is the same to the last bit whatever
// other tokens are in the job.
func Attention(j *AttentionJob, ws *AttentionWorkspace) {
	tokens := len(j.Starts)
	if tokens == 0 {
		return
	}
	j.check()
	ws.grow(j.HeadDim)
	perTile := max(1, attnQueries/j.Group)
	for t := 0; t < tokens; t += perTile {
		for g := 0; g < j.Group; g += attnQueries {
			attentionTile(j, ws, t, min(perTile, tokens-t), g, min(attnQueries, j.Group-g))
		}
	}
}

// check panics where a wrong job would make the assembly read out of bounds.
func (j *AttentionJob) check() {
	tokens := len(j.Starts)
	mustLen(len(j.Ends), tokens)
	end := j.Ends[tokens-1]
	switch {
	case j.K32 != nil:
		mustLen(min(len(j.K32), len(j.V32)), end*j.HeadDim)
	case j.K8 != nil:
		mustLen(min(len(j.K8), len(j.V8)), end*CacheRowBytes(j.HeadDim))
	default:
		mustLen(min(len(j.K16), len(j.V16)), end*j.HeadDim)
	}
	width := j.Group * j.HeadDim
	mustLen(len(j.Q), (tokens-1)*j.QStride+width)
	mustLen(len(j.Out), (tokens-1)*j.OutStride+width)
}

func (ws *AttentionWorkspace) grow(dim int) {
	if len(ws.k) >= attnBlock*dim {
		return
	}
	ws.k = make([]float32, attnBlock*dim)
	ws.k16 = make([]uint16, attnBlock*dim)
	ws.v = make([]float32, attnBlock*dim)
	ws.q = make([]float32, attnQueries*dim)
	ws.part = make([]float32, attnQueries*dim)
	ws.out = make([]float32, attnQueries*dim)
	ws.scores = make([]float32, attnQueries*attnBlock)
}

// attentionTile handles tokens [t,t+tokens) and query heads [g,g+heads); query
// i of the tile is head g+i%heads of token t+i/heads.
func attentionTile(j *AttentionJob, ws *AttentionWorkspace, t, tokens, g, heads int) {
	dim, queries := j.HeadDim, tokens*heads
	for i := range tokens {
		copy(ws.q[i*heads*dim:][:heads*dim], j.Q[(t+i)*j.QStride+g*dim:])
	}
	clear(ws.out[:queries*dim])
	for i := range queries {
		ws.max[i], ws.sum[i] = float32(math.Inf(-1)), 0
	}
	starts, ends := j.Starts[t:t+tokens], j.Ends[t:t+tokens]
	last := ends[tokens-1]
	for b := starts[0] / attnBlock * attnBlock; b < last; b += attnBlock {
		lo, hi := max(b, starts[0]), min(b+attnBlock, last)
		if lo < hi {
			attentionBlock(j, ws, starts, ends, heads, lo, hi)
		}
	}
	for i := range queries {
		o := j.Out[(t+i/heads)*j.OutStride+(g+i%heads)*dim:][:dim]
		inv := float32(0) // nothing seen, or all masked: zeros
		if s := ws.sum[i]; s != 0 {
			inv = float32(1 / float64(s))
		}
		slotScale.active(o, ws.out[i*dim:][:dim], inv)
	}
}

// attentionBlock adds positions [lo,hi), within one block, to the tile's sums.
func attentionBlock(j *AttentionJob, ws *AttentionWorkspace, starts, ends []int, heads, lo, hi int) {
	dim, queries, n := j.HeadDim, len(starts)*heads, hi-lo
	scores := ws.scores[:queries*attnBlock]
	clear(scores)
	var v []float32
	var v16 []uint16
	if j.K16 != nil && queries <= halfQueries && slotTileF16.level == slotTile.level && slotWeightedF16.level == slotWeighted.level {
		v16 = j.V16[lo*dim : hi*dim]
		slotTileF16.active(scores, attnBlock, j.halves(ws, lo, hi), dim, n, ws.q, dim, queries, dim)
	} else {
		var k []float32
		k, v = j.rows(ws, lo, hi)
		slotTile.active(scores, attnBlock, k, dim, n, ws.q, dim, queries, dim)
	}

	for i := range queries {
		s, e := visible(starts[i/heads], ends[i/heads], lo, hi)
		if s >= e {
			continue
		}
		row := scores[i*attnBlock+s : i*attnBlock+e]
		slotSoftCap.active(row, j.Scale, j.SoftCap)
		m := max(ws.max[i], slotMax.active(row))
		if m != ws.max[i] { // what was summed so far is relative to a smaller maximum
			shrink := float32(math.Exp(float64(ws.max[i] - m)))
			ws.max[i] = m
			ws.sum[i] *= shrink
			slotScale.active(ws.out[i*dim:][:dim], ws.out[i*dim:][:dim], shrink)
		}
		ws.sum[i] += slotExpSub.active(row, finiteMax(m))
	}
	weightValues(ws, starts, ends, heads, lo, hi, v, v16, dim)
	slotAdd.active(ws.out[:queries*dim], ws.out, ws.part)
}

// halves returns keys of positions [lo,hi) in half precision, of which rows up to a
// multiple of four exist.
func (j *AttentionJob) halves(ws *AttentionWorkspace, lo, hi int) []uint16 {
	dim, n := j.HeadDim, hi-lo
	if n%tileRows == 0 {
		return j.K16[lo*dim : hi*dim]
	}
	copy(ws.k16, j.K16[lo*dim:hi*dim])
	clear(ws.k16[n*dim : (n+tileRows-1)/tileRows*tileRows*dim])
	return ws.k16
}

// rows returns keys and values of positions [lo,hi) in float32. The tile kernel
// reads rows in fours, so keys are copied unless all of its rows exist.
func (j *AttentionJob) rows(ws *AttentionWorkspace, lo, hi int) (k, v []float32) {
	dim, n := j.HeadDim, hi-lo
	pad := (n + tileRows - 1) / tileRows * tileRows
	if j.K8 != nil {
		row := CacheRowBytes(dim)
		Dequantize(tensor.Q8_0, ws.k[:n*dim], j.K8[lo*row:hi*row])
		Dequantize(tensor.Q8_0, ws.v[:n*dim], j.V8[lo*row:hi*row])
		clear(ws.k[n*dim : pad*dim])
		return ws.k, ws.v
	}
	if j.K32 == nil {
		slotFromF16.active(ws.k[:n*dim], j.K16[lo*dim:hi*dim])
		slotFromF16.active(ws.v[:n*dim], j.V16[lo*dim:hi*dim])
		clear(ws.k[n*dim : pad*dim])
		return ws.k, ws.v
	}
	v = j.V32[lo*dim : hi*dim]
	if pad == n {
		return j.K32[lo*dim : hi*dim], v
	}
	copy(ws.k, j.K32[lo*dim:hi*dim])
	clear(ws.k[n*dim : pad*dim])
	return ws.k, v
}

// weightValues, with the values in v or v16, fills ws.part with each query's weighted values of positions
// [lo,hi). What all queries see is done together; what only some see, one query
// at a time, so that a NaN in an unseen position cannot leak (0·NaN is NaN).
// The order of positions is ascending for each query either way.
func weightValues(ws *AttentionWorkspace, starts, ends []int, heads, lo, hi int, v []float32, v16 []uint16, dim int) {
	queries := len(starts) * heads
	clear(ws.part[:queries*dim])
	run := func(q, count, s, e int) {
		if s < e && v16 != nil {
			slotWeightedF16.active(ws.part[q*dim:], ws.scores[q*attnBlock+s:], v16[s*dim:], e-s, count, dim)
		} else if s < e {
			slotWeighted.active(ws.part[q*dim:], ws.scores[q*attnBlock+s:], v[s*dim:], e-s, count, dim)
		}
	}
	// Starts and ends do not decrease, so the last token starts last and the first ends first.
	s, e := visible(starts[len(starts)-1], ends[0], lo, hi)
	if s >= e {
		for q := range queries {
			qs, qe := visible(starts[q/heads], ends[q/heads], lo, hi)
			run(q, 1, qs, qe)
		}
		return
	}
	for q := range queries {
		qs, _ := visible(starts[q/heads], ends[q/heads], lo, hi)
		run(q, 1, qs, s)
	}
	run(0, queries, s, e)
	for q := range queries {
		_, qe := visible(starts[q/heads], ends[q/heads], lo, hi)
		run(q, 1, e, qe)
	}
}

// visible clips [start,end) to [lo,hi) and counts from lo.
func visible(start, end, lo, hi int) (s, e int) {
	return max(start, lo) - lo, min(end, hi) - lo
}
