package kernel

import (
	"math"
	"unsafe"

	"github.com/apr-engine/apr/tensor"
)

var negInf = float32(math.Inf(-1))

// attnBlock is the number of positions whose scores, weights and partial sums
// are formed together. Blocks start at multiples of it, whatever range a query
// sees, so the order of addition of one query depends on nothing else.
const attnBlock = 64

// AttentionBlock is the context above which Attention combines several blocks.
const AttentionBlock = attnBlock

// slotWeighted adds weighted rows of v to each query's sum:
//
//	acc[q*dim+i] += Σ_p weight[q*attnBlock+p]·v[p*dim+i]
//
// for q in [0,queries), p in [0,n), i in [0,dim), p ascending, each product
// added with one fused rounding or two.
var slotWeighted = newSlot("f32/weighted", weightedGeneric)

// The kernels that read a cache as it is. At one level they give the bits of slotTile
// and slotWeighted with the cache converted.
var (
	slotScoresF16 = newSlot[scoresFunc[uint16]]("f16/scores", scoresF16Generic)
	slotScoresQ8  = newSlot[scoresFunc[byte]]("q8_0/scores", scoresQ8Generic)
	slotMixF16    = newSlot[mixFunc[uint16]]("f16/mix", mixF16Generic)
	slotMixQ8     = newSlot[mixFunc[byte]]("q8_0/mix", mixQ8Generic)
)

// scoresFunc sets
//
//	scores[q*attnBlock+p] = Σ_i k[p*dim+i]·q[q*dim+i]
//
// for p in [0,rows), rows a multiple of tileRows. While it does it brings as many bytes
// from ahead on into the cache as it reads; ahead may be empty. dim is a multiple of 16,
// for Q8_0 of 32.
type scoresFunc[E element] func(scores []float32, k []E, rows int, q []float32, queries, dim int, ahead []E)

// mixFunc adds weighted rows of v to each query's sum, as slotWeighted does with a sum
// of zero; only then is that added to acc. ahead and dim are as in scoresFunc.
type mixFunc[E element] func(acc, weight []float32, v []E, n, queries, dim int, ahead []E)

// element is what the rows of a matrix or of the cache are made of; byte stands for
// blocks of Q8_0.
type element interface{ float32 | uint16 | byte }

// slotSoftmaxRows makes weights of the scores of some queries for n positions:
//
//	top[r] = max(top[r], max_i scale·x[r*attnBlock+i]), ignoring NaN
//	x[r*attnBlock+i] = exp(scale·x[r*attnBlock+i] - finiteMax(top[r]))
//	sum[r] = Σ_i x[r*attnBlock+i]
//
// for r in [0,rows), i in [0,n).
var slotSoftmaxRows = newSlot("f32/softmax-rows", softmaxRowsGeneric)

// directQueries is up to how many queries read a cache as it is. More share the work
// of converting it first.
const directQueries = 8

// direct reads the cache as it is, if that is worth it and if all queries see the
// same of positions [lo,hi), which lie within a chunk; otherwise it does nothing.
func (a *attnTile) direct(ws *AttentionWorkspace, lo, hi int) bool {
	j, last := a.j, a.t+a.tokens-1
	s, e := visible(j.Starts[a.t], j.Ends[a.t], lo, hi)
	ls, le := visible(j.Starts[last], j.Ends[last], lo, hi)
	if s != ls || e != le || a.queries() > directQueries || j.HeadDim%16 != 0 {
		return false
	}
	switch {
	case j.K16 != nil && slotScoresF16.level == slotTile.level && slotMixF16.level == slotWeighted.level:
		attendDirect(j.K16, j.V16, j, ws, ws.k16, j.HeadDim, slotScoresF16.active, slotMixF16.active, a.queries(), lo, hi)
	case j.K8 != nil && slotScoresQ8.level == slotTile.level && slotMixQ8.level == slotWeighted.level:
		attendDirect(j.K8, j.V8, j, ws, ws.k8, CacheRowBytes(j.HeadDim), slotScoresQ8.active, slotMixQ8.active, a.queries(), lo, hi)
	default:
		return false
	}
	return true
}

