package quant

import "math"

// importance fills w with weights for one group of numbers, for callers that
// give none.
//
// All formats but Q2_K use byLevel. ggml uses it for Q4_K and Q5_K, x² for
// Q3_K, Q6_K and the IQ4 formats, and no search at all for the older ones. On
// real models byLevel lowers both the plain and the x²-weighted error of all of
// them below ggml's; x² alone lowers the latter further, but the outputs then
// follow the exact model less well (measured by KL divergence).
type importance func(w, x []float64)

// uniform: every error counts the same.
func uniform(w, _ []float64) {
	for i := range w {
		w[i] = 1
	}
}

// byMagnitude: |x|. With the four levels of Q2_K large numbers suffer too much
// from anything milder.
func byMagnitude(w, x []float64) {
	for i, v := range x {
		w[i] = math.Abs(v)
	}
}

// byLevel: |x| plus the group's root mean square.
func byLevel(w, x []float64) {
	sum := 0.0
	for _, v := range x {
		sum += float64(v * v)
	}
	rms := math.Sqrt(sum / float64(len(x)))
	for i, v := range x {
		w[i] = rms + math.Abs(v)
	}
}

// workspace is one block's numbers, weights and levels. It lives on the stack.
type workspace struct {
	x, w   [superBlock]float64
	levels [superBlock]int8
}

// load takes len(src) numbers in groups of n, with the caller's weights or, if
// nil, the format's own. A group whose weights are all zero gets equal ones,
// since something has to be stored for it.
func (ws *workspace) load(src, weights []float32, n int, own importance) {
	for i, v := range src {
		ws.x[i] = float64(v)
	}
	for from := 0; from < len(src); from += n {
		g := ws.group(from, n)
		if weights == nil {
			own(g.w, g.x)
		} else {
			for i := range g.w {
				g.w[i] = float64(weights[from+i])
			}
		}
		sum := 0.0
		for _, w := range g.w {
			sum += w
		}
		if !(sum > 0) {
			uniform(g.w, g.x)
		}
	}
}

func (ws *workspace) group(from, n int) group {
	return group{ws.x[from : from+n], ws.w[from : from+n]}
}

// rounds bounds the alternation between levels and integer scales of a block.
const rounds = 3

// affineBlock quantises a block in groups of n: levels 0 … hi, integer scales
// 0 … scaleHi. The levels are left in ws.levels.
func (ws *workspace) affineBlock(n, hi, scaleHi int, try search) affineScales {
	var s, m [16]float64
	var a [16]sums
	groups := superBlock / n
	for j := range groups {
		scale, minimum, at := ws.group(j*n, n).fitAffine(hi, try, true)
		s[j], m[j], a[j] = scale, -minimum, at
	}
	b := chooseAffine(s[:groups], m[:groups], a[:groups], scaleHi)

	best := b
	least := math.Inf(1)
	var levels [superBlock]int8
	for range rounds {
		total := 0.0
		for j := range groups {
			// The products as dequantisation rounds them.
			scale := float64(float32(b.d) * float32(b.s[j]))
			minimum := float64(float32(b.dmin) * float32(b.m[j]))
			ws.group(j*n, n).placeAffine(&a[j], scale, minimum, hi, levels[j*n:(j+1)*n])
			total += a[j].at(scale, -minimum)
		}
		if !(total < least) {
			break
		}
		least, best, ws.levels = total, b, levels
		if !b.refit(a[:groups]) {
			break
		}
		for j := range groups {
			if scale, _, ok := a[j].solve(true); ok {
				s[j] = scale
			}
		}
		b.choose(s[:groups], a[:groups], scaleHi)
	}
	return best
}

