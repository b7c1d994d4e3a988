package kernel

import (
	"math"

	"github.com/apr-engine/apr/internal/cpufeat"
)

// Attention with a cache of Q8_0 in integers: queries are rounded to 16 bits with a scale
// for each 32 columns, as activations are, and so are the weights of a block of positions,
// each multiplied with the scale of its value's block, against the largest of them. Sums of
// products are exact; softmax and the sums over blocks are in float32. There are kernels for
// AVX-512 only; where they are missing the same job is done in float32.

const (
	q8Len   = 32 // numbers in a block of Q8_0
	q8Bytes = 34

	// A block of a query is 8 words of upper bytes, 8 of lower ones, an offset and a scale.
	q8PlaneWords = q8Len / 4
	q8QueryWords = 2*q8PlaneWords + 2

	// q8RowsTogether is the multiple of rows that scores are made for.
	q8RowsTogether = 32

	q8MostQuery  = 32639 // what the largest number of a query's block becomes: its upper byte fits
	q8MostWeight = 32767
)

// slotQ8RoundQueries splits queries of blocks·32 columns, each rounded to
// n = round(x/scale), ties to even, with scale = max|x|/32639 of the block, into bytes
// n = 256·upper + lower. Block after block dst gets, for all queries, the upper bytes and
// the lower bytes of each, then the offset -128·Σn of each, then the scale of each. A block
// of zeros (or below 2^-100) has scale 0, one with a NaN or an infinity has scale NaN.
var slotQ8RoundQueries = newSlot("q8_0/i16/round-queries", q8RoundQueriesGeneric)

// slotQ8Scores sets
//
//	scores[q*attnBlock+p] = Σ_b float32(Σ_i k[p][b][i]·n[q][b][i])·scale(q,b)·scale(p,b)
//
// for p in [0,rows), rows a multiple of q8RowsTogether, and up to directQueries queries. As
// in scoresFunc, as many bytes from ahead on are brought into the cache as are read.
var slotQ8Scores = newSlot[q8ScoresFunc]("q8_0/i16/scores", q8ScoresGeneric)

type q8ScoresFunc func(scores []float32, k []byte, rows int, q []int32, queries, blocks int, ahead []byte)

// slotQ8Tops sets
//
//	top[q] = max(top[q], max_b,p scale·scores[(b*queries+q)*attnBlock+p]), ignoring NaN
//
// for q in [0,queries), b in [0,blocks), p in [0,attnBlock).
var slotQ8Tops = newSlot("q8_0/i16/tops", q8TopsGeneric)

// slotQ8Exps makes weights of the scores of a block of positions:
//
//	x[q*attnBlock+p] = 2^(factor·x[q*attnBlock+p] - base[q])
//	sum[q] += Σ_p x[q*attnBlock+p]
//
// for q in [0,queries), p in [0,attnBlock). No exponent is above 1.
var slotQ8Exps = newSlot("q8_0/i16/exps", q8ExpsGeneric)

// slotQ8RoundWeights rounds weight[q*attnBlock+p] times the scale of block b of row p of v:
//
//	dst[(b*queries+q)*attnBlock+p] = round(x/step[b*queries+q]), step = max_p x / 32767
//
// for p in [0,attnBlock). Where the largest is below 2^-100 all are 0; where it is not finite
// step is NaN. Neither weights nor scales are negative. room is scratch memory.
var slotQ8RoundWeights = newSlot[q8RoundWeightsFunc]("q8_0/i16/round-weights", q8RoundWeightsGeneric)

type q8RoundWeightsFunc func(dst []int16, step, weight []float32, v []byte, room *q8Room, queries, blocks int)

type q8Room struct {
	pairs  []uint32  // (half as many, rounded up, attnBlock) scales of two blocks
	scales []float32 // (blocks, or one more, attnBlock)
}

func newQ8Room(blocks int) *q8Room {
	pairs := (blocks + 1) / 2
	return &q8Room{make([]uint32, pairs*attnBlock), make([]float32, 2*pairs*attnBlock)}
}

// slotQ8Mix adds
//
//	acc[q*32*blocks+32*b+i] += float32(Σ_p w[(b*queries+q)*attnBlock+p]·v[p][b][i])·step[b*queries+q]
//
// for p in [0,n), n even and at most attnBlock: 64·32767·128 fits 32 bits.
var slotQ8Mix = newSlot[q8MixFunc]("q8_0/i16/mix", q8MixGeneric)

type q8MixFunc func(acc []float32, w []int16, step []float32, v []byte, n, queries, blocks int, ahead []byte)

// q8Workspace is what attention in integers needs.
type q8Workspace struct {
	q       []int32   // by query group: blocks of queries
	spare   []byte    // (attnBlock, dim) in Q8_0: a block of positions that is not full
	weights []int16   // (blocks, directQueries, attnBlock)
	step    []float32 // (blocks, directQueries)
	room    *q8Room
	base    [directQueries]float32
}

func (w *q8Workspace) grow(dim int) {
	blocks := dim / q8Len
	w.q = make([]int32, attnQueries*blocks*q8QueryWords)
	w.spare = make([]byte, attnBlock*blocks*q8Bytes)
	w.weights = make([]int16, blocks*directQueries*attnBlock)
	w.step, w.room = make([]float32, blocks*directQueries), newQ8Room(blocks)
}

