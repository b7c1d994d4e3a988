package stats

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/modelfile/scan"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

func f32(name string, shape []int, x []float32) tensor.Tensor {
	data := make([]byte, 4*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	return tensor.Tensor{Name: name, Type: tensor.F32, Shape: shape, Data: data}
}

func TestTensors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	tests := []struct {
		name  string
		shape []int
		x     []float32
		want  Stats
	}{
		{"vector", []int{4}, []float32{1, 2, 3, 6}, Stats{4, 1, 6, 3, Number(math.Sqrt(3.5)), 0, 0, 0, 0}},
		{"zero vector has no dead rows", []int{2}, []float32{0, 0}, Stats{2, 0, 0, 0, 0, 2, 0, 0, 0}},
		{"dead row", []int{3, 2}, []float32{0, float32(math.Copysign(0, -1)), 0, 4, 4, 0}, Stats{6, 0, 4, Number(4. / 3), Number(math.Sqrt(32. / 9)), 4, 0, 0, 1}},
		{"not finite", []int{2, 3}, []float32{nan, 1, inf, nan, 3, nan}, Stats{6, 1, 3, 2, 1, 0, 3, 1, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Tensors(context.Background(), []tensor.Tensor{f32("x", tt.shape, tt.x)}, 1)
			if err != nil {
				t.Fatal(err)
			}
			check(t, got[0], tt.want)
		})
	}
}

// check compares statistics; the tolerance is a few roundings of float64.
func check(t *testing.T, got, want Stats) {
	t.Helper()
	for _, c := range []struct {
		name      string
		got, want Number
	}{{"min", got.Min, want.Min}, {"max", got.Max, want.Max}, {"mean", got.Mean, want.Mean}, {"std", got.Std, want.Std}} {
		if !(math.Abs(float64(c.got-c.want)) <= 1e-12*(1+math.Abs(float64(c.want)))) {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
	got.Min, got.Max, got.Mean, got.Std = want.Min, want.Max, want.Mean, want.Std
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestNothingFinite(t *testing.T) {
	nan := float32(math.NaN())
	got, err := Tensors(context.Background(), []tensor.Tensor{f32("x", []int{2}, []float32{nan, nan})}, 0)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(got[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"elements":2,"min":"NaN","max":"NaN","mean":"NaN","std":"NaN","zeros":0,"nan":2,"inf":0,"dead_rows":0}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

// Every type, rows longer than a piece, several chunks and workers: compared
// with sums over all numbers at once.
func TestTypesAndThreads(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	types := []tensor.DType{tensor.I8, tensor.I16, tensor.I32, tensor.I64, tensor.F64}
	for _, f := range quant.Formats() {
		types = append(types, f.Type)
	}
	const rows, cols = 24, 2*scan.Piece + 256
	for _, typ := range types {
		t.Run(typ.String(), func(t *testing.T) {
			size, err := typ.RowBytes(cols)
			if err != nil {
				t.Fatal(err)
			}
			data := make([]byte, rows*size)
			x := make([]float64, rows*cols)
			for i := range x {
				x[i] = 3 + 10*rng.NormFloat64()
			}
			for r := range 2 {
				clear(x[r*cols : (r+1)*cols])
			}
			encode(t, typ, data, x)
			if err := scan.Decode(typ, x, data); err != nil {
				t.Fatal(err)
			}
			want := Stats{Elements: rows * cols, Min: Number(x[0]), Max: Number(x[0])}
			sum, squares := 0.0, 0.0
			for _, v := range x {
				sum += v
				want.Min, want.Max = min(want.Min, Number(v)), max(want.Max, Number(v))
				if v == 0 {
					want.Zeros++
				}
			}
			want.Mean = Number(sum / float64(len(x)))
			for _, v := range x {
				d := v - float64(want.Mean)
				squares += d * d
			}
			want.Std = Number(math.Sqrt(squares / float64(len(x))))
			for r := range rows {
				dead := true
				for _, v := range x[r*cols : (r+1)*cols] {
					dead = dead && v == 0
				}
				if dead {
					want.DeadRows++
				}
			}
			list := []tensor.Tensor{f32("other", []int{2}, []float32{1, 2}), {Name: "x", Type: typ, Shape: []int{rows, cols}, Data: data}}
			one, err := Tensors(context.Background(), list, 1)
			if err != nil {
				t.Fatal(err)
			}
			// The plain sums round once for each of 800 000 numbers.
			if d := float64(one[1].Mean - want.Mean); !(math.Abs(d) <= 1e-9) {
				t.Errorf("mean %v, want %v", one[1].Mean, want.Mean)
			}
			if d := float64(one[1].Std - want.Std); !(math.Abs(d) <= 1e-9) {
				t.Errorf("std %v, want %v", one[1].Std, want.Std)
			}
			want.Mean, want.Std = one[1].Mean, one[1].Std
			if one[1] != want {
				t.Errorf("got %+v, want %+v", one[1], want)
			}
			many, err := Tensors(context.Background(), list, 7)
			if err != nil {
				t.Fatal(err)
			}
			if many[0] != one[0] || many[1] != one[1] {
				t.Errorf("7 workers give %+v, one %+v", many, one)
			}
		})
	}
}

// encode stores numbers as any type, integers rounded.
func encode(t *testing.T, typ tensor.DType, data []byte, x []float64) {
	t.Helper()
	for i, v := range x {
		switch typ {
		case tensor.I8:
			data[i] = byte(int8(v))
		case tensor.I16:
			binary.LittleEndian.PutUint16(data[2*i:], uint16(int16(v)))
		case tensor.I32:
			binary.LittleEndian.PutUint32(data[4*i:], uint32(int32(v)))
		case tensor.I64:
			binary.LittleEndian.PutUint64(data[8*i:], uint64(int64(v)))
		case tensor.F64:
			binary.LittleEndian.PutUint64(data[8*i:], math.Float64bits(v))
		default:
			narrow := make([]float32, len(x))
			for j, v := range x {
				narrow[j] = float32(v)
			}
			if err := quant.Quantize(typ, data, narrow, nil); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

func TestErrors(t *testing.T) {
	_, err := Tensors(context.Background(), []tensor.Tensor{{Name: "odd", Type: 99, Shape: []int{2, 2}, Data: make([]byte, 8)}}, 0)
	if err == nil {
		t.Error("an unknown type has statistics")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Tensors(ctx, []tensor.Tensor{f32("x", []int{1}, []float32{1})}, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func BenchmarkTensors(b *testing.B) {
	for _, typ := range []tensor.DType{tensor.F32, tensor.F16, tensor.Q4_K, tensor.Q6_K} {
		b.Run(typ.String(), func(b *testing.B) {
			size, _ := tensor.Bytes(typ, []int{4096, 4096})
			list := []tensor.Tensor{{Name: "x", Type: typ, Shape: []int{4096, 4096}, Data: make([]byte, size)}}
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := Tensors(context.Background(), list, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
