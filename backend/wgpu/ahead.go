//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"slices"

	"github.com/apr-engine/apr/backend"
)

// ahead is the commands of the step that is expected next. Recording a token's
// dispatches takes the host about as long as the device needs to do them, so while
// the device is busy with one token the next is recorded: all that differs between
// them lies in buffers.
type ahead struct {
	last []*sequence // of the step before, if every span of it was one token
	rec  *recording  // finished; nil for none
	key  []*sequence
	want int // rows of logits that rec copies
}

// alone returns the sequences of a piece that is a whole step of one token for each;
// nil for any other.
func alone(batch []backend.Span, p piece) []*sequence {
	if p.tokens != len(batch) || len(p.spans) != len(batch) || p.wanted != p.tokens {
		return nil
	}
	list := make([]*sequence, len(batch))
	for i, s := range batch {
		list[i] = s.Seq.(*sequence)
	}
	return list
}

// take returns the commands of a piece: those recorded ahead if they fit.
func (a *ahead) take(e *executor, batch []backend.Span, p piece, logits int) *recording {
	if rec := a.rec; rec != nil {
		key := a.key
		a.rec, a.key = nil, nil
		if slices.Equal(key, alone(batch, p)) && a.want == logits {
			return rec
		}
		rec.Release()
	}
	return e.record(batch, p, logits)
}

// prepare records the step that follows if the last two were of one token for each of
// the same sequences: then a third is likely.
func (a *ahead) prepare(e *executor, batch []backend.Span, p piece, logits int) error {
	now := alone(batch, p)
	again := now != nil && slices.Equal(a.last, now)
	a.last = now
	if !again || e.trace != nil || e.profile != nil {
		return nil
	}
	rec := e.record(slices.Clone(batch), p, logits)
	if err := rec.Finish(); err != nil {
		rec.Release()
		return err
	}
	a.rec, a.key, a.want = rec, now, logits
	return nil
}

// forget drops what was recorded, because the sequence ends; nil for any.
func (a *ahead) forget(s *sequence) {
	if s != nil && !slices.Contains(a.key, s) && !slices.Contains(a.last, s) {
		return
	}
	if a.rec != nil {
		a.rec.Release()
	}
	*a = ahead{}
}
