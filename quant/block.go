package quant

import "unsafe"

// superBlock is the elements of a K-quant block, QK_K in ggml; smallBlock those
// of the older formats.
const (
	superBlock = 256
	smallBlock = 32
)

// half is an F16 number as it lies in a block: two bytes, little-endian.
type half [2]byte

func (h half) f32() float32 { return F16ToF32(uint16(h[0]) | uint16(h[1])<<8) }

// set stores f rounded to F16, at most its largest finite number, and returns
// the value stored.
func (h *half) set(f float32) float32 {
	u := F32ToF16(min(max(f, -maxF16), maxF16))
	h[0], h[1] = byte(u), byte(u>>8)
	return F16ToF32(u)
}

// finite reports that the number is neither NaN nor infinite.
func (h half) finite() bool { return h[1]&0x7c != 0x7c }

// blocks views data as blocks of layout B. Every layout consists of byte arrays
// only, so its alignment is 1, its byte order is that of the file on every
// platform and it has no padding; a test checks all three.
func blocks[B any](data []byte) []B {
	var b B
	n := len(data) / int(unsafe.Sizeof(b))
	return unsafe.Slice((*B)(unsafe.Pointer(unsafe.SliceData(data))), n)
}

// firstBad returns the index of the first block that ok refuses, or −1.
func firstBad[B any](data []byte, ok func(*B) bool) int {
	bs := blocks[B](data)
	for i := range bs {
		if !ok(&bs[i]) {
			return i
		}
	}
	return -1
}
