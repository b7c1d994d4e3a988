//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// The model of the self-test: one layer of the shapes that fast kernels take.
const (
	testHidden, testFF, testVocab = 256, 512, 320
	testHeads, testKV, testDim    = 4, 2, 64
	testEps                       = 1e-6
)

// testTokens is the text of the self-test; steps of testSteps tokens take the
// kernels for one, few and many.
var (
	testTokens = func() []int32 {
		t := make([]int32, 90)
		for i := range t {
			t[i] = int32(i * 37 % testVocab)
		}
		return t
	}()
	testSteps = []int{1, 4, 70, 1, 14}
)

// testLimit is the largest relative error of the self-test's logits: half
// precision in products of many tokens is the largest part of it.
const testLimit = 0.02

// SelfTest runs a model of one layer and compares its logits with plain Go. What
// is wrong with a driver that cannot calculate is found here, before a model is
// loaded.
func (d *device) SelfTest() error {
	m, err := newTestModel()
	if err != nil {
		return err
	}
	want := m.logits(testTokens)
	for _, kv := range []tensor.DType{tensor.F32, tensor.F16} {
		if err := d.selfTest(m, kv, want); err != nil {
			return fmt.Errorf("self-test with a cache of %s: %w", kv, err)
		}
	}
	return nil
}

func (d *device) selfTest(m *testModel, kv tensor.DType, want [][]float64) error {
	exec, err := d.Load(m.program, m, backend.Options{KV: kv, MaxBatch: 128})
	if err != nil {
		return err
	}
	defer exec.Close()
	seq, err := exec.NewSequence(len(testTokens))
	if err != nil {
		return err
	}
	defer seq.Close()
	at := 0
	for _, n := range testSteps {
		var l backend.Logits
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: testTokens[at : at+n], Want: backend.All}}, &l); err != nil {
			return err
		}
		for i := range n {
			if e := relativeError(l.Row(i), want[at+i]); !(e <= testLimit) {
				return fmt.Errorf("step of %d tokens: logits at position %d are off by %.3g of their size, at most %g is sound", n, at+i, e, testLimit)
			}
		}
		at += n
	}
	return nil
}

func relativeError(got []float32, want []float64) float64 {
	var diff, size float64
	for i, w := range want {
		diff += (float64(got[i]) - w) * (float64(got[i]) - w)
		size += w * w
	}
	return math.Sqrt(diff / size)
}

// testModel is the program with random weights.
type testModel struct {
	program *graph.Program
	tensors map[string]tensor.Tensor
	numbers map[string][]float32 // dequantised
	inv     []float64
}

func (m *testModel) Tensor(name string) (tensor.Tensor, bool) {
	t, ok := m.tensors[name]
	return t, ok
}

func newTestModel() (*testModel, error) {
	m := &testModel{tensors: map[string]tensor.Tensor{}, numbers: map[string][]float32{}}
	rng := rand.New(rand.NewPCG(11, 13))
	for _, w := range []struct {
		name       string
		t          tensor.DType
		rows, cols int
	}{
		{"embed", tensor.F32, testVocab, testHidden}, {"norm", tensor.F32, 1, testHidden},
		{"q", tensor.Q4_K, testHeads * testDim, testHidden}, {"q.bias", tensor.F32, 1, testHeads * testDim},
		{"k", tensor.Q6_K, testKV * testDim, testHidden}, {"v", tensor.Q8_0, testKV * testDim, testHidden},
		{"o", tensor.Q5_0, testHidden, testHeads * testDim},
		{"gate", tensor.Q4_K, testFF, testHidden}, {"up", tensor.Q4_K, testFF, testHidden},
		{"down", tensor.Q6_K, testHidden, testFF}, {"out", tensor.Q8_0, testVocab, testHidden},
	} {
		v := make([]float32, w.rows*w.cols)
		for i := range v {
			v[i] = float32(rng.NormFloat64() / math.Sqrt(float64(w.cols)/4))
			if w.rows == 1 {
				v[i] = float32(1 + rng.NormFloat64()/4)
			}
		}
		size, err := tensor.Bytes(w.t, []int{w.rows, w.cols})
		if err != nil {
			return nil, err
		}
		t := tensor.Tensor{Name: w.name, Type: w.t, Shape: []int{w.rows, w.cols}, Data: make([]byte, size)}
		if err := quant.Quantize(w.t, t.Data, v, nil); err != nil {
			return nil, err
		}
		if err := quant.Dequantize(w.t, v, t.Data); err != nil {
			return nil, err
		}
		m.tensors[w.name], m.numbers[w.name] = t, v
	}
	for i := range testDim / 2 {
		m.inv = append(m.inv, math.Pow(10000, -float64(2*i)/testDim))
	}
	return m, m.build()
}

