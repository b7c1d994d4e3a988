package quant

import "unsafe"

// blockIQ4XS is 256 numbers in 8 groups of 32: x = d·(s − 32)·levelsIQ4[q], s of
// 6 bits, q of 4. The lower four bits of s of group g are a half of byte g/2 of
// scalesL (the lower one for even g), the upper two at bits 2g of the 16-bit
// little-endian scalesH. Each 16 bytes of qs hold a group as in blockQ4_0.
// Source: block_iq4_xs in ggml's ggml-common.h.
type blockIQ4XS struct {
	d       half
	scalesH [2]byte
	scalesL [4]byte
	qs      [128]byte
}

var _ [136]byte = [unsafe.Sizeof(blockIQ4XS{})]byte{}

// scale returns s − 32 of group g.
func (b *blockIQ4XS) scale(g int) int {
	low := b.scalesL[g/2] >> (g % 2 * 4) & 15
	high := b.scalesH[g/4] >> (g % 4 * 2) & 3
	return int(high<<4|low) - 32
}

// setScale stores s, from −32 to 31, for group g of a block of zeros.
func (b *blockIQ4XS) setScale(g, s int) {
	u := byte(s + 32)
	b.scalesL[g/2] |= u & 15 << (g % 2 * 4)
	b.scalesH[g/4] |= u >> 4 << (g % 4 * 2)
}

func dequantizeIQ4XS(dst []float32, src []byte) {
	bs := blocks[blockIQ4XS](src)
	for i := range bs {
		b := &bs[i]
		d := b.d.f32()
		y := (*[superBlock]float32)(dst[i*superBlock:])
		for g := range 8 {
			scale := float32(d * float32(b.scale(g)))
			qs := (*[16]byte)(b.qs[16*g:])
			for j, q := range qs {
				y[32*g+j] = scale * levelsIQ4[q&15]
				y[32*g+16+j] = scale * levelsIQ4[q>>4]
			}
		}
	}
}

func finiteIQ4XS(data []byte) int {
	return firstBad(data, func(b *blockIQ4XS) bool { return b.d.finite() })
}

func quantizeIQ4XS(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, superBlock, 32, byLevel, func(b *blockIQ4XS, ws *workspace) {
		var s [8]float64
		var a [8]sums
		var q [8]int
		for g := range s {
			s[g], a[g] = ws.group(32*g, 32).fitIQ4()
		}
		d := float32(chooseSymmetric(s[:], a[:], q[:], -32, 31))
		*b = blockIQ4XS{}
		b.d.set(d)
		for g := range s {
			b.setScale(g, q[g])
			ws.group(32*g, 32).placeIQ4((*[16]byte)(b.qs[16*g:]), float64(d*float32(q[g])))
		}
	})
}
