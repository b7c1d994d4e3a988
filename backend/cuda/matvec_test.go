package cuda

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// A matrix of random blocks as a file could hold it, with its exact values.
type testMatrix struct {
	dtype   tensor.DType
	rows, k int
	raw     []byte
	values  []float32 // (rows, k)
}

// randomMatrix fills all bits of every block at random but for the F16 scales,
// which are finite, of both signs and between small and large; some are zero.
func randomMatrix(r *rand.Rand, dtype tensor.DType, rows, k int, large float64) testMatrix {
	f, _ := quant.Lookup(dtype)
	m := testMatrix{dtype: dtype, rows: rows, k: k, values: make([]float32, rows*k)}
	n, err := dtype.RowBytes(k)
	if err != nil {
		panic(err)
	}
	m.raw = make([]byte, rows*n)
	switch dtype {
	case tensor.F32, tensor.F16, tensor.BF16:
		for i := range m.values {
			m.values[i] = float32(r.NormFloat64() * min(large, 8000)) // finite in F16
		}
		f.Quantize(m.raw, m.values, nil)
	default:
		for i := range m.raw {
			m.raw[i] = byte(r.Uint32())
		}
		layout, _ := quant.LayoutOf(dtype)
		for b := 0; b < len(m.raw); b += dtype.BlockBytes() {
			at := b
			for _, p := range layout.Parts {
				if p.Scale {
					v := large * (r.Float64() - 0.5)
					if r.IntN(8) == 0 {
						v = 0
					}
					h := quant.F32ToF16(float32(v))
					m.raw[at], m.raw[at+1] = byte(h), byte(h>>8)
				}
				at += p.Size
			}
		}
	}
	f.Dequantize(m.values, m.raw)
	return m
}

func (g *gpu) matrix(m testMatrix) cuda.Ptr {
	g.t.Helper()
	n, err := packedRowBytes(m.dtype, m.k)
	if err != nil {
		g.t.Fatal(err)
	}
	packed := make([]byte, n*m.rows)
	if err := packRows(packed, m.raw, m.dtype, m.k, m.rows); err != nil {
		g.t.Fatal(err)
	}
	return upload(g, packed)
}

// roundedX is what a kernel makes of activations: 16-bit integers with a scale for
// each 32.
func roundedX(x []float32) []float64 {
	out := make([]float64, len(x))
	for i := 0; i < len(x); i += 32 {
		var m float32
		for _, v := range x[i : i+32] {
			m = max(m, float32(math.Abs(float64(v))))
		}
		var inverse float32
		if m > 1e-30 {
			inverse = 32767 / m
		}
		d := m * float32(1.0/32767)
		for j, v := range x[i : i+32] {
			out[i+j] = float64(d) * math.RoundToEven(float64(v)*float64(inverse))
		}
	}
	return out
}

