package quant

import "unsafe"

// blockQ4_1 is 32 numbers x = d·q + m, q of 4 bits, laid out as in blockQ4_0.
// Source: block_q4_1 in ggml's ggml-common.h.
type blockQ4_1 struct {
	d, m half
	qs   [16]byte
}

var _ [20]byte = [unsafe.Sizeof(blockQ4_1{})]byte{}

func dequantizeQ4_1(dst []float32, src []byte) {
	for i, b := range blocks[blockQ4_1](src) {
		d, m := b.d.f32(), b.m.f32()
		y := (*[smallBlock]float32)(dst[i*smallBlock:])
		for j, q := range b.qs {
			y[j] = float32(d*float32(q&15)) + m
			y[j+16] = float32(d*float32(q>>4)) + m
		}
	}
}

func finiteQ4_1(data []byte) int {
	return firstBad(data, func(b *blockQ4_1) bool { return b.d.finite() && b.m.finite() })
}

var searchQ4_1 = search{-1, 0.15, 14, false}

func quantizeQ4_1(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, smallBlock, smallBlock, byLevel, func(b *blockQ4_1, ws *workspace) {
		ws.smallAffine(&b.d, &b.m, 15, searchQ4_1)
		for j := range b.qs {
			b.qs[j] = byte(ws.levels[j]) | byte(ws.levels[j+16])<<4
		}
	})
}
