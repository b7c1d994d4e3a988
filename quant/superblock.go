package quant

import "math"

// The second half of a K-quant: a block's groups have fitted scales (and
// minimums); choose the block's F16 scale d and the groups' integer scales.
// With the levels fixed each group's error is a quadratic (sums), so many
// candidates for d can be weighed without touching the numbers again.

// candidates is how many values of a block scale are weighed each time: nine
// within ±4 % of the value at which the largest group just fits, and the F16
// numbers on both sides of it. The latter matter for small weights, whose scale
// is subnormal (that of Q6_K usually is) and therefore coarse.
const candidates = 11

// spread returns candidate i of a block scale whose natural value is d, which
// is not zero, as it will be stored.
func spread(d float64, i int) float64 {
	if i < candidates-2 {
		return roundF16(d * (0.96 + float64(0.01*float64(i))))
	}
	// The bits of F16 count up with the magnitude.
	bits := F32ToF16(float32(d))
	if i == candidates-1 {
		return float64(F16ToF32(min(bits&0x7fff+1, 0x7bff) | bits&0x8000))
	}
	return float64(F16ToF32(max(bits&0x7fff, 1) - 1 | bits&0x8000))
}

func roundF16(d float64) float64 {
	return float64(F16ToF32(F32ToF16(float32(min(max(d, -maxF16), maxF16)))))
}

// chooseSymmetric picks d and the integer scales q, lo ≤ q ≤ hi, for groups
// with fitted scales s and sums a: group i is to have scale d·q[i].
func chooseSymmetric(s []float64, a []sums, q []int, lo, hi int) (d float64) {
	e := 0.0
	for _, v := range s {
		if math.Abs(v) > math.Abs(e) {
			e = v
		}
	}
	clear(q)
	if e == 0 {
		return 0
	}
	natural := e / float64(lo)
	least := math.Inf(1)
	for i := range candidates {
		c := spread(natural, i)
		if c == 0 {
			continue // below F16: the block becomes zeros
		}
		total := 0.0
		for j := range a {
			total += a[j].symmetric(c * float64(min(max(nearest(s[j]/c), lo), hi)))
		}
		if total < least {
			least, d = total, c
		}
	}
	if d == 0 {
		return 0
	}
	for j := range s {
		q[j] = min(max(nearest(s[j]/d), lo), hi)
	}
	return d
}

// refitSymmetric returns the best d for fixed levels and integer scales.
func refitSymmetric(a []sums, q []int) float64 {
	var num, den float64
	for i := range a {
		v := float64(q[i])
		num += float64(v * a[i].wxl)
		den += float64(float64(v*v) * a[i].wll)
	}
	if !(den > 0) {
		return 0
	}
	return roundF16(num / den)
}

// affineScales are the stored scales of a block of K-quant groups: group i is
// x ≈ d·s[i]·l − dmin·m[i].
type affineScales struct {
	d, dmin float64
	s, m    [16]int
}

// choose sets the integer scales of every group for the d and dmin it has and
// returns the error for fixed levels. Scale and minimum make up for each
// other's rounding, so the three scales next to the fitted one are tried, each
// with the minimum that suits it best.
func (b *affineScales) choose(s []float64, a []sums, hi int) (total float64) {
	for j := range a {
		g := &a[j]
		least := math.Inf(1)
		centre := 0
		if b.d > 0 {
			centre = min(nearest(s[j]/b.d), hi)
		}
		for q := max(centre-1, 0); q <= min(centre+1, hi); q++ {
			scale := b.d * float64(q)
			m := 0
			if b.dmin > 0 && g.w > 0 {
				// The minimum of the quadratic in m at this scale.
				best := (float64(scale*g.wl) - g.wx) / g.w
				m = min(max(nearest(best/b.dmin), 0), hi)
			}
			if e := g.at(scale, -b.dmin*float64(m)); e < least {
				least, b.s[j], b.m[j] = e, q, m
			}
			if b.d == 0 {
				break
			}
		}
		total += least
	}
	return total
}

// chooseAffine picks d, dmin and the integer scales 0 … hi for groups with
// fitted scales s, minimums −m and sums a.
func chooseAffine(s, m []float64, a []sums, hi int) (best affineScales) {
	var maxS, maxM float64
	for j := range s {
		maxS, maxM = max(maxS, s[j]), max(maxM, m[j])
	}
	naturalD, naturalM := maxS/float64(hi), maxM/float64(hi)
	best.d, best.dmin = roundF16(naturalD), roundF16(naturalM)
	least := best.choose(s, a, hi)
	// One after the other: the two hardly depend on each other.
	for i := range candidates {
		try := best
		if try.d = spread(naturalD, i); naturalD == 0 || try.d == best.d {
			continue
		}
		if e := try.choose(s, a, hi); e < least {
			least, best = e, try
		}
	}
	for i := range candidates {
		try := best
		if try.dmin = spread(naturalM, i); naturalM == 0 || try.dmin == best.dmin {
			continue
		}
		if e := try.choose(s, a, hi); e < least {
			least, best = e, try
		}
	}
	return best
}

// refit moves d and dmin to the least-squares optimum for fixed levels and
// integer scales. It reports false if there is none or nothing would change.
func (b *affineScales) refit(a []sums) bool {
	// Minimise Σ at(d·s, −dmin·m): a 2×2 system in d and dmin.
	var ss, sm, mm, xs, xm float64
	for j := range a {
		s, m := float64(b.s[j]), float64(b.m[j])
		ss += float64(float64(s*s) * a[j].wll)
		sm += float64(float64(s*m) * a[j].wl)
		mm += float64(float64(m*m) * a[j].w)
		xs += float64(s * a[j].wxl)
		xm += float64(m * a[j].wx)
	}
	det := float64(ss*mm) - float64(sm*sm)
	var d, dmin float64
	switch {
	case det > 0:
		d = roundF16((float64(xs*mm) - float64(xm*sm)) / det)
		dmin = roundF16((float64(xs*sm) - float64(xm*ss)) / det)
	case ss > 0:
		d = roundF16(xs / ss)
	default:
		return false
	}
	if !(d > 0) || dmin < 0 || (d == b.d && dmin == b.dmin) {
		return false
	}
	b.d, b.dmin = d, dmin
	return true
}
