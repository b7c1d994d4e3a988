package kernel

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/kernel/kerneltest"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// TestDequantize compares every type at every level bit for bit with package
// quant, on blocks of random bytes (so that infinite, NaN and subnormal scales
// occur) and on blocks with ordinary scales.
func TestDequantize(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, f := range quant.Formats() {
			t.Run(f.Type.String(), func(t *testing.T) {
				rng := kerneltest.Rand(t)
				for _, blocks := range []int{0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 400} {
					for _, place := range bothPlaces {
						for _, ordinary := range []bool{true, false} {
							checkDequantize(t, rng, f, blocks, place, ordinary)
						}
					}
				}
			})
		}
	})
}

func checkDequantize(t *testing.T, rng *rand.Rand, f quant.Format, blocks int, place kerneltest.Place, ordinary bool) {
	t.Helper()
	src := kerneltest.Slice[byte](t, blocks*f.Type.BlockBytes(), place)
	if ordinary {
		fillBlocks(rng, f.Type, src)
	} else {
		for i := range src {
			src[i] = byte(rng.Uint32())
		}
	}
	dst := kerneltest.Slice[float32](t, blocks*f.Type.BlockLen(), place)
	want := make([]float32, len(dst))
	if err := quant.Dequantize(f.Type, want, src); err != nil {
		t.Fatal(err)
	}
	Dequantize(f.Type, dst, src)
	kerneltest.SameBits(t, fmt.Sprintf("%d blocks, ordinary %v", blocks, ordinary), dst, want)
}

// TestDequantizeEveryCode runs all values of every byte of a block, one byte at
// a time, with scales that keep all results apart.
func TestDequantizeEveryCode(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, f := range quant.Formats() {
			t.Run(f.Type.String(), func(t *testing.T) {
				rng := kerneltest.Rand(t)
				size := f.Type.BlockBytes()
				src := make([]byte, size)
				fillBlocks(rng, f.Type, src)
				got, want := make([]float32, f.Type.BlockLen()), make([]float32, f.Type.BlockLen())
				for i := range src {
					before := src[i]
					for b := range 256 {
						src[i] = byte(b)
						f.Dequantize(want, src)
						Dequantize(f.Type, got, src)
						kerneltest.SameBits(t, fmt.Sprintf("byte %d = %d", i, b), got, want)
					}
					src[i] = before
				}
			})
		}
	})
}

// TestDequantizeEveryScale gives the scales of random blocks all 65536 values,
// so that each kind of zero, subnormal, infinity and NaN meets every type.
func TestDequantizeEveryScale(t *testing.T) {
	const blocks = 4096
	eachLevel(t, func(t *testing.T) {
		for _, f := range quant.Formats() {
			t.Run(f.Type.String(), func(t *testing.T) {
				rng := kerneltest.Rand(t)
				size := f.Type.BlockBytes()
				src := make([]byte, blocks*size)
				got, want := make([]float32, blocks*f.Type.BlockLen()), make([]float32, blocks*f.Type.BlockLen())
				for first := 0; first < 65536; first += blocks {
					for i := range src {
						src[i] = byte(rng.Uint32())
					}
					for b := range blocks {
						for k, off := range halfOffsets[f.Type] {
							// An odd factor gives the second scale all values in another order.
							v := (first + b) * []int{1, 40503}[k]
							binary.LittleEndian.PutUint16(src[b*size+off:], uint16(v))
						}
					}
					f.Dequantize(want, src)
					Dequantize(f.Type, got, src)
					kerneltest.SameBits(t, f.Type.String(), got, want)
				}
			})
		}
	})
}

func BenchmarkDequantize(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, f := range quant.Formats() {
		b.Run(f.Type.String(), func(b *testing.B) {
			w := randomTensor(rng, f.Type, 1, matmulK)
			dst := make([]float32, matmulK)
			b.SetBytes(int64(len(w.Data)))
			for b.Loop() {
				Dequantize(f.Type, dst, w.Data)
			}
			b.ReportMetric(matmulK/(float64(b.Elapsed().Nanoseconds())/float64(b.N)), "elements/ns")
		})
	}
}

// TestDequantizeKnowsEveryFormat keeps the slots complete.
func TestDequantizeKnowsEveryFormat(t *testing.T) {
	for _, f := range quant.Formats() {
		if dequantSlot(f.Type) == nil {
			t.Errorf("no kernel for %v", f.Type)
		}
	}
	if dequantSlot(tensor.DType(1<<31)) != nil {
		t.Error("an unknown type has a kernel")
	}
}
