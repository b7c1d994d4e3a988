package parity

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
)

const (
	// beyondContext is how many positions after a context are run too, so that a
	// verdict holds for what is generated in it.
	beyondContext = 256
	// judgedTail is how many positions are judged at the end of a batch.
	judgedTail = 32
)

// ContextTokens is how many tokens a comparison at a context of n reads.
func ContextTokens(n int) int { return n + beyondContext }

// ProbeContexts compares a candidate with a reference at several lengths of
// context, in one pass over c.Tokens, which must hold ContextTokens of the longest.
// For each length n the candidate computes the text up to n in the batches that
// generation uses, then single tokens, then the last positions again in batches
// after truncation, then a batch of what follows; both sides are fed the text.
// Each position is compared with the reference's at the same place, and yield gets
// the verdict of each length, in order: of its positions alone, with the kernels
// and the context of all so far. The reference computes every token once, in order,
// so that one that remembers serves several candidates.
//
// What would end after the context's deadline, from how long the reference takes
// for a token, is not measured.
func ProbeContexts(ctx context.Context, reference, candidate Source, c Case, contexts []int, p Policy, yield func(n int, v Verdict) error) error {
	contexts = slices.Clone(contexts)
	slices.Sort(contexts)
	contexts = slices.Compact(contexts)
	if len(contexts) == 0 || contexts[0] < 1 {
		return fmt.Errorf("%w: no context, or one of less than a token", ErrNotMeasured)
	}
	total := ContextTokens(contexts[len(contexts)-1])
	if c.Context > 0 && c.Context < total {
		total = c.Context
	}
	if len(c.Tokens) < total || contexts[len(contexts)-1] >= total || c.MaxBatch < 1 || c.Vocab < 1 {
		return fmt.Errorf("%w: contexts up to %d need %d tokens, there are %d; the model's context is %d", ErrNotMeasured,
			contexts[len(contexts)-1], total, len(c.Tokens), c.Context)
	}
	pr := &contextProbe{probe: newProbe(ctx, reference, candidate, c, p), total: total, rows: map[int][]float32{}}
	defer pr.close()
	pr.tokens = c.Tokens
	failed := pr.open(reference, candidate)
	for i, n := range contexts {
		pr.v.Status, pr.v.Reason, pr.v.Violation, pr.v.Positions = NotMeasured, "", nil, nil
		end := min(ContextTokens(n), total)
		if i+1 < len(contexts) {
			end = min(end, contexts[i+1]-1) // whose last token is judged again, as served
		}
		if failed == nil {
			failed = pr.judgeContext(n, end)
			pr.finish(failed)
		} else if pr.finish(failed); i > 0 {
			pr.v.Status, pr.v.Reason = NotMeasured, "not reached: "+failed.Error()
		}
		if err := yield(n, *pr.v); err != nil {
			return err
		}
	}
	return nil
}

// contextProbe is a comparison in progress.
type contextProbe struct {
	*probe
	total int
	done  int               // tokens that the reference has computed
	held  int               // tokens that the candidate has
	rows  map[int][]float32 // the reference's, of the present length, by position
}

func (p *contextProbe) open(reference, candidate Source) error {
	if err := p.ref.open(p.ctx, reference, p.total); err != nil {
		return p.referenceFailed(err)
	}
	if err := p.cand.open(p.ctx, candidate, p.total); err != nil {
		return p.candidateFailed("cannot start", err)
	}
	p.keeps, p.resumeAt = true, p.total // judge keeps no rows
	return nil
}

// judgeContext compares at a context of n, up to position end at most.
func (p *contextProbe) judgeContext(n, end int) error {
	first := max(n-judgedTail, p.done)
	if p.done == 0 && n <= p.policy.Probe.PromptPositions {
		first = 0 // a short text is judged from its beginning
	}
	if err := p.refer(n, first, end); err != nil {
		return err
	}
	decoded := min(n+max(p.policy.Probe.DecodeSteps, 1), end)
	if err := p.fill(n); err != nil {
		return err
	}
	for at := n; at < decoded; at++ {
		if err := p.extend(at, at+1, backend.Last, Decode); err != nil {
			return err
		}
	}
	if err := p.again(first, decoded); err != nil {
		return err
	}
	// What follows, as a second turn of a conversation: its end is judged.
	for at := decoded; at < end; {
		to := min(at+p.c.MaxBatch, end)
		if tail := max(end-judgedTail, decoded); at < tail {
			to = min(to, tail)
		}
		want := backend.None
		if at >= end-judgedTail {
			want = backend.All
		}
		if err := p.extend(at, to, want, Later); err != nil {
			return err
		}
		at = to
	}
	p.v.Context = end
	return nil
}

