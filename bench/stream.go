package bench

import (
	"encoding/binary"
	"sync/atomic"
)

// readSum keeps the compiler from dropping the reads.
var readSum atomic.Uint64

// readAll touches every byte, in words.
func readAll(b []byte) {
	var s0, s1, s2, s3 uint64
	for ; len(b) >= 32; b = b[32:] {
		s0 += binary.LittleEndian.Uint64(b[0:])
		s1 += binary.LittleEndian.Uint64(b[8:])
		s2 += binary.LittleEndian.Uint64(b[16:])
		s3 += binary.LittleEndian.Uint64(b[24:])
	}
	readSum.Add(s0 + s1 + s2 + s3)
}
