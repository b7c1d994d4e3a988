package quant

import (
	"encoding/binary"
	"encoding/json"
	"errors"
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

func TestErrors(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, f := range Formats() {
		size, length := f.Type.BlockBytes(), f.Type.BlockLen()
		t.Run(f.Type.String(), func(t *testing.T) {
			dst, src := make([]float32, 2*length), make([]byte, 2*size)
			for _, c := range []struct {
				name  string
				dst   []float32
				src   []byte
				fails bool
			}{
				{"fits", dst, src, false},
				{"nothing", nil, nil, false},
				{"a block too few", dst, src[size:], true},
				{"a byte too few", dst, src[1:], true},
				{"a block too many", dst[length:], src, true},
				{"an element too few", dst[1:], src, true},
				{"empty source", dst, nil, true},
				{"empty destination", nil, src, true},
			} {
				if err := Dequantize(f.Type, c.dst, c.src); (err != nil) != c.fails || c.fails && !errors.Is(err, ErrLength) {
					t.Errorf("dequantise, %s: got %v", c.name, err)
				}
				if err := Quantize(f.Type, c.src, c.dst, nil); (err != nil) != c.fails || c.fails && !errors.Is(err, ErrLength) {
					t.Errorf("quantise, %s: got %v", c.name, err)
				}
			}
			for _, c := range []struct {
				name    string
				weights []float32
				want    error
			}{
				{"no weights", []float32{}, ErrLength},
				{"too many", make([]float32, 3*length), ErrLength},
				{"NaN", fillWith(length, nan), ErrNotFinite},
				{"infinite", fillWith(length, inf), ErrNotFinite},
				{"negative", fillWith(length, -1), ErrNotFinite},
			} {
				if err := Quantize(f.Type, src, dst, c.weights); !errors.Is(err, c.want) {
					t.Errorf("weights, %s: got %v, want %v", c.name, err, c.want)
				}
			}
			for _, v := range []float32{nan, inf, -inf} {
				bad := make([]float32, 2*length)
				bad[2*length-1] = v
				err := Quantize(f.Type, src, bad, nil)
				if !errors.Is(err, ErrNotFinite) {
					t.Errorf("%v: got %v, want ErrNotFinite", v, err)
				}
			}
			if f.Type != tensor.F32 {
				if err := Quantize(f.Type, src, fillWith(2*length, math.MaxFloat32), nil); !errors.Is(err, ErrNotFinite) {
					t.Errorf("too large: got %v, want ErrNotFinite", err)
				}
			}
		})
	}
	for _, typ := range []tensor.DType{4, tensor.I32, 31, 32, 1 << 31, math.MaxUint32} {
		if _, ok := Lookup(typ); ok {
			t.Errorf("%s has a format", typ)
		}
		if err := Dequantize(typ, make([]float32, 32), make([]byte, 32)); !errors.Is(err, ErrType) {
			t.Errorf("dequantise %s: got %v, want ErrType", typ, err)
		}
		if err := Quantize(typ, make([]byte, 32), make([]float32, 32), nil); !errors.Is(err, ErrType) {
			t.Errorf("quantise %s: got %v, want ErrType", typ, err)
		}
		if _, ok := Validate(typ, nil); ok {
			t.Errorf("validate %s: passed", typ)
		}
		if v := Dot(typ, nil, nil); v == v {
			t.Errorf("dot %s: got %v, want NaN", typ, v)
		}
	}
}

func fillWith(n int, v float32) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = v
	}
	return x
}

