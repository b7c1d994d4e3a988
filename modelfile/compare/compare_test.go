package compare

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

func random(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

func f32(name string, shape []int, x []float32) tensor.Tensor {
	data := make([]byte, 4*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	return tensor.Tensor{Name: name, Type: tensor.F32, Shape: shape, Data: data}
}

func quantised(t *testing.T, name string, typ tensor.DType, shape []int, x []float32) tensor.Tensor {
	t.Helper()
	size, err := tensor.Bytes(typ, shape)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	if err := quant.Quantize(typ, data, x, nil); err != nil {
		t.Fatal(err)
	}
	return tensor.Tensor{Name: name, Type: typ, Shape: shape, Data: data}
}

func model(t *testing.T, keys map[string]any, tensors ...tensor.Tensor) *source.Model {
	t.Helper()
	md := gguf.NewMetadata()
	for k, v := range keys {
		if err := md.Set(k, v); err != nil {
			t.Fatal(err)
		}
	}
	return source.New(md, tensors)
}

func diff(t *testing.T, a, b *source.Model, o Options) *Diff {
	t.Helper()
	d, err := Models(context.Background(), a, b, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTensors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	tests := []struct {
		name   string
		a, b   []float32
		cosine float64
		error  float64
		max    float64
		finite int64 // elements that are not
		note   string
	}{
		{"opposite", []float32{1, 2, 2, 0}, []float32{-1, -2, -2, 0}, -1, 2, 4, 0, ""},
		{"orthogonal", []float32{3, 0, 0, 0}, []float32{0, 4, 0, 0}, 0, 5. / 3, 4, 0, ""},
		{"scaled", []float32{1, 2, 3, 4}, []float32{2, 4, 6, 8}, 1, 1, 4, 0, ""},
		{"both zero", []float32{0, 0, 0, 0}, []float32{0, float32(math.Copysign(0, -1)), 0, 0}, 1, 0, 0, 0, ""},
		{"A zero", []float32{0, 0, 0, 0}, []float32{1, 0, 0, 0}, 0, math.Inf(1), 1, 0, ""},
		{"B zero", []float32{0, 2, 0, 0}, []float32{0, 0, 0, 0}, 0, 1, 2, 0, ""},
		{"NaN in B", []float32{1, 2, 3, 0}, []float32{1, nan, 3, 0.5}, 10 / math.Sqrt(10*10.25), 0.5 / math.Sqrt(10), 0.5, 1, ""},
		{"NaN in both, other bits", []float32{1, nan, inf, 0}, []float32{1, -nan, inf, 0.5}, 1 / math.Sqrt(1.25), 0.5, 0.5, 0, ""},
		{"infinities of two signs", []float32{1, inf, 0, 0}, []float32{1, -inf, 0, 0}, 1, 0, 0, 1, ""},
		{"plus one", []float32{0.5, -0.25, 0, 0.125}, []float32{1.5, 0.75, 1, 1.125}, math.NaN(), math.NaN(), 1, 0, "B is A + 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := diff(t, model(t, nil, f32("x", []int{2, 2}, tt.a)), model(t, nil, f32("x", []int{2, 2}, tt.b)), Options{Worst: 2})
			got := d.Tensors[0]
			close := func(what string, got, want float64) {
				// A few roundings of float64; the cases without a number are for the note.
				if !math.IsNaN(want) && got != want && !(math.Abs(got-want) <= 1e-14) {
					t.Errorf("%s is %v, want %v", what, got, want)
				}
			}
			close("cosine", float64(got.Cosine), tt.cosine)
			close("error", float64(got.Error), tt.error)
			close("largest difference", float64(got.MaxDiff), tt.max)
			if got.NotFinite != tt.finite || !strings.HasPrefix(got.Note, tt.note) || got.Identical {
				t.Errorf("got %+v", got)
			}
			if math.IsNaN(float64(got.Cosine)) {
				t.Error("no cosine")
			}
		})
	}
}

// Large tensors in several chunks: the same result for any number of workers, and
// that of plain sums; the worst elements are those found by sorting.
func TestQuantised(t *testing.T) {
	shape := []int{1500, 512}
	x := random(1, 1500*512)
	a := f32("blk.0.ffn_up.weight", shape, x)
	b := quantised(t, a.Name, tensor.Q4_0, shape, x)
	y := make([]float32, len(x))
	if err := quant.Dequantize(b.Type, y, b.Data); err != nil {
		t.Fatal(err)
	}
	var dot, aa, bb float64
	order := make([]int, len(x))
	for i := range x {
		order[i] = i
		dot += float64(x[i]) * float64(y[i])
		aa += float64(x[i]) * float64(x[i])
		bb += float64(y[i]) * float64(y[i])
	}
	gap := func(i int) float64 { return math.Abs(float64(y[i]) - float64(x[i])) }
	slices.SortStableFunc(order, func(i, j int) int {
		switch {
		case gap(i) > gap(j):
			return -1
		case gap(i) < gap(j):
			return 1
		}
		return 0
	})
	one := diff(t, model(t, nil, a), model(t, nil, b), Options{Worst: 5, Threads: 1})
	got := one.Tensors[0]
	// 768 000 roundings of sums in another order.
	if want := dot / math.Sqrt(aa*bb); !(math.Abs(float64(got.Cosine)-want) <= 1e-12) || !(want < 0.9999) {
		t.Errorf("cosine %v, want %v", got.Cosine, want)
	}
	for i, e := range got.Worst {
		if want := order[i]; e.Row*512+e.Column != want {
			t.Errorf("worst element %d is %+v, want number %d", i, e, want)
		}
	}
	if len(got.Worst) != 5 {
		t.Errorf("%d worst elements", len(got.Worst))
	}
	if many := diff(t, model(t, nil, a), model(t, nil, b), Options{Worst: 5, Threads: 6}); !reflect.DeepEqual(one, many) {
		t.Errorf("6 workers find %+v, one %+v", many, one)
	}
}

func TestNames(t *testing.T) {
	x, y := random(2, 64), random(3, 64)
	a := model(t, nil, f32("blk.0.ffn_norm.weight", []int{64}, x), f32("output.weight", []int{8, 8}, y), f32("extra", []int{64}, x), f32("only.a", []int{64}, x))
	b := model(t, nil, f32("lm_head.weight", []int{8, 8}, y), f32("model.layers.0.post_attention_layernorm.weight", []int{1, 64}, x), f32("extra", []int{32, 2}, x), f32("model.norm.weight", []int{64}, x))
	d := diff(t, a, b, Options{})
	if !slices.Equal(d.OnlyA, []string{"only.a"}) || !slices.Equal(d.OnlyB, []string{"model.norm.weight"}) {
		t.Errorf("only in A %q, only in B %q", d.OnlyA, d.OnlyB)
	}
	if d.Identical() != 2 || len(d.Tensors) != 3 || d.Tensors[0].Name != "extra" || !strings.Contains(d.Tensors[0].Note, "shapes differ") {
		t.Errorf("tensors %+v", d.Tensors)
	}
	if got := d.Below(-1); !slices.Equal(got, []string{"extra"}) {
		t.Errorf("not comparable: %q", got)
	}
	if d = diff(t, a, b, Options{Keep: func(name string) bool { return strings.HasPrefix(name, "blk.0") }}); len(d.Tensors) != 1 || len(d.OnlyA)+len(d.OnlyB) != 0 {
		t.Errorf("filtered: %+v", d)
	}
	transposed := diff(t, model(t, nil, f32("x", []int{2, 3}, random(1, 6))), model(t, nil, f32("x", []int{3, 2}, random(1, 6))), Options{})
	if note := transposed.Tensors[0].Note; !strings.HasSuffix(note, "(transposed)") {
		t.Errorf("note %q", note)
	}
}

// Query and key rows in the order of the other rotation are put in order.
func TestRopeOrder(t *testing.T) {
	const heads, width, cols = 4, 8, 16
	keys := map[string]any{"general.architecture": "llama", "llama.attention.head_count": uint32(heads), "llama.attention.head_count_kv": uint32(heads / 2)}
	for _, tt := range []struct {
		name string
		rows int
		cols int
	}{{"blk.0.attn_q.weight", heads * width, cols}, {"blk.0.attn_k.weight", heads / 2 * width, cols}, {"blk.0.attn_q.bias", heads * width, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			x := random(4, tt.rows*tt.cols)
			y := make([]float32, len(x))
			for r := range tt.rows { // Hugging Face's halves become neighbours
				head, i := r/width*width, r%width
				to := head + i%(width/2)*2 + i/(width/2)
				copy(y[to*tt.cols:(to+1)*tt.cols], x[r*tt.cols:(r+1)*tt.cols])
			}
			shape := []int{tt.rows, tt.cols}
			if tt.cols == 1 {
				shape = shape[:1]
			}
			halves, neighbours := model(t, nil, f32(tt.name, shape, x)), model(t, keys, f32(tt.name, shape, y))
			for _, pair := range [][2]*source.Model{{halves, neighbours}, {neighbours, halves}} {
				got := diff(t, pair[0], pair[1], Options{}).Tensors[0]
				if got.Cosine != 1 || got.Error != 0 || !strings.Contains(got.Note, "RoPE order") || !slices.Equal(got.A.Shape, shape) {
					t.Errorf("got %+v", got)
				}
			}
		})
	}
	// Unrelated matrices stay unrelated.
	got := diff(t, model(t, keys, f32("blk.0.attn_q.weight", []int{32, 16}, random(5, 512))), model(t, keys, f32("blk.0.attn_q.weight", []int{32, 16}, random(6, 512))), Options{}).Tensors[0]
	if !(math.Abs(float64(got.Cosine)) < 0.5) || got.Note != "" {
		t.Errorf("unrelated: %+v", got)
	}
}

func TestMetadata(t *testing.T) {
	a := model(t, map[string]any{"same": "x", "number": uint32(1), "width": uint32(7), "list": []string{"a", "b", "c"}, "short": []int32{1, 2}, "a": true})
	b := model(t, map[string]any{"same": "x", "number": uint32(2), "width": uint64(7), "list": []string{"a", "z", "c"}, "short": []int32{1, 2, 3}, "b": "text"})
	got := diff(t, a, b, Options{}).Metadata
	slices.SortFunc(got.Changed, func(x, y Change) int { return strings.Compare(x.Key, y.Key) })
	want := Metadata{Equal: 1, Changed: []Change{
		{"list", `[1] = "b" of 3`, `[1] = "z" of 3`}, {"number", "1", "2"},
		{"short", "array of 2 int32", "array of 3 int32"}, {"width", "uint32 7", "uint64 7"},
	}, OnlyA: []Entry{{"a", "true"}}, OnlyB: []Entry{{"b", `"text"`}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestNotReadable(t *testing.T) {
	odd := tensor.Tensor{Name: "x", Type: 99, Shape: []int{2, 2}, Data: []byte{1}}
	if got := diff(t, model(t, nil, odd), model(t, nil, f32("x", []int{2, 2}, random(1, 4))), Options{}).Tensors[0]; !strings.Contains(got.Note, "cannot both be decoded") {
		t.Errorf("got %+v", got)
	}
}