func floats64(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

func isFloat(t tensor.DType) bool { return t == tensor.F32 || t == tensor.F16 || t == tensor.BF16 }

// product is y[t, row] in float64 and the size of what was added up: for formats
// with minimums that is more than the weights themselves.
func product(m testMatrix, x []float64, tokens int) (y, size []float64) {
	y, size = make([]float64, tokens*m.rows), make([]float64, tokens*m.rows)
	for t := range tokens {
		for r := range m.rows {
			var sum, norm float64
			for b := 0; b < m.k; b += 32 {
				var lo, hi, xs float64
				for i := b; i < b+32; i++ {
					w, v := float64(m.values[r*m.k+i]), x[t*m.k+i]
					sum += w * v
					lo, hi, xs = min(lo, w), max(hi, w), xs+math.Abs(v)
				}
				norm += (hi - lo) * xs
			}
			y[t*m.rows+r], size[t*m.rows+r] = sum, norm
		}
	}
	return y, size
}

// floatRounding bounds the kernels' own float32 arithmetic, as a share of the sum of
// the sizes of the terms: a few roundings of 2^-24 a term, and of the sums.
const floatRounding = 1e-6

func checkProduct(t *testing.T, what string, got []float32, want, size []float64, share float64) {
	t.Helper()
	worst, at := 0.0, 0
	for i, w := range want {
		e := math.Abs(float64(got[i])-w) / (size[i]*share + 1e-30)
		if !(e <= worst) {
			worst, at = e, i
		}
		if math.IsNaN(worst) {
			break
		}
	}
	if !(worst <= 1) {
		t.Errorf("%s: element %d is %v, want %v; %.2f of the tolerance", what, at, got[at], want[at], worst)
	}
}

// callOnce runs a kernel, for those that change their input.
func (g *gpu) callOnce(k *kernelCall) {
	g.t.Helper()
	var l *cuda.Launch
	g.do(func() (err error) {
		l, err = k.launch(g.find, g.c)
		return err
	})
	g.run(l)
}

// callKernel runs a kernel, twice, and fails unless both runs give the same bits.
func (g *gpu) callKernel(k *kernelCall, out cuda.Ptr, n int) []float32 {
	g.t.Helper()
	var first []float32
	for range 2 {
		g.callOnce(k)
		got := download[float32](g, out, n)
		if first != nil && !slices.EqualFunc(got, first, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
			g.t.Errorf("%s: a second run gives other bits", k.kernel)
		}
		first = got
	}
	return first
}

// outlierX has one channel 26 times the rest and a group of zeros.
func outlierX(r *rand.Rand, tokens, k int) []float32 {
	x := make([]float32, tokens*k)
	for t := range tokens {
		row := x[t*k : (t+1)*k]
		for i := range row {
			row[i] = float32(r.NormFloat64())
		}
		row[r.IntN(k)] = 26
		zero := r.IntN(k/32) * 32
		if k > 32 {
			clear(row[zero : zero+32])
		}
	}
	return x
}

func largest(x []float32) float64 {
	return math.Abs(float64(slices.MaxFunc(x, func(a, b float32) int { return cmp.Compare(math.Abs(float64(a)), math.Abs(float64(b))) })))
}

func widths(t tensor.DType) []int {
	switch {
	case t.BlockLen() == 256:
		return []int{256, 1280}
	default:
		return []int{32, 64, 352}
	}
}

// TestMatvec: every format, narrow and odd shapes, each number of tokens.
func TestMatvec(t *testing.T) {
	g := openGPU(t)
	for _, f := range quant.Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(f.Type), 1))
			for _, k := range widths(f.Type) {
				for _, c := range []struct{ rows, tokens int }{{1, 1}, {45, 1}, {7, 2}, {21, 3}, {5, 4}} {
					m := randomMatrix(r, f.Type, c.rows, k, 0.1)
					testProduct(t, g, m, outlierX(r, c.tokens, k), c.tokens)
					g.release()
				}
			}
		})
	}
}

func testProduct(t *testing.T, g *gpu, m testMatrix, x []float32, tokens int) {
	t.Helper()
	out := g.alloc(int64(tokens*m.rows) * 4)
	call, err := planMatvec(g.c.Device, matvecRequest{
		tokens: tokens, k: m.k, x: upload(g, x),
		matrices: []matvecMatrix{{data: g.matrix(m), dtype: m.dtype, rows: m.rows, out: out}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := g.callKernel(call, out, tokens*m.rows)
	what := fmt.Sprintf("%d×%d, %d tokens", m.rows, m.k, tokens)
	exact := floats64(x)
	if isFloat(m.dtype) {
		want, size := product(m, exact, tokens)
		checkProduct(t, what, got, want, size, floatRounding)
		return
	}
	want, size := product(m, roundedX(x), tokens)
	checkProduct(t, what, got, want, size, floatRounding)
	// Against the numbers as they were: half a step of 1/32767 of the largest of 32.
	want, _ = product(m, exact, tokens)
	for i := range size {
		for j := range m.k {
			at := i/m.rows*m.k + j/32*32
			size[i] += math.Abs(float64(m.values[i%m.rows*m.k+j])) * largest(x[at:at+32]) * (0.5 / 32767 / floatRounding)
		}
	}
	checkProduct(t, what+", unrounded", got, want, size, floatRounding)
}

// TestMatvecExtremes: scales as large as the format holds, all-zero activations,
// and activations that only just are numbers.
func TestMatvecExtremes(t *testing.T) {
	g := openGPU(t)
	for _, f := range quant.Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(f.Type), 2))
			const k, rows = 512, 5
			m := randomMatrix(r, f.Type, rows, k, 60000)
			x := outlierX(r, 1, k)
			testProduct(t, g, m, x, 1)
			clear(x)
			testProduct(t, g, m, x, 1)
			for i := range x {
				x[i] = 32767 // every integer at its largest
			}
			testProduct(t, g, m, x, 1)
			for i := range x {
				x[i] = -32767
			}
			testProduct(t, g, m, x, 1)
			g.release()
		})
	}
}

