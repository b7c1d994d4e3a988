package kernel

// AttentionChunk is the number of positions whose softmax is formed by itself. The
// chunks that a token sees are then merged. Like blocks they start at multiples of
// their length, so they may be computed in any order and by any worker without a
// change to the result. A multiple of attnBlock.
const AttentionChunk = 512

// attnQueries is the most query vectors that share one pass over keys and values.
const attnQueries = 24

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

	// Integers allows queries and weights to be rounded to 16 bits where the cache is Q8_0
	// and there are kernels for it.
	Integers bool
}

// AttentionWorkspace is the scratch memory of Attention, one for each worker;
// the zero value is ready.
type AttentionWorkspace struct {
	q      []float32 // (attnQueries, dim)
	k16    []uint16  // (tileRows, dim) the last positions of a block
	k8     []byte    // the same in Q8_0
	k, v   []float32 // (attnBlock, dim)
	scores []float32 // by block: (queries, attnBlock)
	part   []float32 // (attnQueries, dim) weighted values of one block
	out    []float32 // (attnQueries, dim) weighted values of the chunk so far
	max    [attnQueries]float32
	top    [attnQueries]float32 // max, one block on
	shrink [attnQueries]float32 // exp(max-top)
	sum    [attnQueries]float32
	total  [attnQueries]float32 // of one block
	parts  AttentionParts
	prompt promptWorkspace
	q8     q8Workspace
}

// AttentionParts holds the softmax of each chunk that some queries see. The zero
// value is ready.
type AttentionParts struct {
	out []float32 // (queries, chunks, dim) weighted values
	max []float32 // (queries, chunks) largest score
	sum []float32 // (queries, chunks) of exp(score-max)
}

// Attention computes, for each token and query head of the job,
//
//	Σ_p softmax_p(softcap(scale·q·k_p))·v_p   over the positions p the token sees,
//
// with float32 scores, an online softmax (Milakov and Gimelshein,
// arXiv:1805.02867) over the blocks of a chunk of positions, chunks that are merged
// (as in Flash-Decoding), and float32 sums. A token that
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
	perTile := max(1, attnQueries/j.Group)
	for t := 0; t < tokens; t += perTile {
		for g := 0; g < j.Group; g += attnQueries {
			a := attnTile{j, t, min(perTile, tokens-t), g, min(attnQueries, j.Group-g)}
			ws.parts.resize(a.queries(), a.chunks(), j.HeadDim)
			a.load(ws)
			for c := range a.chunks() {
				a.chunk(ws, &ws.parts, c)
			}
			a.merge(ws, &ws.parts)
		}
	}
}

// Chunks is the number of parts in which a job can be shared out among workers with
// AttentionChunks; 1 if it cannot.
func (j *AttentionJob) Chunks() int {
	if len(j.Starts)*j.Group > attnQueries || len(j.Starts) == 0 {
		return 1
	}
	a := j.whole()
	return a.chunks()
}

// Prepare makes room for a job, so that Attention allocates nothing.
func (ws *AttentionWorkspace) Prepare(j *AttentionJob) {
	if len(j.Starts) == 0 {
		return
	}
	a := j.whole()
	ws.grow(j.HeadDim)
	ws.parts.resize(min(attnQueries, a.queries()), a.chunks(), j.HeadDim)
}

// Prepare makes room for the chunks of a job, and keeps what room there is.
func (p *AttentionParts) Prepare(j *AttentionJob) {
	p.resize(len(j.Starts)*j.Group, j.Chunks(), j.HeadDim)
}

// AttentionChunks computes chunks [c0,c1) of those the job's tokens see, for a job
// that Chunks shares out, into parts, which Prepare has made room in. Other workers
// may compute other chunks at the same time.
func AttentionChunks(j *AttentionJob, c0, c1 int, parts *AttentionParts, ws *AttentionWorkspace) {
	j.check()
	a := j.whole()
	a.load(ws)
	for c := c0; c < c1; c++ {
		a.chunk(ws, parts, c)
	}
}

// MergeAttention finishes a job whose chunks have all been computed. The result has
// the bits of Attention.
func MergeAttention(j *AttentionJob, parts *AttentionParts, ws *AttentionWorkspace) {
	ws.grow(j.HeadDim)
	a := j.whole()
	a.merge(ws, parts)
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
	ws.k16 = make([]uint16, tileRows*dim)
	ws.k8 = make([]byte, tileRows*CacheRowBytes((dim+31)/32*32))
	ws.v = make([]float32, attnBlock*dim)
	ws.q = make([]float32, attnQueries*dim)
	ws.part = make([]float32, attnQueries*dim)
	ws.out = make([]float32, attnQueries*dim)
	ws.scores = make([]float32, max(attnQueries*attnBlock, directQueries*AttentionChunk))
	ws.q8.grow(dim)
}

