package kernel

import (
	"encoding/binary"
	"math"

	"github.com/apr-engine/apr/tensor"
)

func dequantGeneric(d tensor.DType) func(dst []float32, src []byte) {
	le := binary.LittleEndian
	half := func(b []byte) float32 { return halfToFloat(le.Uint16(b)) }
	return func(dst []float32, src []byte) {
		n, bytes := d.BlockLen(), d.BlockBytes()
		for ; len(dst) > 0; dst, src = dst[n:], src[bytes:] {
			switch d {
			case tensor.F32:
				dst[0] = math.Float32frombits(le.Uint32(src))
			case tensor.F16:
				dst[0] = half(src)
			case tensor.BF16:
				dst[0] = math.Float32frombits(uint32(le.Uint16(src)) << 16)
			case tensor.Q8_0:
				s := half(src)
				for i := range 32 {
					dst[i] = float32(int8(src[2+i])) * s
				}
			case tensor.Q4_0:
				s := half(src)
				for i := range 16 {
					dst[i] = float32(int(src[2+i]&15)-8) * s
					dst[i+16] = float32(int(src[2+i]>>4)-8) * s
				}
			case tensor.Q4_K:
				s, m := half(src), half(src[2:])
				sc := src[4:16]
				for j := range 8 {
					var a, b byte
					if j < 4 {
						a, b = sc[j]&63, sc[j+4]&63
					} else {
						a = sc[j+4]&15 | sc[j-4]>>6<<4
						b = sc[j+4]>>4 | sc[j]>>6<<4
					}
					ds, dm := s*float32(a), m*float32(b)
					for i := range 32 {
						q := src[16+j/2*32+i] >> (4 * (j & 1)) & 15
						dst[j*32+i] = float32(ds*float32(q)) - dm
					}
				}
			case tensor.Q6_K:
				s := half(src[208:])
				for i := range 256 {
					h, l := i/128, i%128
					q := int(src[h*64+l%64]>>(l/64*4)&15) | int(src[128+h*32+l%32]>>(l/32*2)&3)<<4
					dst[i] = s * float32(int8(src[192+i/16])) * float32(q-32)
				}
			}
		}
	}
}
