package quant

import "unsafe"

// blockIQ4NL is 32 numbers x = d·levelsIQ4[q], q of 4 bits, laid out as in
// blockQ4_0. Source: block_iq4_nl in ggml's ggml-common.h.
type blockIQ4NL struct {
	d  half
	qs [16]byte
}

var _ [18]byte = [unsafe.Sizeof(blockIQ4NL{})]byte{}

// levelsIQ4 are the 16 levels of the IQ4 formats: closer together near zero,
// where weights are denser. Source: kvalues_iq4nl in ggml.
var levelsIQ4 = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

func dequantizeIQ4NL(dst []float32, src []byte) {
	for i, b := range blocks[blockIQ4NL](src) {
		d := b.d.f32()
		y := (*[smallBlock]float32)(dst[i*smallBlock:])
		for j, q := range b.qs {
			y[j] = d * levelsIQ4[q&15]
			y[j+16] = d * levelsIQ4[q>>4]
		}
	}
}

func finiteIQ4NL(data []byte) int {
	return firstBad(data, func(b *blockIQ4NL) bool { return b.d.finite() })
}

// nearestIQ4 gives the index of the level nearest to v in levelsIQ4, at
// 2·(v + 127) rounded down. Midpoints between levels are multiples of a half,
// so no cell of the table contains one.
var nearestIQ4 = func() (table [2*(113+127) + 1]uint8) {
	l := 0
	for i := range table {
		v := float32(i)/2 - 127
		for l < 15 && v >= (levelsIQ4[l]+levelsIQ4[l+1])/2 {
			l++
		}
		table[i] = uint8(l)
	}
	return table
}()

// indexIQ4 is the index of the level nearest to v.
func indexIQ4(v float64) uint8 {
	v = float64(v) // not fused with the caller's product
	if !(v > -127) {
		return 0
	}
	if v >= 113 {
		return 15
	}
	return nearestIQ4[int(2*(v+127))]
}

// searchIQ4: the levels are not symmetric, so both ends are tried for the
// extreme number.
var searchIQ4 = search{-14, 2, 11, true}

// fitIQ4 is fitSymmetric for the levels of IQ4.
func (g group) fitIQ4() (float64, sums) {
	return fitLevels(g, -127, searchIQ4, g.levelsIQ4)
}

// levelsIQ4 completes a for the nearest levels of x·inverse.
func (g group) levelsIQ4(a *sums, inverse float64) {
	a.wll, a.wxl = 0, 0
	for i, x := range g.x {
		l := float64(levelsIQ4[indexIQ4(x*inverse)])
		wl := float64(g.w[i] * l)
		a.wll += float64(wl * l)
		a.wxl += float64(wl * x)
	}
}

// placeIQ4 stores 32 numbers at a scale, 0 being any.
func (g group) placeIQ4(qs *[16]byte, scale float64) {
	inverse := 0.0
	if scale != 0 {
		inverse = 1 / scale
	}
	for j := range qs {
		qs[j] = indexIQ4(g.x[j]*inverse) | indexIQ4(g.x[j+16]*inverse)<<4
	}
}

func quantizeIQ4NL(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, smallBlock, smallBlock, byLevel, func(b *blockIQ4NL, ws *workspace) {
		g := ws.group(0, smallBlock)
		s, _ := g.fitIQ4()
		g.placeIQ4(&b.qs, float64(b.d.set(float32(s))))
	})
}
