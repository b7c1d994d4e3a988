package parity

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
)

const (
	// referenceRows bounds the reference's logits held at once: 32 rows of 150,000
	// are 19 MB. The reference gives the same bits for any chunking.
	referenceRows = 32
	// referenceBatch is how many tokens the reference takes at once where no logits
	// are wanted.
	referenceBatch = 32
	// proposals is how many tokens the candidate decodes before the reference
	// checks them in one batch, for a large vocabulary at least proposalsLeast.
	proposals      = 16
	proposalsLeast = 8
	// proposalsMost is how many they are where memory does not matter: a batch of 4
	// takes the reference nearly as long as one of 16, because it unpacks the weights.
	proposalsMost = 64
	// resumeRows is how many positions are computed again after truncation, for a
	// large vocabulary at least resumeLeast. The reference's rows are kept for it,
	// or computed again where memory is short: after longPrompt positions the
	// executors' own memory is large.
	resumeRows   = 32
	resumeLeast  = 14
	longPrompt   = 128
	checkedLeast = 4 // rows of the reference at once, where memory is short
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
	pieces    bool        // a batch was judged in pieces
	kept      [][]float32 // the reference's rows of the last positions
	keeps     bool        // rows are kept
	resumeAt  int         // no row before this position is kept
	last      []float32   // the reference's row after the prompt
	room      []float32   // for rows of the candidate, if there is some
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
	defer pr.close()
	pr.finish(pr.run(reference, candidate))
	return *pr.v
}

// close frees both sides' sequences.
func (p *probe) close() {
	p.cand.close()
	p.ref.close()
}

func newProbe(ctx context.Context, reference, candidate Source, c Case, p Policy) *probe {
	v := &Verdict{
		Backend: candidate.Backend, Device: candidate.Device, Part: candidate.Part, Reference: reference.Backend,
		Policy: p.Name, MaxBatch: c.MaxBatch, Hashes: c.Hashes,
	}
	v.Hashes.Policy = p.Hash()
	pr := &probe{
		ctx: ctx, c: c, policy: p, v: v, vs: referenceName(reference.Backend, candidate.Backend),
		serving: map[string]bool{},
	}
	pr.ref = side{cost: &v.ReferenceCost, vocab: c.Vocab, covered: map[string]bool{}, limit: func(int) time.Duration { return referenceDeadline }}
	pr.cand = side{cost: &v.CandidateCost, vocab: c.Vocab, covered: map[string]bool{}, limit: pr.deadline}
	if candidate.Software {
		pr.cand.limit = func(tokens int) time.Duration { return SoftwarePatience * pr.deadline(tokens) }
	}
	return pr
}

// referenceDeadline ends a probe whose reference hangs.
const referenceDeadline = 10 * time.Minute

// SoftwarePatience is how many times longer a renderer in software may take than a
// device: it shares the processor with everything else, and is used only by those who
// ask for it. A hang still ends.
const SoftwarePatience = 10

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

// pieceRows is how many rows the candidate is asked for at once: a whole batch
// where the vocabulary is small, otherwise as many as the reference gives.
func (p *probe) pieceRows() int {
	return max(referenceRows, probeLogits/max(p.c.Vocab, 1))
}

// resumed is how many of the last positions are computed again at the end.
func (p *probe) resumed() int {
	return max(resumeLeast, min(resumeRows, probeLogits/2/max(p.c.Vocab, 1)))
}

// proposed is how many tokens the candidate decodes before the reference checks them.
func (p *probe) proposed() int {
	switch {
	case p.policy.Probe.OneByOne:
		return 1
	case p.c.Roomy:
		return proposalsMost
	case !p.keeps:
		return checkedLeast
	}
	return max(proposalsLeast, min(proposals, probeLogits/4/max(p.c.Vocab, 1)))
}

// checked is how many rows the reference gives at once after the prompt.
func (p *probe) checked() int {
	switch {
	case p.c.Roomy:
		return proposalsMost
	case p.keeps:
		return referenceRows
	}
	return checkedLeast
}

// keep sets which of the reference's rows are kept for the end of a probe of so
// many positions.
func (p *probe) keep(total int) {
	p.resumeAt = max(total-p.resumed(), 1)
	p.keeps = total <= longPrompt || p.resumed() == resumeRows || p.c.Roomy
}

func (p *probe) run(reference, candidate Source) error {
	if err := p.runPrompt(reference, candidate); err != nil {
		return err
	}
	return p.runRest()
}