// attendDirect adds positions [lo,hi) of a chunk, which all queries see, to their sums,
// with the cache k and v as it is; width is the number of elements in a row, and spare
// holds tileRows of them. First come all scores, then the values: two streams of memory,
// read one after the other, with the next block of them on its way.
func attendDirect[E element](k, v []E, j *AttentionJob, ws *AttentionWorkspace, spare []E, width int,
	scores scoresFunc[E], mix mixFunc[E], queries, lo, hi int) {
	dim := j.HeadDim
	for b, at := 0, lo; at < hi; b++ {
		end := min((at/attnBlock+1)*attnBlock, hi)
		out, keys, ahead := ws.scores[b*queries*attnBlock:], k[at*width:end*width], k[end*width:]
		if end == hi {
			ahead = v[lo*width:]
		}
		comingPages(k[:hi*width], v[lo*width:], end+attnBlock, width)
		n := end - at
		whole := n / tileRows * tileRows
		if whole > 0 {
			scores(out, keys, whole, ws.q, queries, dim, ahead)
		}
		if whole < n { // the kernel reads rows in fours
			m := copy(spare, keys[whole*width:])
			clear(spare[m : tileRows*width])
			scores(out[whole:], spare, tileRows, ws.q, queries, dim, nil)
		}
		at = end
	}
	for b, at := 0, lo; at < hi; b++ {
		end := min((at/attnBlock+1)*attnBlock, hi)
		weights, ahead := ws.scores[b*queries*attnBlock:], v[end*width:]
		if end == hi {
			ahead = k[hi*width:]
		}
		comingPages(v[:hi*width], k[hi*width:], end+attnBlock, width)
		ws.softmax(j, weights, 0, queries, end-at)
		mix(ws.out, weights, v[at*width:end*width], end-at, queries, dim, ahead)
		at = end
	}
}

// comingPages asks for the first line of each page of a block of rows, that from row at
// on of now, which then follows. It is the one after that which the kernels fetch, so the
// walk through the page tables, whose entries the weights have driven out of the caches,
// is over by the time the other lines are asked for.
func comingPages[E element](now, then []E, at, width int) {
	from := at * width
	if from >= len(now) {
		now, from = then, from-len(now)
	}
	if rows := now[min(from, len(now)):min(from+attnBlock*width, len(now))]; len(rows) > 0 {
		prefetchPages((*byte)(unsafe.Pointer(&rows[0])), len(rows)*int(unsafe.Sizeof(rows[0])))
	}
}

// convertedBlock adds positions [lo,hi), within one block, to the sums of the tile, with
// keys and values in float32.
func (a *attnTile) convertedBlock(ws *AttentionWorkspace, lo, hi int) {
	j, heads, queries := a.j, a.heads, a.queries()
	starts, ends := j.Starts[a.t:a.t+a.tokens], j.Ends[a.t:a.t+a.tokens]
	dim, n := j.HeadDim, hi-lo
	scores := ws.scores[:queries*attnBlock]
	clear(scores)
	k, v := j.rows(ws, lo, hi)
	slotTile.active(scores, attnBlock, k, dim, n, ws.q, dim, queries, dim)
	for i := range queries {
		s, e := visible(starts[i/heads], ends[i/heads], lo, hi)
		if s < e {
			ws.softmax(j, scores[i*attnBlock+s:], i, 1, e-s)
		}
	}
	weightValues(ws, starts, ends, heads, lo, hi, v, dim)
	slotAdd.active(ws.out[:queries*dim], ws.out, ws.part)
}

// softmax makes weights of scores, those of queries [q,q+count) for n positions, each
// query's attnBlock behind the one before, and makes what was summed before relative to
// the new maximum.
func (ws *AttentionWorkspace) softmax(j *AttentionJob, scores []float32, q, count, n int) {
	dim, scale := j.HeadDim, j.Scale
	if j.SoftCap != 0 {
		for i := range count {
			slotSoftCap.active(scores[i*attnBlock:][:n], scale, j.SoftCap)
		}
		scale = 1
	}
	top, total := ws.top[q:q+count], ws.total[q:q+count]
	copy(top, ws.max[q:q+count])
	slotSoftmaxRows.active(scores, count, n, scale, top, total)
	ws.relative(dim, q, top)
	for i, t := range total {
		ws.sum[q+i] += t
	}
}

// relative makes what was summed before for queries [q,q+len(top)) relative to the
// maxima in top.
func (ws *AttentionWorkspace) relative(dim, q int, top []float32) {
	before, rose := ws.max[q:q+len(top)], false
	for i, m := range top {
		// Up to -Inf all weights were zero (or NaN, which stays), and so are the sums.
		rose = rose || m != before[i] && before[i] != negInf
	}
	if rose {
		shrink := ws.shrink[:len(top)]
		for i, m := range top {
			shrink[i] = before[i] - m
		}
		slotExpSub.active(shrink, 0)
		for i, m := range top {
			if m != before[i] && before[i] != negInf {
				ws.sum[q+i] *= shrink[i]
				out := ws.out[(q+i)*dim:][:dim]
				slotScale.active(out, out, shrink[i])
			}
		}
	}
	copy(before, top)
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

// weightValues fills ws.part with each query's weighted values v of positions
// [lo,hi). What all queries see is done together; what only some see, one query
// at a time, so that a NaN in an unseen position cannot leak (0·NaN is NaN).
// The order of positions is ascending for each query either way.
func weightValues(ws *AttentionWorkspace, starts, ends []int, heads, lo, hi int, v []float32, dim int) {
	queries := len(starts) * heads
	clear(ws.part[:queries*dim])
	run := func(q, count, s, e int) {
		if s < e {
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
