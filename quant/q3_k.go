package quant

import "unsafe"

// blockQ3K is 256 numbers in 16 groups of 16: x = d·(s − 32)·(q − 4), s of 6
// bits, q of 3. The lower two bits of q lie in qs as in blockQ2K; the third, of
// element e, is bit e/32 of byte e%32 of hmask. The lower four bits of s are in
// the first 8 bytes of scales (group g in the lower half of byte g, group g+8
// in the upper), the upper two at bits 2·(g/4) of byte 8 + g%4.
// Source: block_q3_K in ggml's ggml-common.h.
type blockQ3K struct {
	hmask  [32]byte
	qs     [64]byte
	scales [12]byte
	d      half
}

var _ [110]byte = [unsafe.Sizeof(blockQ3K{})]byte{}

// scale returns s − 32 of group g.
func (b *blockQ3K) scale(g int) int {
	low := b.scales[g%8] >> (g / 8 * 4) & 15
	high := b.scales[8+g%4] >> (g / 4 * 2) & 3
	return int(high<<4|low) - 32
}

func dequantizeQ3K(dst []float32, src []byte) {
	bs := blocks[blockQ3K](src)
	for i := range bs {
		b := &bs[i]
		d := b.d.f32()
		y := (*[superBlock]float32)(dst[i*superBlock:])
		for g := range 16 {
			scale := float32(d * float32(b.scale(g)))
			qs, shift := quarterBits(&b.qs, g)
			high := (*[16]byte)(b.hmask[g%2*16:])
			for j, q := range qs {
				v := q>>shift&3 | high[j]>>(g/2)&1<<2
				y[16*g+j] = scale * float32(int(v)-4)
			}
		}
	}
}

func finiteQ3K(data []byte) int {
	return firstBad(data, func(b *blockQ3K) bool { return b.d.finite() })
}

var searchQ3K = search{-0.9, 0.2, 10, false}

func quantizeQ3K(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, superBlock, 16, byLevel, func(b *blockQ3K, ws *workspace) {
		d, q := ws.symmetricBlock(-4, 3, -32, searchQ3K)
		*b = blockQ3K{}
		b.d.set(float32(d))
		for g, s := range q {
			u := byte(s + 32)
			b.scales[g%8] |= u & 15 << (g / 8 * 4)
			b.scales[8+g%4] |= u >> 4 << (g / 4 * 2)
		}
		for e := range ws.levels {
			ws.levels[e] += 4
			b.hmask[e%32] |= byte(ws.levels[e]) >> 2 << (e / 32)
		}
		b.qs = pack2(&ws.levels)
	})
}
