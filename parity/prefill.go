package parity

import (
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/apr-engine/apr/backend"
)

// prefill judges the beginning of the prompt at every position.
func (p *probe) prefill(prompt []int32) error {
	chunk := p.c.MaxBatch
	if p.policy.Probe.OneByOne {
		chunk = 1
	}
	p.keep(p.total(len(prompt)))
	p.tokens = slices.Clone(prompt)
	for from := 0; from < len(prompt); from += chunk {
		to := min(from+chunk, len(prompt))
		if err := p.announce(prompt[from:to], to == len(prompt)); err != nil {
			return err
		}
		// The rows of a whole batch may take too much memory: then it is judged in
		// pieces here, and serve runs it in one.
		for at := from; at < to; {
			end := min(at+p.pieceRows(), to)
			p.pieces = p.pieces || end-at < to-from
			if err := p.prefillPiece(prompt, at, end); err != nil {
				return err
			}
			at = end
		}
	}
	p.last = append(p.last[:0], p.ref.logits.Row(p.ref.logits.Rows()-1)...)
	if p.pieces {
		// So many rows are not needed at once from here on, and what comes next takes
		// memory of its own.
		p.ref.forget()
		p.cand.forget()
		if !p.c.Roomy {
			debug.FreeOSMemory()
		}
	}
	return nil
}

// announce asks which kernels generation will use for a batch of the prompt.
func (p *probe) announce(tokens []int32, last bool) error {
	want := backend.None
	if last {
		want = backend.Last
	}
	announced, err := p.cand.plan(p.ctx, tokens, want)
	if err != nil {
		return p.candidateFailed("plan", err)
	}
	for _, n := range announced {
		p.serving[n] = true
	}
	return nil
}

// prefillPiece runs tokens [from, to) on both sides and judges all rows.
func (p *probe) prefillPiece(prompt []int32, from, to int) error {
	// The reference's first rows come first: they tell how long the candidate may take.
	first := min(from+referenceRows, to)
	if err := p.ref.step(p.ctx, prompt[from:first], backend.All); err != nil {
		return p.referenceFailed(err)
	}
	if err := p.cand.step(p.ctx, prompt[from:to], backend.All); err != nil {
		return p.candidateFailed(fmt.Sprintf("step of %d tokens at position %d", to-from, from), err)
	}
	for at, end := from, first; at < to; at, end = end, min(end+referenceRows, to) {
		if at > from {
			if err := p.ref.step(p.ctx, prompt[at:end], backend.All); err != nil {
				return p.referenceFailed(err)
			}
		}
		err := p.judge(Prefill, at, end-at, func(i int) (reference, candidate []float32) {
			return p.ref.logits.Row(i), p.cand.logits.Row(at - from + i)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// referenceTail brings the reference to the end of a prompt that is longer than
// what is judged at every position.
func (p *probe) referenceTail(tail []int32) error {
	if len(tail) == 0 {
		return nil
	}
	p.tokens = append(p.tokens, tail...)
	p.kept = p.kept[:0]
	for len(tail) > 0 {
		n, want := min(referenceBatch, len(tail)), backend.None
		if n == len(tail) {
			want = backend.Last
		}
		if err := p.ref.step(p.ctx, tail[:n], want); err != nil {
			return p.referenceFailed(err)
		}
		tail = tail[n:]
	}
	p.last = append(p.last[:0], p.ref.logits.Row(0)...)
	return nil
}

// serve runs the prompt exactly as generation does, in whole batches and with
// the logits of its last token only, if that is not what has been judged so
// far: other kernels, larger batches or a longer prompt. What comes after
// continues from the cache that this leaves.
func (p *probe) serve(prompt []int32, judged int) error {
	if p.policy.Probe.OneByOne {
		clear(p.serving)
		return nil
	}
	again := p.pieces || len(prompt) > judged
	for n := range p.serving {
		again = again || !p.cand.covered[n]
	}
	if !again {
		return nil
	}
	if err := p.cand.truncate(p.ctx, 0); err != nil {
		return p.candidateFailed("truncate", err)
	}
	for from := 0; from < len(prompt); {
		to := min(from+p.c.MaxBatch, len(prompt))
		want := backend.None
		if to == len(prompt) {
			want = backend.Last
		}
		if err := p.cand.step(p.ctx, prompt[from:to], want); err != nil {
			return p.candidateFailed(fmt.Sprintf("step of %d tokens at position %d as served", to-from, from), err)
		}
		from = to
	}
	return p.judge(Served, len(prompt)-1, 1, func(int) (reference, candidate []float32) { return p.last, p.cand.logits.Row(0) })
}
