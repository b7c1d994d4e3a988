package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// launch prepares one kernel inside the context.
func (g *gpu) launch(f func() (*cuda.Launch, error)) *cuda.Launch {
	g.t.Helper()
	var l *cuda.Launch
	g.do(func() (err error) {
		l, err = f()
		return err
	})
	return l
}

// sameBits compares float32 slices by their bits, so that NaN equals itself.
func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// gemmCase is a product with f16 operands, all parts of the epilogue switchable.
type gemmCase struct {
	t, n, k                            int
	tile                               string
	splits                             int
	xScale, wScale, bias, residual, in bool // in: the residual is the output itself
}

// TestGEMM: every tile, with shapes that do not fill it, against float64 sums of
// the same f16 numbers: what differs is the rounding of float32 sums.
func TestGEMM(t *testing.T) {
	g := openGPU(t)
	cases := []gemmCase{
		{t: 1, n: 1, k: 64, splits: 1},
		{t: 128, n: 128, k: 64, splits: 1, xScale: true},
		{t: 129, n: 131, k: 192, splits: 1, xScale: true, wScale: true, bias: true, residual: true},
		{t: 33, n: 260, k: 320, splits: 3, xScale: true, wScale: true, bias: true, residual: true, in: true},
		{t: 70, n: 66, k: 576, splits: 2, bias: true},
		{t: 15, n: 127, k: 448, splits: 7, residual: true},
		{t: 65, n: 40, k: 64, splits: 1, wScale: true, residual: true, in: true},
	}
	for _, tile := range gemmTiles {
		for _, c := range cases {
			c.tile = tile.name
			t.Run(fmt.Sprintf("%s/%dx%dx%d/%d", tile.name, c.t, c.n, c.k, c.splits), func(t *testing.T) {
				if tile.capability != 0 && tile.capability != g.c.Device.Capability() || tile.shared > g.c.Device.SharedMemory {
					t.Skip("this tile needs another compute capability or more shared memory: scripts/gpu/check runs it on a Hopper GPU")
				}
				c.check(t, g, tile)
			})
		}
	}
}

func (c gemmCase) check(t *testing.T, g *gpu, tile gemmTile) {
	r := rand.New(rand.NewPCG(uint64(c.t), uint64(c.n)))
	random := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		return x
	}
	halves := func(x []float32) []uint16 {
		h := make([]uint16, len(x))
		for i := range x {
			h[i] = quant.F32ToF16(x[i])
			x[i] = quant.F16ToF32(h[i])
		}
		return h
	}
	x, w := random(c.t*c.k), random(c.n*c.k)
	plan := gemmPlan{T: c.t, N: c.n, K: c.k, Splits: c.splits, tile: tile}
	args := gemmArgs{X: upload(g, halves(x)), W: upload(g, halves(w))}
	ones := func(n int) []float32 { return slices.Repeat([]float32{1}, n) }
	xs, ws, bias, residual := ones(c.t), ones(c.n), make([]float32, c.n), make([]float32, c.t*c.n)
	if c.xScale {
		xs = random(c.t)
		args.XScale = upload(g, xs)
	}
	if c.wScale {
		ws = random(c.n)
		args.WScale = upload(g, ws)
	}
	if c.bias {
		bias = random(c.n)
		args.Bias = upload(g, bias)
	}
	args.Y = g.alloc(int64(c.t * c.n * 4))
	if c.residual {
		residual = random(c.t * c.n)
		args.Residual = upload(g, residual)
		if c.in {
			args.Residual = args.Y
		}
	}
	if n := plan.Workspace(); n > 0 {
		args.Work = g.alloc(n)
	}
	var launches []*cuda.Launch
	g.do(func() (err error) {
		launches, err = plan.launches(g.c, g.find, args)
		return err
	})
	var got []float32
	for again := range 2 {
		if c.in {
			g.do(func() error { return cuda.Upload(g.c, args.Y, residual) })
		}
		g.run(launches...)
		y := download[float32](g, args.Y, c.t*c.n)
		if again == 1 && !sameBits(got, y) {
			t.Error("a second run gives other bits")
		}
		got = y
	}
	want := make([]float64, c.t*c.n)
	for i := range want {
		row, col := i/c.n, i%c.n
		sum := 0.0
		for j := range c.k {
			sum += float64(x[row*c.k+j]) * float64(w[col*c.k+j])
		}
		want[i] = sum*float64(xs[row])*float64(ws[col]) + float64(bias[col]) + float64(residual[i])
	}
	// Sums of up to 576 products; tensor cores truncate rather than round.
	const tolerance = 2e-6
	if e := rowError(got, want, c.n); !(e <= tolerance) {
		t.Errorf("error %g, tolerance %g", e, tolerance)
	}
	g.release()
}

