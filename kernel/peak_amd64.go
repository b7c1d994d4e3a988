//go:build !noasm

package kernel

import "github.com/apr-engine/apr/internal/cpufeat"

//go:generate go -C _asm/i16 run . -part peak -out ../../peak_amd64.s -stubs ../../peak_asm_amd64.go -pkg kernel

func init() {
	readStreamSlot.add(cpufeat.AVX2, readStreamWith(readStreamAVX2))
	readStreamSlot.add(cpufeat.AVX512, readStreamWith(readStreamAVX512))
	// Two operations a product: 2 × 10 × 16 products a round, 2 × 24 × 32.
	peakI16Slot.add(cpufeat.AVX2, peakI16With(peakI16AVX2, 2*2*10*16))
	peakI16Slot.add(cpufeat.AVX512, peakI16With(peakI16AVX512, 2*2*24*32))
}

func readStreamWith(asm func(p *byte, rounds int) uint64) func([]byte) uint64 {
	return func(buf []byte) uint64 {
		n := len(buf) &^ 511
		x := readStreamGeneric(buf[n:])
		if n > 0 {
			x ^= asm(&buf[0], n/512)
		}
		return x
	}
}

func peakI16With(asm func(rounds int), opsPerRound int64) func(int) int64 {
	return func(iterations int) int64 {
		if iterations <= 0 {
			return 0
		}
		asm(iterations)
		return int64(iterations) * opsPerRound
	}
}
