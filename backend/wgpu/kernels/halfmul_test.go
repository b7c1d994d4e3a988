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

// runSplit is run with the columns divided, and what was left added up.
func (m HalfMul) runSplit(r *rig, d Device, w *matrix, x, bias, before []float32, tokens, splits int) []float32 {
	r.t.Helper()
	halves, parts, y := r.empty(2*w.n*m.K), r.empty(4*splits*tokens*w.n), buffer(r, before)
	must := func(k Kernel, err error) Kernel {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
		return k
	}
	unpack := r.bind(must(Unpack{Part: Part{w.t, w.n}, K: m.K}.Kernel(d)), true, buffer(r, w.packed), halves)
	g := Gather{Rows: w.n, Bias: m.Bias, Residual: m.Residual, SoftCap: m.SoftCap, First: m.First, Out: m.Out}
	m = HalfMul{K: m.K, Rows: w.n, Split: true, Tile: m.Tile}
	k := must(m.Kernel(d))
	k.Grid[0], k.Grid[2] = m.TokenTiles(tokens), splits
	rows, scale := halvePlain(x, m.K)
	steps := buffer(r, step(make([]int, tokens)...))
	product := r.bind(k, true, halves, steps, buffer(r, rows), buffer(r, scale), parts)
	k = must(g.Kernel(d))
	k.Grid[0], k.Grid[1] = g.Groups(d, tokens, splits), splits
	bufs := []*wgpu.Buffer{steps, parts}
	if g.Bias {
		bufs = append(bufs, buffer(r, bias))
	}
	if g.Residual == FromBuffer {
		bufs = append(bufs, buffer(r, before))
		y = r.empty(4 * len(before))
	}
	r.run(unpack, product, r.bind(k, true, append(bufs, y)...))
	return read[float32](r, y, len(before))
}

// TestHalfMulSplit: columns divided evenly, unevenly and among more workgroups than there are
// blocks of columns; with all that may follow a product.
func TestHalfMulSplit(t *testing.T) {
	r, dev := halfRig(t)
	k, n, tokens := 768, 36, 70
	w := newMatrix(t, tensor.Q4_K, k, n, 2)
	x := activations(k, tokens, 5)
	sums, mags := w.times(x)
	for _, tt := range []struct {
		m      HalfMul
		splits int
	}{
		{HalfMul{}, 1}, {HalfMul{Bias: true}, 2}, {HalfMul{Residual: InPlace}, 5}, {HalfMul{Residual: FromBuffer, Bias: true}, 7},
		{HalfMul{SoftCap: 20, Tile: HalfTile{64, 64, 4, 8}}, 3}, {HalfMul{Bias: true, First: 4, Out: 44}, 30},
	} {
		t.Run(fmt.Sprintf("%d/%+v", tt.splits, tt.m), func(t *testing.T) {
			m := tt.m
			m.K = k
			width := max(n, m.Out)
			bias, before := activations(width, 1, 1), normals(width*tokens, 9)
			y := m.runSplit(&rig{t, r.d}, dev, w, x, bias, before, tokens, tt.splits)
			want, mag := make([]float64, width*tokens), make([]float64, width*tokens)
			for j := range want {
				if m.Residual != FromBuffer { // untouched outside First … First+n
					want[j] = float64(before[j])
				}
				row := j%width - m.First
				if row < 0 || row >= n {
					continue
				}
				want[j], mag[j] = sums[j/width*n+row], mags[j/width*n+row]
				if m.Bias {
					want[j] += float64(bias[j%width])
					mag[j] += math.Abs(float64(bias[j%width]))
				}
				if m.Residual != NoResidual {
					want[j] += float64(before[j])
					mag[j] += math.Abs(float64(before[j]))
				}
				if c := float64(m.SoftCap); c > 0 {
					want[j] = c * math.Tanh(want[j]/c)
				}
			}
			worst, rms := MatMul{F16: true}.precision()
			compareRMS(t, y, want, mag, worst, rms)
		})
	}
}

// TestHalfMulSplits: products of few tiles are divided, within the memory that is asked for.
func TestHalfMulSplits(t *testing.T) {
	for _, m := range []HalfMul{{K: 8960, Rows: 1536}, {K: 1536, Rows: 2048}, {K: 64, Rows: 100}, {K: 18944, Rows: 3584}, {K: 3584, Rows: 37888}} {
		size := m.PartsBytes(2048)
		for n := 1; n <= 2048; n++ {
			s := m.Splits(n)
			if s < 1 || s > splitMost || s > 1 && m.K/s < splitColumns {
				t.Errorf("%+v: %d splits for %d tokens", m, s, n)
			}
			if need := 4 * s * n * m.Rows; need > size {
				t.Errorf("%+v: %d tokens need %d bytes of %d", m, n, need, size)
			}
		}
		if s := m.Splits(2048); m.Rows > 30000 && s != 1 {
			t.Errorf("%+v is split into %d", m, s)
		}
	}
	if s := (HalfMul{K: 8960, Rows: 1536}).Splits(64); s != splitMost {
		t.Errorf("a product of 24 tiles is split into %d", s)
	}
	d := Device{F16: true, Invocations: 256, WorkgroupMemory: 32 << 10, StorageBuffers: 8, Workgroups: 65535}
	for _, m := range []HalfMul{{K: 64, Rows: 8, Split: true, Bias: true}, {K: 64, Rows: 6, Split: true}, {K: 64, Rows: 8, Split: true, Residual: InPlace}, {K: 64, Rows: 8, Split: true, Out: 16}} {
		if _, err := m.Kernel(d); err == nil {
			t.Errorf("%+v is accepted", m)
		}
	}
	if _, err := (Gather{Rows: 6}).Kernel(d); err == nil {
		t.Error("rows that are no multiple of four are gathered")
	}
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