// TestMatvecNaN: a number that is none must not disappear in rounding.
func TestMatvecNaN(t *testing.T) {
	g := openGPU(t)
	r := rand.New(rand.NewPCG(3, 3))
	for _, dtype := range []tensor.DType{tensor.Q4_K, tensor.F16} {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
			m := randomMatrix(r, dtype, 3, 256, 0.1)
			x := outlierX(r, 1, 256)
			x[77] = bad
			out := g.alloc(12)
			call, err := planMatvec(g.c.Device, matvecRequest{tokens: 1, k: 256, x: upload(g, x), matrices: []matvecMatrix{{data: g.matrix(m), dtype: dtype, rows: 3, out: out}}})
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range g.callKernel(call, out, 3) {
				if !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) && m.values[i*256+77] != 0 {
					t.Errorf("%s: an activation of %v gives %v", dtype, bad, v)
				}
			}
		}
	}
}

// TestMatvecAround: norm, bias, residual in place, soft cap, gate and up, rounded input.
func TestMatvecAround(t *testing.T) {
	g := openGPU(t)
	r := rand.New(rand.NewPCG(9, 9))
	const k, rows, eps = 768, 21, 1e-5
	for _, tokens := range []int{1, 3} {
		m, up := randomMatrix(r, tensor.Q4_K, rows, k, 0.01), randomMatrix(r, tensor.Q4_K, rows, k, 0.01)
		x, norm := outlierX(r, tokens, k), outlierX(r, 1, k)
		bias, residual := outlierX(r, 1, 32)[:rows], make([]float32, tokens*rows)
		for i := range residual {
			residual[i] = float32(r.NormFloat64())
		}
		normed := make([]float32, len(x))
		for i := range tokens {
			sum := 0.0
			for _, v := range x[i*k : (i+1)*k] {
				sum += float64(v) * float64(v)
			}
			scale := 1 / math.Sqrt(sum/k+eps)
			for j := range k {
				normed[i*k+j] = float32(float64(x[i*k+j]) * scale * float64(norm[j]))
			}
		}
		want, size := product(m, floats64(normed), tokens)
		for i := range want {
			want[i] = 30*math.Tanh((want[i]+float64(bias[i%rows]))/30) + float64(residual[i])
			size[i] += 64
		}
		gm, gx, gn := g.matrix(m), upload(g, x), upload(g, norm)
		rounded := g.alloc(int64(tokens * roundedBytes(k)))
		g.callKernel(roundCall(gx, gn, eps, tokens, k, rounded), rounded, 1)
		// The rounding of 26 times the norm's 26 dominates.
		const share = 1e-4
		for _, early := range []bool{false, true} {
			req := matvecRequest{tokens: tokens, k: k, x: gx, norm: gn, eps: eps, cap: 30}
			if early {
				req.x, req.norm, req.rounded = rounded, 0, true
			}
			req.residual = upload(g, residual)
			req.matrices = []matvecMatrix{{gm, m.dtype, rows, upload(g, bias), req.residual}}
			call, err := planMatvec(g.c.Device, req)
			if err != nil {
				t.Fatal(err)
			}
			g.callOnce(call) // it adds to its own output
			checkProduct(t, fmt.Sprintf("%d tokens, rounded before: %v", tokens, early), download[float32](g, req.residual, tokens*rows), want, size, share)
		}

		gate, _ := product(m, floats64(normed), tokens)
		upper, size := product(up, floats64(normed), tokens)
		for _, gelu := range []bool{false, true} {
			for i, v := range gate {
				act := v / (1 + math.Exp(-v))
				if gelu {
					act = 0.5 * v * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
				}
				want[i] = act * upper[i]
			}
			out := g.alloc(int64(tokens*rows) * 4)
			call, err := planMatvec(g.c.Device, matvecRequest{tokens: tokens, k: k, x: gx, norm: gn, eps: eps, pair: true, gelu: gelu,
				matrices: []matvecMatrix{{gm, m.dtype, rows, 0, out}, {g.matrix(up), up.dtype, rows, 0, 0}}})
			if err != nil {
				t.Fatal(err)
			}
			got := g.callKernel(call, out, tokens*rows)
			bound := make([]float64, len(size))
			for i := range bound {
				bound[i] = (math.Abs(gate[i]) + math.Abs(upper[i]) + 1) * size[i]
			}
			checkProduct(t, fmt.Sprintf("%d tokens, gelu %v", tokens, gelu), got, want, bound, share)
		}
		g.release()
	}
}

