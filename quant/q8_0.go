package quant

import "unsafe"

// blockQ8_0 is 32 numbers x = d·q, q a signed byte.
// Source: block_q8_0 in ggml's ggml-common.h.
type blockQ8_0 struct {
	d  half
	qs [32]byte
}

var _ [34]byte = [unsafe.Sizeof(blockQ8_0{})]byte{}

func dequantizeQ8_0(dst []float32, src []byte) {
	bs := blocks[blockQ8_0](src)
	for i := range bs {
		d := bs[i].d.f32()
		y := (*[smallBlock]float32)(dst[i*smallBlock:])
		for j, q := range &bs[i].qs {
			y[j] = d * float32(int8(q))
		}
	}
}

func finiteQ8_0(data []byte) int {
	return firstBad(data, func(b *blockQ8_0) bool { return b.d.finite() })
}

// searchQ8_0 cuts the extreme number by half a level at most, so that every
// number stays within about half a level: with Q8_0 that is what one expects.
var searchQ8_0 = search{-0.5, 0.125, 9, false}

// quantizeQ8_0 keeps to −127 … 127 as ggml does: kernels that take the sign off
// one factor cannot represent 128.
func quantizeQ8_0(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, smallBlock, smallBlock, byLevel, func(b *blockQ8_0, ws *workspace) {
		ws.smallSymmetric(&b.d, -127, 127, searchQ8_0)
		for j := range b.qs {
			b.qs[j] = byte(ws.levels[j])
		}
	})
}
