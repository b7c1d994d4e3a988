package kernel

import (
	"math"
	"testing"

	"github.com/apr-engine/apr/kernel/kerneltest"
)

func TestRMSNorm(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		for _, n := range testLengths()[1:] {
			for _, place := range bothPlaces {
				x, w := kerneltest.Normal(t, rng, n, place), kerneltest.Normal(t, rng, n, place)
				if n > 5 {
					x[n/2] = 1e4 // an outlier channel: small squares must not get lost
				}
				want := make([]float64, n)
				var sum float64
				for _, v := range x {
					sum += float64(v) * float64(v)
				}
				scale := 1 / math.Sqrt(sum/float64(n)+float64(float32(1e-6)))
				for i := range want {
					want[i] = float64(x[i]) * scale * float64(w[i])
				}
				dst := kerneltest.Slice[float32](t, n, place)
				RMSNorm(dst, x, w, 1e-6)
				// Three roundings of half an ulp: scale, x·scale, ·weight.
				tol := func(i int) float64 { return math.Abs(want[i])*1.51*0x1p-23 + 1e-44 }
				kerneltest.Close(t, "rmsnorm", dst, want, tol)
				RMSNorm(x, x, w, 1e-6)
				kerneltest.SameBits(t, "in place", x, dst)
			}
		}
	})
}

func TestRMSNormNaN(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for n := 1; n < 70; n++ {
			for i := range n {
				x, w := make([]float32, n), make([]float32, n)
				x[i] = float32(math.NaN())
				RMSNorm(x, x, w, 1e-6)
				for k, v := range x {
					if v == v {
						t.Fatalf("NaN at %d of %d: result %d is %v", i, n, k, v)
					}
				}
			}
		}
	})
}

// TestGates compares SiLUMul and GELUMul with float64 over a sweep of gates,
// special values, all lengths and in place.
func TestGates(t *testing.T) {
	cases := []struct {
		name string
		run  func(dst, gate, up []float32)
		want func(g float64) float64
		tol  func(g, want float64) float64
	}{
		// exp within 2 ulp, an addition, a division and a product: 4 ulp. Below
		// the normal range 1/(1+e^-g) goes through infinity and gives 0.
		{"silu", SiLUMul, func(g float64) float64 { return g / (1 + math.Exp(-g)) },
			func(g, want float64) float64 { return 4*kerneltest.ULP(want) + 1e-36 }},
		// The argument of exp has a few ulp of its own, which exp turns into |u|
		// times as many; far out the value itself is tiny, so it is bounded by |g|.
		{"gelu", GELUMul, func(g float64) float64 {
			return 0.5 * g * (1 + math.Tanh(geluSqrt2OverPi*(g+geluCubic*g*g*g)))
		}, func(g, want float64) float64 { return 6*kerneltest.ULP(want) + math.Abs(g)*1e-7 }},
	}
	eachLevel(t, func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				rng := kerneltest.Rand(t)
				check := func(n int, place kerneltest.Place, gate func(i int) float32) {
					g, up, dst := kerneltest.Slice[float32](t, n, place), kerneltest.Slice[float32](t, n, place), kerneltest.Slice[float32](t, n, place)
					want := make([]float64, n)
					for i := range g {
						g[i], up[i] = gate(i), float32(rng.NormFloat64())
						want[i] = c.want(float64(g[i])) * float64(up[i])
					}
					c.run(dst, g, up)
					kerneltest.Close(t, c.name, dst, want, func(i int) float64 {
						return c.tol(float64(g[i]), want[i]/float64(up[i]))*math.Abs(float64(up[i])) + 2*kerneltest.ULP(want[i])
					})
					inGate, inUp := append([]float32(nil), g...), append([]float32(nil), up...)
					c.run(inGate, inGate, up)
					kerneltest.SameBits(t, "in gate", inGate, dst)
					c.run(inUp, g, inUp)
					kerneltest.SameBits(t, "in up", inUp, dst)
				}
				for _, n := range testLengths() {
					for _, place := range bothPlaces {
						check(n, place, func(int) float32 { return float32(rng.NormFloat64() * 4) })
					}
				}
				check(20001, kerneltest.AtEnd, func(i int) float32 { return float32(i-10000) / 90 })
				special := []float32{0, float32(math.Copysign(0, -1)), float32(math.NaN()), float32(math.Inf(1)), 1e30, -80, 80, 1e-40}
				check(len(special), kerneltest.AtEnd, func(i int) float32 { return special[i] })
			})
		}
	})
}

// TestExp sweeps exp over all exponents and checks it to 2 ulp, with the ends:
// overflow to +Inf, underflow through subnormals to 0, NaN to NaN.
func TestExp(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		var x []float32
		for i := -110000; i <= 95000; i += 7 {
			x = append(x, float32(i)/1000)
		}
		for range 100000 {
			x = append(x, float32(rng.NormFloat64()*20))
		}
		for e := -149.0; e < 8; e += 0.37 {
			x = append(x, float32(math.Exp2(e)), -float32(math.Exp2(e)))
		}
		x = append(x, 88.72283, 88.72284, -87.33655, -103.97208, -103.98, -104, -1e30, 1e30, 0,
			float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()))
		want := make([]float64, len(x))
		for i, v := range x {
			want[i] = math.Exp(float64(v))
			if want[i] > math.MaxFloat32*(1+0x1p-25) {
				want[i] = math.Inf(1)
			}
		}
		slotExpSub.active(x, 0)
		used := kerneltest.Close(t, "exp", x, want, func(i int) float64 { return 2 * kerneltest.ULP(want[i]) })
		t.Logf("worst error %.2f ulp", used*2)
	})
}

