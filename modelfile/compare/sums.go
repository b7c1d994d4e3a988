package compare

import (
	"cmp"
	"math"
	"slices"

	"github.com/apr-engine/apr/modelfile/scan"
	"github.com/apr-engine/apr/modelfile/stats"
)

// sums is what chunks are merged by.
type sums struct {
	dot, aa, bb, dd  float64 // a·b, a·a, b·b, |a−b|²
	maxDiff          float64
	minGain, maxGain float64 // of b − a
	notFinite        int64
	worst            []Element // at most keep, the largest difference first
	keep             int
}

func newSums(keep int) sums {
	return sums{keep: keep, minGain: math.Inf(1), maxGain: math.Inf(-1)}
}

func (s *sums) add(o *sums) {
	s.dot += o.dot
	s.aa += o.aa
	s.bb += o.bb
	s.dd += o.dd
	s.maxDiff = max(s.maxDiff, o.maxDiff)
	s.minGain, s.maxGain = min(s.minGain, o.minGain), max(s.maxGain, o.maxGain)
	s.notFinite += o.notFinite
	s.worst = append(s.worst, o.worst...)
	s.trim()
}

// trim keeps the elements with the largest differences; the earlier of equals.
// Elements that are not finite come before all.
func (s *sums) trim() {
	slices.SortStableFunc(s.worst, func(x, y Element) int { return cmp.Compare(distance(y), distance(x)) })
	s.worst = s.worst[:min(len(s.worst), s.keep)]
}

func distance(e Element) float64 {
	d := math.Abs(float64(e.A - e.B))
	if d-d != 0 {
		return math.Inf(1)
	}
	return d
}

// least is the difference that an element needs to be listed.
func (s *sums) least() float64 {
	switch {
	case s.keep == 0:
		return math.Inf(1)
	case len(s.worst) < s.keep:
		return 0
	}
	return distance(s.worst[len(s.worst)-1])
}

// result fills in what the sums say.
func (s *sums) result(t *Tensor) {
	t.NotFinite, t.Worst = s.notFinite, s.worst
	t.MaxDiff = stats.Number(s.maxDiff)
	switch {
	case s.aa == 0 && s.bb == 0:
		t.Cosine, t.Error = 1, 0
	case s.aa == 0:
		t.Cosine, t.Error = 0, stats.Number(math.Inf(1))
	default:
		t.Error = stats.Number(math.Sqrt(s.dd / s.aa))
		if t.Cosine = 0; s.bb > 0 {
			// Rounding may lead beyond 1 by an ulp or two.
			t.Cosine = stats.Number(min(1, s.dot/math.Sqrt(s.aa)/math.Sqrt(s.bb)))
		}
		if s.dd == 0 {
			t.Cosine = 1
		}
	}
	switch const1 := 1e-2; {
	case s.notFinite > 0:
	case s.dd == 0 && t.A.Type != t.B.Type:
		t.Note = "the numbers are the same"
	case math.Abs(s.minGain-1) < const1 && math.Abs(s.maxGain-1) < const1:
		t.Note = "B is A + 1: Hugging Face stores Gemma's norms without the 1 that GGUF adds"
	case math.Abs(s.minGain+1) < const1 && math.Abs(s.maxGain+1) < const1:
		t.Note = "B is A − 1: Hugging Face stores Gemma's norms without the 1 that GGUF adds"
	}
}

// sum goes over the rows of a chunk.
func sum[T scan.Number](p pair, c scan.Chunk, keep int) (sums, error) {
	s := newSums(keep)
	bufA, bufB := scan.Buffer[T](p.a), scan.Buffer[T](p.b)
	for r := c.First; r < c.First+c.Rows; r++ {
		other := r
		if p.row != nil {
			other = p.row(r)
		}
		var err error
		pieces := scan.Pieces(p.a, r, bufA, func(at int, x []T) {
			if err != nil {
				return
			}
			var y []T
			if y, err = scan.PieceAt(p.b, other, at, bufB); err == nil {
				piece(&s, r, at, x, y)
			}
		})
		if err = cmp.Or(pieces, err); err != nil {
			return s, err
		}
	}
	return s, nil
}

// piece adds equally long runs of numbers from column at of row r.
func piece[T scan.Number](s *sums, r, at int, x, y []T) {
	least := s.least()
	listed := len(s.worst)
	for i := range x {
		a, b := float64(x[i]), float64(y[i])
		d := b - a
		if d-d != 0 { // one of them is NaN or infinite
			if a == b || a != a && b != b {
				continue // the same in both
			}
			if s.notFinite++; s.notFinite <= int64(s.keep) {
				s.worst = append(s.worst, Element{r, at + i, stats.Number(a), stats.Number(b)})
			}
			continue
		}
		s.dot += a * b
		s.aa += a * a
		s.bb += b * b
		s.dd += d * d
		s.minGain, s.maxGain = min(s.minGain, d), max(s.maxGain, d)
		if d = math.Abs(d); d > s.maxDiff {
			s.maxDiff = d
		}
		if d > least {
			s.worst = append(s.worst, Element{r, at + i, stats.Number(a), stats.Number(b)})
			if len(s.worst) >= 4*s.keep+64 {
				s.trim()
				least, listed = s.least(), len(s.worst)
			}
		}
	}
	if len(s.worst) > listed {
		s.trim()
	}
}