// resize makes room, with as much again to grow into: a chunk is added every
// AttentionChunk tokens.
func (p *AttentionParts) resize(queries, chunks, dim int) {
	if need := queries * chunks; len(p.max) < need {
		p.max, p.sum = make([]float32, 2*need), make([]float32, 2*need)
	}
	if need := queries * chunks * dim; len(p.out) < need {
		p.out = make([]float32, 2*need)
	}
}

// attnTile is a part of a job that shares passes over keys and values: tokens
// [t,t+tokens) and query heads [g,g+heads). Query i of it is head g+i%heads of token
// t+i/heads.
type attnTile struct {
	j                   *AttentionJob
	t, tokens, g, heads int
}

func (j *AttentionJob) whole() attnTile { return attnTile{j, 0, len(j.Starts), 0, j.Group} }

func (a *attnTile) queries() int { return a.tokens * a.heads }

// first is the first chunk that a token sees, of the whole cache.
func (a *attnTile) first() int { return a.j.Starts[a.t] / AttentionChunk }

// chunks is the number of chunks from there to the last; at least one, which may be
// empty.
func (a *attnTile) chunks() int {
	last := a.j.Ends[a.t+a.tokens-1]
	return max(1, (last+AttentionChunk-1)/AttentionChunk-a.first())
}

// load copies the queries to the workspace.
func (a *attnTile) load(ws *AttentionWorkspace) {
	j := a.j
	ws.grow(j.HeadDim)
	for i := range a.tokens {
		copy(ws.q[i*a.heads*j.HeadDim:][:a.heads*j.HeadDim], j.Q[(a.t+i)*j.QStride+a.g*j.HeadDim:])
	}
	if j.integers() {
		a.roundQueries(ws)
	}
}

// chunk computes chunk c, counted from the first.
func (a *attnTile) chunk(ws *AttentionWorkspace, parts *AttentionParts, c int) {
	j, dim, queries := a.j, a.j.HeadDim, a.queries()
	clear(ws.out[:queries*dim])
	for i := range queries {
		ws.max[i], ws.sum[i] = negInf, 0
	}
	from := max((a.first()+c)*AttentionChunk, j.Starts[a.t])
	to := min((a.first()+c+1)*AttentionChunk, j.Ends[a.t+a.tokens-1])
	switch {
	case j.integers():
		a.roundedChunk(ws, from, to)
	case from < to && !a.direct(ws, from, to):
		for lo := from; lo < to; {
			hi := min((lo/attnBlock+1)*attnBlock, to)
			if !a.direct(ws, lo, hi) {
				a.convertedBlock(ws, lo, hi)
			}
			lo = hi
		}
	}
	for i := range queries {
		at := i*a.chunks() + c
		parts.max[at], parts.sum[at] = ws.max[i], ws.sum[i]
		copy(parts.out[at*dim:][:dim], ws.out[i*dim:])
	}
}

// merge adds up, for each query, the chunks that it sees, relative to the largest
// score of all, and divides.
func (a *attnTile) merge(ws *AttentionWorkspace, parts *AttentionParts) {
	j, dim := a.j, a.j.HeadDim
	for i := range a.queries() {
		t := a.t + i/a.heads
		o := j.Out[t*j.OutStride+(a.g+i%a.heads)*dim:][:dim]
		at := i*a.chunks() + j.Starts[t]/AttentionChunk - a.first()
		n := max(1, (j.Ends[t]+AttentionChunk-1)/AttentionChunk-j.Starts[t]/AttentionChunk)
		weight, sums := parts.max[at:at+n], parts.sum[at:at+n]
		values, sum := parts.out[at*dim:], sums[0]
		if n > 1 {
			slotExpSub.active(weight, finiteMax(slotMax.active(weight)))
			sum = slotDotF32.active(weight, sums)
			clear(ws.part[:dim])
			slotWeighted.active(ws.part, weight, values, n, 1, dim)
			values = ws.part
		}
		inv := float32(0) // nothing seen, or all masked: zeros
		if sum != 0 {
			inv = float32(1 / float64(sum))
		}
		slotScale.active(o, values[:dim], inv)
	}
}
