package gguf

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

func TestParseBadFiles(t *testing.T) {
	one := bytes.Repeat([]byte{1}, 4096)
	with := func(edit func(r *rawFile)) []byte {
		r := newRaw()
		edit(r)
		return r.bytes()
	}
	for _, c := range []struct {
		name string
		data []byte
		want []string // parts of the message
	}{
		{"nothing", nil, []string{"magic"}},
		{"wrong magic", []byte("PK\x03\x04rest of a zip file, at some length"), []string{"magic", `"PK\x03\x04"`, `"GGUF"`}},
		{"old magic", []byte("tjgg and then the old header follows here"), []string{"preceded GGUF"}},
		{"big-endian magic", with(func(r *rawFile) { r.magic = "FUGG" }), []string{"big-endian"}},
		{"big-endian version", with(func(r *rawFile) { r.version = 3 << 24 }), []string{"big-endian"}},
		{"version 1", with(func(r *rawFile) { r.version = 1 }), []string{"version at byte 4 is 1", "2 or 3"}},
		{"version 4", with(func(r *rawFile) { r.version = 4 }), []string{"version at byte 4 is 4"}},
		{"short header", with(func(*rawFile) {})[:20], []string{"20 bytes", "truncated"}},
		{"tensor count 2^32", with(func(r *rawFile) { r.nTensors = 1 << 32 }), []string{"tensor count at byte 8", "4294967296"}},
		{"tensor count 2^63", with(func(r *rawFile) { r.nTensors = 1 << 63 }), []string{"tensor count"}},
		{"key count 2^32", with(func(r *rawFile) { r.nKeys = 1 << 32 }), []string{"key count at byte 16"}},
		{"key count 2^64-1", with(func(r *rawFile) { r.nKeys = math.MaxUint64 }), []string{"key count"}},
		{"key count one too many", with(func(r *rawFile) {
			r.key("general.some.long.key", TypeUint8, []byte{1})
			r.nKeys++
		}), []string{"metadata key 2 of 2", "at byte 58"}},
		{"key too long", with(func(r *rawFile) { r.key(strings.Repeat("k", 1<<16), TypeUint8, []byte{1}) }), []string{"65536 bytes"}},
		{"key empty", with(func(r *rawFile) { r.key("", TypeUint32, u32(nil, 1)) }), []string{"metadata key 1 of 1", "0 bytes"}},
		{"key length 2^63", with(func(r *rawFile) {
			r.nKeys, r.keys = 1, append(u64(nil, 1<<63), one[:64]...)
		}), []string{"metadata key 1", "9223372036854775808"}},
		{"string past the end", with(func(r *rawFile) { r.key("k", TypeString, u64(nil, 100)) }), []string{`metadata key "k"`, "needs 100 bytes, but only 0"}},
		{"string length 2^64-1", with(func(r *rawFile) { r.key("k", TypeString, u64(nil, math.MaxUint64)) }), []string{`metadata key "k"`}},
		{"unknown value type", with(func(r *rawFile) { r.key("k", 13, one[:8]) }), []string{`metadata key "k"`, "unknown value type 13"}},
		{"unknown element type", with(func(r *rawFile) { r.key("k", TypeArray, array(99, 1, one[:8])) }), []string{`metadata key "k"`, "element type 99"}},
		{"array count 2^32", with(func(r *rawFile) { r.key("k", TypeArray, array(TypeUint8, 1<<32, one[:8])) }), []string{`metadata key "k"`, "4294967296 values"}},
		{"array count 2^61 of 8 bytes", with(func(r *rawFile) { r.key("k", TypeArray, array(TypeUint64, 1<<61, one[:8])) }), []string{`metadata key "k"`}},
		{"string array count 2^60", with(func(r *rawFile) { r.key("k", TypeArray, array(TypeString, 1<<60, one[:64])) }), []string{`metadata key "k"`}},
		{"bad bool", with(func(r *rawFile) { r.key("some.bool", TypeBool, []byte{2}) }), []string{`"some.bool"`, "bool is 2"}},
		{"nested too deep", with(func(r *rawFile) {
			v := array(TypeUint8, 0, nil)
			for range maxArrayDepth {
				v = array(TypeArray, 1, v)
			}
			r.key("k", TypeArray, v)
		}), []string{`metadata key "k"`, "deeper than 4"}},
		{"duplicate key", with(func(r *rawFile) {
			r.key("kkkk", TypeUint8, one[:1]).key("kkkk", TypeUint8, one[:1])
		}), []string{`metadata key "kkkk"`, "twice"}},
		{"message of one line", with(func(r *rawFile) { r.key("a\nb\x1b[31m", TypeBool, []byte{3}) }), []string{`"a\nb\x1b[31m"`}},
		{"alignment 0", with(func(r *rawFile) { r.key(keyAlignment, TypeUint32, u32(nil, 0)) }), []string{keyAlignment, "power of two"}},
		{"alignment 48", with(func(r *rawFile) { r.key(keyAlignment, TypeUint32, u32(nil, 48)) }), []string{keyAlignment, "48", "power of two"}},
		{"alignment 2^31", with(func(r *rawFile) { r.key(keyAlignment, TypeUint32, u32(nil, 1<<31)) }), []string{keyAlignment}},
		{"alignment a string", with(func(r *rawFile) { r.key(keyAlignment, TypeString, rstr(nil, "32")) }), []string{keyAlignment, `string "32"`, "uint32"}},
		{"alignment an array", with(func(r *rawFile) { r.key(keyAlignment, TypeArray, array(TypeUint32, 1, u32(nil, 32))) }), []string{keyAlignment, "array of 1 uint32"}},
		{"tensor without dimensions", with(func(r *rawFile) { r.tensor("tt", tensor.F32, 0); r.data = one }), []string{`tensor "tt"`, "0 dimensions"}},
		{"tensor of five dimensions", with(func(r *rawFile) { r.tensor("tt", tensor.F32, 0, 1, 1, 1, 1, 1); r.data = one }), []string{`tensor "tt"`, "5 dimensions"}},
		{"dimension 0", with(func(r *rawFile) { r.tensor("tt", tensor.F32, 0, 4, 0); r.data = one }), []string{`tensor "tt"`, "dimension 1 is 0"}},
		{"dimension 2^63", with(func(r *rawFile) { r.tensor("tt", tensor.F32, 0, 1<<63); r.data = one }), []string{`tensor "tt"`, "dimension 0 is 9223372036854775808"}},
		{"size overflows to 0", with(func(r *rawFile) { r.tensor("tt", tensor.F32, 0, 1<<32, 1<<32); r.data = one }), []string{`tensor "tt"`, "overflows"}},
		{"size overflows in four", with(func(r *rawFile) { r.tensor("tt", tensor.I8, 0, 1<<16, 1<<16, 1<<16, 1<<16); r.data = one }), []string{`tensor "tt"`, "overflows"}},
		{"row not of whole blocks", with(func(r *rawFile) { r.tensor("tt", tensor.Q4_K, 0, 128); r.data = one }), []string{`tensor "tt"`, "128", "256"}},
		{"unknown type", with(func(r *rawFile) { r.tensor("tt", 39, 0, 4); r.data = one }), []string{`tensor "tt"`, "tensor type 39"}},
		{"retired type", with(func(r *rawFile) { r.tensor("tt", 4, 0, 32); r.data = one }), []string{`tensor "tt"`, "tensor type 4"}},
		{"huge type", with(func(r *rawFile) { r.tensor("tt", math.MaxUint32, 0, 32); r.data = one }), []string{`tensor "tt"`, "4294967295"}},
		{"duplicate tensor", with(func(r *rawFile) {
			r.tensor("tt", tensor.F32, 0, 1).tensor("tt", tensor.F32, 32, 1)
			r.data = one
		}), []string{`tensor "tt"`, "twice"}},
		{"offset unaligned", with(func(r *rawFile) { r.tensor("tt", tensor.F32, 4, 1); r.data = one }), []string{`tensor "tt"`, "offset 4", "alignment 32"}},
		{"offset past the end", with(func(r *rawFile) { r.tensor("tt", tensor.F32, 4096, 1); r.data = one }), []string{`tensor "tt"`, "past the end"}},
		{"offset 2^64-32", with(func(r *rawFile) { r.tensor("tt", tensor.F32, math.MaxUint64-31, 1); r.data = one }), []string{`tensor "tt"`, "past the end"}},
		{"data past the end", with(func(r *rawFile) { r.tensor("tt", tensor.F32, 0, 1025); r.data = one }), []string{`tensor "tt"`, "4100 bytes", "past the end"}},
		{"no data section", with(func(r *rawFile) { r.tensor("tt", tensor.F32, 0, 1) }), []string{`tensor "tt"`, "past the end"}},
		{"huge alignment", with(func(r *rawFile) {
			r.key(keyAlignment, TypeUint32, u32(nil, 1<<30)).tensor("tt", tensor.F32, 0, 1)
			r.data = one
		}), []string{`tensor "tt"`, "past the end"}},
		{"overlap", with(func(r *rawFile) {
			r.tensor("tt", tensor.F32, 0, 9).tensor("uu", tensor.F32, 32, 1)
			r.data = one
		}), []string{`tensor "uu"`, "overlaps", `"tt"`}},
		{"same bytes", with(func(r *rawFile) {
			r.tensor("tt", tensor.F32, 0, 1).tensor("uu", tensor.F32, 0, 1)
			r.data = one
		}), []string{"overlaps"}},
		{"tensor name empty", with(func(r *rawFile) { r.tensor("", tensor.F32, 0, 1, 1); r.data = one }), []string{"tensor 1 of 1", "0 bytes"}},
		{"tensor name too long", with(func(r *rawFile) { r.tensor(strings.Repeat("n", 256), tensor.F32, 0, 1); r.data = one }), []string{"256 bytes"}},
		{"tensor name past the end", with(func(r *rawFile) { r.nTensors, r.infos = 1, append(u64(nil, 1<<40), one[:64]...) }), []string{"tensor 1 of 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Parse(c.data)
			if f != nil || !errors.Is(err, ErrFormat) {
				t.Fatalf("Parse = %v, %v; want an ErrFormat", f, err)
			}
			msg := err.Error()
			for _, want := range c.want {
				if !strings.Contains(msg, want) {
					t.Errorf("message %q lacks %q", msg, want)
				}
			}
			if strings.ContainsAny(msg, "\n\x1b") || len(msg) > 400 {
				t.Errorf("message is not one short line: %q", msg)
			}
		})
	}
}

