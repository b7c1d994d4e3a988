package quant

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// ownWeights are the weights by which ggml's error of a type is measured: those
// it minimises itself without an importance matrix.
var ownWeights = map[tensor.DType]importance{
	tensor.Q4_0: uniform, tensor.Q4_1: uniform, tensor.Q5_0: uniform, tensor.Q5_1: uniform, tensor.Q8_0: uniform,
	tensor.Q2_K: byMagnitude, tensor.Q3_K: bySquare, tensor.Q4_K: byLevel, tensor.Q5_K: byLevel, tensor.Q6_K: bySquare,
	tensor.IQ4_NL: bySquare, tensor.IQ4_XS: bySquare,
}

// bySquare: x².
func bySquare(w, x []float64) {
	for i, v := range x {
		w[i] = v * v
	}
}

// measure returns the root mean square error of y against x: plain, with own
// weights, and with weights x².
func measure(own importance, x, y []float32) (rms [3]float64) {
	var e, sum [3]float64
	var xs, ws [32]float64
	for i := 0; i < len(x); i += 32 {
		for j := range xs {
			xs[j] = float64(x[i+j])
		}
		own(ws[:], xs[:])
		for j, v := range xs {
			d := v - float64(y[i+j])
			for k, w := range [3]float64{1, ws[j], v * v} {
				e[k] += w * d * d
				sum[k] += w
			}
		}
	}
	for k := range rms {
		rms[k] = math.Sqrt(e[k] / sum[k])
	}
	return rms
}

// sharedDir finds the folder "shared" beside the module's root, or skips.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			shared := filepath.Join(filepath.Dir(dir), "shared")
			if _, err := os.Stat(shared); err != nil {
				t.Skip("no folder ../shared beside the repository, which has the model")
			}
			return shared
		}
	}
	t.Fatal("no go.mod above the test")
	return ""
}

// studentTensors returns the matrices of the shared student model, F16 in
// safetensors (8 bytes of header length, JSON, data), under their GGUF names.
// This package may not import the readers of model files.
func studentTensors(t *testing.T) map[string][]float32 {
	t.Helper()
	path := filepath.Join(sharedDir(t), "models", "student-hf", "model.safetensors")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Skip("no student model: ", err)
	}
	n := binary.LittleEndian.Uint64(raw)
	var header map[string]struct {
		Dtype   string
		Shape   []int
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(raw[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	names := strings.NewReplacer("model.layers.", "blk.", "model.embed_tokens", "token_embd",
		"self_attn.q_proj", "attn_q", "self_attn.k_proj", "attn_k", "self_attn.v_proj", "attn_v",
		"self_attn.o_proj", "attn_output", "mlp.gate_proj", "ffn_gate", "mlp.up_proj", "ffn_up", "mlp.down_proj", "ffn_down")
	out := map[string][]float32{}
	for name, info := range header {
		if len(info.Shape) != 2 || info.Dtype != "F16" {
			continue
		}
		data := raw[8+n:][info.Offsets[0]:info.Offsets[1]]
		x := make([]float32, len(data)/2)
		if err := Dequantize(tensor.F16, x, data); err != nil {
			t.Fatal(err)
		}
		out[names.Replace(name)] = x
	}
	return out
}

// roundTrip quantises and dequantises.
func roundTrip(t testing.TB, typ tensor.DType, x, weights []float32) []float32 {
	t.Helper()
	size, err := typ.RowBytes(len(x))
	if err != nil {
		t.Fatal(err)
	}
	data, y := make([]byte, size), make([]float32, len(x))
	if err := Quantize(typ, data, x, weights); err != nil {
		t.Fatal(err)
	}
	if i, ok := Validate(typ, data); !ok {
		t.Fatalf("block %d of the result is not finite", i)
	}
	if err := Dequantize(typ, y, data); err != nil {
		t.Fatal(err)
	}
	return y
}

// TestErrorAgainstGGML: on every matrix of the student model, the error of every
// type is at most 2 % above that of ggml's quantiser (llama.cpp, February 2025,
// no importance matrix), plain, by the weights that ggml uses for the type, and by
// x². That margin is the requirement; on average all are below 1.
func TestErrorAgainstGGML(t *testing.T) {
	raw, err := os.ReadFile("testdata/ggml_error.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden map[string]map[string][3]float64
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	model := studentTensors(t)
	if len(golden) != 29 || len(model) != 29 {
		t.Fatalf("%d tensors in the golden file and %d in the model, want 29", len(golden), len(model))
	}
	for _, f := range Formats() {
		own := ownWeights[f.Type]
		if own == nil {
			continue
		}
		t.Run(f.Type.String(), func(t *testing.T) {
			t.Parallel()
			var sum [3]float64
			var worst float64
			for name, x := range model {
				want, ok := golden[name][f.Type.String()]
				if !ok {
					t.Fatalf("no golden error for %s", name)
				}
				got := measure(own, x, roundTrip(t, f.Type, x, nil))
				for k, kind := range [3]string{"plain", "weighted", "x²-weighted"} {
					ratio := got[k] / want[k]
					sum[k] += ratio
					worst = max(worst, ratio)
					if !(ratio <= 1.02) {
						t.Errorf("%s: %s error %.6g is %.4f of ggml's %.6g", name, kind, got[k], ratio, want[k])
					}
				}
			}
			n := float64(len(model))
			t.Logf("error as a part of ggml's: plain %.4f, weighted %.4f, x²-weighted %.4f; worst %.4f", sum[0]/n, sum[1]/n, sum[2]/n, worst)
		})
	}
}

// relativeLimit is the relative error (root mean square) of a type on numbers of
// a normal distribution: about what the levels allow, plus a tenth.
var relativeLimit = map[tensor.DType]float64{
	tensor.F32: 0, tensor.F16: 3e-4, tensor.BF16: 2.4e-3,
	tensor.Q4_0: 0.092, tensor.Q4_1: 0.082, tensor.Q5_0: 0.046, tensor.Q5_1: 0.041, tensor.Q8_0: 0.0062,
	tensor.Q2_K: 0.32, tensor.Q3_K: 0.18, tensor.Q4_K: 0.077, tensor.Q5_K: 0.039, tensor.Q6_K: 0.02,
	tensor.IQ4_NL: 0.083, tensor.IQ4_XS: 0.085,
}

func normal(seed uint64, n int, scale float64) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * scale)
	}
	return x
}

