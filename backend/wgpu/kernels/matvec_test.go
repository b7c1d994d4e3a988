package kernels

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// times is W·x in float64 and the sums of |w·x|, (tokens, rows).
func (m *matrix) times(x []float32) (y, mag []float64) {
	for t := 0; t*m.k < len(x); t++ {
		for r := range m.n {
			var s, a float64
			for i, w := range m.values[r*m.k : (r+1)*m.k] {
				p := float64(w) * float64(x[t*m.k+i])
				s += p
				a += math.Abs(p)
			}
			y, mag = append(y, s), append(mag, a)
		}
	}
	return y, mag
}

// ability is a device with something taken away.
type ability struct {
	name string
	take func(*Device)
}

var abilities = []ability{
	{"all", func(*Device) {}},
	{"no subgroups", func(d *Device) { d.Subgroups = false }},
}

// run runs a product on quantised or plain rows and returns y.
func (m MatVec) run(r *rig, d Device, ws []*matrix, x, bias, residual []float32) []float32 {
	r.t.Helper()
	k, err := m.Kernel(d)
	if err != nil {
		r.t.Fatal(err)
	}
	var buffers []*wgpu.Buffer
	out, rows := 0, m.Out
	for _, w := range ws {
		buffers = append(buffers, buffer(r, w.packed))
		out += w.n
	}
	if m.Act != nil {
		out /= 2
	}
	if rows == 0 {
		rows = out
	}
	if m.Quantised() {
		words, _ := quantizePlain(x, m.K)
		buffers = append(buffers, buffer(r, words))
	} else {
		buffers = append(buffers, buffer(r, x))
	}
	if m.Bias {
		buffers = append(buffers, buffer(r, bias))
	}
	y := r.empty(4 * rows * m.Tokens)
	switch m.Residual {
	case FromBuffer:
		buffers = append(buffers, buffer(r, residual))
	case InPlace:
		y = buffer(r, residual)
	}
	r.run(r.bind(k, true, append(buffers, y)...))
	return read[float32](r, y, rows*m.Tokens)
}

// seen is what a product sees of its activations.
func (m MatVec) seen(x []float32) []float32 {
	if m.Quantised() {
		_, x = quantizePlain(x, m.K)
	}
	return x
}

// TestMatVec: every format, some numbers of tokens, a number of rows that no
// workgroup divides, with and without subgroups.
func TestMatVec(t *testing.T) {
	r := newRig(t, wgpu.Features{Subgroups: true})
	for _, a := range abilities {
		dev := r.device()
		a.take(&dev)
		for _, f := range quant.Formats() {
			for _, tokens := range []int{1, 7} {
				if tokens > 1 && !dev.Subgroups {
					continue // the reduction is the same, and compiling takes its time
				}
				t.Run(fmt.Sprintf("%s/%s/%d", a.name, f.Type, tokens), func(t *testing.T) {
					k, n := shortRow(f.Type), 37
					w := newMatrix(t, f.Type, k, n, 2)
					x := activations(k, tokens, 5)
					m := MatVec{K: k, Parts: []Part{{f.Type, n}}, Tokens: tokens}
					y := m.run(&rig{t, r.d}, dev, []*matrix{w}, x, nil, nil)
					want, mag := w.times(m.seen(x))
					compare(t, y, want, mag, 2e-6)
				})
			}
		}
	}
}

// compare checks numbers against float64 sums, relative to the sums of magnitudes.
func compare(t testing.TB, got []float32, want, mag []float64, limit float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d numbers, want %d", len(got), len(want))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= limit*mag[i]) {
			t.Fatalf("element %d: %g, want %g (magnitude %g)", i, got[i], want[i], mag[i])
		}
	}
}

// TestMatVecEnds: bias, residual and soft cap, and a place in longer rows.
func TestMatVecEnds(t *testing.T) {
	r := newRig(t, wgpu.Features{Subgroups: true})
	dev := r.device()
	k, n, tokens := 512, 21, 2
	w := newMatrix(t, tensor.Q4_K, k, n, 3)
	x := activations(k, tokens, 6)
	for _, m := range []MatVec{
		{Bias: true}, {Residual: InPlace}, {Residual: FromBuffer}, {SoftCap: 30}, {Bias: true, Residual: InPlace, First: 5, Out: 40},
	} {
		t.Run(fmt.Sprintf("bias %v residual %d cap %g first %d", m.Bias, m.Residual, m.SoftCap, m.First), func(t *testing.T) {
			m.K, m.Tokens, m.Parts = k, tokens, []Part{{tensor.Q4_K, n}}
			rows := max(m.Out, n)
			bias, residual := activations(rows, 1, 7), activations(rows, tokens, 8)
			y := m.run(&rig{t, r.d}, dev, []*matrix{w}, x, bias, residual)
			sums, mags := w.times(m.seen(x))
			want, mag := make([]float64, rows*tokens), make([]float64, rows*tokens)
			for i := range want {
				if m.Residual == InPlace { // untouched outside First … First+n
					want[i] = float64(residual[i])
				}
				at, tok := i%rows-m.First, i/rows
				if at < 0 || at >= n {
					continue
				}
				want[i], mag[i] = sums[tok*n+at], mags[tok*n+at]
				if m.Bias {
					want[i] += float64(bias[i%rows])
				}
				if m.Residual != NoResidual {
					want[i] += float64(residual[i])
					mag[i] += math.Abs(float64(residual[i]))
				}
				if m.SoftCap > 0 {
					c := float64(m.SoftCap)
					want[i] = c * math.Tanh(want[i]/c)
				}
			}
			compare(t, y, want, mag, 4e-6)
		})
	}
}

