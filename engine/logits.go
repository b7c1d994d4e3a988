package engine

import (
	"context"
	"fmt"

	"github.com/apr-engine/apr/backend"
)

// maxLogits bounds the logits held at once, in numbers: 64 MiB.
const maxLogits = 16 << 20

// Logits makes the session hold exactly tokens and gives yield the logits after
// each position from first on, in order. A row is valid during the call only.
// NaN and infinities are an error, for the file or the executor is broken.
// With first at the last token the steps are those of a generation's prefill.
func (s *Session) Logits(ctx context.Context, tokens []int32, first int, yield func(position int, row []float32) error) error {
	if first < 0 || first >= len(tokens) {
		return fmt.Errorf("%w: logits from position %d of %d tokens", ErrInput, first, len(tokens))
	}
	if first == len(tokens)-1 {
		row, _, err := s.Prefill(ctx, tokens)
		if err != nil {
			return err
		}
		return yield(first, row)
	}
	if err := s.Truncate(0); err != nil {
		return err
	}
	if first > 0 {
		if _, _, err := s.Prefill(ctx, tokens[:first]); err != nil {
			return err
		}
	}
	if len(tokens) > s.Capacity() {
		return fmt.Errorf("%w: %d tokens, the context has room for %d", ErrInput, len(tokens), s.Capacity())
	}
	batch := min(s.e.maxBatch, max(1, maxLogits/s.e.Model.Program.Vocab))
	for position := first; position < len(tokens); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(batch, len(tokens)-position)
		l, err := s.Extend(ctx, tokens[position:position+n], backend.All)
		if err != nil {
			return err
		}
		for i := range n {
			if err := yield(position+i, l.Row(i)); err != nil {
				return err
			}
		}
		position += n
	}
	return nil
}