// integers reports whether the job is done in integers. It depends on nothing that other
// tokens of a step could change.
func (j *AttentionJob) integers() bool {
	return j.Integers && j.K8 != nil && slotQ8RoundQueries.level > cpufeat.Generic && slotQ8Scores.level > cpufeat.Generic &&
		slotQ8Tops.level > cpufeat.Generic && slotQ8Exps.level > cpufeat.Generic &&
		slotQ8RoundWeights.level > cpufeat.Generic && slotQ8Mix.level > cpufeat.Generic
}

// roundQueries rounds the queries of a tile, in the groups that eachGroup gives.
func (a *attnTile) roundQueries(ws *AttentionWorkspace) {
	dim := a.j.HeadDim
	a.eachGroup(func(_, q, n int) {
		slotQ8RoundQueries.active(ws.q8.q[q*dim/q8Len*q8QueryWords:], ws.q[q*dim:], n, dim/q8Len)
	})
}

// eachGroup calls do for groups of at most directQueries queries [q,q+n) of one token.
func (a *attnTile) eachGroup(do func(token, q, n int)) {
	for t := range a.tokens {
		for h := 0; h < a.heads; h += directQueries {
			do(t, t*a.heads+h, min(directQueries, a.heads-h))
		}
	}
}

// roundedChunk adds positions [lo,hi) of a chunk to the sums of the tile, as far as each
// token sees them.
func (a *attnTile) roundedChunk(ws *AttentionWorkspace, lo, hi int) {
	a.eachGroup(func(t, q, n int) {
		a.j.attendRounded(ws, q, n, max(lo, a.j.Starts[a.t+t]), min(hi, a.j.Ends[a.t+t]))
	})
}

// attendRounded is attendDirect in integers, for queries [q,q+queries) of the workspace,
// which are of one token and have seen nothing of the chunk before. As all scores come first,
// weights are relative to the largest of them from the start.
func (j *AttentionJob) attendRounded(ws *AttentionWorkspace, q, queries, lo, hi int) {
	if lo >= hi {
		return
	}
	w, k, v, dim, blocks := &ws.q8, j.K8, j.V8, j.HeadDim, j.HeadDim/q8Len
	width := blocks * q8Bytes
	rounded := w.q[q*blocks*q8QueryWords:]
	for b, at := 0, lo; at < hi; b++ {
		end := min((at/attnBlock+1)*attnBlock, hi)
		out, keys := ws.scores[b*queries*attnBlock:], k[at*width:end*width]
		ahead := coming(k[:hi*width], v[lo*width:], end*width)
		comingPages(k[:hi*width], v[lo*width:], end+attnBlock, width)
		n := end - at
		whole := n / q8RowsTogether * q8RowsTogether
		if whole > 0 {
			slotQ8Scores.active(out, keys, whole, rounded, queries, blocks, ahead)
		}
		if whole < n {
			slotQ8Scores.active(out[whole:], w.padded(keys[whole*width:], q8RowsTogether*width), q8RowsTogether, rounded, queries, blocks, nil)
		}
		j.seen(out, queries, n)
		at = end
	}
	factor := ws.tops(j, q, queries, (hi+attnBlock-1)/attnBlock-lo/attnBlock)
	for b, at := 0, lo; at < hi; b++ {
		end := min((at/attnBlock+1)*attnBlock, hi)
		weights, ahead := ws.scores[b*queries*attnBlock:], coming(v[:hi*width], k[hi*width:], end*width)
		comingPages(v[:hi*width], k[hi*width:], end+attnBlock, width)
		slotQ8Exps.active(weights, ws.sum[q:], w.base[:], factor, queries)
		w.mix(ws.out[q*dim:], weights, v[at*width:end*width], end-at, queries, blocks, ahead)
		at = end
	}
}

// seen caps the scores of n positions of a block and masks the rest of it.
func (j *AttentionJob) seen(scores []float32, queries, n int) {
	if n == attnBlock && j.SoftCap == 0 {
		return
	}
	for q := range queries {
		row, masked := scores[q*attnBlock:][:attnBlock], negInf
		if j.SoftCap != 0 {
			slotSoftCap.active(row[:n], j.Scale, j.SoftCap)
		} else if j.Scale < 0 {
			masked = -negInf
		}
		for p := n; p < attnBlock; p++ {
			row[p] = masked
		}
	}
}

// tops finds the largest scores of queries in blocks of positions and sets what the
// exponents of two, factor times a score, are relative to.
func (ws *AttentionWorkspace) tops(j *AttentionJob, q, queries, blocks int) (factor float32) {
	scale := j.Scale
	if j.SoftCap != 0 {
		scale = 1
	}
	top := ws.max[q : q+queries]
	slotQ8Tops.active(top, ws.scores, blocks, queries, scale)
	for i, m := range top {
		ws.q8.base[i] = finiteMax(m) * math.Log2E
	}
	return scale * math.Log2E
}

// mix adds n weighted rows of v to each query's sum.
func (w *q8Workspace) mix(acc, weights []float32, v []byte, n, queries, blocks int, ahead []byte) {
	if n < attnBlock {
		v = w.padded(v, attnBlock*blocks*q8Bytes)
	}
	slotQ8RoundWeights.active(w.weights, w.step, weights, v, w.room, queries, blocks)
	slotQ8Mix.active(acc, w.weights, w.step, v, (n+1)&^1, queries, blocks, ahead)
}

// coming is what follows byte from of now, and then.
func coming(now, then []byte, from int) []byte {
	if from < len(now) {
		return now[from:]
	}
	return then[min(from-len(now), len(then)):]
}

// padded returns rows with zeros behind them.
func (w *q8Workspace) padded(rows []byte, size int) []byte {
	clear(w.spare[copy(w.spare, rows):size])
	return w.spare
}
