package check

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/apr-engine/apr/modelfile/names"
	"github.com/apr-engine/apr/modelfile/scan"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// part is what one chunk shows.
type part struct {
	dead     int // rows of zeros
	firstRow int // the first of them
	bad      int // element where the first block that is not finite begins; −1 for none
}

// numbers checks the content of tensors.
func (r *Report) numbers(ctx context.Context, tensors []tensor.Tensor, threads int) error {
	tensors = slices.DeleteFunc(slices.Clone(tensors), func(t tensor.Tensor) bool { return !scan.Readable(t.Type) || len(t.Data) == 0 })
	chunks := scan.Chunks(tensors)
	parts := make([]part, len(chunks))
	err := scan.Each(ctx, threads, len(chunks), func(i int) (err error) {
		parts[i], err = look(tensors[chunks[i].Tensor], chunks[i])
		return err
	})
	if err != nil {
		return err
	}
	totals := make([]part, len(tensors))
	for i := range totals {
		totals[i] = part{bad: -1}
	}
	for i, c := range chunks {
		p, t := parts[i], &totals[c.Tensor]
		if t.dead == 0 {
			t.firstRow = p.firstRow
		}
		t.dead += p.dead
		if t.bad < 0 {
			t.bad = p.bad
		}
	}
	for i, t := range tensors {
		r.content(t, totals[i])
	}
	r.sameBytes(tensors)
	return nil
}

// look checks a run of rows: scales first, which is a pass at memory speed, then
// whether rows are zero, which needs little more than each row's first block.
func look(t tensor.Tensor, c scan.Chunk) (part, error) {
	p := part{bad: -1}
	row := len(t.Data) / t.Rows()
	data := t.Data[c.First*row : (c.First+c.Rows)*row]
	if scan.Exact(t.Type) {
		if block, ok := quant.Validate(t.Type, data); !ok {
			p.bad = c.First*t.Cols() + block*t.Type.BlockLen()
		}
	} else if t.Type == tensor.F64 {
		p.bad = badF64(t, c)
	}
	dead := func(n int) error {
		block := make([]float32, t.Type.BlockLen())
		for r := c.First; r < c.First+n; r++ {
			zero, err := isZero(t, t.Row(r), block)
			if err != nil {
				return err
			}
			if zero {
				if p.dead == 0 {
					p.firstRow = r
				}
				p.dead++
			}
		}
		return nil
	}
	return p, dead(c.Rows)
}

// badF64 finds the first number that is not finite.
func badF64(t tensor.Tensor, c scan.Chunk) int {
	bad := -1
	buf := scan.Buffer[float64](t)
	for r := c.First; r < c.First+c.Rows && bad < 0; r++ {
		// The type is one that Pieces decodes, so it does not fail.
		_ = scan.Pieces(t, r, buf, func(at int, x []float64) {
			for i, v := range x {
				if v-v != 0 && bad < 0 {
					bad = r*t.Cols() + at + i
				}
			}
		})
	}
	return bad
}

// isZero reports whether every number of a row is zero. It looks at one block
// after another and ends at the first number.
func isZero(t tensor.Tensor, row []byte, block []float32) (bool, error) {
	size := t.Type.BlockBytes()
	if len(block) == 1 {
		return zeroBytes(row, size), nil
	}
	for ; len(row) > 0; row = row[size:] {
		if err := scan.Decode(t.Type, block, row[:size]); err != nil {
			return false, fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		for _, x := range block {
			if x != 0 {
				return false, nil
			}
		}
	}
	return true, nil
}

// zeroBytes reports whether plain numbers of n bytes are zero, of either sign;
// integers have no negative zero, but a byte of 0x80 alone is rare enough.
func zeroBytes(row []byte, n int) bool {
	for i, b := range row {
		if b != 0 && (n == 1 || b != 0x80 || (i+1)%n != 0) {
			return false
		}
	}
	return true
}

// manyDead is the share of embedding rows from which zeros are no longer unused
// tokens.
const manyDead = 0.25

// content turns what was seen of a tensor into findings.
func (r *Report) content(t tensor.Tensor, p part) {
	if p.bad >= 0 {
		row, col := p.bad/t.Cols(), p.bad%t.Cols()
		where := fmt.Sprintf("element [%d, %d] is", row, col)
		if t.Type.BlockLen() > 1 {
			where = fmt.Sprintf("the scale of the block of %d at [%d, %d] is", t.Type.BlockLen(), row, col)
		}
		r.add(KindNotFinite, Error, t.Name, "%s NaN or infinite", where)
	}
	rows := t.Rows()
	matrix := len(t.Shape) > 1 && rows > 1
	switch {
	case p.dead == 0:
	case p.dead == rows && matrix:
		r.add(KindZeroTensor, Error, t.Name, "all %d numbers are zero", t.Elements())
	case p.dead == rows && !strings.HasSuffix(t.Name, ".bias"):
		r.add(KindZeroTensor, Warning, t.Name, "all %d numbers are zero", t.Elements())
	case matrix:
		severity := Warning
		switch names.Canonical(t.Name, false) {
		case "token_embd.weight", "output.weight":
			if float64(p.dead) < manyDead*float64(rows) {
				severity = Note // rows of tokens that never occur
			}
		}
		r.add(KindDeadRows, severity, t.Name, "%d of %d rows are all zeros, the first is row %d", p.dead, rows, p.firstRow)
	}
}

// sameBytes looks for matrices with the same content.
func (r *Report) sameBytes(tensors []tensor.Tensor) {
	type key struct {
		typ  tensor.DType
		size int
		hash uint64
	}
	seed := maphash.MakeSeed()
	seen := map[key][]tensor.Tensor{}
	for _, t := range tensors {
		if len(t.Shape) < 2 || t.Rows() < 2 {
			continue // norms and biases of fresh models are often alike
		}
		// A few places tell most tensors apart without reading them all.
		var h maphash.Hash
		h.SetSeed(seed)
		for _, at := range []int{0, len(t.Data) / 3, len(t.Data) / 2} {
			h.Write(t.Data[at:min(at+64, len(t.Data))])
		}
		k := key{t.Type, len(t.Data), h.Sum64()}
		i := slices.IndexFunc(seen[k], func(o tensor.Tensor) bool { return slices.Equal(o.Shape, t.Shape) && bytes.Equal(o.Data, t.Data) })
		if i < 0 {
			seen[k] = append(seen[k], t)
			continue
		}
		if zero, err := isZero(t, t.Data, make([]float32, t.Type.BlockLen())); zero || err != nil {
			continue // reported already
		}
		other := seen[k][i].Name
		pair := []string{names.Canonical(t.Name, false), names.Canonical(other, false)}
		severity, hint := Warning, ""
		if slices.Contains(pair, "output.weight") && slices.Contains(pair, "token_embd.weight") {
			severity, hint = Note, "; without it the model is the same (tied embeddings)"
		}
		r.add(KindSameBytes, severity, t.Name, "has the same content as %s, %d bytes%s", other, len(t.Data), hint)
	}
}
