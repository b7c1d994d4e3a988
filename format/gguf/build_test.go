package gguf

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// rawFile builds files byte by byte, independently of Writer, so that tests can
// make every kind of bad one.
type rawFile struct {
	magic           string
	version         uint32
	nTensors, nKeys uint64
	keys, infos     []byte
	data            []byte
	alignment       int
}

func newRaw() *rawFile { return &rawFile{magic: "GGUF", version: 3, alignment: 32} }

func u32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }
func u64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }
func rstr(b []byte, s string) []byte {
	return append(u64(b, uint64(len(s))), s...)
}

// key adds a metadata key with a value given as bytes.
func (r *rawFile) key(name string, t ValueType, value []byte) *rawFile {
	r.keys = append(u32(rstr(r.keys, name), uint32(t)), value...)
	r.nKeys++
	return r
}

// tensor adds a description; ne is in file order, fastest-varying first.
func (r *rawFile) tensor(name string, t tensor.DType, offset uint64, ne ...uint64) *rawFile {
	r.infos = u32(rstr(r.infos, name), uint32(len(ne)))
	for _, n := range ne {
		r.infos = u64(r.infos, n)
	}
	r.infos = u64(u32(r.infos, uint32(t)), offset)
	r.nTensors++
	return r
}

func (r *rawFile) bytes() []byte {
	b := append([]byte(nil), r.magic...)
	b = u64(u64(u32(b, r.version), r.nTensors), r.nKeys)
	b = append(append(b, r.keys...), r.infos...)
	if r.data != nil {
		for len(b)%r.alignment != 0 {
			b = append(b, 0)
		}
	}
	return append(b, r.data...)
}

// array encodes an array value.
func array(elem ValueType, n uint64, elems []byte) []byte {
	return append(u64(u32(nil, uint32(elem)), n), elems...)
}

// sampleMetadata has a key of every scalar type and an array of every element type.
func sampleMetadata(t testing.TB) *Metadata {
	md := NewMetadata()
	for _, kv := range []struct {
		key string
		v   any
	}{
		{"general.architecture", "test"},
		{"u8", uint8(200)}, {"i8", int8(-100)}, {"u16", uint16(60000)}, {"i16", int16(-30000)},
		{"u32", uint32(4e9)}, {"i32", int32(-2e9)}, {"u64", uint64(1 << 63)}, {"i64", int64(-1 << 62)},
		{"f32", float32(0.1)}, {"f64", 0.1}, {"yes", true}, {"no", false}, {"empty", ""},
		{"a.u8", []uint8{1, 255}}, {"a.i8", []int8{-1, 2}}, {"a.u16", []uint16{1, 65535}}, {"a.i16", []int16{-1}},
		{"a.u32", []uint32{7}}, {"a.i32", []int32{1, -2, 3}}, {"a.u64", []uint64{1 << 40}}, {"a.i64", []int64{-1}},
		{"a.f32", []float32{0.5, -1}}, {"a.f64", []float64{1e300}}, {"a.bool", []bool{true, false}},
		{"a.str", []string{"", "a", "日本", strings.Repeat("x", 70)}}, {"a.none", []string{}},
		{"a.long", slices.Repeat([]int32{4}, 50)},
	} {
		if err := md.Set(kv.key, kv.v); err != nil {
			t.Fatal(err)
		}
	}
	nested := append(array(TypeInt8, 2, []byte{1, 2}), array(TypeString, 1, rstr(nil, "in"))...)
	if err := md.Set("a.nested", arrayValue(string(array(TypeArray, 2, nested)))); err != nil {
		t.Fatal(err)
	}
	return md
}

// sampleTensors covers plain and block types and one to four dimensions.
func sampleTensors() []tensor.Tensor {
	fill := func(name string, d tensor.DType, shape ...int) tensor.Tensor {
		n, err := tensor.Bytes(d, shape)
		if err != nil {
			panic(err)
		}
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i*7 + len(name))
		}
		return tensor.Tensor{Name: name, Type: d, Shape: shape, Data: data}
	}
	return []tensor.Tensor{
		fill("a.weight", tensor.F32, 2, 3),
		fill("b.bias", tensor.F16, 5),
		fill("c.weight", tensor.Q8_0, 2, 32),
		fill("d.weight", tensor.Q4_K, 1, 256),
		fill("e.ids", tensor.I8, 1, 2, 3, 1),
	}
}

// writeSample writes the sample to a file and returns its path and content.
func writeSample(t testing.TB, md *Metadata, tensors []tensor.Tensor) (string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sample.gguf")
	if err := WriteFile(path, md, tensors); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, data
}
