package quant

import "unsafe"

// blockIQ4NL is 32 numbers x = d·levelsIQ4[q], q of 4 bits, laid out as in
// blockQ4_0. Source: block_iq4_nl in ggml's ggml-common.h.
type blockIQ4NL struct {
	d  half
	qs [16]byte
}

var _ [18]byte = [unsafe.Sizeof(blockIQ4NL{})]byte{}

// levelsIQ4 are the 16 levels of the IQ4 formats: closer together near zero,
// where weights are denser. Source: kvalues_iq4nl in ggml.
var levelsIQ4 = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

func dequantizeIQ4NL(dst []float32, src []byte) {
	for i, b := range blocks[blockIQ4NL](src) {
		d := b.d.f32()
		y := (*[smallBlock]float32)(dst[i*smallBlock:])
		for j, q := range b.qs {
			y[j] = d * levelsIQ4[q&15]
			y[j+16] = d * levelsIQ4[q>>4]
		}
	}
}

func finiteIQ4NL(data []byte) int {
	return firstBad(data, func(b *blockIQ4NL) bool { return b.d.finite() })
}
