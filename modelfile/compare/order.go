package compare

import (
	"context"
	"strings"

	"github.com/apr-engine/apr/modelfile/source"
)

// reordered is the cosine below which the other order of rows is tried: a
// quantised copy is well above, an unrelated matrix near zero.
const reordered = 0.9

// tryOrders compares query and key projections with the rows of each head in the
// order of the other rotation (llama's GGUF files have neighbours rotated together,
// Hugging Face's halves) and returns that comparison if it is the better one.
func tryOrders(ctx context.Context, p pair, plain Tensor, a, b *source.Model, o Options) (Tensor, error) {
	query, key := strings.Contains(p.name, ".attn_q."), strings.Contains(p.name, ".attn_k.")
	if !query && !key || plain.Note != "" {
		return plain, nil
	}
	if len(p.a.Shape) == 1 { // a bias: its elements are rows of one
		p.a.Shape = []int{p.a.Cols(), 1}
		p.b.Shape = p.a.Shape
		if p.a.Type.BlockLen() != 1 || p.b.Type.BlockLen() != 1 {
			return plain, nil
		}
	}
	heads := headCount(a, key)
	if heads == 0 {
		heads = headCount(b, key)
	}
	rows := p.a.Rows()
	if heads == 0 || rows%heads != 0 || rows/heads%2 != 0 {
		return plain, nil
	}
	width := rows / heads
	half := width / 2
	best := plain
	for _, order := range []struct {
		note string
		row  func(r int) int
	}{
		{"compared with A's rows in neighbouring pairs, B's in halves (RoPE order)", func(r int) int { i := r % width; return r - i + i%2*half + i/2 }},
		{"compared with A's rows in halves, B's in neighbouring pairs (RoPE order)", func(r int) int { i := r % width; return r - i + i%half*2 + i/half }},
	} {
		p.row = order.row
		t, err := compareTensor(ctx, p, o)
		if err != nil {
			return plain, err
		}
		if t.Cosine > best.Cosine && t.Cosine >= reordered {
			best = t
			best.A, best.B, best.Note = plain.A, plain.B, order.note
		}
	}
	return best, nil
}

// headCount is the number of query heads, or of key heads, by the metadata; 0 if
// they do not say.
func headCount(m *source.Model, key bool) int {
	arch := m.Architecture()
	if key {
		if n, ok := m.Metadata.Uint(arch + ".attention.head_count_kv"); ok && n < 1<<16 {
			return int(n)
		}
	}
	n, ok := m.Metadata.Uint(arch + ".attention.head_count")
	if !ok || n >= 1<<16 {
		return 0
	}
	return int(n)
}
