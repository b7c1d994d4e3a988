package parity

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Metrics compares a candidate's logits with the reference's at one position.
// Errors (RMS, P99, P999, Peak) are divided by the standard deviation of the
// reference's logits. Where a side is not finite, or the lengths differ, Cosine
// is 0 and every error is math.MaxFloat64, so that the value can be written as
// JSON and breaks every limit.
type Metrics struct {
	Cosine float64 `json:"cosine"` // 0 where a norm is zero
	KL     float64 `json:"kl"`     // of the candidate from the reference, nats
	MaxAbs float64 `json:"max_abs"`
	RMS    float64 `json:"rms"`
	P99    float64 `json:"p99"`
	P999   float64 `json:"p999"`
	Peak   float64 `json:"peak"`
	// Close is the share of elements whose error is at most CloseLimit.
	Close float64 `json:"close_share"`
	// Overlap is how many of the ten best tokens both have.
	Overlap         int   `json:"top10_overlap"`
	ReferenceArgmax int32 `json:"reference_argmax"`
	CandidateArgmax int32 `json:"candidate_argmax"`
	// ReferenceMargin is how much lower the reference rates the candidate's choice
	// than its own, as a share of the spread between its best and tenth-best
	// logit; CandidateMargin is the candidate's view of the same pair. Both are 0
	// where the choices agree.
	ReferenceMargin float64 `json:"reference_margin"`
	CandidateMargin float64 `json:"candidate_margin"`
	ReferenceFinite bool    `json:"reference_finite"`
	CandidateFinite bool    `json:"candidate_finite"`
}

// topCount is how many of the best tokens overlap and spread look at.
const topCount = 10

// CloseLimit is the error, in standard deviations of the reference's logits, up
// to which an element counts as close.
const CloseLimit = 0.25

// worst is what a metric is when it cannot be computed.
const worst = math.MaxFloat64

// Compare measures a candidate's logits against the reference's.
func Compare(reference, candidate []float32) Metrics {
	return compareAll(1, func(int) (r, c []float32) { return reference, candidate })[0]
}

// comparison is a row in the course of being compared.
type comparison struct {
	reference, candidate []float32
	m                    *Metrics
}

// parts of a comparison, each with fields of its own, in the order in which they must
// be: the first two find out whether there is anything to compare.
var parts = [...]func(c comparison, errs *[]float64){
	func(c comparison, _ *[]float64) {
		c.m.ReferenceFinite, c.m.ReferenceArgmax = finite(c.reference), argmax(c.reference)
	},
	func(c comparison, _ *[]float64) {
		c.m.CandidateFinite, c.m.CandidateArgmax = finite(c.candidate), argmax(c.candidate)
	},
	func(c comparison, _ *[]float64) {
		c.m.KL = divergence(c.reference, c.candidate, c.reference[c.m.ReferenceArgmax], c.candidate[c.m.CandidateArgmax])
	},
	func(c comparison, errs *[]float64) { c.m.errors(c.reference, c.candidate, errs) },
	func(c comparison, _ *[]float64) { c.m.Cosine = cosine(c.reference, c.candidate) },
	func(c comparison, _ *[]float64) { c.m.margins(c.reference, c.candidate) },
}

// looks is how many of parts only look at the numbers.
const looks = 2

// comparable reports whether there are numbers to compare; the metrics say so if not.
func (c comparison) comparable() bool {
	m := c.m
	if m.ReferenceFinite && m.CandidateFinite && len(c.reference) == len(c.candidate) {
		return true
	}
	m.KL, m.MaxAbs, m.RMS, m.P99, m.P999, m.Peak = worst, worst, worst, worst, worst, worst
	m.ReferenceMargin, m.CandidateMargin = worst, worst
	return false
}

