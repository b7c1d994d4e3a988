//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/backend"
	_ "github.com/apr-engine/apr/backend/oracle" // plain Go to compare with
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// tensors are weights by name.
type tensors map[string]tensor.Tensor

func (w tensors) Tensor(name string) (tensor.Tensor, bool) {
	t, ok := w[name]
	return t, ok
}

// add makes a tensor of numbers.
func (w tensors) add(t testing.TB, name string, typ tensor.DType, rows, cols int, number func(i int) float32) {
	t.Helper()
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = number(i)
	}
	size, err := tensor.Bytes(typ, []int{rows, cols})
	if err != nil {
		t.Fatal(err)
	}
	x := tensor.Tensor{Name: name, Type: typ, Shape: []int{rows, cols}, Data: make([]byte, size)}
	if err := quant.Quantize(typ, x.Data, v, nil); err != nil {
		t.Fatal(err)
	}
	w[name] = x
}

// opsProgram has every operation, of sizes that no workgroup divides, on values
// that are not changed much by rounding, so that each can be compared.
func opsProgram(t testing.TB, s opsSizes) (*graph.Program, tensors) {
	rng := rand.New(rand.NewPCG(1, uint64(s.dim)))
	normal := func(scale float64) func(int) float32 {
		return func(int) float32 { return float32(scale * rng.NormFloat64()) }
	}
	width, kvWidth := s.heads*s.dim, s.kv*s.dim
	const vocab = 97
	w := tensors{}
	// Rows of very different size; some are zero.
	w.add(t, "embed", tensor.F32, vocab, width, func(i int) float32 {
		return float32(rng.NormFloat64() * []float64{1, 1e-4, 1e4, 0, 30}[i/width%5])
	})
	w.add(t, "norm", tensor.F32, 1, width, normal(1))
	w.add(t, "head norm", tensor.F32, 1, s.dim, normal(1))
	scale := 1 / math.Sqrt(float64(width))
	w.add(t, "q", s.typ, width, width, normal(scale))
	w.add(t, "k", s.typ, kvWidth, width, normal(scale))
	w.add(t, "v", s.typ, kvWidth, width, normal(scale))
	w.add(t, "bias", tensor.F32, 1, kvWidth, normal(1))
	w.add(t, "out", s.typ, vocab, width, normal(scale))

	b := graph.NewBuilder("ops", vocab, width, 512)
	x := b.Embed("embed", "embed")
	n := b.RMSNorm("norm", x, "norm", width, 1e-6)
	q := b.RMSNorm("head norm", b.MatMul("q", n, "q", "", width), "head norm", s.dim, 1e-5)
	k, v := b.MatMul("k", n, "k", "bias", kvWidth), b.MatMul("v", n, "v", "", kvWidth)
	var inv []float64
	for i := range s.pairs {
		inv = append(inv, math.Pow(1000, -float64(i)/float64(s.pairs)))
	}
	r := graph.Rope{HeadDim: s.dim, Pairing: s.pairing, InvFreq: inv, Magnitude: 1.25}
	q, k = b.Rope("q rope", q, r), b.Rope("k rope", k, r)
	layer := b.KVCache(k, v, graph.Cache{Heads: s.kv, HeadDim: s.dim, Window: s.window})
	a := b.Attention("attention", q, layer, s.heads, float32(1/math.Sqrt(float64(s.dim))), s.cap)
	silu, gelu := b.GatedAct("silu", a, n, graph.SiLU), b.GatedAct("gelu", n, a, graph.GELU)
	sum := b.Scale("scale", b.Add("add", silu, gelu), -0.75)
	b.Logits("logits", b.RMSNorm("last norm", sum, "norm", width, 1e-6), "out", 2*s.cap)
	p, err := b.Program()
	if err != nil {
		t.Fatal(err)
	}
	return p, w
}

type opsSizes struct {
	heads, kv, dim, pairs int
	pairing               graph.Pairing
	window                int
	cap                   float32
	typ                   tensor.DType
	kvType                tensor.DType
}

// traceAll runs tokens in steps of the given sizes and returns every value's rows.
func traceAll(t testing.TB, name string, p *graph.Program, w graph.Weights, kv tensor.DType, tokens []int32, steps []int) map[string][]float32 {
	t.Helper()
	b, err := backend.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := b.Probe()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]float32{}
	exec, err := devices[0].Load(p, w, backend.Options{KV: kv, Trace: func(v graph.Value, rows []float32) {
		values[v.Name] = append(values[v.Name], rows...)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Close()
	seq, err := exec.NewSequence(len(tokens))
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	for _, n := range steps {
		var l backend.Logits
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[:n], Want: backend.All}}, &l); err != nil {
			t.Fatal(err)
		}
		tokens = tokens[n:]
	}
	return values
}

