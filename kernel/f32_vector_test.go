package kernel

import (
	"math"
	"testing"

	"github.com/apr-engine/apr/kernel/kerneltest"
	"github.com/apr-engine/apr/quant"
)

// testLengths covers every remainder of the widest unrolled loop (4 registers
// of 16 lanes) over two rounds, and a few long ones.
func testLengths() []int {
	var out []int
	for n := range 140 {
		out = append(out, n)
	}
	return append(out, 255, 256, 257, 1000, 1536, 4099)
}

var bothPlaces = []kerneltest.Place{kerneltest.AtEnd, kerneltest.AtStart}

func eachLevel(t *testing.T, f func(t *testing.T)) { kerneltest.EachLevel(t, Use, f) }

func TestDot(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		for _, n := range testLengths() {
			for _, place := range bothPlaces {
				a, b := kerneltest.Normal(t, rng, n, place), kerneltest.Normal(t, rng, n, place)
				h := kerneltest.Slice[uint16](t, n, place)
				f32ToF16Generic(h, b)
				var want, wantHalf, size float64
				for i := range a {
					want += float64(a[i]) * float64(b[i])
					wantHalf += float64(a[i]) * float64(quant.F16ToF32(h[i]))
					size += math.Abs(float64(a[i]) * float64(b[i]))
				}
				// Each of n additions rounds a partial sum no larger than size; with
				// several sums and random signs the errors stay far below n·2⁻²⁴.
				tol := func(int) float64 { return size * 3e-7 }
				kerneltest.Close(t, "dot f32", []float32{DotF32(a, b)}, []float64{want}, tol)
				kerneltest.Close(t, "dot f16", []float32{DotF16(a, h)}, []float64{wantHalf}, tol)
			}
		}
	})
}

func TestDotNaN(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		nan := float32(math.NaN())
		for n := 1; n < 100; n++ {
			for i := range n {
				a, b, h := make([]float32, n), make([]float32, n), make([]uint16, n)
				a[i] = nan
				if v := DotF32(a, b); v == v {
					t.Fatalf("dot of %d with NaN at %d is %v", n, i, v)
				}
				a[i], h[i] = 1, 0x7e00
				if v := DotF16(a, h); v == v {
					t.Fatalf("f16 dot of %d with NaN at %d is %v", n, i, v)
				}
			}
		}
	})
}

func TestAxpy(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		for _, n := range testLengths() {
			for _, place := range bothPlaces {
				x, y := kerneltest.Normal(t, rng, n, place), kerneltest.Normal(t, rng, n, place)
				h := kerneltest.Slice[uint16](t, n, place)
				f32ToF16Generic(h, x)
				y16 := kerneltest.Slice[float32](t, n, place)
				copy(y16, y)
				a := float32(rng.NormFloat64())
				want, want16, size := make([]float64, n), make([]float64, n), make([]float64, n)
				for i := range x {
					want[i] = float64(y[i]) + float64(a)*float64(x[i])
					want16[i] = float64(y[i]) + float64(a)*float64(quant.F16ToF32(h[i]))
					size[i] = math.Abs(float64(y[i])) + math.Abs(float64(a)*float64(x[i]))
				}
				AxpyF32(y, a, x)
				AxpyF16(y16, a, h)
				// Two roundings of half an ulp each, of numbers no larger than size.
				tol := func(i int) float64 { return size[i]*0x1p-23*1.01 + 1e-40 }
				kerneltest.Close(t, "axpy f32", y, want, tol)
				kerneltest.Close(t, "axpy f16", y16, want16, tol)
			}
		}
	})
}