// TestConvertActivations: f16 rows with an exact scale, whatever the magnitudes.
func TestConvertActivations(t *testing.T) {
	const k = 160
	r := rand.New(rand.NewPCG(3, 4))
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	rows := [][]float32{make([]float32, k)} // zeros
	for _, magnitude := range []float64{1, 1e-30, 1e30, 3e5, 1e-4} {
		x := make([]float32, k)
		for i := range x {
			x[i] = float32(magnitude * r.NormFloat64())
		}
		rows = append(rows, x)
	}
	outlier := slices.Clone(rows[1])
	outlier[77] = 1e5
	withNaN, withInf := slices.Clone(rows[1]), slices.Clone(rows[1])
	withNaN[159], withInf[3] = nan, inf
	rows = append(rows, outlier, withNaN, withInf)

	g := openGPU(t)
	width := gemmWidth(k)
	x16, scale := g.alloc(int64(len(rows)*width*2)), g.alloc(int64(len(rows)*4))
	x := upload(g, slices.Concat(rows...))
	g.run(g.launch(func() (*cuda.Launch, error) {
		return convertLaunch(g.c, g.find, x, activations{x16, scale}, len(rows), k)
	}))
	got, scales := download[uint16](g, x16, len(rows)*width), download[float32](g, scale, len(rows))
	for i, row := range rows {
		if f, _ := math.Frexp(float64(scales[i])); f != 0.5 {
			t.Errorf("row %d: the scale %g is no power of two", i, scales[i])
		}
		top := 0.0
		for j, h := range got[i*width : (i+1)*width] {
			y := quant.F16ToF32(h)
			if j >= k {
				if h != 0 {
					t.Errorf("row %d: padding is %g", i, y)
				}
				continue
			}
			if want := quant.F16ToF32(quant.F32ToF16(row[j] / scales[i])); y != want && !(math.IsNaN(float64(want)) && math.IsNaN(float64(y))) {
				t.Errorf("row %d, element %d: %g, want %g", i, j, y, want)
			}
			if a := math.Abs(float64(y)); !math.IsInf(a, 0) {
				top = max(top, a)
			}
		}
		if i > 0 && i < 6 && (top < 1<<14 || top > 1<<15) {
			t.Errorf("row %d: the largest is %g", i, top)
		}
	}
}