// refer has the reference compute up to position end, and keeps the rows from
// first on up to where single tokens end, and those of the end.
func (p *contextProbe) refer(n, first, end int) error {
	if limit, ok := p.ctx.Deadline(); ok && p.v.ReferenceCost.Tokens > 0 {
		each := p.v.ReferenceCost.Time / time.Duration(p.v.ReferenceCost.Tokens)
		if need := each * time.Duration(end-p.done); time.Until(limit) < need && !p.remembers(end) {
			p.v.tooLong = true
			return &outcome{status: NotMeasured, reason: fmt.Sprintf("comparing at %d would take the reference %v or more", n, need.Round(time.Second))}
		}
	}
	clear(p.rows)
	decoded := min(n+max(p.policy.Probe.DecodeSteps, 1), end)
	for p.done < end {
		from := p.done
		to, want := min(from+max(p.c.MaxBatch, referenceBatch), end), backend.None
		switch tail := max(end-judgedTail, decoded); {
		case from < first:
			to = min(to, first)
		case from < decoded:
			to, want = min(from+referenceRows, decoded), backend.All
		case from < tail:
			to = min(to, tail)
		default:
			to, want = end, backend.All
		}
		if err := p.ref.step(p.ctx, p.tokens[from:to], want); err != nil {
			return p.referenceFailed(err)
		}
		if want == backend.All {
			for i := range to - from {
				p.rows[from+i] = slices.Clone(p.ref.logits.Row(i))
			}
		}
		p.done = to
	}
	return nil
}

// remembers reports whether the reference knows the text up to a position already.
func (p *contextProbe) remembers(end int) bool {
	m, ok := p.ref.exec.(*Memory)
	return ok && m.knows(p.tokens[:end])
}

// fill brings the candidate to n tokens as generation does from an empty cache:
// in whole batches from the first position on.
func (p *contextProbe) fill(n int) error {
	whole := min(p.held, n) / p.c.MaxBatch * p.c.MaxBatch
	if whole >= n {
		whole = (n - 1) / p.c.MaxBatch * p.c.MaxBatch
	}
	if err := p.back(whole); err != nil {
		return err
	}
	for at := whole; at < n; {
		to, want := min(at+p.c.MaxBatch, n), backend.None
		if to == n {
			want = backend.Last
		}
		if err := p.extend(at, to, want, Served); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// again computes positions [first, end) once more, in batches of which the last is
// of a few tokens, and judges all of them.
func (p *contextProbe) again(first, end int) error {
	if err := p.back(first); err != nil {
		return err
	}
	for at := first; at < end; {
		to := min(at+p.c.MaxBatch, at+p.pieceRows(), end)
		if last := end - resumeFew; at < last {
			to = min(to, last)
		}
		if err := p.extend(at, to, backend.All, Resume); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// back truncates the candidate's sequence.
func (p *contextProbe) back(n int) error {
	if err := p.cand.truncate(p.ctx, n); err != nil {
		return p.candidateFailed("truncate", err)
	}
	p.held = n
	return nil
}

// extend runs tokens [from, to) on the candidate and judges the rows asked for.
func (p *contextProbe) extend(from, to int, want backend.Want, phase Phase) error {
	if err := p.cand.step(p.ctx, p.tokens[from:to], want); err != nil {
		return p.candidateFailed(fmt.Sprintf("step of %d tokens at position %d", to-from, from), err)
	}
	p.held = to
	rows := backend.Span{Tokens: p.tokens[from:to], Want: want}.Rows()
	return p.judge(phase, to-rows, rows, func(i int) (reference, candidate []float32) {
		return p.rows[to-rows+i], p.cand.logits.Row(i)
	})
}

// MeasureContexts is ProbeContexts with the gate's reference, and remembers the
// verdicts: what they have in common holds where Certify looks it up.
func (g *Gate) MeasureContexts(ctx context.Context, candidate Source, c Case, contexts []int, yield func(n int, v Verdict) error) error {
	wrong := false
	return ProbeContexts(ctx, g.Reference, candidate, c, contexts, g.Policy, func(n int, v Verdict) error {
		v.Fault, v.Override = g.fault(candidate.Backend), g.Override
		known, ok := g.lookup(candidate)
		switch {
		case v.Status == Mismatch:
			wrong = true
			g.remember(candidate, v, Certificate{})
		case v.Passed() && !wrong && (!ok || known.Status == Validated):
			g.remember(candidate, v.with(known), known)
		}
		return yield(n, v)
	})
}

// with adds what an earlier certificate covers.
func (v Verdict) with(known Certificate) Verdict {
	v.Context = max(v.Context, known.Context)
	v.Covered = slices.Concat(v.Covered, known.Covered)
	slices.Sort(v.Covered)
	v.Covered = slices.Compact(v.Covered)
	return v
}