// What the format allows though no usual writer does it.
func TestParseUnusual(t *testing.T) {
	r := newRaw()
	r.version = 2
	r.alignment = 64
	r.key(keyAlignment, TypeUint32, u32(nil, 64))
	r.tensor("second", tensor.F32, 128, 2).tensor("first", tensor.I8, 0, 3, 2)
	r.data = bytes.Repeat([]byte{9}, 136) // gap, and no padding at the end
	f, err := Parse(r.bytes())
	if err != nil {
		t.Fatal(err)
	}
	if f.Version != 2 || f.Alignment() != 64 || len(f.Tensors) != 2 || f.Size() != int64(len(r.bytes())) {
		t.Errorf("version %d, alignment %d, %d tensors, size %d", f.Version, f.Alignment(), len(f.Tensors), f.Size())
	}
	first, ok := f.Tensor("first")
	if !ok || first.String() != "first I8 [2, 3]" || len(first.Data) != 6 || cap(first.Data) != 6 {
		t.Errorf("first = %v, %v, %d bytes", first, ok, len(first.Data))
	}
	a, _ := f.Place("first")
	if b, _ := f.Place("second"); b.Offset-a.Offset != 128 {
		t.Errorf("offsets %d and %d, want 128 apart", a.Offset, b.Offset)
	}
	if _, ok := f.Tensor("third"); ok {
		t.Error("found a tensor that is not there")
	}
	if _, err := Parse(newRaw().bytes()); err != nil {
		t.Errorf("a file without keys and tensors: %v", err)
	}
}