// TestConvertFused: RMSNorm and the gated activations on the way to f16.
func TestConvertFused(t *testing.T) {
	const T, k, eps = 3, 416, 1e-5
	r := rand.New(rand.NewPCG(7, 8))
	a, b, weight := make([]float32, T*k), make([]float32, T*k), make([]float32, k)
	for _, v := range [][]float32{a, b, weight} {
		for i := range v {
			v[i] = float32(r.NormFloat64() * []float64{3, 1e-3, 1e3}[i/k%3])
		}
	}
	silu := func(x float64) float64 { return x / (1 + math.Exp(-x)) }
	gelu := func(x float64) float64 { return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) }
	root := make([]float64, T)
	for i, x := range a {
		root[i/k] += float64(x) * float64(x) / k
	}
	g := openGPU(t)
	x, y, w := upload(g, a), upload(g, b), upload(g, weight)
	for _, c := range []struct {
		name   string
		launch func(to activations) (*cuda.Launch, error)
		want   func(i int) float64
	}{
		{"norm", func(to activations) (*cuda.Launch, error) { return convertNormLaunch(g.c, g.find, x, w, eps, to, T, k) },
			func(i int) float64 { return float64(a[i]) / math.Sqrt(root[i/k]+eps) * float64(weight[i%k]) }},
		{"silu", func(to activations) (*cuda.Launch, error) {
			return convertGatedLaunch(g.c, g.find, x, y, graph.SiLU, to, T, k)
		},
			func(i int) float64 { return silu(float64(a[i])) * float64(b[i]) }},
		{"gelu", func(to activations) (*cuda.Launch, error) {
			return convertGatedLaunch(g.c, g.find, x, y, graph.GELU, to, T, k)
		},
			func(i int) float64 { return gelu(float64(a[i])) * float64(b[i]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			width := gemmWidth(k)
			to := activations{g.alloc(int64(T * width * 2)), g.alloc(T * 4)}
			g.run(g.launch(func() (*cuda.Launch, error) { return c.launch(to) }))
			got, scales := download[uint16](g, to.x16, T*width), download[float32](g, to.scale, T)
			for row := range T {
				most := 0.0
				for i := range k {
					most = max(most, math.Abs(c.want(row*k+i)))
				}
				if q := most / float64(scales[row]); q < 16383 || q > 32769 {
					t.Errorf("row %d: the largest is %g, the scale %g", row, most, scales[row])
				}
				for i := range width {
					value, want := float64(quant.F16ToF32(got[row*width+i]))*float64(scales[row]), 0.0
					if i < k {
						want = c.want(row*k + i)
					}
					// half a unit of f16, and float32 with ex2.approx before it
					if d := math.Abs(value - want); !(d <= math.Abs(want)*0x1.02p-11+most*1e-7) {
						t.Fatalf("row %d, element %d: %g, want %g", row, i, value, want)
					}
				}
			}
		})
	}
}

// TestDequantize: every format, bit for bit what package quant says, divided by
// the row's scale and rounded to f16; a range of rows; padding of the columns.
func TestDequantize(t *testing.T) {
	g := openGPU(t)
	const rows, row0, part = 7, 2, 4
	for _, f := range quant.Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			k := 3 * max(32, f.Type.BlockLen()) // 96: half a step of padding
			w, weights := g.weights(f.Type, rows, k, func(r, i int) float64 { return math.Pow(10, float64(r-3)) })
			scale := g.alloc(rows * 4)
			g.run(g.launch(func() (*cuda.Launch, error) { return rowScalesLaunch(g.c, g.find, w, f.Type, scale, rows, k) }))
			scales := download[float32](g, scale, rows)
			for r, s := range scales {
				top := 0.0
				for _, x := range weights[r*k : (r+1)*k] {
					top = max(top, math.Abs(float64(x)))
				}
				if q := top / float64(s); q < 1<<14 || q >= 1<<15 {
					t.Errorf("row %d: the largest is %g, the scale %g", r, top, s)
				}
			}
			width := gemmWidth(k)
			for _, with := range []cuda.Ptr{0, scale} {
				out := g.alloc(int64(part * width * 2))
				g.run(g.launch(func() (*cuda.Launch, error) {
					return dequantLaunch(g.c, g.find, w, f.Type, with, out, row0, part, k)
				}))
				for i, h := range download[uint16](g, out, part*width) {
					r, col := i/width, i%width
					want := uint16(0)
					if col < k {
						x := weights[(row0+r)*k+col]
						if with != 0 {
							x /= scales[row0+r]
						}
						want = quant.F32ToF16(x)
					}
					if h != want && quant.F16ToF32(h) != quant.F16ToF32(want) { // zeros of either sign
						t.Fatalf("scale %v, row %d, column %d: %g, want %g", with != 0, r, col, quant.F16ToF32(h), quant.F16ToF32(want))
					}
				}
			}
			g.release()
		})
	}
}

// weights uploads a packed random matrix and returns its numbers; magnitude of
// row r and column i.
func (g *gpu) weights(dtype tensor.DType, rows, k int, magnitude func(r, i int) float64) (cuda.Ptr, []float32) {
	g.t.Helper()
	r := rand.New(rand.NewPCG(uint64(dtype), uint64(k)))
	x := make([]float32, rows*k)
	for i := range x {
		x[i] = float32(r.NormFloat64() * magnitude(i/k, i%k))
	}
	raw, err := dtype.RowBytes(k)
	if err != nil {
		g.t.Fatal(err)
	}
	packed, err := packedRowBytes(dtype, k)
	if err != nil {
		g.t.Fatal(err)
	}
	src, dst := make([]byte, rows*raw), make([]byte, rows*packed)
	if err := quant.Quantize(dtype, src, x, nil); err != nil {
		g.t.Fatal(err)
	}
	if err := quant.Dequantize(dtype, x, src); err != nil {
		g.t.Fatal(err)
	}
	if err := packRows(dst, src, dtype, k, rows); err != nil {
		g.t.Fatal(err)
	}
	return upload(g, dst), x
}