func (m *testModel) build() error {
	b := graph.NewBuilder("self-test", testVocab, testHidden, len(testTokens))
	x := b.Embed("x", "embed")
	n := b.RMSNorm("n", x, "norm", testHidden, testEps)
	q := b.MatMul("q", n, "q", "q.bias", testHeads*testDim)
	k := b.MatMul("k", n, "k", "", testKV*testDim)
	v := b.MatMul("v", n, "v", "", testKV*testDim)
	r := graph.Rope{HeadDim: testDim, InvFreq: m.inv, Magnitude: 1}
	q, k = b.Rope("qr", q, r), b.Rope("kr", k, r)
	layer := b.KVCache(k, v, graph.Cache{Heads: testKV, HeadDim: testDim})
	a := b.Attention("a", q, layer, testHeads, 1/float32(math.Sqrt(testDim)), 0)
	x = b.Add("x1", x, b.MatMul("o", a, "o", "", testHidden))
	n = b.RMSNorm("n1", x, "norm", testHidden, testEps)
	f := b.GatedAct("f", b.MatMul("gate", n, "gate", "", testFF), b.MatMul("up", n, "up", "", testFF), graph.SiLU)
	x = b.Add("x2", x, b.MatMul("down", f, "down", "", testHidden))
	b.Logits("l", b.RMSNorm("n2", x, "norm", testHidden, testEps), "out", 0)
	var err error
	m.program, err = b.Program()
	return err
}

// logits is the model in plain Go.
func (m *testModel) logits(tokens []int32) (rows [][]float64) {
	var keys, values [][]float64
	for p, tok := range tokens {
		var x []float64
		for _, v := range m.numbers["embed"][int(tok)*testHidden : (int(tok)+1)*testHidden] {
			x = append(x, float64(v))
		}
		n := m.norm(x)
		q, k := m.times("q", n), m.times("k", n)
		for i, b := range m.numbers["q.bias"] {
			q[i] += float64(b)
		}
		m.rotate(q, p)
		m.rotate(k, p)
		keys, values = append(keys, k), append(values, m.times("v", n))
		for i, v := range m.times("o", attend(q, keys, values)) {
			x[i] += v
		}
		n = m.norm(x)
		f := m.times("gate", n)
		for i, u := range m.times("up", n) {
			f[i] = f[i] / (1 + math.Exp(-f[i])) * u
		}
		for i, v := range m.times("down", f) {
			x[i] += v
		}
		rows = append(rows, m.times("out", m.norm(x)))
	}
	return rows
}

func (m *testModel) norm(x []float64) []float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(sum/float64(len(x))+testEps) * float64(m.numbers["norm"][i])
	}
	return y
}

func (m *testModel) times(name string, x []float64) []float64 {
	w := m.numbers[name]
	y := make([]float64, len(w)/len(x))
	for r := range y {
		for i, v := range x {
			y[r] += float64(w[r*len(x)+i]) * v
		}
	}
	return y
}

// rotate rotates each head to position p.
func (m *testModel) rotate(x []float64, p int) {
	for h := 0; h < len(x); h += testDim {
		for i, f := range m.inv {
			sin, cos := math.Sincos(float64(p) * f)
			a, b := x[h+i], x[h+i+testDim/2]
			x[h+i], x[h+i+testDim/2] = a*cos-b*sin, a*sin+b*cos
		}
	}
}

// attend is attention of one row of queries.
func attend(q []float64, keys, values [][]float64) []float64 {
	y := make([]float64, len(q))
	for h := range testHeads {
		kv := h / (testHeads / testKV) * testDim
		total := 0.0
		for j := range keys {
			s := 0.0
			for d := range testDim {
				s += q[h*testDim+d] * keys[j][kv+d]
			}
			// Scores of this model are far from where exp overflows.
			e := math.Exp(s / math.Sqrt(testDim))
			total += e
			for d := range testDim {
				y[h*testDim+d] += e * values[j][kv+d]
			}
		}
		for d := range testDim {
			y[h*testDim+d] /= total
		}
	}
	return y
}