// TestMatVecParts: query, key and value in one dispatch, of different formats.
func TestMatVecParts(t *testing.T) {
	r := newRig(t, wgpu.Features{Subgroups: true})
	k, tokens := 768, 2
	for _, a := range abilities {
		for _, types := range [][3]tensor.DType{{tensor.Q4_K, tensor.Q4_K, tensor.Q6_K}, {tensor.Q8_0, tensor.Q5_0, tensor.IQ4_XS}, {tensor.F16, tensor.BF16, tensor.F32}} {
			t.Run(fmt.Sprint(a.name, types), func(t *testing.T) {
				dev := r.device()
				a.take(&dev)
				m := MatVec{K: k, Tokens: tokens, Bias: true}
				x := activations(k, tokens, 6)
				var ws []*matrix
				for i, n := range []int{33, 9, 17} {
					m.Parts = append(m.Parts, Part{types[i], n})
					ws = append(ws, newMatrix(t, types[i], k, n, uint64(i)))
				}
				bias := activations(59, 1, 1)
				y := m.run(&rig{t, r.d}, dev, ws, x, bias, nil)
				want, mag := make([]float64, 59*tokens), make([]float64, 59*tokens)
				at := 0
				for _, w := range ws {
					sums, mags := w.times(m.seen(x))
					for i := range sums {
						j := i/w.n*59 + at + i%w.n
						want[j], mag[j] = sums[i]+float64(bias[j%59]), mags[i]+1
					}
					at += w.n
				}
				compare(t, y, want, mag, 2e-6)
			})
		}
	}
}

// TestMatVecAct: the gated activation on top of two products.
func TestMatVecAct(t *testing.T) {
	r := newRig(t, wgpu.Features{Subgroups: true})
	k, n, tokens := 512, 19, 2
	for _, a := range abilities {
		for _, act := range []graph.Activation{graph.SiLU, graph.GELU} {
			for _, types := range [][2]tensor.DType{{tensor.Q4_K, tensor.Q6_K}, {tensor.F16, tensor.F16}} {
				t.Run(fmt.Sprint(a.name, act, types), func(t *testing.T) {
					dev := r.device()
					a.take(&dev)
					m := MatVec{K: k, Tokens: tokens, Act: &act, Parts: []Part{{types[0], n}, {types[1], n}}}
					x := activations(k, tokens, 4)
					gate, up := newMatrix(t, types[0], k, n, 1), newMatrix(t, types[1], k, n, 2)
					y := m.run(&rig{t, r.d}, dev, []*matrix{gate, up}, x, nil, nil)
					g, gm := gate.times(m.seen(x))
					u, um := up.times(m.seen(x))
					want, mag := make([]float64, len(g)), make([]float64, len(g))
					for i := range g {
						want[i] = activate(act, g[i]) * u[i]
						// The slope of the activations is below 1.2.
						mag[i] = 1.2*gm[i]*math.Abs(u[i]) + math.Abs(g[i])*um[i]
					}
					compare(t, y, want, mag, 4e-6)
				})
			}
		}
	}
}

// activate is the activation in float64.
func activate(a graph.Activation, x float64) float64 {
	if a == graph.GELU {
		return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
	}
	return x / (1 + math.Exp(-x))
}

// TestMatVecFused: a norm in front, quantised results behind.
func TestMatVecFused(t *testing.T) {
	r := newRig(t, wgpu.Features{Subgroups: true})
	k, n := 768, 96
	silu := graph.SiLU
	for _, a := range abilities {
		for _, act := range []*graph.Activation{nil, &silu} {
			for _, norm := range []bool{false, true} {
				for _, tokens := range []int{1, 3} {
					t.Run(fmt.Sprintf("%s/act %v norm %v tokens %d", a.name, act != nil, norm, tokens), func(t *testing.T) {
						dev := r.device()
						a.take(&dev)
						m := MatVec{K: k, Tokens: tokens, Act: act, QuantOut: act != nil, Norm: norm, Eps: 1e-5, Parts: []Part{{tensor.Q4_K, n}, {tensor.Q6_K, n}}}
						if norm && tokens == 1 {
							m.Tuning.Threads = 64 // each with several quads of the row
						}
						m.test(&rig{t, r.d}, dev)
					})
				}
			}
		}
	}
}

