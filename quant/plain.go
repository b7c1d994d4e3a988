package quant

import (
	"encoding/binary"
	"math"
)

// The plain types, one number a block, little-endian. Their quantisers round to
// nearest even and have nothing to choose, so weights make no difference.

func dequantizeF32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func dequantizeF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func dequantizeBF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func quantizeF32(dst []byte, src, _ []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

func quantizeF16(dst []byte, src, _ []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F32ToF16(v))
	}
}

func quantizeBF16(dst []byte, src, _ []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F32ToBF16(v))
	}
}

// A number is NaN or infinite when all bits of its exponent are set. Adding the
// exponent's lowest bit to the masked exponent then carries into the sign's
// place and nowhere else, which tests every lane of a word at once.

func finiteF32(data []byte) int {
	return firstAllOnes(data, 4, 0x7f800000_7f800000, 0x00800000_00800000, 0x80000000_80000000)
}

func finiteF16(data []byte) int {
	return firstAllOnes(data, 2, 0x7c00_7c00_7c00_7c00, 0x0400_0400_0400_0400, 0x8000_8000_8000_8000)
}

func finiteBF16(data []byte) int {
	return firstAllOnes(data, 2, 0x7f80_7f80_7f80_7f80, 0x0080_0080_0080_0080, 0x8000_8000_8000_8000)
}

// firstAllOnes returns the first lane of size bytes in data whose bits under
// mask are all set, or −1. low is the lowest bit of each lane's mask, carry the
// bit above its highest.
func firstAllOnes(data []byte, size int, mask, low, carry uint64) int {
	i := 0
	for ; i+8 <= len(data); i += 8 {
		if (binary.LittleEndian.Uint64(data[i:])&mask+low)&carry != 0 {
			break
		}
	}
	for ; i+size <= len(data); i += size {
		var lane [8]byte
		copy(lane[:], data[i:i+size])
		if (binary.LittleEndian.Uint64(lane[:])&mask+low)&carry != 0 {
			return i / size
		}
	}
	return -1
}