// TestElementwise compares the exactly rounded operations bit for bit, in place
// and apart.
func TestElementwise(t *testing.T) {
	cases := []struct {
		name string
		run  func(dst, a, b []float32)
		want func(a, b float32) float32
	}{
		{"add", Add, func(a, b float32) float32 { return a + b }},
		{"mul", Mul, func(a, b float32) float32 { return a * b }},
		{"scale", func(dst, a, _ []float32) { Scale(dst, a, 0.37) }, func(a, _ float32) float32 { return a * 0.37 }},
	}
	eachLevel(t, func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				rng := kerneltest.Rand(t)
				for _, n := range testLengths() {
					for _, place := range bothPlaces {
						a, b := kerneltest.Normal(t, rng, n, place), kerneltest.Normal(t, rng, n, place)
						if n > 3 {
							a[n/2], b[n/3], a[n-1] = float32(math.NaN()), float32(math.Inf(1)), 1e-42
						}
						want := make([]float32, n)
						for i := range want {
							want[i] = c.want(a[i], b[i])
						}
						dst := kerneltest.Slice[float32](t, n, place)
						c.run(dst, a, b)
						kerneltest.SameBits(t, c.name, dst, want)
						c.run(a, a, b)
						kerneltest.SameBits(t, c.name+" in place", a, want)
					}
				}
			})
		}
	})
}

// TestHalfAll converts every half to float32 and back, and compares the value
// with the definition of the format.
func TestHalfAll(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		src, back, f := make([]uint16, 65536), make([]uint16, 65536), make([]float32, 65536)
		for i := range src {
			src[i] = uint16(i)
		}
		F16ToF32Slice(f, src)
		F32ToF16Slice(back, f)
		for i, h := range src {
			want := h
			if h&0x7c00 == 0x7c00 && h&0x3ff != 0 {
				want |= 0x200 // quiet
			}
			if back[i] != want {
				t.Fatalf("half %#04x → %v → %#04x", h, f[i], back[i])
			}
			if exp := int(h >> 10 & 31); exp < 31 {
				v := math.Ldexp(float64(h&0x3ff)+1024, exp-25)
				if exp == 0 {
					v = math.Ldexp(float64(h&0x3ff), -24)
				}
				if math.Abs(float64(f[i])) != v || math.Signbit(float64(f[i])) != (h >= 0x8000) {
					t.Fatalf("half %#04x is %v, want ±%v", h, f[i], v)
				}
			}
		}
	})
}

// TestHalfRounding checks round-to-nearest-even between each pair of
// neighbouring halves, on both sides of the middle and at it.
func TestHalfRounding(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		var src []float32
		var want []uint16
		for h := uint16(0); h < 0x7c00; h++ {
			lo, next := quant.F16ToF32(h), float32(65536) // beyond the largest half lies 2¹⁶
			if h+1 < 0x7c00 {
				next = quant.F16ToF32(h + 1)
			}
			mid := lo + (next-lo)/2
			even := h + h&1
			for _, c := range []struct {
				f float32
				h uint16
			}{{math.Nextafter32(mid, 0), h}, {mid, even}, {math.Nextafter32(mid, next), h + 1}} {
				src = append(src, c.f, -c.f)
				want = append(want, c.h, c.h|0x8000)
			}
		}
		got := make([]uint16, len(src))
		F32ToF16Slice(got, src)
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%v (%#08x) rounds to %#04x, want %#04x", src[i], math.Float32bits(src[i]), got[i], want[i])
			}
		}
	})
}

func TestHalfLengths(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		for _, n := range testLengths() {
			for _, place := range bothPlaces {
				f := kerneltest.Normal(t, rng, n, place)
				h, want := kerneltest.Slice[uint16](t, n, place), make([]uint16, n)
				F32ToF16Slice(h, f)
				f32ToF16Generic(want, f)
				for i := range h {
					if h[i] != want[i] {
						t.Fatalf("%d of %d: %#04x, want %#04x", i, n, h[i], want[i])
					}
				}
				F16ToF32Slice(f, h)
				back := make([]float32, n)
				f16ToF32Generic(back, h)
				kerneltest.SameBits(t, "to f32", f, back)
			}
		}
	})
}
