package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
	_ "github.com/apr-engine/apr/model/all"
	"github.com/apr-engine/apr/modelfile/annotate"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

const sound = "../../testdata/architectures/qwen2.gguf"

// fixture makes a damaged copy of the sound model: by changing what is written,
// then the bytes.
type fixture struct {
	model func(t *testing.T, md *gguf.Metadata, tensors []tensor.Tensor) []tensor.Tensor
	bytes func(t *testing.T, data []byte) []byte
}

func (f fixture) write(t *testing.T) string {
	t.Helper()
	m, err := gguf.Open(sound)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	md, tensors := m.Metadata.Clone(), slices.Clone(m.Tensors)
	for i := range tensors {
		tensors[i].Data = bytes.Clone(tensors[i].Data)
	}
	if f.model != nil {
		tensors = f.model(t, md, tensors)
	}
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := gguf.WriteFile(path, md, tensors); err != nil {
		t.Fatal(err)
	}
	if f.bytes != nil {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.bytes(t, data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// index finds a tensor.
func index(t *testing.T, tensors []tensor.Tensor, name string) int {
	t.Helper()
	i := slices.IndexFunc(tensors, func(x tensor.Tensor) bool { return x.Name == name })
	if i < 0 {
		t.Fatalf("no tensor %s", name)
	}
	return i
}

// edit is a change of one tensor.
func edit(name string, change func(x *tensor.Tensor)) fixture {
	return fixture{model: func(t *testing.T, _ *gguf.Metadata, tensors []tensor.Tensor) []tensor.Tensor {
		change(&tensors[index(t, tensors, name)])
		return tensors
	}}
}

// drop leaves a tensor out.
func drop(name string) fixture {
	return fixture{model: func(t *testing.T, _ *gguf.Metadata, tensors []tensor.Tensor) []tensor.Tensor {
		i := index(t, tensors, name)
		return slices.Delete(tensors, i, i+1)
	}}
}

// set changes a metadata key.
func set(key string, value any) fixture {
	return fixture{model: func(t *testing.T, md *gguf.Metadata, tensors []tensor.Tensor) []tensor.Tensor {
		if value == nil {
			md.Delete(key)
		} else if err := md.Set(key, value); err != nil {
			t.Fatal(err)
		}
		return tensors
	}}
}

// field overwrites a field of the file with bytes.
func field(name string, b ...byte) fixture {
	return fixture{bytes: func(t *testing.T, data []byte) []byte {
		m, err := annotate.New(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range m.Window(0, len(data)) {
			if f.Name == name {
				copy(data[f.Offset:], b)
				return data
			}
		}
		t.Fatalf("no field %s", name)
		return nil
	}}
}

func cut(n int) fixture {
	return fixture{bytes: func(_ *testing.T, data []byte) []byte { return data[:len(data)-n] }}
}

// store replaces a tensor's numbers, as F32 or another type.
func store(name string, typ tensor.DType, change func(x []float32)) fixture {
	return edit(name, func(t *tensor.Tensor) {
		x := make([]float32, t.Elements())
		if err := quant.Dequantize(t.Type, x, t.Data); err != nil {
			panic(err)
		}
		change(x)
		size, err := tensor.Bytes(typ, t.Shape)
		if err != nil {
			panic(err)
		}
		t.Type, t.Data = typ, make([]byte, size)
		if typ == tensor.F64 {
			for i, v := range x {
				binary.LittleEndian.PutUint64(t.Data[8*i:], math.Float64bits(float64(v)))
			}
			return
		}
		if typ == tensor.F32 { // the quantiser refuses what is not finite
			for i, v := range x {
				binary.LittleEndian.PutUint32(t.Data[4*i:], math.Float32bits(v))
			}
			return
		}
		if err := quant.Quantize(typ, t.Data, x, nil); err != nil {
			panic(err)
		}
	})
}

func same(x []float32) {}

const up = "blk.1.ffn_up.weight"

var damaged = []struct {
	name string
	fixture
	want Finding // Text is a part of the text
}{
	{"cut metadata", fixture{bytes: func(_ *testing.T, d []byte) []byte { return d[:700] }}, Finding{KindStructure, Error, "", "needs"}},
	{"offset out of line", field(up+": offset in the data section", 1), Finding{KindStructure, Error, "", "is not a multiple of the alignment"}},
	{"cut data", cut(100), Finding{KindExtent, Error, "output.weight", "go past the end of the file"}},
	{"offset far out", field(up+": offset in the data section", 0, 0, 0, 0, 0, 0, 0, 0x40), Finding{KindExtent, Error, up, "go past the end"}},
	{"offset overflows", field(up+": offset in the data section", 0xe0, 255, 255, 255, 255, 255, 255, 255), Finding{KindExtent, Error, up, "go past the end"}},
	{"overlap", field("blk.0.ffn_up.weight: offset in the data section", 0, 0, 0, 0), Finding{KindOverlap, Error, "", "inside "}},
	{"duplicate name", fixture{bytes: func(_ *testing.T, d []byte) []byte {
		return bytes.Replace(d, []byte("blk.1.ffn_up.weight"), []byte("blk.0.ffn_up.weight"), 1)
	}}, Finding{KindDuplicate, Error, "blk.0.ffn_up.weight", "twice"}},
	{"unknown type", field(up+": type", 77), Finding{KindType, Error, up, "type 77"}},
	{"type that does not fit the shape", field("output_norm.weight: type", byte(tensor.Q4_K)), Finding{KindType, Error, "output_norm.weight", "Q4_K"}},
	{"trailing bytes", fixture{bytes: func(_ *testing.T, d []byte) []byte { return append(d, make([]byte, 500)...) }}, Finding{KindTrailing, Warning, "", "bytes follow the last tensor"}},
	{"NaN in F32", store(up, tensor.F32, func(x []float32) { x[65] = float32(math.NaN()) }), Finding{KindNotFinite, Error, up, "element [1, 1] is"}},
	{"infinity in F64", store("output_norm.weight", tensor.F64, func(x []float32) { x[3] = float32(math.Inf(1)) }), Finding{KindNotFinite, Error, "output_norm.weight", "element [0, 3] is"}},
	{"infinite scale in Q8_0", fixture{model: func(t *testing.T, md *gguf.Metadata, tensors []tensor.Tensor) []tensor.Tensor {
		tensors = store(up, tensor.Q8_0, same).model(t, md, tensors)
		x := tensors[index(t, tensors, up)]
		copy(x.Data[34*5:], []byte{0, 0x7c})
		return tensors
	}}, Finding{KindNotFinite, Error, up, "the scale of the block of 32 at [2, 32]"}},
	{"zero matrix", store(up, tensor.F16, func(x []float32) { clear(x) }), Finding{KindZeroTensor, Error, up, "numbers are zero"}},
	{"zero vector", store("output_norm.weight", tensor.F32, func(x []float32) { clear(x) }), Finding{KindZeroTensor, Warning, "output_norm.weight", "numbers are zero"}},
	{"dead rows", store(up, tensor.Q8_0, func(x []float32) { clear(x[64*3 : 64*5]) }), Finding{KindDeadRows, Warning, up, "2 of 96 rows are all zeros, the first is row 3"}},
	{"negative zeros", store(up, tensor.F32, func(x []float32) {
		for i := range 64 {
			x[i] = float32(math.Copysign(0, -1))
		}
	}), Finding{KindDeadRows, Warning, up, "1 of 96 rows are all zeros, the first is row 0"}},
	{"dead embedding", store("token_embd.weight", tensor.F32, func(x []float32) { clear(x[64:128]) }), Finding{KindDeadRows, Note, "token_embd.weight", "1 of "}},
	{"dead embeddings", store("token_embd.weight", tensor.F32, func(x []float32) { clear(x[:len(x)/2]) }), Finding{KindDeadRows, Warning, "token_embd.weight", "rows are all zeros"}},
	{"same bytes", fixture{model: func(t *testing.T, _ *gguf.Metadata, tensors []tensor.Tensor) []tensor.Tensor {
		copy(tensors[index(t, tensors, up)].Data, tensors[index(t, tensors, "blk.0.ffn_up.weight")].Data)
		return tensors
	}}, Finding{KindSameBytes, Warning, up, "same content as blk.0.ffn_up.weight"}},
	{"tied embeddings stored twice", fixture{model: func(t *testing.T, _ *gguf.Metadata, tensors []tensor.Tensor) []tensor.Tensor {
		copy(tensors[index(t, tensors, "output.weight")].Data, tensors[index(t, tensors, "token_embd.weight")].Data)
		return tensors
	}}, Finding{KindSameBytes, Note, "", "tied embeddings"}},
	{"missing tensor", drop(up), Finding{KindIncomplete, Error, up, "is missing"}},
	{"missing bias", drop("blk.0.attn_q.bias"), Finding{KindIncomplete, Error, "blk.0.attn_q.bias", "is missing"}},
	{"missing embedding", drop("token_embd.weight"), Finding{KindConfig, Error, "", "token_embd.weight is missing"}},
	{"wrong shape", edit(up, func(x *tensor.Tensor) { x.Shape = []int{x.Shape[1], x.Shape[0]} }), Finding{KindShape, Error, up, "has shape [64 96], want [96, 64]"}},
	{"unused tensor", fixture{model: func(t *testing.T, _ *gguf.Metadata, tensors []tensor.Tensor) []tensor.Tensor {
		x := tensors[index(t, tensors, "output_norm.weight")]
		x.Name = "extra.weight"
		return append(tensors, x)
	}}, Finding{KindUnused, Warning, "extra.weight", "does not use it"}},
	{"missing key", set("qwen2.block_count", nil), Finding{KindConfig, Error, "", "qwen2.block_count is missing"}},
	{"unknown architecture", set("general.architecture", "mamba"), Finding{KindConfig, Warning, "", `"mamba"`}},
	{"no tokenizer", set("tokenizer.ggml.model", nil), Finding{KindTokenizer, Warning, "", "tokenizer.ggml.model is missing"}},
	{"other vocabulary", set("tokenizer.ggml.tokens", []string{"a", "b"}), Finding{KindVocabulary, Error, "token_embd.weight", "the vocabulary has 2 tokens"}},
	{"no tensors", fixture{model: func(*testing.T, *gguf.Metadata, []tensor.Tensor) []tensor.Tensor { return nil }}, Finding{KindIncomplete, Warning, "", "no tensors"}},
}

func TestDamaged(t *testing.T) {
	seen := map[string]bool{KindChecksum: true, KindUnusual: true} // TestChecksum, TestContainers
	for _, tt := range damaged {
		seen[tt.want.Kind] = true
		t.Run(tt.name, func(t *testing.T) {
			r, err := File(context.Background(), tt.write(t), 0)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(r.Findings, func(f Finding) bool {
				return f.Kind == tt.want.Kind && f.Severity == tt.want.Severity &&
					(tt.want.Tensor == "" || f.Tensor == tt.want.Tensor) && strings.Contains(f.Text, tt.want.Text)
			}) {
				t.Errorf("want %+v among %+v", tt.want, r.Findings)
			}
			if r.Passed(false) == (tt.want.Severity == Error) || r.Passed(true) == (tt.want.Severity != Note) {
				t.Errorf("passed %v, strictly %v", r.Passed(false), r.Passed(true))
			}
			if !slices.IsSortedFunc(r.Findings, func(a, b Finding) int { return int(b.Severity - a.Severity) }) {
				t.Error("the findings are not sorted")
			}
		})
	}
	for _, k := range Kinds {
		if !seen[k.Name] {
			t.Errorf("no file with findings of kind %s", k.Name)
		}
		if k.Meaning == "" || k.Advice == "" {
			t.Errorf("%s is not explained", k.Name)
		}
	}
}

// Damage of one tensor is all that is reported.
func TestNoMore(t *testing.T) {
	r, err := File(context.Background(), store(up, tensor.F32, func(x []float32) { x[0] = float32(math.Inf(-1)) }).write(t), 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 1 {
		t.Errorf("findings %+v", r.Findings)
	}
}

func TestSound(t *testing.T) {
	paths, err := filepath.Glob("../../testdata/architectures/*.gguf")
	if err != nil {
		t.Fatal(err)
	}
	models, err := filepath.Glob("../../models/*.gguf")
	if err != nil {
		t.Fatal(err)
	}
	if paths = append(paths, models...); len(paths) < 10 {
		t.Fatalf("only %d models", len(paths))
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			r, err := File(context.Background(), path, 0)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Findings) != 0 {
				t.Errorf("findings %+v", r.Findings)
			}
			if r.Tensors == 0 || r.Architecture == "" || r.Format != "GGUF" {
				t.Errorf("report %+v", r)
			}
		})
	}
}

// smallAPR is an .apr file without tensors.
func smallAPR() []byte {
	b := make([]byte, 128, 132)
	copy(b, "APR\x00\x02\x00\x00\x04")
	copy(b[64:], "{}")
	le := binary.LittleEndian
	le.PutUint64(b[12:], 64)
	le.PutUint32(b[20:], 2)
	le.PutUint64(b[24:], 128)
	le.PutUint64(b[32:], 128)
	le.PutUint32(b[40:], crc32.ChecksumIEEE(append(bytes.Clone(b[:40]), b[44:64]...)))
	return le.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func TestChecksum(t *testing.T) {
	tests := []struct {
		name   string
		change func(b []byte)
		want   Severity
		text   string
	}{
		{"header", func(b []byte) { b[50] = 1 }, Error, "the header checksum at byte 40 is"},
		{"none in header", func(b []byte) { copy(b[40:], "\x00\x00\x00\x00") }, Warning, "the header checksum at byte 40 is 0"},
		{"file", func(b []byte) { b[100] = 1 }, Error, "the checksum of the file at byte 128 is"},
		{"sound", func([]byte) {}, Note, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := smallAPR()
			tt.change(b)
			path := filepath.Join(t.TempDir(), "model.apr")
			if err := os.WriteFile(path, b, 0o666); err != nil {
				t.Fatal(err)
			}
			r, err := File(context.Background(), path, 0)
			if err != nil {
				t.Fatal(err)
			}
			found := slices.ContainsFunc(r.Findings, func(f Finding) bool {
				return f.Kind == KindChecksum && f.Severity == tt.want && strings.Contains(f.Text, tt.text)
			})
			if found == (tt.text == "") {
				t.Errorf("findings %+v", r.Findings)
			}
		})
	}
}

func TestNoModel(t *testing.T) {
	dir := t.TempDir()
	if _, err := File(context.Background(), filepath.Join(dir, "none"), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("This is text."), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := File(context.Background(), text, 0); !errors.Is(err, annotate.ErrUnknown) {
		t.Errorf("text: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := File(ctx, sound, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Any bytes give a report or an error, never a panic.
func FuzzFile(f *testing.F) {
	data, err := os.ReadFile(sound)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:8192])
	f.Add(smallAPR())
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "model")
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		r, err := File(context.Background(), path, 1)
		if (r == nil) == (err == nil) {
			t.Errorf("report %v, error %v", r, err)
		}
	})
}

// BenchmarkFile checks a file of a quarter of a gigabyte, in the page cache.
func BenchmarkFile(b *testing.B) {
	for _, typ := range []tensor.DType{tensor.F16, tensor.Q4_K, tensor.Q6_K, tensor.F32} {
		b.Run(typ.String(), func(b *testing.B) {
			md := gguf.NewMetadata()
			if err := md.Set("general.architecture", "none"); err != nil {
				b.Fatal(err)
			}
			shape := []int{8192, 4096}
			size, err := tensor.Bytes(typ, shape)
			if err != nil {
				b.Fatal(err)
			}
			var tensors []tensor.Tensor
			for i := range max(1, (256<<20)/size) {
				data := bytes.Repeat([]byte{byte(i + 1), 2, 3, 4}, size/4)
				tensors = append(tensors, tensor.Tensor{Name: "t" + string(rune('a'+i)), Type: typ, Shape: shape, Data: data})
			}
			path := filepath.Join(b.TempDir(), "large.gguf")
			if err := gguf.WriteFile(path, md, tensors); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size * len(tensors)))
			for b.Loop() {
				if _, err := File(context.Background(), path, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