// TestPrefillProduct: the whole way of a product from float32 activations and
// quantised weights, as the executor goes it, with a channel a thousand times
// the others and a plan chosen for the shape.
func TestPrefillProduct(t *testing.T) {
	g := openGPU(t)
	const T, N, K = 37, 150, 512
	for _, dtype := range []tensor.DType{tensor.Q4_K, tensor.Q6_K, tensor.Q8_0, tensor.F16, tensor.BF16, tensor.F32} {
		t.Run(dtype.String(), func(t *testing.T) {
			w, weights := g.weights(dtype, N, K, func(r, i int) float64 { return 0.02 })
			r := rand.New(rand.NewPCG(5, 6))
			x := make([]float32, T*K)
			for i := range x {
				x[i] = float32(r.NormFloat64())
				if i%K == 100 {
					x[i] *= 1000
				}
			}
			plan := planGEMM(g.c.Device, T, N, K)
			xp, x16, xs := upload(g, x), g.alloc(T*K*2), g.alloc(T*4)
			w16, ws := g.alloc(N*K*2), g.alloc(N*4)
			args := gemmArgs{X: x16, W: w16, Y: g.alloc(T * N * 4), XScale: xs, WScale: ws}
			if n := plan.Workspace(); n > 0 {
				args.Work = g.alloc(n)
			}
			var launches []*cuda.Launch
			g.do(func() error {
				scales, err := rowScalesLaunch(g.c, g.find, w, dtype, ws, N, K)
				if err != nil {
					return err
				}
				dequant, err := dequantLaunch(g.c, g.find, w, dtype, ws, w16, 0, N, K)
				if err != nil {
					return err
				}
				convert, err := convertLaunch(g.c, g.find, xp, activations{x16, xs}, T, K)
				if err != nil {
					return err
				}
				product, err := plan.launches(g.c, g.find, args)
				launches = append([]*cuda.Launch{scales, dequant, convert}, product...)
				return err
			})
			g.run(launches...)
			want := make([]float64, T*N)
			for i := range want {
				for j := range K {
					want[i] += float64(x[i/N*K+j]) * float64(weights[i%N*K+j])
				}
			}
			// Both operands are rounded to f16, by 2^-11 each at most; the large channel is
			// one product that outweighs the others, so little cancels.
			const tolerance = 1e-3
			e := rowError(download[float32](g, args.Y, T*N), want, N)
			t.Logf("%s: error %.2g (%.0f %% of the tolerance)", plan.Variant, e, 100*e/tolerance)
			if !(e <= tolerance) {
				t.Errorf("error %g, tolerance %g", e, tolerance)
			}
			g.release()
		})
	}
}

// TestPlanGEMM: what the choice of tile and splits must do on an H200.
func TestPlanGEMM(t *testing.T) {
	h200 := cuda.Device{Major: 9, SMs: 132, SharedMemory: 227 << 10}
	for _, c := range []struct {
		t, n, k int
		tokens  int  // of the tile; 0: any
		split   bool // must be
	}{
		{16, 8960, 1536, 16, false},
		{24, 8960, 1536, 32, false},
		{2048, 18944, 3584, 128, false},
		{512, 256, 1536, 0, true},
		{64, 1536, 8960, 0, true},
	} {
		p := planGEMM(h200, c.t, c.n, c.k)
		if c.tokens > 0 && p.tile.tokens != c.tokens || c.split && p.Splits == 1 {
			t.Errorf("%d×%d×%d: %s in %d splits", c.t, c.n, c.k, p.Variant, p.Splits)
		}
	}
	small := cuda.Device{Major: 8, Minor: 6, SMs: 28, SharedMemory: 99 << 10}
	if p := planGEMM(small, 512, 1536, 1536); p.Splits == 0 {
		t.Error("no tile for a device of 99 KiB of shared memory")
	}
}
