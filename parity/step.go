package parity

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
)

// Step is a step that generation is about to run.
type Step struct {
	History []int32 // tokens that the sequence holds
	Tokens  []int32 // of the step
	Want    backend.Want
	// Next are tokens that are known to come after the step, such as the rest of a
	// prompt.
	Next []int32
	// Reach is the position up to which the sequences are judged, beyond the step
	// itself; 0 for the step and what follows it at once.
	Reach int
}

// followUps is the least number of tokens decoded after a step, so that what it
// stored in the cache is judged too.
const followUps = 2

// ProbeStep compares one step, run exactly as generation is about to run it,
// after the same tokens in fresh sequences, and what comes after it: further
// batches and single tokens up to the position s.Reach. It is how a kernel that
// is first met in mid-generation, and a context that is longer than any before,
// are judged before their logits are used.
func ProbeStep(ctx context.Context, reference, candidate Source, c Case, s Step, p Policy) Verdict {
	pr := newProbe(ctx, reference, candidate, c, p)
	defer pr.close()
	pr.finish(pr.runStep(reference, candidate, s))
	return *pr.v
}

func (p *probe) runStep(reference, candidate Source, s Step) error {
	if len(s.Tokens) == 0 {
		return &outcome{status: NotMeasured, reason: "the step is empty"}
	}
	held := len(s.History) + len(s.Tokens)
	total := max(s.Reach, held+followUps)
	if p.c.Context > 0 {
		total = max(held, min(total, p.c.Context))
	}
	if total == held && s.Want == backend.None {
		return &outcome{status: NotMeasured, reason: "the step has no logits and the context no room for a further token"}
	}
	p.tokens = slices.Concat(s.History, s.Tokens)
	p.keeps, p.resumeAt = true, total // nothing is kept
	if err := p.ref.open(p.ctx, reference, total); err != nil {
		return p.referenceFailed(err)
	}
	if err := p.cand.open(p.ctx, candidate, total); err != nil {
		return p.candidateFailed("cannot start", err)
	}
	if err := p.replayReference(s.History, total); err != nil {
		return err
	}
	if err := p.replay(&p.cand, p.c.MaxBatch, s.History); err != nil {
		return p.candidateFailed(fmt.Sprintf("replay of %d tokens", len(s.History)), err)
	}
	announced, err := p.cand.plan(p.ctx, s.Tokens, s.Want)
	if err != nil {
		return p.candidateFailed("plan", err)
	}
	for _, n := range announced {
		p.serving[n] = true
	}
	next, err := p.judgeStep(s)
	if err != nil {
		return err
	}
	if filler := total - held - p.policy.Probe.DecodeSteps; filler > 0 {
		if next, err = p.fill(filler, s.Next); err != nil {
			return err
		}
	}
	if next >= 0 || total > held {
		if err := p.decode(next, total); err != nil {
			return err
		}
	}
	p.v.Context = len(p.tokens)
	return nil
}

// replayReference brings the reference to where the step begins, unless that
// and the way to total would take longer than the policy allows.
func (p *probe) replayReference(history []int32, total int) error {
	first := min(referenceBatch, len(history))
	if err := p.replay(&p.ref, referenceBatch, history[:first]); err != nil {
		return p.referenceFailed(err)
	}
	if !p.affordable(total - first) {
		p.v.tooLong = true
		each := p.v.ReferenceCost.Time / time.Duration(p.v.ReferenceCost.Tokens)
		return &outcome{status: NotMeasured, reason: fmt.Sprintf("comparing %d positions would take the reference about %v",
			total, (each * time.Duration(total)).Round(time.Second))}
	}
	if err := p.replay(&p.ref, referenceBatch, history[first:]); err != nil {
		return p.referenceFailed(err)
	}
	return nil
}

// fill extends both sequences in batches by the tokens that are known to come
// and then by those that they hold already, from the first on: text of the same
// kind, known without decoding. It returns the reference's next token.
func (p *probe) fill(n int, known []int32) (next int32, err error) {
	next = -1
	known = slices.Concat(p.tokens, known)
	for n > 0 {
		from := len(p.tokens)
		size := min(n, p.c.MaxBatch, p.pieceRows())
		for range size {
			p.tokens = append(p.tokens, known[len(p.tokens)%len(known)])
		}
		tokens := p.tokens[from:]
		if err := p.cand.step(p.ctx, tokens, backend.All); err != nil {
			return -1, p.candidateFailed(fmt.Sprintf("step of %d tokens at position %d", size, from), err)
		}
		for at := 0; at < size; {
			end := min(at+referenceRows, size)
			if err := p.ref.step(p.ctx, tokens[at:end], backend.All); err != nil {
				return -1, p.referenceFailed(err)
			}
			err := p.judge(Later, from+at, end-at, func(i int) (reference, candidate []float32) {
				return p.ref.logits.Row(i), p.cand.logits.Row(at + i)
			})
			if err != nil {
				return -1, err
			}
			at = end
		}
		next = argmax(p.ref.logits.Row(p.ref.logits.Rows() - 1))
		n -= size
	}
	return next, nil
}

// replay feeds tokens in batches without asking for logits.
func (p *probe) replay(s *side, batch int, tokens []int32) error {
	for len(tokens) > 0 {
		n := min(batch, len(tokens))
		if err := s.step(p.ctx, tokens[:n], backend.None); err != nil {
			return err
		}
		tokens = tokens[n:]
	}
	return nil
}

// judgeStep runs the step on both sides and returns the reference's next token.
func (p *probe) judgeStep(s Step) (int32, error) {
	from := len(s.History)
	if err := p.cand.step(p.ctx, s.Tokens, s.Want); err != nil {
		return -1, p.candidateFailed(fmt.Sprintf("step of %d tokens at position %d", len(s.Tokens), from), err)
	}
	want := s.Want
	if want == backend.None {
		want = backend.Last // the reference's next token is needed in any case
	}
	rows := backend.Span{Tokens: s.Tokens, Want: s.Want}.Rows()
	for at := 0; at < len(s.Tokens); {
		end := min(at+referenceRows, len(s.Tokens))
		part := want
		if part == backend.Last && end < len(s.Tokens) {
			part = backend.None
		}
		if err := p.ref.step(p.ctx, s.Tokens[at:end], part); err != nil {
			return -1, p.referenceFailed(err)
		}
		if part != backend.None && rows > 0 {
			n := p.ref.logits.Rows()
			first := end - n // in the step's tokens
			err := p.judge(Later, from+first, n, func(i int) (reference, candidate []float32) {
				return p.ref.logits.Row(i), p.cand.logits.Row(first + i - (len(s.Tokens) - rows))
			})
			if err != nil {
				return -1, err
			}
		}
		at = end
	}
	return argmax(p.ref.logits.Row(p.ref.logits.Rows() - 1)), nil
}
