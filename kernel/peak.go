package kernel

import (
	"encoding/binary"
	"sync/atomic"
)

// The limits of the machine, to be printed beside what real kernels reach.

// ReadStream reads buf once, at the highest rate one core can, and returns the
// exclusive or of its 64-bit words. Divide len(buf) by the time it takes.
func ReadStream(buf []byte) uint64 { return readStreamSlot.active(buf) }

// PeakI16Ops multiplies and adds 16-bit integers in registers and returns the
// number of operations done, counting a multiplication and an addition as two:
// the bound on MatMulI16, where a weight times an activation is two as well.
func PeakI16Ops(iterations int) int64 { return peakI16Slot.active(iterations) }

var (
	readStreamSlot = newSlot("peak/read", readStreamGeneric)
	peakI16Slot    = newSlot("peak/i16", peakI16Generic)
)

func readStreamGeneric(buf []byte) (x uint64) {
	for len(buf) >= 8 {
		x ^= binary.LittleEndian.Uint64(buf)
		buf = buf[8:]
	}
	var rest [8]byte
	copy(rest[:], buf)
	return x ^ binary.LittleEndian.Uint64(rest[:])
}

// peakI16Sink keeps the compiler from dropping the loop; all cores are measured
// at once.
var peakI16Sink atomic.Int32

func peakI16Generic(iterations int) int64 {
	var a [8]int32
	b := [8]int16{1, 2, 3, 4, 5, 6, 7, 8}
	for i := range iterations {
		v := int32(int16(i))
		for j := range a {
			a[j] += v * int32(b[j])
		}
	}
	peakI16Sink.Store(a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7])
	return int64(iterations) * 2 * int64(len(a))
}
