package quant

import "unsafe"

// blockQ4_0 is 32 numbers x = d·(q − 8), q of 4 bits. Byte i of qs holds q of
// element i in its lower half and of element i+16 in its upper half.
// Source: block_q4_0 in ggml's ggml-common.h.
type blockQ4_0 struct {
	d  half
	qs [16]byte
}

var _ [18]byte = [unsafe.Sizeof(blockQ4_0{})]byte{}

func dequantizeQ4_0(dst []float32, src []byte) {
	for i, b := range blocks[blockQ4_0](src) {
		d := b.d.f32()
		y := (*[smallBlock]float32)(dst[i*smallBlock:])
		for j, q := range b.qs {
			y[j] = d * float32(int(q&15)-8)
			y[j+16] = d * float32(int(q>>4)-8)
		}
	}
}

func finiteQ4_0(data []byte) int {
	return firstBad(data, func(b *blockQ4_0) bool { return b.d.finite() })
}

// searchQ4_0: the extreme number at −7 to −9 rather than exactly −8.
var searchQ4_0 = search{-1, 0.15, 14, false}

func quantizeQ4_0(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, smallBlock, smallBlock, byLevel, func(b *blockQ4_0, ws *workspace) {
		ws.smallSymmetric(&b.d, -8, 7, searchQ4_0)
		for j := range b.qs {
			b.qs[j] = byte(ws.levels[j]+8) | byte(ws.levels[j+16]+8)<<4
		}
	})
}
