package cpu

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// Whatever the workers' order and speed, every row is handed out exactly once, in
// pieces that begin at multiples of the kernels' tiles.
func TestSharesCoverRowsOnce(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 7} {
		for _, rows := range []int{1, 31, 32, 33, 100, 256, 1536, 8961} {
			for _, tokens := range []int{1, fewTokens + 1} {
				for _, idle := range []bool{false, true} { // the first worker does not come at all
					group := []*product{productOf(rows, workers), productOf(32, workers), productOf(rows, workers)}
					for n := range group {
						checkCovered(t, group[:n+1], tokens, idle && workers > 1)
					}
				}
			}
		}
	}
}

// productOf returns a product with rows of more than half a kilobyte.
func productOf(rows, workers int) *product {
	const cols = 1024
	return &product{weights: tensor.Tensor{Type: tensor.Q4_K, Shape: []int{rows, cols}, Data: make([]byte, rows*cols/256*144)}, shares: make(shares, workers)}
}

func checkCovered(t *testing.T, group []*product, tokens int, idle bool) {
	t.Helper()
	align := leastRows
	if tokens > fewTokens {
		align = rowAlign
	}
	code := make([]instr, len(group))
	seen := make([][]atomic.Int32, len(group))
	for i, p := range group {
		code[i].product, seen[i] = p, make([]atomic.Int32, p.weights.Rows())
		p.multiply = func(_, r0, r1 int) {
			if r0%align != 0 || r0 >= r1 {
				t.Errorf("rows %d to %d", r0, r1)
			}
			for r := r0; r < r1; r++ {
				seen[i][r].Add(1)
			}
		}
	}
	linkProducts(code)
	for _, p := range group {
		p.reset(tokens)
	}
	var wg sync.WaitGroup
	for w := range group[0].shares {
		if idle && w == 0 {
			continue
		}
		wg.Go(func() {
			for _, p := range group {
				p.run(w)
			}
		})
	}
	wg.Wait()
	for i := range seen {
		for r := range seen[i] {
			if n := seen[i][r].Load(); n != 1 {
				t.Fatalf("%d workers, product %d of %d: row %d was handed out %d times", len(group[0].shares), i, len(group), r, n)
			}
		}
	}
}

// The last pieces of long rows are few rows, but only for few tokens.
func TestSharesOfLongRows(t *testing.T) {
	long := &product{weights: tensor.Tensor{Type: tensor.F32, Shape: []int{64, 4096}, Data: make([]byte, 64*4096*4)}, shares: make(shares, 2)}
	for _, c := range []struct {
		name   string
		p      *product
		tokens int
		unit   int
	}{
		{"short rows", productOf(64, 2), 1, 16},
		{"long rows", long, fewTokens, leastRows},
		{"long rows, prompt", long, fewTokens + 1, rowAlign},
	} {
		if c.p.reset(c.tokens); c.p.unit != c.unit {
			t.Errorf("%s: %d rows at a time, want %d", c.name, c.p.unit, c.unit)
		}
	}
}

// A worker by itself reads its part in the order of memory, in pieces of whole bands while
// much is left.
func TestSharesInOrder(t *testing.T) {
	const units = 280
	s := make(shares, 2)
	for _, together := range []int{1, 4} {
		s.reset(units)
		for w := range s {
			at, end := w*units/2, (w+1)*units/2
			for at < end {
				from, to, ok := s[w].take(true, together, 1)
				if !ok || from != at {
					t.Fatalf("worker %d takes units %d to %d (%v), want %d", w, from, to, ok, at)
				}
				if n := to - from; end-from >= 2*together && n%together != 0 || n > max(1, (end-from)/2) {
					t.Errorf("worker %d takes %d of %d units", w, n, end-from)
				}
				at = to
			}
		}
	}
}
