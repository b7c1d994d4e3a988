package parity

import (
	"context"
	"fmt"
	"slices"

	"github.com/apr-engine/apr/backend"
)

// Step is a step that generation is about to run.
type Step struct {
	History []int32 // tokens that the sequence holds
	Tokens  []int32 // of the step
	Want    backend.Want
}

// followUps is how many tokens are decoded after a step, so that what it stored
// in the cache is judged too.
const followUps = 2

// ProbeStep compares one step, run exactly as generation is about to run it,
// after the same tokens in fresh sequences, and a few single tokens after it.
// It is how a kernel that is first met in mid-generation is judged before its
// logits are used.
func ProbeStep(ctx context.Context, reference, candidate Source, c Case, s Step, p Policy) Verdict {
	pr := newProbe(ctx, reference, candidate, c, p)
	defer pr.ref.close()
	defer pr.cand.close()
	pr.finish(pr.runStep(reference, candidate, s))
	return *pr.v
}

func (p *probe) runStep(reference, candidate Source, s Step) error {
	if len(s.Tokens) == 0 {
		return &outcome{status: NotMeasured, reason: "the step is empty"}
	}
	held := len(s.History) + len(s.Tokens)
	after := followUps
	if p.c.Context > 0 {
		after = min(after, p.c.Context-held)
	}
	if after < 1 && s.Want == backend.None {
		return &outcome{status: NotMeasured, reason: "the step has no logits and the context no room for a further token"}
	}
	p.tokens = slices.Concat(s.History, s.Tokens)
	p.keptFrom = held + max(after, 0) // nothing is kept
	if err := p.ref.open(p.ctx, reference, p.keptFrom); err != nil {
		return p.referenceFailed(err)
	}
	if err := p.cand.open(p.ctx, candidate, p.keptFrom); err != nil {
		return p.candidateFailed("cannot start", err)
	}
	if err := p.replay(&p.ref, s.History); err != nil {
		return p.referenceFailed(err)
	}
	if err := p.replay(&p.cand, s.History); err != nil {
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
	return p.followUp(next, max(after, 0))
}

// replay feeds tokens in batches without asking for logits.
func (p *probe) replay(s *side, tokens []int32) error {
	for len(tokens) > 0 {
		n := min(p.c.MaxBatch, len(tokens))
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
		for i := range p.ref.logits.Rows() {
			index := end - p.ref.logits.Rows() + i
			if part == backend.None || rows == 0 {
				break
			}
			row := p.cand.logits.Row(index - (len(s.Tokens) - rows))
			if err := p.judge(Later, from+index, p.ref.logits.Row(i), row); err != nil {
				return -1, err
			}
		}
		if err := p.verdictSoFar(); err != nil {
			return -1, err
		}
		at = end
	}
	return argmax(p.ref.logits.Row(p.ref.logits.Rows() - 1)), nil
}

// followUp decodes a few tokens of the reference's choice.
func (p *probe) followUp(next int32, steps int) error {
	for range steps {
		if next < 0 {
			return nil
		}
		token := []int32{next}
		p.tokens = append(p.tokens, next)
		if err := p.ref.step(p.ctx, token, backend.Last); err != nil {
			return p.referenceFailed(err)
		}
		if err := p.cand.step(p.ctx, token, backend.Last); err != nil {
			return p.candidateFailed(fmt.Sprintf("decode step at position %d", len(p.tokens)-1), err)
		}
		if err := p.judge(Later, len(p.tokens)-1, p.ref.logits.Row(0), p.cand.logits.Row(0)); err != nil {
			return err
		}
		if err := p.verdictSoFar(); err != nil {
			return err
		}
		next = argmax(p.ref.logits.Row(0))
	}
	return nil
}