// TestQuantizeScales: the relative error does not depend on the magnitude, from
// where the scale is subnormal to F16's limit.
func TestQuantizeScales(t *testing.T) {
	for _, f := range Formats() {
		for _, c := range []struct {
			name  string
			scale float64
			slack float64 // subnormal scales are coarse
		}{
			{"minute", 1e-4, 2.5}, {"tiny", 2e-3, 1.3}, {"usual", 0.02, 1}, {"one", 1, 1}, {"large", 1000, 1}, {"limit", 13000, 1},
		} {
			t.Run(f.Type.String()+"/"+c.name, func(t *testing.T) {
				x := normal(7, 4096, c.scale)
				y := roundTrip(t, f.Type, x, nil)
				rms := measure(uniform, x, y)[0] / c.scale
				limit, ok := relativeLimit[f.Type]
				if !ok {
					t.Fatal("no limit for this type")
				}
				if !(rms <= limit*c.slack) {
					t.Errorf("relative error %.5f, want at most %.5f", rms, limit*c.slack)
				}
			})
		}
	}
}

// TestQuantizeCorners: nothing that is finite breaks a quantiser, and what can
// be stored exactly is.
func TestQuantizeCorners(t *testing.T) {
	fill := func(f func(i int) float32) []float32 {
		x := make([]float32, 512)
		for i := range x {
			x[i] = f(i)
		}
		return x
	}
	for _, c := range []struct {
		name  string
		x     []float32
		exact bool // every type stores it to 1 part in 500
	}{
		{"zeros", fill(func(int) float32 { return 0 }), true},
		{"equal", fill(func(int) float32 { return 0.75 }), true},
		{"equal negative", fill(func(int) float32 { return -0.75 }), true},
		{"limit", fill(func(int) float32 { return maxF16 }), true},
		{"negative limit", fill(func(int) float32 { return -maxF16 }), true},
		{"limits of both signs", fill(func(i int) float32 { return maxF16 * float32(1-2*(i%2)) }), false},
		{"below F16", fill(func(i int) float32 { return 1e-9 * float32(i%5-2) }), false},
		{"smallest", fill(func(i int) float32 { return math.SmallestNonzeroFloat32 * float32(i%2) }), false},
		{"one outlier", fill(func(i int) float32 {
			if i == 300 {
				return 60000
			}
			return float32(i%7-3) * 1e-3
		}), false},
		{"ramp", fill(func(i int) float32 { return float32(i) }), false},
		{"all positive", fill(func(i int) float32 { return 100 + float32(i%9) }), false},
		{"all negative", fill(func(i int) float32 { return -100 - float32(i%9) }), false},
	} {
		for _, f := range Formats() {
			t.Run(c.name+"/"+f.Type.String(), func(t *testing.T) {
				y := roundTrip(t, f.Type, c.x, nil)
				high := 0.0
				for _, v := range c.x {
					high = max(high, math.Abs(float64(v)))
				}
				for i, v := range y {
					d := math.Abs(float64(v) - float64(c.x[i]))
					// No number moves by more than the largest there is, plus
					// what the scale's own rounding adds.
					if !(d <= high*1.1) {
						t.Fatalf("element %d: %v became %v", i, c.x[i], v)
					}
					if c.exact && !(d <= high/500) {
						t.Fatalf("element %d: %v became %v", i, c.x[i], v)
					}
				}
			})
		}
	}
}