func TestSoftmax(t *testing.T) {
	negInf, nan := float32(math.Inf(-1)), float32(math.NaN())
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		for _, n := range testLengths() {
			for _, place := range bothPlaces {
				x := kerneltest.Normal(t, rng, n, place)
				for i := range x {
					x[i] *= 5
					if n > 2 && i%3 == 1 {
						x[i] = negInf
					}
				}
				want := softmax64(x)
				Softmax(x)
				// The difference to the maximum is rounded: |x-max| ≤ 40 gives 20 ulp(1)
				// in exp's argument; then exp itself, the sum and the scaling.
				kerneltest.Close(t, "softmax", x, want, func(i int) float64 { return want[i]*3e-6 + 1e-44 })
			}
		}
		for n := 1; n < 100; n++ {
			x := make([]float32, n)
			for i := range x {
				x[i] = negInf
			}
			Softmax(x)
			kerneltest.SameBits(t, "all masked", x, make([]float32, n))
			for i := range x {
				x[i] = float32(i)
			}
			x[n/2] = nan
			Softmax(x)
			for i, v := range x {
				if v == v {
					t.Fatalf("NaN among %d: [%d] = %v", n, i, v)
				}
			}
		}
	})
}

func softmax64(x []float32) []float64 {
	out := make([]float64, len(x))
	m, sum := math.Inf(-1), 0.0
	for _, v := range x {
		m = max(m, float64(v))
	}
	for i, v := range x {
		out[i] = math.Exp(float64(v) - m)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

func TestArgMaxAndFinite(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		for _, n := range append(testLengths(), 1023, 1024, 1025, 4096, 9000) {
			x := kerneltest.Normal(t, rng, n, kerneltest.AtEnd)
			want := 0
			for i := range x {
				if x[i] > x[want] {
					want = i
				}
			}
			if got := ArgMax(x); got != want {
				t.Fatalf("of %d the largest is %d, want %d", n, got, want)
			}
			if !Finite(x) {
				t.Fatalf("%d numbers are not finite", n)
			}
			if n == 0 {
				continue
			}
			first := rng.IntN(n)
			x[first], x[first+rng.IntN(n-first)] = 50, 50 // the first of equals
			if got := ArgMax(x); got != first {
				t.Fatalf("of %d the first of two is %d, want %d", n, got, first)
			}
			for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				at := rng.IntN(n)
				good := x[at]
				if x[at] = float32(bad); Finite(x) {
					t.Fatalf("%v at %d of %d goes unnoticed", bad, at, n)
				}
				x[at] = good
			}
			x[first] = -math.MaxFloat32
			if !Finite(x) {
				t.Fatal("the largest number is taken for infinite")
			}
		}
	})
}

func TestMax(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		for _, n := range testLengths() {
			x := kerneltest.Normal(t, rng, n, kerneltest.AtEnd)
			for i := range x {
				if i%5 == 2 {
					x[i] = float32(math.NaN())
				}
				x[i] -= 10
			}
			if n > 0 {
				x[rng.IntN(n)] = -1
			}
			if got, want := slotMax.active(x), maxGeneric(x); got != want {
				t.Fatalf("max of %d is %v, want %v", n, got, want)
			}
		}
	})
}

func TestSoftCap(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		for _, n := range testLengths() {
			for _, limit := range []float32{0, 50} {
				x := kerneltest.Normal(t, rng, n, kerneltest.AtEnd)
				want := make([]float64, n)
				for i := range x {
					x[i] *= 300
					v := float64(x[i]) * 0.25
					if limit != 0 {
						v = 50 * math.Tanh(v/50)
					}
					want[i] = v
				}
				slotSoftCap.active(x, 0.25, limit)
				// tanh from exp: a few ulp of the limit near 0, of the value elsewhere.
				kerneltest.Close(t, "softcap", x, want, func(i int) float64 { return 4*kerneltest.ULP(want[i]) + 50*3e-7 })
			}
		}
	})
}

// TestRope compares both pairings bit for bit with the formula in float32 and
// checks that what lies past the rotated part stays.
func TestRope(t *testing.T) {
	cases := []struct {
		name string
		run  func(x, cos, sin []float32)
		pair func(i, n int) (int, int)
	}{
		{"neox", RopeNeoX, func(i, n int) (int, int) { return i, i + n }},
		{"norm", RopeNorm, func(i, n int) (int, int) { return 2 * i, 2*i + 1 }},
	}
	eachLevel(t, func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				rng := kerneltest.Rand(t)
				for n := range 140 {
					for _, place := range bothPlaces {
						x := kerneltest.Normal(t, rng, 2*n+n%3, place)
						cos, sin := kerneltest.Normal(t, rng, n, place), kerneltest.Normal(t, rng, n, place)
						want := append([]float32{}, x...)
						for k := range n {
							i, j := c.pair(k, n)
							want[i] = float32(x[i]*cos[k]) - float32(x[j]*sin[k])
							want[j] = float32(x[i]*sin[k]) + float32(x[j]*cos[k])
						}
						c.run(x, cos, sin)
						kerneltest.SameBits(t, c.name, x, want)
					}
				}
			})
		}
	})
}
