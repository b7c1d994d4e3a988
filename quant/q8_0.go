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
