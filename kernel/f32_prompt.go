package kernel

import (
	"math"

	"github.com/apr-engine/apr/tensor"
)

// Attention of prompts. Many queries see the same keys, so a block of keys is
// transposed once, and then scores, like weighted values, are products whose lanes
// lie along the result: nothing is summed across lanes, which for a head of 64
// numbers takes as long as multiplying them.

// promptRows is how many queries' scores, some 6 KB, are made, turned into weights and
// used before the next ones.
const promptRows = 24

// promptWorkspace is what attention of a prompt needs for each query of a job.
type promptWorkspace struct {
	q, out   []float32 // (queries, dim)
	max, sum []float32 // (queries)
	scores   []float32 // (promptRows, attnBlock)
	keys     []float32 // (dim, attnBlock): keys of a block, transposed
	seen     [promptRows]uint64
}

func (p *promptWorkspace) grow(queries, dim int) {
	if len(p.q) < queries*dim {
		p.q, p.out = aligned[float32](queries*dim), aligned[float32](queries*dim)
	}
	if len(p.max) < queries {
		p.max, p.sum = make([]float32, queries), make([]float32, queries)
	}
	if len(p.keys) < dim*attnBlock {
		p.keys = aligned[float32](dim * attnBlock)
	}
	if p.scores == nil {
		p.scores = aligned[float32](promptRows * attnBlock)
	}
}

// AttentionPrompt is Attention for many consecutive tokens: the same numbers but for
// rounding, and, like there, the same to the last bit for a token and head whatever
// other tokens are in the job. Where there are no vector kernels for it, it is Attention.
func AttentionPrompt(j *AttentionJob, ws *AttentionWorkspace) {
	if j.HeadDim%16 != 0 || slotOuter.level < slotTile.level || slotPromptSoftmax.level < slotTile.level || slotTranspose.level < slotTile.level {
		Attention(j, ws)
		return
	}
	attentionPrompt(j, ws)
}

func attentionPrompt(j *AttentionJob, ws *AttentionWorkspace) {
	tokens, dim := len(j.Starts), j.HeadDim
	if tokens == 0 {
		return
	}
	j.check()
	ws.grow(dim)
	queries, width := tokens*j.Group, j.Group*dim
	p := &ws.prompt
	p.grow(queries, dim)
	for t := range tokens {
		copy(p.q[t*width:][:width], j.Q[t*j.QStride:])
	}
	clear(p.out[:queries*dim])
	for i := range queries {
		p.max[i], p.sum[i] = float32(math.Inf(-1)), 0
	}
	last := j.Ends[tokens-1]
	for b := j.Starts[0] / attnBlock * attnBlock; b < last; b += attnBlock {
		if lo, hi := max(b, j.Starts[0]), min(b+attnBlock, last); lo < hi {
			j.promptBlock(ws, b, lo, hi)
		}
	}
	for i := range queries {
		inv := float32(0) // nothing seen, or all masked: zeros
		if s := p.sum[i]; s != 0 {
			inv = float32(1 / float64(s))
		}
		o := j.Out[i/j.Group*j.OutStride+i%j.Group*dim:][:dim]
		slotScale.active(o, p.out[i*dim:][:dim], inv)
	}
}

// promptBlock adds positions [lo,hi) of the block that begins at b to every query's sums.
func (j *AttentionJob) promptBlock(ws *AttentionWorkspace, b, lo, hi int) {
	p, dim, queries := &ws.prompt, j.HeadDim, len(j.Starts)*j.Group
	v := j.promptRows(ws, b, lo, hi)
	finite := Finite(v)
	columns := (hi - b + 15) / 16 * 16
	slotTranspose.active(p.keys, ws.k, dim, columns)
	for q := 0; q < queries; q += promptRows {
		n := min(promptRows, queries-q)
		var any uint64
		for i := range n {
			t := (q + i) / j.Group
			s, e := visible(j.Starts[t], j.Ends[t], b, b+attnBlock)
			p.seen[i] = 0
			if s < e {
				p.seen[i] = ^uint64(0) << s & (^uint64(0) >> (attnBlock - e))
			}
			any |= p.seen[i]
		}
		if any == 0 {
			continue
		}
		scores, scale, out := p.scores[:n*attnBlock], j.Scale, p.out[q*dim:]
		slotOuter.active(scores, attnBlock, p.q[q*dim:], dim, p.keys, attnBlock, dim, columns, n, false)
		if j.SoftCap != 0 {
			slotSoftCap.active(scores, j.Scale, j.SoftCap)
			scale = 1
		}
		slotPromptSoftmax.active(scores, p.seen[:n], p.max[q:], p.sum[q:], out, dim, scale)
		if finite {
			slotOuter.active(out, dim, scores[lo-b:], attnBlock, v, dim, hi-lo, dim, n, true)
			continue
		}
		// 0·NaN is NaN: each query's product has only what it sees.
		for i := range n {
			t := (q + i) / j.Group
			if s, e := visible(j.Starts[t], j.Ends[t], lo, hi); s < e {
				slotOuter.active(out[i*dim:], dim, scores[i*attnBlock+lo-b+s:], attnBlock, v[s*dim:], dim, e-s, dim, 1, true)
			}
		}
	}
}

// promptRows leaves keys of positions [lo,hi) in ws.k, where position p has row p-b,
// and returns their values.
func (j *AttentionJob) promptRows(ws *AttentionWorkspace, b, lo, hi int) (v []float32) {
	dim := j.HeadDim
	k, v := ws.k[(lo-b)*dim:(hi-b)*dim], ws.v[:(hi-lo)*dim]
	switch {
	case j.K8 != nil:
		row := CacheRowBytes(dim)
		Dequantize(tensor.Q8_0, k, j.K8[lo*row:hi*row])
		Dequantize(tensor.Q8_0, v, j.V8[lo*row:hi*row])
	case j.K32 != nil:
		copy(k, j.K32[lo*dim:hi*dim])
		return j.V32[lo*dim : hi*dim]
	default:
		slotFromF16.active(k, j.K16[lo*dim:hi*dim])
		slotFromF16.active(v, j.V16[lo*dim:hi*dim])
	}
	return v
}