// TestMatvecRound: what gate and up leave rounded is what round_rows makes of their
// result, in both families of kernels, also where a value is broken.
func TestMatvecRound(t *testing.T) {
	g := openGPU(t)
	r := rand.New(rand.NewPCG(9, 10))
	const k, rows = 512, 96
	for _, dtype := range []tensor.DType{tensor.Q4_K, tensor.Q6_K, tensor.Q5_K} {
		for _, c := range []struct {
			tokens int
			sms    int
			broken bool
		}{{1, 1, false}, {3, 3, false}, {2, 3, true}} { // 32 rows a block in either case: sums in the same order
			dev := g.c.Device
			dev.SMs = c.sms
			x := outlierX(r, c.tokens, k)
			if c.broken {
				x[k+5] = float32(math.NaN())
			}
			out := g.alloc(int64(4 * c.tokens * rows))
			req := matvecRequest{tokens: c.tokens, k: k, x: upload(g, x), pair: true}
			for range 2 {
				req.matrices = append(req.matrices, matvecMatrix{g.matrix(randomMatrix(r, dtype, rows, k, 0.01)), dtype, rows, 0, out})
			}
			call, err := planMatvec(dev, req)
			if err != nil {
				t.Fatal(err)
			}
			g.callOnce(call)
			want := g.alloc(int64(c.tokens * roundedBytes(rows)))
			g.callOnce(roundCall(out, 0, 0, c.tokens, rows, want))
			req.round = true
			req.matrices[0].out = g.alloc(int64(c.tokens * roundedBytes(rows)))
			if call, err = planMatvec(dev, req); err != nil {
				t.Fatal(err)
			}
			g.callOnce(call)
			n := c.tokens * roundedBytes(rows)
			a, b := download[byte](g, want, n), download[byte](g, req.matrices[0].out, n)
			if c.broken { // the bits of NaN and what it is multiplied with do not matter
				a, b = a[:roundedBytes(rows)], b[:roundedBytes(rows)]
				scales := download[float32](g, req.matrices[0].out+cuda.Ptr(roundedBytes(rows)+rows*2), rows/32*2)
				for i, v := range scales {
					if !math.IsNaN(float64(v)) {
						t.Errorf("%s: scale %d of a broken token is %v", dtype, i, v)
					}
				}
			}
			if !bytes.Equal(a, b) {
				t.Errorf("%s, %d tokens: rounded at once is not what round_rows makes of it", dtype, c.tokens)
			}
			g.release()
		}
	}
}

// TestMatvecSeveral: three matrices of two formats in one launch, as Q4_K_M files
// have them, with biases and sizes that divide nothing.
func TestMatvecSeveral(t *testing.T) {
	g := openGPU(t)
	r := rand.New(rand.NewPCG(5, 5))
	const k = 1536
	for main, other := range matvecAlternative {
		x := outlierX(r, 1, k)
		req := matvecRequest{tokens: 1, k: k, x: upload(g, x)}
		var ms []testMatrix
		for i, rows := range []int{33, 8, 9} {
			dtype := main
			if i == 2 {
				dtype = other
			}
			m := randomMatrix(r, dtype, rows, k, 0.1)
			ms = append(ms, m)
			req.matrices = append(req.matrices, matvecMatrix{g.matrix(m), dtype, rows, upload(g, x[:rows]), g.alloc(int64(rows) * 4)})
		}
		for turn := range 2 {
			if turn == 1 { // the other format first
				slices.Reverse(ms)
				slices.Reverse(req.matrices)
			}
			call, err := planMatvec(g.c.Device, req)
			if err != nil {
				t.Fatalf("%s: %v", main, err)
			}
			for i, m := range ms {
				got := g.callKernel(call, req.matrices[i].out, m.rows)
				want, size := product(m, roundedX(x), 1)
				for j := range want {
					want[j] += float64(x[j])
				}
				checkProduct(t, fmt.Sprintf("%s with %s, matrix %d", main, other, i), got, want, size, floatRounding)
			}
		}
		g.release()
	}
}

