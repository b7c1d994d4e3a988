package kernels

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/driver/wgpu"
)

// activations makes rows of k numbers: ordinary ones, then rows with outliers of 26
// times the RMS, of zeros, of tiny and of huge numbers.
func activations(k, rows int, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 3))
	x := make([]float32, k*rows)
	for r := range rows {
		for i := range k {
			v := float32(rng.NormFloat64())
			switch r % 5 {
			case 1:
				if rng.IntN(200) == 0 {
					v = 26 * float32(math.Copysign(1, rng.NormFloat64()))
				}
			case 2:
				if i < k/2 {
					v = 0
				}
			case 3:
				v *= 1e-6
			case 4:
				v *= 1e4
			}
			x[r*k+i] = v
		}
	}
	return x
}

// quantizePlain is the definition: rows of quantised numbers and what they stand for.
func quantizePlain(x []float32, k int) (words []uint32, values []float32) {
	nb := k / 32
	values = make([]float32, len(x))
	for r := 0; r*k < len(x); r++ {
		row := make([]uint32, QuantWords(k))
		for b := range nb {
			var top float32
			for _, v := range x[r*k+32*b : r*k+32*b+32] {
				top = max(top, float32(math.Abs(float64(v))))
			}
			s := top * float32(1.0/32512.0)
			sum := 0
			for i := range 32 {
				n := 0
				if top > 0 {
					n = int(math.RoundToEven(float64(x[r*k+32*b+i] * (32512 / top))))
				}
				hi := (n + 128) >> 8
				lo := n - 256*hi
				word := (i/16*nb+b)*4 + i%16/4
				row[word] |= uint32(uint8(hi)) << (i % 4 * 8)
				row[word+8*nb] |= uint32(uint8(lo)) << (i % 4 * 8)
				values[r*k+32*b+i] = s * float32(n)
				sum += n
			}
			row[16*nb+2*b] = math.Float32bits(s)
			row[16*nb+2*b+1] = math.Float32bits(s * float32(sum))
		}
		words = append(words, row...)
	}
	return words, values
}

// unquantize reads rows of quantised numbers back; sums are those stored.
func unquantize(words []uint32, k, rows int) (values, sums []float32) {
	nb, n := k/32, QuantWords(k)
	for r := range rows {
		row := words[r*n:]
		for b := range nb {
			s := math.Float32frombits(row[16*nb+2*b])
			for i := range 32 {
				word := (i/16*nb+b)*4 + i%16/4
				hi, lo := int8(row[word]>>(i%4*8)), int8(row[word+8*nb]>>(i%4*8))
				values = append(values, s*float32(256*int(hi)+int(lo)))
			}
			sums = append(sums, math.Float32frombits(row[16*nb+2*b+1]))
		}
	}
	return values, sums
}

// normed is RMSNorm in float64.
func normed(x, w []float32, eps float32) []float32 {
	k := len(w)
	y := make([]float32, len(x))
	for at := 0; at < len(x); at += k {
		ss := 0.0
		for _, v := range x[at : at+k] {
			ss += float64(v) * float64(v)
		}
		inv := 1 / math.Sqrt(ss/float64(k)+float64(eps))
		for i := range k {
			y[at+i] = float32(float64(x[at+i]) * inv * float64(w[i]))
		}
	}
	return y
}

// checkQuantized compares quantised rows with the numbers they stand for.
func checkQuantized(t *testing.T, words []uint32, want []float32, k int) {
	t.Helper()
	rows := len(want) / k
	got, sums := unquantize(words, k, rows)
	for b := 0; b < len(want)/32; b++ {
		top, sum := 0.0, 0.0
		for i := 32 * b; i < 32*b+32; i++ {
			top = max(top, math.Abs(float64(want[i])))
			sum += float64(got[i])
		}
		for i := 32 * b; i < 32*b+32; i++ {
			// Half a step, and the rounding of the norm and of the scale.
			if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= top*(0.5/32512+2e-6)) {
				t.Fatalf("row %d, element %d: %g, want %g (largest of the group %g)", i/k, i%k, got[i], want[i], top)
			}
		}
		if d := math.Abs(float64(sums[b]) - sum); !(d <= top*1e-4) {
			t.Fatalf("sum of group %d: %g, want %g", b, sums[b], sum)
		}
	}
}

func TestQuantize(t *testing.T) {
	r := newRig(t, wgpu.Features{})
	dev := DeviceOf(r.d.Info)
	for _, k := range []int{32, 5 * 32, 1536, 33 * 32} {
		x := activations(k, 5, uint64(k))
		w := activations(k, 1, 9)
		for _, norm := range []bool{false, true} {
			want, name := x, "plain"
			if norm {
				want, name = normed(x, w, 1e-6), "norm"
			}
			t.Run(itoa(k)+"/"+name, func(t *testing.T) {
				r := &rig{t, r.d}
				kernel, err := Quantize{K: k, Rows: 5, Norm: norm, Eps: 1e-6}.Kernel(dev)
				if err != nil {
					t.Fatal(err)
				}
				q := r.empty(4 * QuantWords(k) * 5)
				buffers := []*wgpu.Buffer{buffer(r, x), q}
				if norm {
					buffers = []*wgpu.Buffer{buffers[0], buffer(r, w), q}
				}
				r.run(r.bind(kernel, true, buffers...))
				checkQuantized(t, read[uint32](r, q, 5*QuantWords(k)), want, k)
			})
		}
	}
}

// TestQuantizeGarbage: a number that is none spoils its group and nothing else.
func TestQuantizeGarbage(t *testing.T) {
	r := newRig(t, wgpu.Features{})
	k := 96
	x := activations(k, 1, 1)
	x[40] = float32(math.NaN())
	x[95] = float32(math.Inf(-1))
	kernel, err := Quantize{K: k, Rows: 1}.Kernel(DeviceOf(r.d.Info))
	if err != nil {
		t.Fatal(err)
	}
	q := r.empty(4 * QuantWords(k))
	r.run(r.bind(kernel, true, buffer(r, x), q))
	values, sums := unquantize(read[uint32](r, q, QuantWords(k)), k, 1)
	for i, v := range values {
		if bad := v != v; bad != (i >= 32) {
			t.Errorf("element %d is %g", i, v)
		}
	}
	for b, s := range sums {
		if bad := s != s; bad != (b >= 1) {
			t.Errorf("sum %d is %g", b, s)
		}
	}
}