// placeAffine sets levels to the nearest of 0 … hi for x ≈ scale·l − minimum
// and completes a for them.
func (g group) placeAffine(a *sums, scale, minimum float64, hi int, levels []int8) {
	a.wl, a.wll, a.wxl = 0, 0, 0
	if scale == 0 {
		clear(levels)
		return
	}
	inverse := 1 / scale
	w, levels := g.w[:len(g.x)], levels[:len(g.x)]
	var wl, wll, wxl float64
	for i, x := range g.x {
		q := min(max(nearest((x+minimum)*inverse), 0), hi)
		levels[i] = int8(q)
		l := float64(q)
		t := float64(w[i] * l)
		wl += t
		wll += float64(t * l)
		wxl += float64(t * x)
	}
	a.wl, a.wll, a.wxl = wl, wll, wxl
}

// symmetricBlock quantises a block in groups of 16: levels lo … hi, integer
// scales scaleLo … −scaleLo − 1, which are returned in q with d. The levels are
// left in ws.levels.
func (ws *workspace) symmetricBlock(lo, hi, scaleLo int, try search) (d float64, q [16]int) {
	const n = 16
	var s [16]float64
	var a [16]sums
	for j := range s {
		s[j], a[j] = ws.group(j*n, n).fitSymmetric(lo, hi, try)
	}
	scaleHi := -scaleLo - 1
	c := chooseSymmetric(s[:], a[:], q[:], scaleLo, scaleHi)
	p := q
	least := math.Inf(1)
	var levels [superBlock]int8
	for range rounds {
		total := 0.0
		for j := range s {
			scale := float64(float32(c) * float32(p[j]))
			ws.group(j*n, n).placeSymmetric(&a[j], scale, lo, hi, levels[j*n:(j+1)*n])
			total += a[j].symmetric(scale)
		}
		if !(total < least) {
			break
		}
		least, d, q, ws.levels = total, c, p, levels
		if c = refitSymmetric(a[:], p[:]); c == 0 {
			break
		}
		for j := range s {
			if a[j].wll > 0 {
				p[j] = min(max(nearest(a[j].wxl/(a[j].wll*c)), scaleLo), scaleHi)
			}
		}
	}
	return d, q
}

// placeSymmetric sets levels to the nearest of lo … hi for x ≈ scale·l and
// completes a for them.
func (g group) placeSymmetric(a *sums, scale float64, lo, hi int, levels []int8) {
	a.wll, a.wxl = 0, 0
	if scale == 0 {
		clear(levels)
		return
	}
	inverse := 1 / scale
	for i, x := range g.x {
		q := min(max(nearest(x*inverse), lo), hi)
		levels[i] = int8(q)
		wl := float64(g.w[i] * float64(q))
		a.wll += float64(wl * float64(q))
		a.wxl += float64(wl * x)
	}
}

// smallSymmetric quantises 32 numbers with one F16 scale, which it stores in d.
// The levels, lo … hi, are left in ws.levels.
func (ws *workspace) smallSymmetric(d *half, lo, hi int, try search) {
	g := ws.group(0, smallBlock)
	s, a := g.fitSymmetric(lo, hi, try)
	scale := float64(d.set(float32(s)))
	g.placeSymmetric(&a, scale, lo, hi, ws.levels[:smallBlock])
}

// smallAffine quantises 32 numbers with an F16 scale and minimum, stored in d
// and m. The levels, 0 … hi, are left in ws.levels.
func (ws *workspace) smallAffine(d, m *half, hi int, try search) {
	g := ws.group(0, smallBlock)
	s, low, a := g.fitAffine(hi, try, false)
	scale, minimum := float64(d.set(float32(s))), float64(m.set(float32(low)))
	g.placeAffine(&a, scale, -minimum, hi, ws.levels[:smallBlock])
}

// eachBlock calls store for every block of dst with its numbers and weights
// loaded, in groups of n.
func eachBlock[B any](dst []byte, src, weights []float32, length, n int, own importance, store func(b *B, ws *workspace)) {
	var ws workspace
	bs := blocks[B](dst)
	for i := range bs {
		from, to := i*length, (i+1)*length
		var w []float32
		if weights != nil {
			w = weights[from:to]
		}
		ws.load(src[from:to], w, n, own)
		store(&bs[i], &ws)
	}
}
