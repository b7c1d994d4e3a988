package quant

import "unsafe"

// blockQ6K is 256 numbers in 16 groups of 16: x = d·s·(q − 32), s a signed
// byte, q of 6 bits. Half h (128 elements) uses 64 bytes of ql and 32 of qh:
// for element 32·k + i of the half, the lower four bits of q are in byte
// 32·(k%2) + i of ql (lower half of the byte for k < 2, upper otherwise) and
// the upper two at bits 2k of byte i of qh.
// Source: block_q6_K in ggml's ggml-common.h.
type blockQ6K struct {
	ql     [128]byte
	qh     [64]byte
	scales [16]byte
	d      half
}

var _ [210]byte = [unsafe.Sizeof(blockQ6K{})]byte{}

func dequantizeQ6K(dst []float32, src []byte) {
	bs := blocks[blockQ6K](src)
	for i := range bs {
		b := &bs[i]
		d := b.d.f32()
		y := (*[superBlock]float32)(dst[i*superBlock:])
		for g := range 16 {
			scale := float32(d * float32(int8(b.scales[g])))
			h, k, start := g/8, g%8/2, g%2*16
			ql := (*[16]byte)(b.ql[64*h+k%2*32+start:])
			qh := (*[16]byte)(b.qh[32*h+start:])
			for j := range 16 {
				v := ql[j]>>(k/2*4)&15 | qh[j]>>(2*k)&3<<4
				y[16*g+j] = scale * float32(int(v)-32)
			}
		}
	}
}

func finiteQ6K(data []byte) int {
	return firstBad(data, func(b *blockQ6K) bool { return b.d.finite() })
}

var searchQ6K = search{-3, 0.3, 13, false}

func quantizeQ6K(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, superBlock, 16, byLevel, func(b *blockQ6K, ws *workspace) {
		d, q := ws.symmetricBlock(-32, 31, -128, searchQ6K)
		b.d.set(float32(d))
		for g, s := range q {
			b.scales[g] = byte(int8(s))
		}
		for h := range 2 {
			for i := range 32 {
				var u [4]byte
				for k := range u {
					u[k] = byte(ws.levels[128*h+32*k+i] + 32)
				}
				b.ql[64*h+i] = u[0]&15 | u[2]<<4
				b.ql[64*h+32+i] = u[1]&15 | u[3]<<4
				b.qh[32*h+i] = u[0]>>4 | u[1]>>4<<2 | u[2]>>4<<4 | u[3]>>4<<6
			}
		}
	})
}
