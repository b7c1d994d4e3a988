package parity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
)

const (
	// referenceRows bounds the reference's logits held at once: 32 rows of 150,000
	// are 19 MB. The reference gives the same bits for any chunking.
	referenceRows = 32
	// proposals is how many tokens the candidate decodes before the reference
	// checks them in one batch.
	proposals = 16
	// resumeRows is how many positions are computed again after truncation.
	resumeRows = 32
	// resumeFew is the length of the last batch after truncation: executors have
	// kernels of their own for a few tokens, such as a short turn of a conversation.
	resumeFew = 5
)

// probe is a comparison in progress.
type probe struct {
	ctx       context.Context
	c         Case
	policy    Policy
	vs        string
	ref, cand side
	v         *Verdict
	tokens    []int32 // fed so far, all confirmed
	serving   map[string]bool
	kept      [][]float32 // the reference's rows of the last positions
	keptFrom  int         // position of kept[0]
	last      []float32   // the reference's row after the prompt
}

// outcome ends a probe early.
type outcome struct {
	status Status
	reason string
}

func (o *outcome) Error() string { return o.reason }

// Probe compares a candidate with a reference on a case: the prompt in the
// batches that generation uses, then single tokens, then a continuation after
// truncation. Both sides get fresh sequences and the tokens that the reference
// finds most probable. A candidate that fails in any way is a mismatch; if the
// reference fails, or the context ends, nothing was measured.
func Probe(ctx context.Context, reference, candidate Source, c Case, p Policy) Verdict {
	pr := newProbe(ctx, reference, candidate, c, p)
	defer pr.ref.close()
	defer pr.cand.close()
	pr.finish(pr.run(reference, candidate))
	return *pr.v
}

func newProbe(ctx context.Context, reference, candidate Source, c Case, p Policy) *probe {
	v := &Verdict{
		Backend: candidate.Backend, Device: candidate.Device, Reference: reference.Backend,
		Policy: p.Name, MaxBatch: c.MaxBatch, Hashes: c.Hashes,
	}
	v.Hashes.Policy = p.Hash()
	pr := &probe{
		ctx: ctx, c: c, policy: p.For(candidate.Backend), v: v, vs: referenceName(reference.Backend, candidate.Backend),
		serving: map[string]bool{},
	}
	pr.ref = side{cost: &v.ReferenceCost, vocab: c.Vocab, covered: map[string]bool{}, limit: func(int) time.Duration { return referenceDeadline }}
	pr.cand = side{cost: &v.CandidateCost, vocab: c.Vocab, covered: map[string]bool{}, limit: pr.deadline}
	return pr
}

// referenceDeadline ends a probe whose reference hangs.
const referenceDeadline = 10 * time.Minute

// deadline is how long the candidate may take over so many tokens.
func (p *probe) deadline(tokens int) time.Duration {
	limit := p.policy.Probe.Deadline
	if cost := p.v.ReferenceCost; cost.Tokens > 0 {
		each := float64(cost.Time) / float64(cost.Tokens)
		limit = max(limit, time.Duration(each*float64(max(tokens, 1))*p.policy.Probe.DeadlineFactor))
	}
	return limit
}

// probeLogits bounds the candidate's logits of one step held at once, in
// numbers: 16 MiB. The rows of a batch come all at the same time, and a
// vocabulary of 150,000 must not make the probe larger than what it guards.
const probeLogits = 4 << 20

// promptPositions is how many prompt tokens are judged: those of the policy, but
// for a large vocabulary no more than make up the least number of positions
// together with the decode steps.
func (p *probe) promptPositions() int {
	d := p.policy.Probe
	return max(1, min(d.PromptPositions, max(d.MinPositions-d.DecodeSteps, probeLogits/max(p.c.Vocab, 1))))
}

func (p *probe) run(reference, candidate Source) error {
	d := p.policy.Probe
	prompt := p.c.Tokens[:min(len(p.c.Tokens), p.promptPositions())]
	if len(prompt) == 0 {
		return &outcome{status: NotMeasured, reason: "there is no prompt"}
	}
	if p.c.MaxBatch < 1 || p.c.Vocab < 1 {
		return &outcome{status: NotMeasured, reason: fmt.Sprintf("a batch of %d and a vocabulary of %d", p.c.MaxBatch, p.c.Vocab)}
	}
	decode := max(d.DecodeSteps, d.MinPositions-len(prompt))
	if p.c.Context > 0 {
		decode = min(decode, p.c.Context-len(prompt))
	}
	total := len(prompt) + max(decode, 0)
	p.keptFrom = max(total-resumeRows, 1)
	if err := p.ref.open(p.ctx, reference, total); err != nil {
		return p.referenceFailed(err)
	}
	if err := p.cand.open(p.ctx, candidate, total); err != nil {
		return p.candidateFailed("cannot start", err)
	}
	next, err := p.prefill(prompt)
	if err != nil {
		return err
	}
	if err := p.decode(next, total); err != nil {
		return err
	}
	if err := p.resume(); err != nil {
		return err
	}
	return p.serve(len(prompt))
}