// Every shader of this package against plain Go, on sizes that divide nothing and
// rows of very different size, with and without subgroups.
func TestOperations(t *testing.T) {
	needAdapter(t)
	for i, s := range []opsSizes{
		{heads: 16, kv: 4, dim: 10, pairs: 3, typ: tensor.F32, kvType: tensor.F32},
		{heads: 3, kv: 1, dim: 32, pairs: 16, pairing: graph.Interleaved, window: 17, cap: 5, typ: tensor.F16, kvType: tensor.F16},
		{heads: 1, kv: 1, dim: 160, pairs: 80, typ: tensor.BF16, kvType: tensor.F16, cap: 0.5},
		{heads: 2, kv: 2, dim: 80, pairs: 20, pairing: graph.Interleaved, window: 65, typ: tensor.F32, kvType: tensor.F32},
	} {
		for _, name := range []string{plainName, singly} {
			t.Run(fmt.Sprintf("%d/%s", i, name), func(t *testing.T) {
				p, w := opsProgram(t, s)
				tokens := make([]int32, 101)
				for j := range tokens {
					tokens[j] = int32(j * 29 % p.Vocab)
				}
				steps := []int{1, 7, 91, 1, 1}
				want := traceAll(t, "oracle", p, w, s.kvType, tokens, steps)
				limit := 1e-5
				if s.kvType == tensor.F16 {
					limit = 2e-3 // the oracle's cache is float32
				}
				for value, got := range traceAll(t, name, p, w, s.kvType, tokens, steps) {
					v := want[value]
					if len(got) != len(v) {
						t.Fatalf("%s: %d numbers, want %d", value, len(got), len(v))
					}
					width := len(v) / len(tokens)
					for row := range tokens {
						g, v := got[row*width:(row+1)*width], v[row*width:(row+1)*width]
						if zero(v) && zero(g) {
							continue
						}
						if e := golden.RelativeRMS(g, v); !(e <= limit) {
							t.Fatalf("%s: row %d differs by %.3g (limit %g)", value, row, e, limit)
						}
					}
				}
			})
		}
	}
}

func zero(v []float32) bool {
	for _, x := range v {
		if x != 0 {
			return false
		}
	}
	return true
}

// Tamper and misplaced operations do what their definition says.
func TestFaultOperations(t *testing.T) {
	needAdapter(t)
	const width, dim = 96, 32
	rng := rand.New(rand.NewPCG(5, 5))
	w := tensors{}
	w.add(t, "embed", tensor.F32, 50, width, func(int) float32 { return float32(rng.NormFloat64()) * 100 })
	w.add(t, "out", tensor.F32, 50, width, func(int) float32 { return float32(rng.NormFloat64()) })
	for _, o := range []graph.Tamper{
		{How: graph.Replace}, {How: graph.Multiply, Amount: -2, Rows: graph.Rows{From: 3}},
		{How: graph.Drift, Amount: 0.25, Rows: graph.Rows{Steps: graph.DecodeSteps}},
		{How: graph.Half, Amount: 1}, {How: graph.Half, Amount: 1e-8}, {How: graph.Half, Amount: 1000},
		{How: graph.Int8, Group: 7}, {How: graph.Int8, Group: 200, Rows: graph.Rows{Steps: graph.BatchSteps}},
		{How: graph.Heads, Group: dim, Order: []int{2, 0, 1}},
	} {
		t.Run(fmt.Sprintf("%d/%v", o.How, o.Amount), func(t *testing.T) {
			p := &graph.Program{Vocab: 50, Hidden: width, Values: []graph.Value{{Name: "x", Width: width}, {Name: "y", Width: width}, {Name: "z", Width: width}, {Name: "l", Width: 50}}}
			o.In, o.Alt, o.Out = 0, 1, 2
			p.Ops = []graph.Op{&graph.Embed{Out: 0, Weight: "embed"}, &graph.Scale{In: 0, Out: 1, Factor: 3}, &o, &graph.Logits{In: 2, Out: 3, Weight: "out"}}
			if err := p.Check(); err != nil {
				t.Fatal(err)
			}
			tokens, steps := []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, []int{1, 10, 1}
			want, got := traceAll(t, "oracle", p, w, tensor.F32, tokens, steps)["z"], traceAll(t, plainName, p, w, tensor.F32, tokens, steps)["z"]
			for i, v := range want {
				g := got[i]
				if g != v && !(math.Abs(float64(g-v)) <= 2e-6*math.Abs(float64(v))) && !sameSpecial(g, v) {
					t.Fatalf("element %d is %v, want %v", i, g, v)
				}
			}
		})
	}
}

func sameSpecial(a, b float32) bool {
	x, y := float64(a), float64(b)
	return math.IsNaN(x) && math.IsNaN(y) || math.IsInf(x, 1) && math.IsInf(y, 1) || math.IsInf(x, -1) && math.IsInf(y, -1)
}