// TestQuantizeWeights: weights move the error to where it matters less.
func TestQuantizeWeights(t *testing.T) {
	x := normal(3, 2048, 0.05)
	weights := make([]float32, len(x))
	for i := range weights {
		weights[i] = float32(1 + 99*(i/7%2))
	}
	weighted := func(y []float32) (sum float64) {
		for i := range x {
			d := float64(x[i]) - float64(y[i])
			sum += float64(weights[i]) * d * d
		}
		return sum
	}
	for _, f := range Formats() {
		if f.Type.BlockLen() == 1 {
			continue // nothing to choose
		}
		t.Run(f.Type.String(), func(t *testing.T) {
			plain := roundTrip(t, f.Type, x, nil)
			aware := roundTrip(t, f.Type, x, weights)
			if a, b := weighted(aware), weighted(plain); !(a < 0.99*b) {
				t.Errorf("weighted error %.4g with weights, %.4g without", a, b)
			}
			// One row of weights serves each of several rows.
			repeated := roundTrip(t, f.Type, x, weights[:256])
			long := append([]float32(nil), weights[:256]...)
			for len(long) < len(x) {
				long = append(long, weights[:256]...)
			}
			for i, v := range roundTrip(t, f.Type, x, long) {
				if v != repeated[i] {
					t.Fatalf("element %d: %v with repeated weights, %v with long ones", i, repeated[i], v)
				}
			}
			roundTrip(t, f.Type, x, make([]float32, 256)) // all zero: any answer, but an answer
		})
	}
}

// TestQuantizeRows: many rows at once give the same bytes as one at a time, and
// the bytes do not depend on what was in the destination.
func TestQuantizeRows(t *testing.T) {
	x := normal(11, 4*512, 0.1)
	for _, f := range Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			row, err := f.Type.RowBytes(512)
			if err != nil {
				t.Fatal(err)
			}
			all, one := make([]byte, 4*row), make([]byte, row)
			if err := Quantize(f.Type, all, x, nil); err != nil {
				t.Fatal(err)
			}
			for r := range 4 {
				for i := range one {
					one[i] = 0xa5
				}
				if err := Quantize(f.Type, one, x[r*512:(r+1)*512], nil); err != nil {
					t.Fatal(err)
				}
				if string(one) != string(all[r*row:(r+1)*row]) {
					t.Errorf("row %d differs", r)
				}
			}
		})
	}
}

// TestRequantize: numbers that a block has stored are stored again without
// much further loss.
func TestRequantize(t *testing.T) {
	for _, f := range Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			x := normal(5, 4096, 0.02)
			once := roundTrip(t, f.Type, x, nil)
			twice := roundTrip(t, f.Type, once, nil)
			first, second := measure(uniform, x, once)[0], measure(uniform, once, twice)[0]
			// The second time the numbers lie on levels; a search may settle
			// on others, but never at a loss as large as the first.
			if !(second <= 0.7*first) {
				t.Errorf("second error %.4g, first %.4g", second, first)
			}
		})
	}
}

func BenchmarkQuantize(b *testing.B) {
	x := normal(1, 1<<14, 0.02)
	for _, f := range Formats() {
		b.Run(f.Type.String(), func(b *testing.B) {
			size, err := f.Type.RowBytes(len(x))
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, size)
			for b.Loop() {
				f.Quantize(dst, x, nil)
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/float64(len(x))*1e9, "ns/elem")
		})
	}
}