// runPrompt judges the prompt, at its positions and as it is served.
func (p *probe) runPrompt(reference, candidate Source) error {
	d := p.policy.Probe
	prompt := p.c.Tokens
	if !d.WholePrompt {
		prompt = prompt[:min(len(prompt), d.PromptPositions)]
	}
	if len(prompt) == 0 {
		return &outcome{status: NotMeasured, reason: "there is no prompt"}
	}
	if p.c.MaxBatch < 1 || p.c.Vocab < 1 {
		return &outcome{status: NotMeasured, reason: fmt.Sprintf("a batch of %d and a vocabulary of %d", p.c.MaxBatch, p.c.Vocab)}
	}
	if err := p.ref.open(p.ctx, reference, p.total(len(prompt))); err != nil {
		return p.referenceFailed(err)
	}
	if a, ok := p.ref.exec.(interface{ takeRooms() *rooms }); ok {
		if r := a.takeRooms(); r != nil {
			p.ref.rows, p.cand.rows, p.room = r.reference, r.candidate, r.proposals
		}
	}
	if err := p.cand.open(p.ctx, candidate, p.total(len(prompt))); err != nil {
		return p.candidateFailed("cannot start", err)
	}
	first := prompt[:min(len(prompt), d.PromptPositions)]
	if err := p.prefill(first); err != nil {
		return err
	}
	if !p.affordable(len(prompt) - len(first)) {
		prompt = first
	}
	if err := p.referenceTail(prompt[len(first):]); err != nil {
		return err
	}
	if err := p.serve(prompt, len(first)); err != nil {
		return err
	}
	p.v.Context = len(p.tokens)
	return nil
}

// runRest judges what comes after the prompt.
func (p *probe) runRest() error {
	total := p.total(len(p.tokens))
	p.keep(total)
	p.collect()
	if err := p.decode(argmax(p.last), total); err != nil {
		return err
	}
	p.collect()
	if err := p.resume(); err != nil {
		return err
	}
	p.v.Context = len(p.tokens)
	return nil
}

// collect frees what the part of the probe before took, where memory is short.
func (p *probe) collect() {
	if !p.keeps {
		debug.FreeOSMemory()
	}
}

// total is how many positions a probe of such a prompt has.
func (p *probe) total(prompt int) int {
	decode := max(p.policy.Probe.DecodeSteps, p.policy.Probe.MinPositions-prompt)
	if p.c.Context > 0 {
		decode = min(decode, p.c.Context-prompt)
	}
	return prompt + max(decode, 0)
}