// TestValidate puts an infinity and a NaN at each scale of each block in turn.
func TestValidate(t *testing.T) {
	const n = 9 // an odd number, so that words of 8 bytes do not fit
	for _, f := range Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			size := f.Type.BlockBytes()
			clean := make([]byte, n*size)
			splitmix(3, clean)
			type scale struct {
				off  int
				bad  []byte
				good []byte
			}
			var scales []scale
			for _, off := range halfOffsets[f.Type] {
				scales = append(scales, scale{off, []byte{0, 0x7c}, []byte{0xff, 0x7b}}, scale{off, []byte{1, 0xfe}, []byte{0xff, 0xfb}})
			}
			switch f.Type {
			case tensor.F32:
				scales = []scale{{0, []byte{0, 0, 0x80, 0x7f}, []byte{0xff, 0xff, 0x7f, 0x7f}}, {0, []byte{1, 0, 0xc0, 0xff}, []byte{0, 0, 0, 0}}}
			case tensor.BF16:
				scales = []scale{{0, []byte{0x80, 0x7f}, []byte{0x7f, 0x7f}}, {0, []byte{0xc0, 0xff}, []byte{0x7f, 0xff}}}
			}
			for b := range n {
				for _, s := range scales {
					copy(clean[b*size+s.off:], s.good)
				}
			}
			if b, ok := Validate(f.Type, clean); !ok || b != 0 {
				t.Fatalf("clean data: block %d, %v", b, ok)
			}
			if len(scales) == 0 {
				t.Fatal("nothing to break")
			}
			for b := range n {
				for _, s := range scales {
					data := append([]byte(nil), clean...)
					copy(data[b*size+s.off:], s.bad)
					if got, ok := Validate(f.Type, data); ok || got != b {
						t.Errorf("% x at byte %d of block %d: got block %d, %v", s.bad, s.off, b, got, ok)
					}
				}
			}
			if size > 1 {
				if got, ok := Validate(f.Type, clean[:n*size-1]); ok || got != n-1 {
					t.Errorf("cut short: got block %d, %v", got, ok)
				}
			}
			if _, ok := Validate(f.Type, nil); !ok {
				t.Error("no data: refused")
			}
		})
	}
}

// TestDot compares with a sum over dequantised numbers, over several chunks.
func TestDot(t *testing.T) {
	for _, f := range Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			n := 3*256 + f.Type.BlockLen()
			row, err := f.Type.RowBytes(n)
			if err != nil {
				t.Fatal(err)
			}
			data, w, x := make([]byte, row), make([]float32, n), normal(2, n, 1)
			if err := Quantize(f.Type, data, normal(1, n, 1), nil); err != nil {
				t.Fatal(err)
			}
			if err := Dequantize(f.Type, w, data); err != nil {
				t.Fatal(err)
			}
			want := 0.0
			for i := range w {
				want += float64(w[i]) * float64(x[i])
			}
			if got := Dot(f.Type, data, x); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			if got := Dot(f.Type, data[1:], x); got == got {
				t.Errorf("a byte too few: got %v, want NaN", got)
			}
		})
	}
}

// TestLayouts: the blocks have the sizes that the tensor types promise.
func TestLayouts(t *testing.T) {
	for _, f := range Formats() {
		got, ok := Lookup(f.Type)
		if !ok || got.Type != f.Type {
			t.Errorf("%s is not found by its number", f.Type)
		}
		// blocks() with a wrong size would leave the last block untouched.
		n := 3 * f.Type.BlockLen()
		dst := fillWith(n, float32(math.NaN()))
		f.Dequantize(dst, make([]byte, 3*f.Type.BlockBytes()))
		for i, v := range dst {
			if v != 0 {
				t.Errorf("%s: element %d of zeroed blocks is %v", f.Type, i, v)
				break
			}
		}
	}
}

// FuzzDequantize: any bytes and any destination give numbers or an error.
func FuzzDequantize(f *testing.F) {
	f.Add(uint32(tensor.Q4_K), make([]byte, 144), 256)
	f.Add(uint32(tensor.Q8_0), make([]byte, 33), 32)
	f.Add(uint32(99), []byte{}, 0)
	f.Fuzz(func(t *testing.T, typ uint32, data []byte, n int) {
		if n < 0 || n > 1<<16 {
			return
		}
		d := tensor.DType(typ)
		dst := make([]float32, n)
		if err := Dequantize(d, dst, data); err == nil {
			size, err := d.RowBytes(n)
			if err != nil || size != len(data) {
				t.Fatalf("%s: %d elements from %d bytes accepted", d, n, len(data))
			}
		}
		Validate(d, data)
		Dot(d, data, dst)
	})
}

// FuzzQuantize: whatever floats come in, the result is finite or refused.
func FuzzQuantize(f *testing.F) {
	f.Add(uint8(3), make([]byte, 1024))
	f.Fuzz(func(t *testing.T, row uint8, data []byte) {
		typ := formats[int(row)%len(formats)].Type
		x := make([]float32, superBlock)
		for i := range x {
			if 4*i+4 <= len(data) {
				x[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
			}
		}
		size, err := typ.RowBytes(len(x))
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]byte, size)
		if err := Quantize(typ, dst, x, nil); err != nil {
			if !errors.Is(err, ErrNotFinite) {
				t.Fatal(err)
			}
			return
		}
		if i, ok := Validate(typ, dst); !ok {
			t.Fatalf("%s: block %d is not finite", typ, i)
		}
	})
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
