package parity

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
)

// ProbeTogether compares a step of one token in each of several sequences, run
// at once as generation is about to run it, after the same tokens in fresh
// sequences; and further such steps, which read what the first one stored. The
// reference computes each text by itself, and once if several sequences hold it.
// Reach and Want of the steps are not looked at: the logits of every token are judged.
func ProbeTogether(ctx context.Context, reference, candidate Source, c Case, steps []Step, p Policy) Verdict {
	pr := newProbe(ctx, reference, candidate, c, p)
	refs, cands := make([]*side, len(steps)), make([]side, len(steps))
	for i, s := range steps {
		if j := slices.IndexFunc(steps[:i], s.sameText); j >= 0 {
			refs[i] = refs[j]
		} else {
			ref := pr.ref
			refs[i] = &ref
			defer refs[i].close()
		}
		cands[i] = pr.cand
		defer cands[i].close()
	}
	err := pr.runTogether(reference, candidate, steps, refs, cands)
	for _, s := range cands { // a failure of one is a failure of the executor
		pr.cand.stuck = pr.cand.stuck || s.stuck
	}
	pr.finish(err)
	return *pr.v
}

// sameText reports whether both steps leave the same tokens in their sequences.
func (s Step) sameText(other Step) bool {
	return slices.Equal(s.Tokens, other.Tokens) && slices.Equal(s.History, other.History)
}

// runTogether has a side of the reference for each sequence, the same one for those
// with the same text.
func (p *probe) runTogether(reference, candidate Source, steps []Step, refs []*side, cands []side) error {
	texts := make([][]int32, len(steps))
	for i, s := range steps {
		if len(s.Tokens) != 1 {
			return &outcome{status: NotMeasured, reason: fmt.Sprintf("%d tokens for sequence %d, want one", len(s.Tokens), i)}
		}
		texts[i] = slices.Concat(s.History, s.Tokens)
		total := len(texts[i]) + followUps
		if refs[i].seq == nil {
			if err := refs[i].open(p.ctx, reference, total); err != nil {
				return p.referenceFailed(err)
			}
			p.ref.exec = refs[i].exec // the same one for all, which judge asks what it rounds
			if err := p.replay(refs[i], referenceBatch, s.History); err != nil {
				return p.referenceFailed(err)
			}
		}
		if err := cands[i].open(p.ctx, candidate, total); err != nil {
			return p.candidateFailed("cannot start", err)
		}
		if err := p.replay(&cands[i], p.c.MaxBatch, s.History); err != nil {
			return p.candidateFailed(fmt.Sprintf("replay of %d tokens", len(s.History)), err)
		}
	}
	for range 1 + followUps {
		if err := p.judgeTogether(refs, cands, texts); err != nil {
			return err
		}
		for i := range texts {
			texts[i] = append(texts[i], argmax(refs[i].logits.Row(0)))
		}
	}
	return nil
}

// judgeTogether runs the last token of each text on both sides.
func (p *probe) judgeTogether(refs []*side, cands []side, texts [][]int32) error {
	batch := make([]backend.Span, len(texts))
	for i, text := range texts {
		at := len(text) - 1
		if p.c.Context > 0 && at >= p.c.Context {
			return nil // no model is judged beyond its context
		}
		batch[i] = backend.Span{Seq: cands[i].seq, Tokens: text[at:], Want: backend.Last}
		if slices.Index(refs, refs[i]) < i {
			continue // its text is computed
		}
		if err := refs[i].step(p.ctx, text[at:], backend.Last); err != nil {
			return p.referenceFailed(err)
		}
	}
	if err := cands[0].stepTogether(p.ctx, batch); err != nil {
		return p.candidateFailed(fmt.Sprintf("step of %d sequences", len(batch)), err)
	}
	for i, text := range texts {
		p.tokens, p.keeps = text, false
		err := p.judge(Later, len(text)-1, 1, func(int) (reference, candidate []float32) {
			return refs[i].logits.Row(0), cands[0].logits.Row(i)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// stepTogether extends several sequences by a token each; their logits come into
// the side's own.
func (s *side) stepTogether(ctx context.Context, batch []backend.Span) error {
	s.blank(len(batch))
	var names []string
	start := time.Now()
	err := s.guard(ctx, s.limit(len(batch)), func() error {
		names = slices.Clone(s.exec.Plan(batch))
		return s.exec.Step(batch, &s.logits)
	})
	s.cost.Time += time.Since(start)
	s.cost.Tokens += len(batch)
	s.cost.Steps++
	if err != nil {
		return err
	}
	for _, n := range names {
		s.covered[n] = true
	}
	if s.logits.Vocab != s.vocab || len(s.logits.Data) != len(batch)*s.vocab {
		return fmt.Errorf("%d logits of width %d, want %d rows of %d", len(s.logits.Data), s.logits.Vocab, len(batch), s.vocab)
	}
	return nil
}