// affordable reports whether the reference can be expected to compute so many
// more tokens within the policy's time, from how fast it has been so far.
func (p *probe) affordable(tokens int) bool {
	limit, cost := p.policy.Probe.ContextTime, p.v.ReferenceCost
	if p.c.Full || p.c.Unhurried || tokens <= 0 || limit <= 0 || cost.Tokens == 0 {
		return true
	}
	return float64(cost.Time)/float64(cost.Tokens)*float64(tokens) <= float64(limit)
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
	own := roundingOf(p.ref.exec)
	policy := p.policy.beside(own, p.v.Backend)
	if own != (Limits{}) {
		p.v.CacheRounding = &own
	}
	for i, m := range compareAll(n, rows) {
		index := first + i
		if !m.ReferenceFinite {
			return &outcome{status: NotMeasured, reason: fmt.Sprintf("reference %s: NaN or infinity in the logits at position %d", p.v.Reference, index)}
		}
		pos := Position{Index: index, Token: p.tokens[index], Phase: phase, Metrics: m, Violation: policy.Judge(m, p.vs)}
		if pos.Violation != nil {
			pos.Violation.Position = index
		}
		p.v.Positions = append(p.v.Positions, pos)
		if p.keeps && (phase == Prefill || phase == Decode) && index >= p.resumeAt {
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

// decode extends both sequences by the reference's greedy continuation. The
// candidate goes ahead with its own choices and the reference checks them in
// one batch; what follows a different choice is taken back on both sides.
func (p *probe) decode(follow int32, total int) error {
	ahead := p.proposed()
	var rows [][]float32 // the candidate's, after each of fed
	for len(p.tokens) < total {
		from := len(p.tokens)
		fed := make([]int32, 0, ahead)
		for token := follow; token >= 0 && len(fed) < ahead && from+len(fed) < total; token = argmax(rows[len(fed)-1]) {
			if err := p.cand.step(p.ctx, []int32{token}, backend.Last); err != nil {
				return p.candidateFailed(fmt.Sprintf("decode step at position %d", from+len(fed)), err)
			}
			if len(fed) == len(rows) {
				rows = append(rows, p.makeRow())
			}
			rows[len(fed)] = append(rows[len(fed)][:0], p.cand.logits.Row(0)...)
			fed = append(fed, token)
		}
		if len(fed) == 0 {
			return &outcome{status: NotMeasured, reason: fmt.Sprintf("the reference has no next token at position %d", from)}
		}
		var err error
		if follow, err = p.check(from, fed, rows); err != nil {
			return err
		}
		if len(p.tokens) == from+len(fed) {
			ahead = min(2*ahead, p.proposed())
			continue
		}
		ahead = p.disagreed(ahead)
		if err := p.ref.truncate(p.ctx, len(p.tokens)); err != nil {
			return p.referenceFailed(err)
		}
		if err := p.cand.truncate(p.ctx, len(p.tokens)); err != nil {
			return p.candidateFailed("truncate", err)
		}
	}
	return nil
}

// disagreed is how far a candidate goes ahead that has not chosen as the reference:
// who disagrees often should not do so in vain, while each batch of the reference,
// however small, holds up a start.
func (p *probe) disagreed(ahead int) int {
	if p.c.Roomy {
		return max(ahead/4, 1)
	}
	return 1
}

// makeRow makes room for a row of logits.
func (p *probe) makeRow() []float32 {
	n := min(p.c.Vocab, len(p.room))
	row := p.room[:0:n]
	p.room = p.room[n:]
	return row
}

// check has the reference compute tokens that the candidate went ahead with and
// judges them as far as they are the reference's own choice; those it adds to
// what is confirmed. It returns the reference's next token.
func (p *probe) check(from int, fed []int32, rows [][]float32) (next int32, err error) {
	next = fed[0]
	for at := 0; at < len(fed) && fed[at] == next; {
		end := min(at+p.checked(), len(fed))
		if err := p.ref.step(p.ctx, fed[at:end], backend.All); err != nil {
			return -1, p.referenceFailed(err)
		}
		choices := argmaxes(end-at, p.ref.logits.Row)
		confirmed := at
		for confirmed < end && fed[confirmed] == next {
			p.tokens = append(p.tokens, next)
			next = choices[confirmed-at]
			confirmed++
		}
		err := p.judge(Decode, from+at, confirmed-at, func(i int) (reference, candidate []float32) {
			return p.ref.logits.Row(i), rows[at+i]
		})
		if err != nil {
			return -1, err
		}
		if confirmed < end {
			break
		}
		at = end
	}
	return next, nil
}

// resume takes the last positions back on the candidate's side and computes
// them again in batches, against the reference's rows.
func (p *probe) resume() error {
	if !p.policy.Probe.Resume || len(p.tokens) < 2 {
		return nil
	}
	first := p.resumeAt
	if p.keeps {
		first = len(p.tokens) - len(p.kept)
	} else if err := p.ref.truncate(p.ctx, first); err != nil {
		return p.referenceFailed(err)
	}
	if err := p.cand.truncate(p.ctx, first); err != nil {
		return p.candidateFailed("truncate", err)
	}
	for from := first; from < len(p.tokens); {
		to := min(from+p.c.MaxBatch, len(p.tokens))
		if last := len(p.tokens) - resumeFew; from < last {
			to = min(to, last)
		}
		if err := p.cand.step(p.ctx, p.tokens[from:to], backend.All); err != nil {
			return p.candidateFailed(fmt.Sprintf("step of %d tokens at position %d after truncation", to-from, from), err)
		}
		if err := p.judgeResumed(first, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// judgeResumed compares positions [from, to) that the candidate has computed
// again with the reference's rows, kept from position first on or computed again.
func (p *probe) judgeResumed(first, from, to int) error {
	if p.keeps {
		return p.judge(Resume, from, to-from, func(i int) (reference, candidate []float32) {
			return p.kept[from-first+i], p.cand.logits.Row(i)
		})
	}
	for at := from; at < to; {
		end := min(at+p.checked(), to)
		if err := p.ref.step(p.ctx, p.tokens[at:end], backend.All); err != nil {
			return p.referenceFailed(err)
		}
		err := p.judge(Resume, at, end-at, func(i int) (reference, candidate []float32) {
			return p.ref.logits.Row(i), p.cand.logits.Row(at - from + i)
		})
		if err != nil {
			return err
		}
		at = end
	}
	return nil
}