// finish turns the end of a run into the verdict.
func (p *probe) finish(err error) {
	v := p.v
	v.Covered = names(p.cand.covered)
	for _, n := range names(p.serving) {
		if !p.cand.covered[n] {
			v.NotCovered = append(v.NotCovered, n)
		}
	}
	if w := worstViolation(v.Positions); w != nil {
		v.Status, v.Violation = Mismatch, w
		v.Reason = fmt.Sprintf("%s at position %d", w.Text, w.Position)
		return
	}
	var o *outcome
	switch {
	case errors.As(err, &o):
		v.Status, v.Reason = o.status, o.reason
	case err != nil:
		v.Status, v.Reason = NotMeasured, err.Error()
	case len(v.NotCovered) > 0:
		v.Status, v.Reason = Mismatch, fmt.Sprintf("kernel %s was announced and never ran", v.NotCovered[0])
	default:
		v.Status = Validated
	}
}

func (p *probe) referenceFailed(err error) error {
	return &outcome{status: NotMeasured, reason: fmt.Sprintf("reference %s: %v", p.v.Reference, err)}
}

// candidateFailed is a rejection, unless the caller has given up.
func (p *probe) candidateFailed(what string, err error) error {
	if p.ctx.Err() != nil {
		return &outcome{status: NotMeasured, reason: p.ctx.Err().Error()}
	}
	p.v.transient = errors.Is(err, errDeadline)
	return &outcome{status: Mismatch, reason: fmt.Sprintf("%s: %v", what, err)}
}

// judge compares a run of positions, the first of which has the given index, and
// keeps the reference's rows that are needed again.
func (p *probe) judge(phase Phase, first, n int, rows func(i int) (reference, candidate []float32)) error {
	for i, m := range compareAll(n, rows) {
		index := first + i
		if !m.ReferenceFinite {
			return &outcome{status: NotMeasured, reason: fmt.Sprintf("reference %s: NaN or infinity in the logits at position %d", p.v.Reference, index)}
		}
		pos := Position{Index: index, Token: p.tokens[index], Phase: phase, Metrics: m, Violation: p.policy.Judge(m, p.vs)}
		if pos.Violation != nil {
			pos.Violation.Position = index
		}
		p.v.Positions = append(p.v.Positions, pos)
		if (phase == Prefill || phase == Decode) && index >= p.keptFrom {
			reference, _ := rows(i)
			p.kept = append(p.kept, slices.Clone(reference))
		}
	}
	return p.verdictSoFar()
}

// verdictSoFar ends the probe after a batch with a violation. The rest of the
// batch is judged first: it is computed already, and a plainer reason than the
// first may be in it.
func (p *probe) verdictSoFar() error {
	if w := worstViolation(p.v.Positions); w != nil && !p.c.Full {
		return &outcome{status: Mismatch, reason: w.Text}
	}
	return nil
}

// worstViolation is the one to tell people: of the plainest metric that is
// broken, the first position; nil if there is none.
func worstViolation(positions []Position) *Violation {
	var worst *Violation
	for i := range positions {
		if w := positions[i].Violation; w != nil && (worst == nil || rank(w.Metric) < rank(worst.Metric)) {
			worst = w
		}
	}
	return worst
}

func rank(metric string) int {
	if i := slices.Index([]string{"finite", "cosine", "argmax"}, metric); i >= 0 {
		return i
	}
	return 3
}

// prefill runs the prompt and returns the reference's next token.
func (p *probe) prefill(prompt []int32) (int32, error) {
	chunk := p.c.MaxBatch
	if p.policy.Probe.OneByOne {
		chunk = 1
	}
	p.tokens = slices.Clone(prompt)
	next := int32(-1)
	for from := 0; from < len(prompt); from += chunk {
		to := min(from+chunk, len(prompt))
		tokens := prompt[from:to]
		want := backend.None // of generation, for this chunk
		if to == len(prompt) {
			want = backend.Last
		}
		announced, err := p.cand.plan(p.ctx, tokens, want)
		if err != nil {
			return next, p.candidateFailed("plan", err)
		}
		for _, n := range announced {
			p.serving[n] = true
		}
		// The reference's first rows come first: they tell how long the candidate may take.
		first := min(from+referenceRows, to)
		if err := p.ref.step(p.ctx, prompt[from:first], backend.All); err != nil {
			return next, p.referenceFailed(err)
		}
		if err := p.cand.step(p.ctx, tokens, backend.All); err != nil {
			return next, p.candidateFailed(fmt.Sprintf("step of %d tokens at position %d", len(tokens), from), err)
		}
		for at, end := from, first; at < to; at, end = end, min(end+referenceRows, to) {
			if at > from {
				if err := p.ref.step(p.ctx, prompt[at:end], backend.All); err != nil {
					return next, p.referenceFailed(err)
				}
			}
			err := p.judge(Prefill, at, end-at, func(i int) (reference, candidate []float32) {
				return p.ref.logits.Row(i), p.cand.logits.Row(at - from + i)
			})
			if err != nil {
				return next, err
			}
		}
		p.last = append(p.last[:0], p.ref.logits.Row(p.ref.logits.Rows()-1)...)
		next = argmax(p.last)
	}
	return next, nil
}

