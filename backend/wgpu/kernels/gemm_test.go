package kernels

import (
	"fmt"
	"math"
	"testing"

	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// halvePlain rounds rows of k numbers to F16 after taking a power of two out of each.
func halvePlain(x []float32, k int) (y []uint16, scale []float32) {
	for at := 0; at < len(x); at += k {
		top := 0.0
		for _, v := range x[at : at+k] {
			top = max(top, math.Abs(float64(v)))
		}
		e := -120
		if top > 0 {
			_, exp := math.Frexp(top) // in [0.5, 1)
			e = min(max(exp-1-5, -120), 120)
		}
		scale = append(scale, float32(math.Ldexp(1, e)))
		for _, v := range x[at : at+k] {
			y = append(y, quant.F32ToF16(float32(math.Ldexp(float64(v), -e))))
		}
	}
	return y, scale
}

// run runs a product for the tokens of x and returns y; before is what y holds.
func (m MatMul) run(r *rig, d Device, ws []*matrix, x, bias, before []float32, tokens int) []float32 {
	r.t.Helper()
	k, err := m.Kernel(d)
	if err != nil {
		r.t.Fatal(err)
	}
	k.Grid[1] = m.TokenTiles(d, tokens)
	var buffers []*wgpu.Buffer
	out := 0
	for _, w := range ws {
		buffers = append(buffers, buffer(r, w.packed))
		out += w.n
	}
	buffers = append(buffers, buffer(r, step(make([]int, tokens)...)))
	if m.F16 {
		y, scale := halvePlain(x, m.K)
		buffers = append(buffers, buffer(r, y), buffer(r, scale))
	} else {
		buffers = append(buffers, buffer(r, x))
	}
	if m.Bias {
		buffers = append(buffers, buffer(r, bias))
	}
	y := r.empty(4 * out * tokens)
	if before != nil {
		y = buffer(r, before)
	}
	r.run(r.bind(k, true, append(buffers, y)...))
	return read[float32](r, y, out*tokens)
}

// precision is what a product may be off, relative to the sum of magnitudes: the
// worst element, and all of them in the root mean square.
func (m MatMul) precision() (worst, rms float64) {
	if m.F16 {
		return 2e-3, 3e-4
	}
	return 3e-6, 1e-6
}

func compareRMS(t testing.TB, got []float32, want, mag []float64, worst, rms float64) {
	t.Helper()
	compare(t, got, want, mag, worst)
	sum, n := 0.0, 0
	for i := range want {
		if mag[i] > 0 {
			e := (float64(got[i]) - want[i]) / mag[i]
			sum, n = sum+e*e, n+1
		}
	}
	if r := math.Sqrt(sum / float64(n)); !(r <= rms) {
		t.Fatalf("errors are %g of the magnitudes, want at most %g", r, rms)
	}
}

// TestMatMul: every format, in both precisions, with tokens and rows that no tile
// divides.
func TestMatMul(t *testing.T) {
	r := newRig(t, wgpu.Features{F16: true})
	dev := r.device()
	for _, f16 := range []bool{false, true} {
		for _, f := range quant.Formats() {
			t.Run(fmt.Sprintf("%s/f16 %v", f.Type, f16), func(t *testing.T) {
				if f16 && !dev.F16 {
					t.Skip("this adapter has no half precision: scripts/gpu/check runs it on a GPU that has")
				}
				k, n, tokens := shortRow(f.Type), 37, 21
				w := newMatrix(t, f.Type, k, n, 2)
				x := activations(k, tokens, 5)
				m := MatMul{K: k, Parts: []Part{{f.Type, n}}, F16: f16, Tile: Tile{32, 16, 4, 4, false}}
				y := m.run(&rig{t, r.d}, dev, []*matrix{w}, x, nil, nil, tokens)
				want, mag := w.times(x)
				worst, rms := m.precision()
				compareRMS(t, y, want, mag, worst, rms)
			})
		}
	}
}

// TestMatMulParts: several matrices of different formats with bias and residual, in
// the tiles that are chosen.
func TestMatMulParts(t *testing.T) {
	r := newRig(t, wgpu.Features{F16: true})
	dev := r.device()
	k, tokens := 256, 130
	types := []tensor.DType{tensor.Q4_K, tensor.F16, tensor.Q6_K}
	for _, f16 := range []bool{false, dev.F16} {
		t.Run(fmt.Sprintf("f16 %v", f16), func(t *testing.T) {
			m := MatMul{K: k, F16: f16, Bias: true, Residual: InPlace}
			x := activations(k, tokens, 6)
			var ws []*matrix
			out := 0
			for i, n := range []int{66, 9, 70} {
				m.Parts = append(m.Parts, Part{types[i], n})
				ws = append(ws, newMatrix(t, types[i], k, n, uint64(i)))
				out += n
			}
			bias, before := activations(out, 1, 1), normals(out*tokens, 9)
			y := m.run(&rig{t, r.d}, dev, ws, x, bias, before, tokens)
			want, mag := make([]float64, out*tokens), make([]float64, out*tokens)
			at := 0
			for _, w := range ws {
				sums, mags := w.times(x)
				for i := range sums {
					j := i/w.n*out + at + i%w.n
					want[j], mag[j] = sums[i]+float64(bias[j%out])+float64(before[j]), mags[i]+math.Abs(float64(bias[j%out]))+math.Abs(float64(before[j]))
				}
				at += w.n
			}
			worst, rms := m.precision()
			compareRMS(t, y, want, mag, worst, rms)
		})
	}
}

// TestMatMulTiles: the tiles that fast devices get.
func TestMatMulTiles(t *testing.T) {
	r := newRig(t, wgpu.Features{F16: true})
	dev := r.device()
	k, n, tokens := 256, 70, 40
	tiles := []Tile{{64, 32, 8, 4, false}, {32, 32, 8, 8, false}, {32, 32, 4, 4, true}, {32, 32, 8, 8, true}}
	if !dev.Software {
		tiles = append(tiles, Tile{64, 128, 8, 8, false}, Tile{128, 128, 8, 8, true}, Tile{64, 128, 8, 8, true}, Tile{64, 64, 8, 8, true})
	}
	w := newMatrix(t, tensor.Q4_K, k, n, 2)
	x := activations(k, tokens, 5)
	for _, tile := range tiles {
		for _, f16 := range []bool{false, dev.F16} {
			t.Run(fmt.Sprintf("%v f16 %v", tile, f16), func(t *testing.T) {
				m := MatMul{K: k, Parts: []Part{{tensor.Q4_K, n}}, F16: f16, Tile: tile}
				y := m.run(&rig{t, r.d}, dev, []*matrix{w}, x, nil, nil, tokens)
				want, mag := w.times(x)
				worst, rms := m.precision()
				compareRMS(t, y, want, mag, worst, rms)
			})
		}
	}
}

// TestHalve: rounding, norm and gated activation, in both precisions.
func TestHalve(t *testing.T) {
	r := newRig(t, wgpu.Features{F16: true})
	dev := r.device()
	act := graph.SiLU
	k, rows := 300, 5
	for _, o := range []Halve{{}, {Norm: true, Eps: 1e-5}, {Act: &act}, {F16: true}, {F16: true, Norm: true, Eps: 1e-5}, {F16: true, Act: &act}} {
		t.Run(fmt.Sprintf("f16 %v norm %v act %v", o.F16, o.Norm, o.Act != nil), func(t *testing.T) {
			if o.F16 && !dev.F16 {
				t.Skip("this adapter has no half precision: scripts/gpu/check runs it on a GPU that has")
			}
			r := &rig{t, r.d}
			o.K = k
			kernel, err := o.Kernel(dev)
			if err != nil {
				t.Fatal(err)
			}
			kernel.Grid[0] = rows
			x, w := activations(k, rows, 3), activations(k, 1, 4)
			want := x
			if o.Norm {
				want = normed(x, w, o.Eps)
			}
			if o.Act != nil {
				x = activations(2*k, rows, 3)
				want = nil
				for row := range rows {
					for i := range k {
						want = append(want, float32(activate(act, float64(x[row*2*k+i]))*float64(x[row*2*k+k+i])))
					}
				}
			}
			y, scale := r.empty(4*k*rows), r.empty(4*rows)
			bufs := []*wgpu.Buffer{buffer(r, x), y}
			if o.Norm {
				bufs = []*wgpu.Buffer{bufs[0], buffer(r, w), y}
			}
			if !o.F16 {
				r.run(r.bind(kernel, true, bufs...))
				for i, v := range read[float32](r, y, k*rows) {
					if d := math.Abs(float64(v - want[i])); !(d <= 3e-6*math.Abs(float64(want[i]))) {
						t.Fatalf("row %d, element %d: %g, want %g", i/k, i%k, v, want[i])
					}
				}
				return
			}
			r.run(r.bind(kernel, true, append(bufs, scale)...))
			scales := read[float32](r, scale, rows)
			for i, h := range read[uint16](r, y, k*rows) {
				top := 0.0
				for _, v := range want[i/k*k : (i/k+1)*k] {
					top = max(top, math.Abs(float64(v)))
				}
				v := quant.F16ToF32(h)
				if s := scales[i/k]; math.Abs(float64(v)) >= 64.01 || s != float32(math.Ldexp(1, math.Ilogb(float64(s)))) {
					t.Fatalf("row %d: number %g with scale %g", i/k, v, s)
				}
				// Half a step of F16, whose smallest is 2^-24.
				limit := math.Abs(float64(want[i]))*0x1p-11*1.01 + float64(scales[i/k])*0x1p-24
				if d := math.Abs(float64(v)*float64(scales[i/k]) - float64(want[i])); !(d <= limit) {
					t.Fatalf("row %d, element %d: %g, want %g (largest %g)", i/k, i%k, v*scales[i/k], want[i], top)
				}
			}
		})
	}
}
