package kernels

import (
	"fmt"
	"math"
	"testing"

	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// run unpacks matrices one below the other and multiplies them with the tokens of x;
// before is what y holds.
func (m HalfMul) run(r *rig, d Device, ws []*matrix, x, bias, before []float32, tokens int) []float32 {
	r.t.Helper()
	m.Rows = 0
	for _, w := range ws {
		m.Rows += w.n
	}
	halves := r.empty(2 * m.Rows * m.K)
	var list []ready
	at := 0
	for _, w := range ws {
		u, err := Unpack{Part: Part{w.t, w.n}, K: m.K, First: at}.Kernel(d)
		if err != nil {
			r.t.Fatal(err)
		}
		list = append(list, r.bind(u, true, buffer(r, w.packed), halves))
		at += w.n
	}
	k, err := m.Kernel(d)
	if err != nil {
		r.t.Fatal(err)
	}
	k.Grid[0] = m.TokenTiles(tokens)
	rows, scale := halvePlain(x, m.K)
	bufs := []*wgpu.Buffer{halves, buffer(r, step(make([]int, tokens)...)), buffer(r, rows), buffer(r, scale)}
	if m.Bias {
		bufs = append(bufs, buffer(r, bias))
	}
	y := r.empty(4 * m.Rows * tokens)
	if before != nil {
		y = buffer(r, before)
	}
	r.run(append(list, r.bind(k, true, append(bufs, y)...))...)
	return read[float32](r, y, m.Rows*tokens)
}

func halfRig(t *testing.T) (*rig, Device) {
	r := newRig(t, wgpu.Features{F16: true})
	dev := r.device()
	if !dev.F16 {
		t.Skip("this adapter has no half precision: scripts/gpu/check runs it on a GPU that has")
	}
	return r, dev
}

// TestHalfMul: every format, with tokens and rows that no tile divides.
func TestHalfMul(t *testing.T) {
	r, dev := halfRig(t)
	for _, f := range quant.Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			k, n, tokens := shortRow(f.Type), 37, 21
			w := newMatrix(t, f.Type, k, n, 2)
			x := activations(k, tokens, 5)
			y := HalfMul{K: k}.run(&rig{t, r.d}, dev, []*matrix{w}, x, nil, nil, tokens)
			want, mag := w.times(x)
			worst, rms := MatMul{F16: true}.precision()
			compareRMS(t, y, want, mag, worst, rms)
		})
	}
}

// TestHalfMulParts: several matrices in one, with bias and residual, in all tiles.
func TestHalfMulParts(t *testing.T) {
	r, dev := halfRig(t)
	k, tokens := 768, 130
	types := []tensor.DType{tensor.Q4_K, tensor.F16, tensor.Q6_K}
	for _, tile := range []HalfTile{{}, {64, 128, 8, 8}, {128, 64, 8, 8}, {64, 32, 8, 4}} {
		t.Run(fmt.Sprint(tile), func(t *testing.T) {
			m := HalfMul{K: k, Bias: true, Residual: InPlace, Tile: tile}
			x := activations(k, tokens, 6)
			var ws []*matrix
			out := 0
			sizes := []int{66, 9, 70}
			if tile.Tokens != 128 {
				sizes = []int{66, 10, 72} // stored four at a time
			}
			for i, n := range sizes {
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
			worst, rms := MatMul{F16: true}.precision()
			compareRMS(t, y, want, mag, worst, rms)
		})
	}
}