// decode extends both sequences by the reference's greedy continuation. The
// candidate goes ahead with its own choices and the reference checks them in
// one batch; what follows a different choice is taken back on both sides.
func (p *probe) decode(next int32, total int) error {
	ahead := proposals
	if p.policy.Probe.OneByOne {
		ahead = 1
	}
	rows := make([][]float32, 0, proposals)
	for len(p.tokens) < total {
		from := len(p.tokens)
		rows = rows[:0]
		fed := make([]int32, 0, ahead)
		for token := next; token >= 0 && len(fed) < ahead && from+len(fed) < total; token = argmax(rows[len(rows)-1]) {
			if err := p.cand.step(p.ctx, []int32{token}, backend.Last); err != nil {
				return p.candidateFailed(fmt.Sprintf("decode step at position %d", from+len(fed)), err)
			}
			fed = append(fed, token)
			rows = append(rows, slices.Clone(p.cand.logits.Row(0)))
		}
		if len(fed) == 0 {
			return &outcome{status: NotMeasured, reason: fmt.Sprintf("the reference has no next token at position %d", from)}
		}
		if err := p.ref.step(p.ctx, fed, backend.All); err != nil {
			return p.referenceFailed(err)
		}
		confirmed := 0
		for confirmed < len(fed) {
			p.tokens = append(p.tokens, fed[confirmed])
			next = argmax(p.ref.logits.Row(confirmed))
			confirmed++
			if confirmed < len(fed) && fed[confirmed] != next {
				break
			}
		}
		err := p.judge(Decode, from, confirmed, func(i int) (reference, candidate []float32) {
			return p.ref.logits.Row(i), rows[i]
		})
		if err != nil {
			return err
		}
		if held := from + len(fed); len(p.tokens) < held {
			ahead = 1 // a candidate that disagrees often should not run ahead in vain
			if err := p.ref.truncate(p.ctx, len(p.tokens)); err != nil {
				return p.referenceFailed(err)
			}
			if err := p.cand.truncate(p.ctx, len(p.tokens)); err != nil {
				return p.candidateFailed("truncate", err)
			}
		} else if !p.policy.Probe.OneByOne {
			ahead = min(2*ahead, proposals)
		}
	}
	return nil
}

// resume takes the last positions back on the candidate's side and computes
// them again in batches, against the reference's rows of before.
func (p *probe) resume() error {
	if !p.policy.Probe.Resume || len(p.tokens) < 2 {
		return nil
	}
	if err := p.cand.truncate(p.ctx, p.keptFrom); err != nil {
		return p.candidateFailed("truncate", err)
	}
	for from := p.keptFrom; from < len(p.tokens); {
		to := min(from+p.c.MaxBatch, len(p.tokens))
		if last := len(p.tokens) - resumeFew; from < last {
			to = min(to, last)
		}
		if err := p.cand.step(p.ctx, p.tokens[from:to], backend.All); err != nil {
			return p.candidateFailed(fmt.Sprintf("step of %d tokens at position %d after truncation", to-from, from), err)
		}
		err := p.judge(Resume, from, to-from, func(i int) (reference, candidate []float32) {
			return p.kept[from-p.keptFrom+i], p.cand.logits.Row(i)
		})
		if err != nil {
			return err
		}
		from = to
	}
	return nil
}

// serve runs the prompt exactly as generation does, logits of the last token
// only, if that uses kernels which have not run so far.
func (p *probe) serve(prompt int) error {
	missing := false
	for n := range p.serving {
		missing = missing || !p.cand.covered[n]
	}
	if !missing || p.policy.Probe.OneByOne {
		clear(p.serving)
		return nil
	}
	if err := p.cand.truncate(p.ctx, 0); err != nil {
		return p.candidateFailed("truncate", err)
	}
	for from := 0; from < prompt; {
		to := min(from+p.c.MaxBatch, prompt)
		want := backend.None
		if to == prompt {
			want = backend.Last
		}
		if err := p.cand.step(p.ctx, p.tokens[from:to], want); err != nil {
			return p.candidateFailed(fmt.Sprintf("step of %d tokens at position %d as served", to-from, from), err)
		}
		from = to
	}
	return p.judge(Served, prompt-1, 1, func(int) (reference, candidate []float32) { return p.last, p.cand.logits.Row(0) })
}
