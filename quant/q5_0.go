package quant

import (
	"encoding/binary"
	"unsafe"
)

// blockQ5_0 is 32 numbers x = d·(q − 16), q of 5 bits: the lower four in qs as
// in blockQ4_0, the fifth of element i in bit i of qh (little-endian).
// Source: block_q5_0 in ggml's ggml-common.h.
type blockQ5_0 struct {
	d  half
	qh [4]byte
	qs [16]byte
}

var _ [22]byte = [unsafe.Sizeof(blockQ5_0{})]byte{}

func dequantizeQ5_0(dst []float32, src []byte) {
	for i, b := range blocks[blockQ5_0](src) {
		d := b.d.f32()
		qh := binary.LittleEndian.Uint32(b.qh[:])
		y := (*[smallBlock]float32)(dst[i*smallBlock:])
		for j, q := range b.qs {
			lo, hi := fifthBits(qh, j)
			y[j] = d * float32(int(q&15|lo)-16)
			y[j+16] = d * float32(int(q>>4|hi)-16)
		}
	}
}

// fifthBits returns the upper bits, in place, of elements j and j+16.
func fifthBits(qh uint32, j int) (lo, hi byte) {
	return byte(qh>>j) & 1 << 4, byte(qh>>(j+16)) & 1 << 4
}

func finiteQ5_0(data []byte) int {
	return firstBad(data, func(b *blockQ5_0) bool { return b.d.finite() })
}

var searchQ5_0 = search{-2, 0.2, 15, false}

func quantizeQ5_0(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, smallBlock, smallBlock, byLevel, func(b *blockQ5_0, ws *workspace) {
		ws.smallSymmetric(&b.d, -16, 15, searchQ5_0)
		b.qh = pack5(&b.qs, &ws.levels, 16)
	})
}

// pack5 stores 32 levels plus zero, below 32: the lower four bits in qs, the
// fifth in the result.
func pack5(qs *[16]byte, levels *[superBlock]int8, zero int8) (high [4]byte) {
	var qh uint32
	for j := range qs {
		lo, hi := byte(levels[j]+zero), byte(levels[j+16]+zero)
		qs[j] = lo&15 | hi<<4
		qh |= uint32(lo>>4)<<j | uint32(hi>>4)<<(j+16)
	}
	binary.LittleEndian.PutUint32(high[:], qh)
	return high
}
