package kernel

import (
	"encoding/binary"
	"math"

	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// CacheRowBytes is the size of one head of one position in a cache of Q8_0. It
// panics unless headDim is a multiple of 32.
func CacheRowBytes(headDim int) int {
	n, err := tensor.Q8_0.RowBytes(headDim)
	if err != nil {
		panic("kernel: " + err.Error())
	}
	return n
}

// QuantizeQ8 stores src, a whole number of blocks of 32, as Q8_0 in dst: each
// value becomes the nearest multiple of d = max|x|/127, rounded to binary16. A
// block with a NaN or an infinity becomes NaN throughout: what package quant does
// for files, which have been checked, would hide it.
func QuantizeQ8(dst []byte, src []float32) {
	mustLen(len(dst), CacheRowBytes(len(src)))
	for ; len(src) > 0; src, dst = src[32:], dst[34:] {
		var largest uint32 // of the bits without sign: NaN and Inf compare highest
		for _, v := range src[:32] {
			largest = max(largest, math.Float32bits(v)&0x7fffffff)
		}
		half, inverse := uint16(0x7e00), float32(0) // not a number
		if largest < 0x7f800000 {
			half = quant.F32ToF16(math.Float32frombits(largest) / 127)
			if d := quant.F16ToF32(half); d > 0 {
				inverse = 1 / d
			}
		}
		binary.LittleEndian.PutUint16(dst, half)
		for i, v := range src[:32] {
			q := float32(0)
			if inverse > 0 {
				q = float32(math.RoundToEven(float64(v * inverse)))
			}
			dst[2+i] = byte(int8(max(-127, min(127, q))))
		}
	}
}
