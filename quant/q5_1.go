package quant

import (
	"encoding/binary"
	"unsafe"
)

// blockQ5_1 is 32 numbers x = d·q + m, q of 5 bits, laid out as in blockQ5_0.
// Source: block_q5_1 in ggml's ggml-common.h.
type blockQ5_1 struct {
	d, m half
	qh   [4]byte
	qs   [16]byte
}

var _ [24]byte = [unsafe.Sizeof(blockQ5_1{})]byte{}

func dequantizeQ5_1(dst []float32, src []byte) {
	for i, b := range blocks[blockQ5_1](src) {
		d, m := b.d.f32(), b.m.f32()
		qh := binary.LittleEndian.Uint32(b.qh[:])
		y := (*[smallBlock]float32)(dst[i*smallBlock:])
		for j, q := range b.qs {
			lo, hi := fifthBits(qh, j)
			y[j] = float32(d*float32(q&15|lo)) + m
			y[j+16] = float32(d*float32(q>>4|hi)) + m
		}
	}
}

func finiteQ5_1(data []byte) int {
	return firstBad(data, func(b *blockQ5_1) bool { return b.d.finite() && b.m.finite() })
}

var searchQ5_1 = search{-2, 0.2, 14, false}

func quantizeQ5_1(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, smallBlock, smallBlock, byLevel, func(b *blockQ5_1, ws *workspace) {
		ws.smallAffine(&b.d, &b.m, 31, searchQ5_1)
		b.qh = pack5(&b.qs, &ws.levels, 0)
	})
}
