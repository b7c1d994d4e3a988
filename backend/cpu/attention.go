package cpu

import (
	"slices"
	"sync/atomic"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/kernel"
)

// attending is the attention of one layer. What its workers share out are items: for
// each key/value head, units of tokens, and of a unit of few tokens the chunks of the
// positions that it sees. Items that follow each other read on in the same stream of
// keys. How they are shared out changes no bit of the result.
type attending struct {
	*executor
	op    *graph.Attention
	wrong *graph.Misplace // nil for right positions
	src   operand
	dst   int
	cache graph.Cache

	shares shares
	first  []int          // by unit: a head's items before it; behind the last, all of a head's
	done   []atomic.Int32 // by head and unit: chunks computed
}

func (e *executor) newAttending(o *graph.Attention, wrong *graph.Misplace, src operand, dst int) *attending {
	return &attending{executor: e, op: o, wrong: wrong, src: src, dst: dst, cache: e.program.Caches[o.Layer], shares: make(shares, e.opts.Threads)}
}

// prepare lays out the items of a step, before the workers begin.
func (a *attending) prepare() {
	units := a.step.units
	if need := a.cache.Heads * len(units); len(a.done) < need {
		a.done = make([]atomic.Int32, need)
	}
	if need := a.cache.Heads * len(units); len(a.parts) < need {
		a.parts = append(a.parts, make([]kernel.AttentionParts, need-len(a.parts))...)
	}
	a.first = a.first[:0]
	items := 0
	for i, u := range units {
		a.first = append(a.first, items)
		job, chunks := a.job(0, u, 0), 1
		if a.opts.Threads > 1 && a.wrong == nil && !u.prompt {
			chunks = job.Chunks()
		}
		if chunks > 1 {
			for head := range a.cache.Heads {
				a.parts[head*len(units)+i].Prepare(&job)
			}
		}
		for w := range a.scratch { // whoever comes to compute it
			a.scratch[w].attn.Prepare(&job)
		}
		items += chunks
	}
	a.first = append(a.first, items)
	for i := range a.done {
		a.done[i].Store(0)
	}
	a.shares.reset(a.cache.Heads * items)
}

// run computes items until none is left.
func (a *attending) run(w int) {
	if a.byHead {
		for head, to := a.ownPart(w, a.cache.Heads); head < to; head++ {
			a.attend(w, 0, head, 0, 1)
		}
		return
	}
	a.shares.each(w, 1, func(from, to int) {
		perHead := a.first[len(a.first)-1]
		for from < to {
			head, at := from/perHead, from%perHead
			unit, begins := slices.BinarySearch(a.first, at)
			if !begins {
				unit--
			}
			n := min(a.first[unit+1]-at, to-from)
			a.attend(w, unit, head, at-a.first[unit], n)
			from += n
		}
	})
}

// attend computes n items of a unit and a head. Who computes the last of a unit's
// chunks merges them.
func (a *attending) attend(w, unit, head, chunk, n int) {
	units, ws := a.step.units, &a.scratch[w]
	job := a.job(w, units[unit], head)
	chunks := a.first[unit+1] - a.first[unit]
	switch {
	case units[unit].prompt:
		kernel.AttentionPrompt(&job, &ws.attn)
		return
	case chunks == 1:
		kernel.Attention(&job, &ws.attn)
		return
	}
	at := head*len(units) + unit
	kernel.AttentionChunks(&job, chunk, chunk+n, &a.parts[at], &ws.attn)
	if a.done[at].Add(int32(n)) == int32(chunks) {
		kernel.MergeAttention(&job, &a.parts[at], &ws.attn)
	}
}

// job is the attention of a unit of tokens with one key/value head. It is valid until
// the next of the same worker.
func (a *attending) job(w int, u attnUnit, head int) kernel.AttentionJob {
	ws := &a.scratch[w]
	c, width, group := a.cache, a.op.Heads*a.cache.HeadDim, a.op.Heads/a.cache.Heads
	ends := a.step.ends[u.t0:u.t1]
	if a.wrong != nil {
		ends = a.misplacedEnds(a.wrong, u)
	}
	ws.starts = ws.starts[:0]
	for _, end := range ends {
		start := 0
		if c.Window > 0 {
			start = max(0, end-c.Window)
		}
		ws.starts = append(ws.starts, start)
	}
	l := &u.seq.layers[a.op.Layer]
	from := head * u.seq.capacity * c.HeadDim
	to := from + ends[len(ends)-1]*c.HeadDim
	job := kernel.AttentionJob{
		Out: a.buffers[a.dst][u.t0*width+head*group*c.HeadDim:], OutStride: width,
		Q: a.floats(w, a.src)[u.t0*width+head*group*c.HeadDim:], QStride: width,
		HeadDim: c.HeadDim, Group: group,
		Starts: ws.starts, Ends: ends,
		Scale: a.op.Scale, SoftCap: a.op.SoftCap,
		Integers: !a.exact,
	}
	switch {
	case l.k32 != nil:
		job.K32, job.V32 = l.k32[from:to], l.v32[from:to]
	case l.k8 != nil:
		row := kernel.CacheRowBytes(c.HeadDim)
		from, to = from/c.HeadDim*row, to/c.HeadDim*row
		job.K8, job.V8 = l.k8[from:to], l.v8[from:to]
	default:
		job.K16, job.V16 = l.k16[from:to], l.v16[from:to]
	}
	return job
}

// misplacedEnds is where attention with wrong positions stops seeing keys, for
// each token of a unit. Like right ends they never fall within a unit.
func (e *executor) misplacedEnds(wrong *graph.Misplace, u attnUnit) []int {
	ends := make([]int, 0, u.t1-u.t0)
	for i := u.t0; i < u.t1; i++ {
		ends = append(ends, min(max(e.position(wrong, i)+1, 1), u.seq.capacity))
	}
	return ends
}