// compareAll compares n rows on all CPUs, the parts of a row apart: there may be fewer
// rows than CPUs, and one takes longer than several steps of a GPU.
func compareAll(n int, rows func(i int) (reference, candidate []float32)) []Metrics {
	out := make([]Metrics, n)
	all := make([]comparison, n)
	for i := range all {
		reference, candidate := rows(i)
		all[i] = comparison{reference, candidate, &out[i]}
	}
	shareOut(looks*n, func(i int, errs *[]float64) { parts[i/n](all[i%n], errs) })
	all = slices.DeleteFunc(all, func(c comparison) bool { return !c.comparable() })
	if n = len(all); n > 0 {
		shareOut((len(parts)-looks)*n, func(i int, errs *[]float64) { parts[looks+i/n](all[i%n], errs) })
	}
	return out
}

// scratch holds memory for the errors of a row: with 150,000 logits it is a megabyte.
var scratch sync.Pool

// shareOut does n things on all CPUs.
func shareOut(n int, do func(i int, errs *[]float64)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			errs, _ := scratch.Get().(*[]float64)
			if errs == nil {
				errs = new([]float64)
			}
			defer scratch.Put(errs)
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i, errs)
			}
		})
	}
	workers.Wait()
}

// finite reports whether there are numbers and all of them are finite.
func finite(x []float32) bool {
	for _, v := range x {
		if v-v != 0 {
			return false
		}
	}
	return len(x) > 0
}

// argmax is the index of the first largest number, -1 if there is none.
func argmax(x []float32) int32 {
	best, most := -1, float32(0)
	for i, v := range x {
		if v == v {
			best, most = i, v
			break
		}
	}
	for i := best + 1; i < len(x) && best >= 0; i++ {
		if x[i] > most {
			best, most = i, x[i]
		}
	}
	return int32(best)
}

// argmaxes is that of n rows, on all CPUs.
func argmaxes(n int, row func(i int) []float32) []int32 {
	out := make([]int32, n)
	shareOut(n, func(i int, _ *[]float64) { out[i] = argmax(row(i)) })
	return out
}

// cosine sums in float64; a zero vector is similar to nothing.
func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab += x * y
		aa += x * x
		bb += y * y
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / (math.Sqrt(aa) * math.Sqrt(bb))
}

// divergence is KL(softmax(reference) ‖ softmax(candidate)) in nats, never negative;
// refMax and candMax are the largest of their logits.
func divergence(reference, candidate []float32, refMax, candMax float32) float64 {
	var refSum, candSum, weighted float64
	for i := range reference {
		r, c := float64(reference[i])-float64(refMax), float64(candidate[i])-float64(candMax)
		e := exponential(r)
		refSum += e
		candSum += exponential(c)
		weighted += e * (r - c)
	}
	// Σ p·(ln p - ln q) with p = e/refSum; rounding can leave a tiny negative sum.
	return max(weighted/refSum-math.Log(refSum)+math.Log(candSum), 0)
}

// powers are 2^(i/len(powers)).
var powers = func() (p [256]float64) {
	for i := range p {
		p[i] = math.Exp2(float64(i) / float64(len(p)))
	}
	return p
}()

// exponential is e^x of x ≤ 0, to some parts in 10^15 above e^-50: a third of the time
// of math.Exp, which was more than half of a comparison's. It takes 2^(k/256) from the
// table, for the k that leaves a rest of at most 0.0014, and four terms of the series.
func exponential(x float64) float64 {
	const step = math.Ln2 / float64(len(powers))
	if x < -700 {
		return 0 // 1e-304, beside a sum of at least 1
	}
	k := int(x/step - 0.5)
	r := x - float64(k)*step
	scale := math.Float64frombits(uint64(k>>8+1023) << 52)
	return scale * powers[k&255] * (1 + r*(1+r*(1./2+r*(1./6+r*(1./24)))))
}

