package kernel

import (
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/internal/cpufeat"
)

func TestReadStream(t *testing.T) {
	buf := make([]byte, 5000)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range buf {
		buf[i] = byte(rng.Uint32())
	}
	eachLevel(t, func(t *testing.T) {
		for _, n := range []int{0, 1, 7, 8, 9, 511, 512, 513, 1024, 4999} {
			// Byte by byte, unlike any variant.
			var want uint64
			for i, b := range buf[1 : 1+n] {
				want ^= uint64(b) << (i % 8 * 8)
			}
			if got := ReadStream(buf[1 : 1+n]); got != want {
				t.Errorf("%d bytes give %#x, want %#x", n, got, want)
			}
		}
	})
}

func TestPeakI16Ops(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		if one, ten := PeakI16Ops(1), PeakI16Ops(10); one <= 0 || ten != 10*one {
			t.Errorf("1 iteration counts %d operations, 10 count %d", one, ten)
		}
		if n := PeakI16Ops(0); n != 0 {
			t.Errorf("0 iterations count %d operations", n)
		}
	})
}

func BenchmarkReadStream(b *testing.B) {
	buf := make([]byte, 128<<20)
	for i := range buf {
		buf[i] = byte(i)
	}
	for _, level := range readStreamSlot.Levels() {
		b.Run(level.String(), func(b *testing.B) {
			if level > cpufeat.Hardware() {
				b.Skipf("this CPU has no %s", level)
			}
			defer Use(level)()
			const part = 128 << 10
			reportRates(b, part, "GB/s", func(i int) {
				at := i * part % len(buf)
				ReadStream(buf[at : at+part])
			})
		})
	}
}

func BenchmarkPeakI16(b *testing.B) {
	for _, level := range peakI16Slot.Levels() {
		b.Run(level.String(), func(b *testing.B) {
			if level > cpufeat.Hardware() {
				b.Skipf("this CPU has no %s", level)
			}
			defer Use(level)()
			reportRates(b, int(PeakI16Ops(1000)/2), "GMAC/s", func(int) { PeakI16Ops(1000) })
		})
	}
}
