package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// Every value comes back within half a step; the step is a 127th of the largest,
// rounded to binary16, which costs the largest up to 127 · 2^-12 of a step more.
func TestQuantizeQ8(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 8))
	for _, scale := range []float64{1e-6, 1e-2, 1, 300, 1e5} {
		src, back := make([]float32, 96), make([]float32, 96)
		for i := range src {
			src[i] = float32(rng.NormFloat64() * scale)
		}
		clear(src[32:64])
		dst := make([]byte, CacheRowBytes(len(src)))
		QuantizeQ8(dst, src)
		Dequantize(tensor.Q8_0, back, dst)
		for b := 0; b < len(src); b += 32 {
			largest := 0.0
			for _, v := range src[b : b+32] {
				largest = max(largest, math.Abs(float64(v)))
			}
			step := largest/127*(1+0x1p-11) + 0x1p-25 // half the least subnormal
			for i := b; i < b+32; i++ {
				if diff := math.Abs(float64(back[i] - src[i])); !(diff <= step*0.532+127*0x1p-25) {
					t.Errorf("scale %g: element %d of %v came back as %v, step %g", scale, i, src[i], back[i], step)
				}
			}
		}
	}
}

func TestQuantizeQ8Special(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		src, back := make([]float32, 64), make([]float32, 64)
		src[40] = float32(bad)
		dst := make([]byte, CacheRowBytes(len(src)))
		QuantizeQ8(dst, src)
		Dequantize(tensor.Q8_0, back, dst)
		for i, v := range back {
			if isNaN := v != v; isNaN != (i >= 32) {
				t.Errorf("%v at 40: element %d is %v", bad, i, v)
			}
		}
	}
}