// A file cut anywhere must be refused, with or without the last padding.
func TestParseTruncated(t *testing.T) {
	_, data := writeSample(t, sampleMetadata(t), sampleTensors())
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	last := f.Tensors[len(f.Tensors)-1]
	place, _ := f.Place(last.Name)
	needed := int(place.Offset) + len(last.Data)
	for n := range data {
		_, err := Parse(data[:n:n])
		if n >= needed {
			if err != nil {
				t.Errorf("%d of %d bytes, only padding missing: %v", n, len(data), err)
			}
			continue
		}
		if !errors.Is(err, ErrFormat) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%d of %d bytes: error %v, want an ErrFormat of one line", n, len(data), err)
		}
	}
}

// A false count must not allocate by itself: the parser may use memory in
// proportion to what it has really read.
func TestParseAllocation(t *testing.T) {
	r := newRaw()
	r.key("k", TypeUint8, []byte{1})
	r.data = make([]byte, 32<<20)
	data := r.bytes()
	r.nKeys, r.nTensors = uint64(len(data)/14-10), 0
	for name, bad := range map[string][]byte{"keys": r.bytes(), "tensors": func() []byte {
		r.nKeys, r.nTensors = 1, uint64(len(data)/33-10)
		return r.bytes()
	}()} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse(bad)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%s: error %v, want an ErrFormat", name, err)
		}
		// The honest part is one key; 1 MiB leaves room for the test's own garbage.
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("%s: allocated %d bytes for a false count", name, got)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name, path string
		want       error
	}{
		{"missing", filepath.Join(dir, "missing.gguf"), fs.ErrNotExist},
		{"empty", write("empty.gguf", nil), ErrFormat},
		{"not gguf", write("text.gguf", []byte("hello, this is a text file")), ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(c.path)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("Open: %v; want an error that is %v and names the file", err, c.want)
			}
		})
	}
	if _, err := Open(dir); err == nil || errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "directory") {
		t.Errorf("Open of a directory: %v", err)
	}
}