// TestMatvecRefuses: what has no kernel is said before anything runs.
func TestMatvecRefuses(t *testing.T) {
	dev := cuda.Device{SMs: 132, SharedMemory: 232448}
	for _, c := range []struct {
		name string
		req  matvecRequest
		want error
	}{
		{"formats without a common kernel", matvecRequest{tokens: 1, k: 256, matrices: []matvecMatrix{{dtype: tensor.Q4_K, rows: 3}, {dtype: tensor.F16, rows: 3}}}, errMatvecMix},
		{"a mix for two tokens", matvecRequest{tokens: 2, k: 256, matrices: []matvecMatrix{{dtype: tensor.Q5_K, rows: 3}, {dtype: tensor.Q6_K, rows: 3}}}, errMatvecMix},
		{"five tokens", matvecRequest{tokens: 5, k: 256, matrices: []matvecMatrix{{dtype: tensor.Q5_K, rows: 3}}}, errMatvecWide},
		{"nine tokens", matvecRequest{tokens: 9, k: 256, matrices: []matvecMatrix{{dtype: tensor.Q4_K, rows: 3}}}, errMatvecWide},
		{"four tokens of many numbers", matvecRequest{tokens: 4, k: 29696, matrices: []matvecMatrix{{dtype: tensor.Q4_K, rows: 3}}}, errMatvecWide},
		{"half a block", matvecRequest{tokens: 1, k: 128, matrices: []matvecMatrix{{dtype: tensor.Q4_K, rows: 3}}}, nil},
		{"no matrix", matvecRequest{tokens: 1, k: 128}, nil},
	} {
		if _, err := planMatvec(dev, c.req); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, c := range []struct {
		t       tensor.DType
		rows, k int
		want    int
	}{{tensor.Q5_K, 64, 1536, 4}, {tensor.Q5_K, 64, 18944, 4}, {tensor.Q5_K, 64, 29696, 2},
		{tensor.Q4_K, 18944, 3584, 8}, {tensor.Q6_K, 152064, 3584, 8}, {tensor.Q6_K, 1536, 8960, 8}, {tensor.Q6_K, 3584, 18944, 4}, {tensor.Q4_K, 3584, 18944, 4}} {
		if got := matvecTokens(dev, c.t, c.rows, c.k); got != c.want {
			t.Errorf("%d tokens for %d rows of %d, want %d", got, c.rows, c.k, c.want)
		}
	}
}

// TestEmbed: every format bit for bit, and tokens that do not exist.
func TestEmbed(t *testing.T) {
	g := openGPU(t)
	for _, f := range quant.Formats() {
		r := rand.New(rand.NewPCG(uint64(f.Type), 4))
		for _, k := range widths(f.Type) {
			m := randomMatrix(r, f.Type, 6, k, 2)
			tokens := []int32{5, 0, 6, -1, 3}
			out := g.alloc(int64(len(tokens)*k) * 4)
			got := g.callKernel(embedCall(g.matrix(m), f.Type, m.rows, k, upload(g, tokens), out, len(tokens)), out, len(tokens)*k)
			for i, v := range got {
				id := tokens[i/k]
				if id < 0 || int(id) >= m.rows {
					if v == v {
						t.Fatalf("%s: token %d gives %v", f.Type, id, v)
					}
					continue
				}
				if want := m.values[int(id)*k+i%k]; math.Float32bits(v) != math.Float32bits(want) {
					t.Fatalf("%s: token %d, element %d is %v, want %v", f.Type, id, i%k, v, want)
				}
			}
			g.release()
		}
	}
}

// TestMatvecPrefetch: asking the L2 cache for a matrix changes no result, whatever the
// shapes of the two products.
func TestMatvecPrefetch(t *testing.T) {
	g := openGPU(t)
	r := rand.New(rand.NewPCG(6, 6))
	matvecAhead = 4096
	defer func() { matvecAhead = 0 }()
	for _, pair := range []bool{false, true} {
		for _, next := range []struct{ rows, k int }{{3, 256}, {70, 1536}} {
			m, then := randomMatrix(r, tensor.Q4_K, 75, 2304, 0.1), randomMatrix(r, tensor.Q6_K, next.rows, next.k, 0.1)
			x := outlierX(r, 1, 2304)
			out := g.alloc(75 * 4)
			call, err := planMatvec(g.c.Device, matvecRequest{tokens: 1, k: m.k, x: upload(g, x), matrices: []matvecMatrix{{g.matrix(m), m.dtype, m.rows, 0, out}}})
			if err != nil {
				t.Fatal(err)
			}
			req := matvecRequest{tokens: 1, k: then.k, matrices: []matvecMatrix{{g.matrix(then), then.dtype, then.rows, 0, 0}}, pair: pair}
			if pair {
				req.matrices = append(req.matrices, req.matrices[0])
			}
			after, err := planMatvec(g.c.Device, req)
			if err != nil {
				t.Fatal(err)
			}
			for _, bytes := range []int{31, 64, 1 << 20} {
				call.prefetchNext(after, bytes)
				want, size := product(m, roundedX(x), 1)
				checkProduct(t, fmt.Sprintf("%d rows of %d next, %d bytes", next.rows, next.k, bytes), g.callKernel(call, out, 75), want, size, floatRounding)
			}
			g.release()
		}
	}
}
