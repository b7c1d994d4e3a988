package quant

import "unsafe"

// blockQ5K is 256 numbers in 8 groups of 32: x = d·s·q − dmin·m, s and m of 6
// bits (see scalesK), q of 5. The lower four bits of q lie in qs as in
// blockQ4K; the fifth, of element i of group g, is bit g of byte i of qh.
// Source: block_q5_K in ggml's ggml-common.h.
type blockQ5K struct {
	d, dmin half
	scales  scalesK
	qh      [32]byte
	qs      [128]byte
}

var _ [176]byte = [unsafe.Sizeof(blockQ5K{})]byte{}

func dequantizeQ5K(dst []float32, src []byte) {
	bs := blocks[blockQ5K](src)
	for i := range bs {
		b := &bs[i]
		d, dmin := b.d.f32(), b.dmin.f32()
		y := (*[superBlock]float32)(dst[i*superBlock:])
		for g := range 8 {
			s, m := b.scales.get(g)
			scale := float32(d * float32(s))
			minimum := float32(dmin * float32(m))
			qs := (*[32]byte)(b.qs[g/2*32:])
			shift := g % 2 * 4
			for j, q := range qs {
				v := q>>shift&15 | b.qh[j]>>g&1<<4
				y[32*g+j] = float32(scale*float32(v)) - minimum
			}
		}
	}
}

func finiteQ5K(data []byte) int {
	return firstBad(data, func(b *blockQ5K) bool { return b.d.finite() && b.dmin.finite() })
}

var searchQ5K = search{-2, 0.2, 15, false}

func quantizeQ5K(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, superBlock, 32, byLevel, func(b *blockQ5K, ws *workspace) {
		p := ws.affineBlock(32, 31, 63, searchQ5K)
		b.d.set(float32(p.d))
		b.dmin.set(float32(p.dmin))
		b.scales = packScalesK(&p)
		b.qs = pack4(&ws.levels)
		b.qh = [32]byte{}
		for e, l := range ws.levels {
			b.qh[e%32] |= byte(l) >> 4 << (e / 32)
		}
	})
}