// TestMatVecTeams: more threads share a row than a subgroup has.
func TestMatVecTeams(t *testing.T) {
	r := newRig(t, wgpu.Features{Subgroups: true})
	silu := graph.SiLU
	for _, a := range abilities {
		for _, m := range []MatVec{
			{Tokens: 1, Tuning: Tuning{Threads: 64, Lanes: 64}}, {Tokens: 1, Tuning: Tuning{Threads: 256, Lanes: 64, Unroll: 3}},
			{Tokens: 1, Tuning: Tuning{Threads: 128, Lanes: 128, Rows: 2}}, {Tokens: 3, Tuning: Tuning{Threads: 128, Lanes: 64}},
			{Tokens: 2, Norm: true, Act: &silu, QuantOut: true, Eps: 1e-5, Tuning: Tuning{Threads: 128, Lanes: 64, Rows: 16}},
		} {
			t.Run(fmt.Sprintf("%s/%d tokens/%+v", a.name, m.Tokens, m.Tuning), func(t *testing.T) {
				dev := r.device()
				a.take(&dev)
				m.K, m.Parts = 768, []Part{{tensor.Q4_K, 64}, {tensor.Q6_K, 64}}
				m.test(&rig{t, r.d}, dev)
			})
		}
	}
}

// test runs a product with two parts of equal size.
func (m MatVec) test(r *rig, dev Device) {
	t := r.t
	t.Helper()
	kernel, err := m.Kernel(dev)
	if err != nil {
		t.Fatal(err)
	}
	n := m.Parts[0].Rows
	x, w := activations(m.K, m.Tokens, 4), activations(m.K, 1, 8)
	a, b := newMatrix(t, m.Parts[0].Type, m.K, n, 1), newMatrix(t, m.Parts[1].Type, m.K, n, 2)
	bufs := []*wgpu.Buffer{buffer(r, a.packed), buffer(r, b.packed)}
	if m.Norm {
		bufs = append(bufs, buffer(r, x), buffer(r, w))
		x = normed(x, w, m.Eps)
	} else {
		words, _ := quantizePlain(x, m.K)
		bufs = append(bufs, buffer(r, words))
	}
	_, x = quantizePlain(x, m.K)
	y := r.empty(4 * 2 * n * m.Tokens)
	r.run(r.bind(kernel, true, append(bufs, y)...))
	g, gm := a.times(x)
	u, um := b.times(x)
	if m.Act == nil {
		want, mag := make([]float64, 2*n*m.Tokens), make([]float64, 2*n*m.Tokens)
		for i := range g {
			j := i/n*2*n + i%n
			want[j], mag[j], want[j+n], mag[j+n] = g[i], gm[i], u[i], um[i]
		}
		// Where the norm's last bit differs, so may the rounding of an activation.
		compare(t, read[float32](r, y, 2*n*m.Tokens), want, mag, 5e-6)
		return
	}
	want, mag := make([]float64, len(g)), make([]float64, len(g))
	for i := range g {
		want[i] = activate(*m.Act, g[i]) * u[i]
		mag[i] = 1.2*gm[i]*math.Abs(u[i]) + math.Abs(g[i])*um[i]
	}
	got, _ := unquantize(read[uint32](r, y, QuantWords(n)*m.Tokens), n, m.Tokens)
	for i := range want {
		top := 0.0
		for _, v := range want[i&^31 : i&^31+32] {
			top = max(top, math.Abs(v))
		}
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= 1e-5*mag[i]+top/60000) {
			t.Fatalf("element %d: %g, want %g", i, got[i], want[i])
		}
	}
}

func TestMatVecRefuses(t *testing.T) {
	d := Device{StorageBuffers: 8, Workgroups: 65535}
	act := graph.SiLU
	for name, m := range map[string]MatVec{
		"too many tokens": {K: 256, Tokens: 9, Parts: []Part{{tensor.Q4_K, 1}}},
		"no token":        {K: 256, Parts: []Part{{tensor.Q4_K, 1}}},
		"no part":         {K: 256, Tokens: 1},
		"half a block":    {K: 128, Tokens: 1, Parts: []Part{{tensor.Q4_K, 1}}},
		"a lone gate":     {K: 256, Tokens: 1, Act: &act, Parts: []Part{{tensor.Q4_K, 1}}},
	} {
		if _, err := m.Kernel(d); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	m := MatVec{K: 256, Tokens: 1, Parts: []Part{{tensor.Q4_K, 1}, {tensor.F16, 1}}}
	if _, err := m.Kernel(d); !errors.Is(err, ErrMixed) {
		t.Errorf("plain and quantised weights: %v", err)
	}
}
