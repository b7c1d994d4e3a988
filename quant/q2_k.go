package quant

import "unsafe"

// blockQ2K is 256 numbers in 16 groups of 16: x = d·s·q − dmin·m, q of 2 bits.
// Byte g of scales holds s of group g in its lower half and m in its upper.
// Each 32 bytes of qs hold 128 elements: bits 2k and 2k+1 of byte i are q of
// element 32·k + i. Source: block_q2_K in ggml's ggml-common.h.
type blockQ2K struct {
	scales  [16]byte
	qs      [64]byte
	d, dmin half
}

var _ [84]byte = [unsafe.Sizeof(blockQ2K{})]byte{}

func dequantizeQ2K(dst []float32, src []byte) {
	bs := blocks[blockQ2K](src)
	for i := range bs {
		b := &bs[i]
		d, dmin := b.d.f32(), b.dmin.f32()
		y := (*[superBlock]float32)(dst[i*superBlock:])
		for g, s := range b.scales {
			scale := float32(d * float32(s&15))
			minimum := float32(dmin * float32(s>>4))
			qs, shift := quarterBits(&b.qs, g)
			for j, q := range qs {
				y[16*g+j] = float32(scale*float32(q>>shift&3)) - minimum
			}
		}
	}
}

// quarterBits locates group g (16 elements) of a plane of 2-bit numbers: the
// bytes that hold it and how far to shift them. Q2_K, Q3_K share the plane.
func quarterBits(qs *[64]byte, g int) (bytes *[16]byte, shift int) {
	return (*[16]byte)(qs[g/8*32+g%2*16:]), g % 8 / 2 * 2
}

func finiteQ2K(data []byte) int {
	return firstBad(data, func(b *blockQ2K) bool { return b.d.finite() && b.dmin.finite() })
}

var searchQ2K = search{-0.9, 0.15, 13, false}

func quantizeQ2K(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, superBlock, 16, byMagnitude, func(b *blockQ2K, ws *workspace) {
		p := ws.affineBlock(16, 3, 15, searchQ2K)
		b.d.set(float32(p.d))
		b.dmin.set(float32(p.dmin))
		for g := range b.scales {
			b.scales[g] = byte(p.s[g] | p.m[g]<<4)
		}
		b.qs = pack2(&ws.levels)
	})
}

// pack2 stores the lower two bits of 256 levels; see quarterBits.
func pack2(levels *[superBlock]int8) (qs [64]byte) {
	for g := range 16 {
		bytes, shift := quarterBits(&qs, g)
		for j := range bytes {
			bytes[j] |= byte(levels[16*g+j]) & 3 << shift
		}
	}
	return qs
}
