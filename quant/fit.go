package quant

import "math"

// The quantisers share one method. For a group of numbers x with weights w they
// look for the scale (and minimum) whose nearest levels give the least weighted
// squared error: starting points on a grid, then alternating "nearest level for
// this scale" and "best scale for these levels" (least squares) until it stops
// improving. K-quants then choose the block's own scale and the groups' integer
// scales together (superblock.go). ggml stops after the grid and rounds the
// integer scales one by one.
//
// All of it is float64: scalar code is as fast as in float32, and the error can
// be had from sums without losing it to cancellation. Products that are added
// are converted so that no platform fuses them and files come out the same
// everywhere.

// roundShift added to a float64 below 2^51 leaves it rounded to nearest even in
// the lowest bits.
const (
	roundShift     = 3 << 51
	roundShiftBits = 0x4338000000000000
)

func nearest(v float64) int {
	return int(int64(math.Float64bits(float64(v)+roundShift)) - roundShiftBits)
}

// search says which starting points a fit tries: the extreme number is put at
// level nmax + first, nmax + first + step, … n of them. Beyond nmax it is cut
// off there, which often pays: the other numbers get finer levels. With mirror
// the same is tried at the other end of the levels.
type search struct {
	first, step float64
	n           int
	mirror      bool
}

// sums describe a group with its levels l fixed; then the weighted error is a
// quadratic in scale and minimum.
type sums struct {
	w, wx, wxx   float64 // Σw, Σwx, Σwx²: of the numbers alone
	wl, wll, wxl float64 // Σwl, Σwl², Σwxl
}

// at is the weighted error Σw(x − s·l − m)².
func (a *sums) at(s, m float64) float64 {
	return a.wxx + float64(s*float64(float64(s*a.wll)+float64(2*float64(m*a.wl))-float64(2*a.wxl))) +
		float64(m*(float64(m*a.w)-float64(2*a.wx)))
}

// symmetric is at(s, 0).
func (a *sums) symmetric(s float64) float64 {
	return a.wxx + float64(s*(float64(s*a.wll)-float64(2*a.wxl)))
}

// group is a group's numbers and weights in float64.
type group struct {
	x, w []float64
}

// base returns the sums that do not depend on levels.
func (g group) base() (a sums) {
	for i, x := range g.x {
		w := g.w[i]
		wx := float64(w * x)
		a.w += w
		a.wx += wx
		a.wxx += float64(wx * x)
	}
	return a
}

// extreme returns the number with the largest magnitude.
func (g group) extreme() (e float64) {
	for _, x := range g.x {
		if math.Abs(x) > math.Abs(e) {
			e = x
		}
	}
	return e
}

// symmetricLevels completes a with the sums for the levels of x·inverse,
// rounded and kept within lo … hi.
func (g group) symmetricLevels(a *sums, inverse float64, lo, hi int) {
	w := g.w[:len(g.x)]
	var wll, wxl float64
	for i, x := range g.x {
		l := float64(min(max(nearest(x*inverse), lo), hi))
		wl := float64(w[i] * l)
		wll += float64(wl * l)
		wxl += float64(wl * x)
	}
	a.wll, a.wxl = wll, wxl
}

// fitSymmetric finds the scale s for x ≈ s·l, lo ≤ l ≤ hi, and the sums at it.
// The extreme number gets level lo, the larger end.
func (g group) fitSymmetric(lo, hi int, try search) (float64, sums) {
	return fitLevels(g, float64(lo), try, func(a *sums, inverse float64) {
		g.symmetricLevels(a, inverse, lo, hi)
	})
}

// fitLevels is the search for a single scale over any set of levels; place
// completes the sums for a given inverse scale, end is the outermost level, a
// negative one.
func fitLevels(g group, end float64, try search, place func(a *sums, inverse float64)) (scale float64, best sums) {
	best = g.base()
	e := g.extreme()
	if e == 0 {
		return 0, best
	}
	// With levels fixed the best scale is wxl/wll and explains wxl²/wll of wxx.
	a := best
	explained := 0.0
	consider := func(inverse float64) bool {
		place(&a, inverse)
		// No quotients: explained < wxl²/wll.
		if !(float64(a.wxl*a.wxl) > explained*a.wll) {
			return false
		}
		best, scale = a, a.wxl/a.wll
		explained = scale * a.wxl
		return true
	}
	for i := range try.n {
		consider((end - try.first - float64(float64(i)*try.step)) / e)
	}
	if try.mirror {
		for i := range try.n {
			consider((-end + try.first + float64(float64(i)*try.step)) / e)
		}
	}
	for range refinements {
		if scale == 0 || !consider(1/scale) {
			break
		}
	}
	return scale, best
}

// refinements bounds the alternation after the grid; it usually stops earlier.
const refinements = 2

// affineLevels completes a for the levels of (x − minimum)·inverse within 0 … hi.
func (g group) affineLevels(a *sums, inverse, minimum float64, hi int) {
	w := g.w[:len(g.x)]
	offset := float64(minimum * inverse)
	var wl, wll, wxl float64
	for i, x := range g.x {
		l := float64(min(max(nearest(float64(x*inverse)-offset), 0), hi))
		t := float64(w[i] * l)
		wl += t
		wll += float64(t * l)
		wxl += float64(t * x)
	}
	a.wl, a.wll, a.wxl = wl, wll, wxl
}

// solve returns the best scale and minimum for fixed levels; with capped, the
// best whose minimum is not above zero.
func (a *sums) solve(capped bool) (s, m float64, ok bool) {
	det := float64(a.w*a.wll) - float64(a.wl*a.wl)
	if !(det > 0) {
		return 0, 0, false
	}
	s = (float64(a.w*a.wxl) - float64(a.wx*a.wl)) / det
	m = (float64(a.wll*a.wx) - float64(a.wl*a.wxl)) / det
	if capped && m > 0 {
		s, m = a.wxl/a.wll, 0 // wll > 0, since det > 0
	}
	return s, m, s > 0
}

// fitAffine finds scale s > 0 and minimum m for x ≈ s·l + m, 0 ≤ l ≤ hi, and
// the sums at them. With capped the minimum is at most zero, which is all that
// K-quants can store. A group without spread has s = 0.
func (g group) fitAffine(hi int, try search, capped bool) (scale, minimum float64, best sums) {
	best = g.base()
	low, high := g.x[0], g.x[0]
	for _, x := range g.x {
		low, high = min(low, x), max(high, x)
	}
	if capped {
		low = min(low, 0)
	}
	if !(high > low) {
		return 0, low, best
	}
	// The plain choice, which holds even where least squares has no solution:
	// all levels equal, or a single number with weight.
	scale, minimum = (high-low)/float64(hi), low
	g.affineLevels(&best, 1/scale, low, hi)
	least := best.at(scale, minimum)
	a := best
	consider := func(inverse, from float64) bool {
		g.affineLevels(&a, inverse, from, hi)
		s, m, ok := a.solve(capped)
		if !ok {
			return false
		}
		if e := a.at(s, m); e < least {
			least, best, scale, minimum = e, a, s, m
			return true
		}
		return false
	}
	for i := range try.n {
		consider((float64(hi)+try.first+float64(float64(i)*try.step))/(high-low), low)
	}
	for range refinements {
		if !(scale > 0) || !consider(1/scale, minimum) {
			break
		}
	}
	return scale, minimum, best
}