// errors fills everything about the distribution of the differences.
func (m *Metrics) errors(reference, candidate []float32, errs *[]float64) {
	n := float64(len(reference))
	var mean, square float64
	for _, v := range reference {
		mean += float64(v)
	}
	mean /= n
	for _, v := range reference {
		d := float64(v) - mean
		square += d * d
	}
	scale := math.Sqrt(square / n)
	abs := slices.Grow((*errs)[:0], len(reference))[:len(reference)]
	*errs = abs
	// Logits that are all equal have no scale: any difference is too much.
	scaled := worst
	if scale > 0 {
		scaled = min(1/scale, worst)
	}
	// The builtins min and max look for NaN, which takes half of the time.
	sum, largestAbs, near := 0.0, 0.0, 0
	for i, r := range reference {
		d := math.Abs(float64(candidate[i]) - float64(r))
		if d > largestAbs {
			largestAbs = d
		}
		if d *= scaled; d > worst {
			d = worst
		}
		abs[i] = d
		if d <= CloseLimit {
			near++
		}
		sum += d * d
	}
	m.MaxAbs = largestAbs
	m.RMS, m.Close = min(math.Sqrt(sum/n), worst), float64(near)/n
	at := rankOf(len(abs), 0.99)
	top := largest(abs, len(abs)-at)
	m.P99, m.P999, m.Peak = top[0], top[rankOf(len(abs), 0.999)-at], top[len(top)-1]
}

// samples is how many of the numbers tell largest where to look.
const samples = 1024

// largest sorts the n largest of the numbers, and leaves them somewhere in x: sorting
// all 150,000 errors takes longer than a step of a GPU.
func largest(x []float64, n int) []float64 {
	if len(x) > 4*samples {
		// Twice as many as are wanted probably exceed a number that is chosen so in a
		// sample; a pass that moves few numbers is faster than one that moves half.
		var sample [samples]float64
		for i := range sample {
			sample[i] = x[i*(len(x)/samples)]
		}
		slices.Sort(sample[:])
		pivot, above := sample[max(samples-1-2*samples*n/len(x), 0)], 0
		for i, v := range x {
			if v >= pivot {
				x[i], x[above] = x[above], v
				above++
			}
		}
		if above >= n {
			x = x[:above]
		}
	}
	selectRank(x, len(x)-n)
	slices.Sort(x[len(x)-n:])
	return x[len(x)-n:]
}

// rankOf is the index, in n sorted numbers, of the smallest that at least a
// share q do not exceed.
func rankOf(n int, q float64) int { return max(int(math.Ceil(q*float64(n)))-1, 0) }

// selectRank puts the number of rank k at index k, smaller ones before and
// larger ones after it (Hoare 1961). Equal numbers split evenly.
func selectRank(x []float64, k int) {
	lo, hi := 0, len(x)-1
	for lo < hi {
		pivot := median(x[lo], x[lo+(hi-lo)/2], x[hi])
		i, j := lo, hi
		for i <= j {
			for x[i] < pivot {
				i++
			}
			for x[j] > pivot {
				j--
			}
			if i <= j {
				x[i], x[j] = x[j], x[i]
				i++
				j--
			}
		}
		switch {
		case k <= j:
			hi = j
		case k >= i:
			lo = i
		default:
			return
		}
	}
}

func median(a, b, c float64) float64 { return max(min(a, b), min(max(a, b), c)) }

// margins compares the best tokens of both sides.
func (m *Metrics) margins(reference, candidate []float32) {
	refTop, candTop := top(reference), top(candidate)
	for _, id := range candTop {
		if slices.Contains(refTop, id) {
			m.Overlap++
		}
	}
	r, c := m.ReferenceArgmax, m.CandidateArgmax
	if r == c {
		return
	}
	spread := float64(reference[refTop[0]]) - float64(reference[refTop[len(refTop)-1]])
	m.ReferenceMargin = share(float64(reference[r])-float64(reference[c]), spread)
	m.CandidateMargin = share(float64(candidate[c])-float64(candidate[r]), spread)
}

// share is a/b; 0/0 is 0 because equal logits are a tie at any scale.
func share(a, b float64) float64 {
	switch {
	case a == 0:
		return 0
	case b == 0:
		return worst
	}
	return min(a/b, worst)
}

// top returns the indices of the ten largest numbers, best first.
func top(x []float32) []int32 {
	best := make([]int32, 0, topCount+1)
	for i, v := range x {
		if len(best) == topCount && v <= x[best[topCount-1]] {
			continue
		}
		at := len(best)
		for at > 0 && v > x[best[at-1]] {
			at--
		}
		best = slices.Insert(best, at, int32(i))
		best = best[:min(len(best), topCount)]
	}
	return best
}
