package apr

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

func ramp(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + 1)
	}
	return b
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name     string
		file     *raw
		types    string // of the tensors, in order
		warnings string // parts of the warnings, in order
	}{
		{"core", core().add("a", 0, ramp(24), 2, 3).add("b", 12, ramp(288), 2, 256), "F32 Q4_K", ""},
		{"core without tensors", core(), "", ""},
		{"core, BF16 before it had a number of its own", core().add("a", 2, ramp(12), 2, 3), "BF16", ""},
		{"core, legacy numbers", core().add("a", 8, ramp(36), 2, 20).add("b", 9, ramp(4+6), 2, 3), "AprQ4 AprQ8", ""},
		{"core, its own types", core().add("a", 128, ramp(36), 2, 20).add("b", 129, ramp(4+6), 2, 3), "AprQ4 AprQ8", ""},
		{"core, integers", core().add("a", 3, ramp(8), 1).add("b", 4, ramp(4), 1).add("c", 5, ramp(8), 1).add("d", 6, ramp(3), 3).add("e", 7, ramp(3), 3), "F64 I32 I64 I8 U8", ""},
		{"core, rows filled up to blocks", core().add("a", 12, ramp(2*4*144), 2, 896), "Q4_K", ""},
		{"core, data in another order", &raw{magic: Magic, major: 2, metadata: "{}", padIndex: true, footer: true, data: ramp(128),
			entries: []rawEntry{{"a", 0, []uint64{2}, 64, 8}, {"b", 0, []uint64{2}, 0, 8}}}, "F32 F32", ""},
		{"realizar", realizar().add("b", 1, ramp(12), 2, 3).add("a", 14, ramp(210), 1, 256), "F16 Q6_K", "no checksum|not sorted|no checksum"},
		{"realizar, GGML numbers", realizar().add("a", 2, ramp(36), 2, 32).add("b", 3, ramp(40), 2, 32).add("c", 6, ramp(44), 2, 32).
			add("d", 7, ramp(48), 2, 32).add("e", 8, ramp(68), 2, 32).add("f", 13, ramp(176), 1, 256).add("g", 30, ramp(4), 2),
			"Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q5_K BF16", "no checksum|no checksum"},
		{"APR2", &raw{magic: "APR2", major: 2, metadata: "{}", padIndex: true, footer: true}, "", ""},
		{"flag of compression without any", &raw{magic: Magic, major: 2, flags: 1, metadata: "{}", padIndex: true, footer: true}, "", "is not"},
		{"shared bytes", &raw{magic: Magic, major: 2, metadata: "{}", padIndex: true, footer: true, data: ramp(8),
			entries: []rawEntry{{"a", 0, []uint64{2}, 0, 8}, {"b", 0, []uint64{2}, 0, 8}}}, "F32 F32", ""},
		{"no metadata", &raw{magic: Magic, major: 2, padIndex: true, footer: true}, "", ""},
		{"scalar", core().add("a", 0, ramp(4)), "F32", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Parse(c.file.bytes())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i, x := range f.Tensors {
				got = append(got, x.Type.String())
				e := c.file.entries[i]
				if x.Name != e.name || !bytes.Equal(x.Data, c.file.data[e.offset:e.offset+e.size]) {
					t.Errorf("%s has other bytes", x)
				}
			}
			if s := strings.Join(got, " "); s != c.types {
				t.Errorf("types %s, want %s", s, c.types)
			}
			parts := strings.Split(c.warnings, "|")
			if c.warnings == "" {
				parts = nil
			}
			if len(f.Warnings) != len(parts) {
				t.Fatalf("warnings %q, want %q", f.Warnings, parts)
			}
			for i, p := range parts {
				if !strings.Contains(f.Warnings[i], p) {
					t.Errorf("warning %q, want %q", f.Warnings[i], p)
				}
			}
			if err := f.Verify(); err != nil {
				t.Error(err)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestParseErrors(t *testing.T) {
	set := func(r *raw, change func(r *raw)) *raw { change(r); return r }
	one := func() *raw { return core().add("a.weight", 0, ramp(24), 2, 3) }
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "too few"},
		{"other file", []byte("GGUF0000"), `"GGUF"`},
		{"version 1", []byte("APR1...."), "version 1"},
		{"version 1, classic", []byte("APRN...."), "version 1"},
		{"magic of the documents", []byte("APR\x02...."), "magic"},
		{"short header", core().bytes()[:40], "truncated"},
		{"version 3", set(core(), func(r *raw) { r.major = 3 }).bytes(), "version"},
		{"damaged header", func() []byte { b := one().bytes(); b[50] = 1; return b }(), "checksum"},
		{"encrypted", set(core(), func(r *raw) { r.flags = 4 }).bytes(), "encrypted"},
		{"columns", set(core(), func(r *raw) { r.flags = 0x800 }).bytes(), "columns"},
		{"compressed", set(core(), func(r *raw) { r.flags = 1; r.metadata = "\x04\x22\x4d\x18" }).bytes(), "compressed"},
		{"metadata past the end", set(one(), func(r *raw) { r.metadataSize = ptr[uint32](1 << 20) }).bytes(), "metadata"},
		{"metadata too large", set(one(), func(r *raw) { r.metadataSize = ptr[uint32](1<<32 - 1) }).bytes(), "metadata size"},
		{"metadata no object", set(one(), func(r *raw) { r.metadata = "[]" }).bytes(), "no JSON object"},
		{"metadata broken", set(one(), func(r *raw) { r.metadata = `{"a":` }).bytes(), "JSON"},
		{"metadata and more", set(one(), func(r *raw) { r.metadata = `{} {}` }).bytes(), "follows"},
		{"index past the end", set(one(), func(r *raw) { r.indexAt = ptr[uint64](1 << 40) }).bytes(), "index at byte"},
		{"index in the header", set(one(), func(r *raw) { r.indexAt = ptr[uint64](8) }).bytes(), "index at byte"},
		{"data past the end", set(one(), func(r *raw) { r.dataAt = ptr(^uint64(0)) }).bytes(), "data at byte"},
		{"many tensors", set(one(), func(r *raw) { r.count = ptr(^uint32(0)) }).bytes(), "tensor count"},
		{"more tensors than entries", set(one(), func(r *raw) { r.count = ptr[uint32](3) }).bytes(), "tensor 2 of 3"},
		{"255 dimensions", core().add("a", 0, ramp(4), make([]uint64, 255)...).bytes(), "dimensions"},
		{"dimension 0", core().add("a", 0, ramp(4), 0, 4).bytes(), "dimension 0"},
		{"dimension past int", core().add("a", 0, ramp(4), 1<<63).bytes(), "dimension"},
		{"shape overflows", core().add("a", 0, ramp(4), 1<<40, 1<<40).bytes(), "overflows"},
		{"unknown type", core().add("a", 77, ramp(4), 1).bytes(), "type number 77"},
		{"wrong size", core().add("a", 0, ramp(20), 2, 3).bytes(), "20 bytes, want 24"},
		{"ambiguous number that fits none", core().add("a", 2, ramp(10), 2, 3).bytes(), "type number 2"},
		{"GGML Q8_1", realizar().add("a", 9, ramp(72), 1, 64).bytes(), "type number 9"},
		{"long name", core().add(strings.Repeat("n", 300), 0, ramp(4), 1).bytes(), "name has 300"},
		{"no name", core().add("", 0, ramp(4), 1).bytes(), "name has 0"},
		{"name not UTF-8", core().add("\xff", 0, ramp(4), 1).bytes(), "UTF-8"},
		{"twice", core().add("a", 0, ramp(4), 1).add("a", 0, ramp(4), 1).bytes(), "twice"},
		{"truncated data", func() []byte { b := one().bytes(); return b[:len(b)-60] }(), "past the end"},
		{"offset wraps", set(one(), func(r *raw) { r.entries[0].offset = ^uint64(0) - 3 }).bytes(), "past the end"},
		{"overlap", set(core().add("a", 0, ramp(24), 2, 3).add("b", 0, ramp(24), 2, 3), func(r *raw) { r.entries[1].offset = 8 }).bytes(), "overlaps tensor"},
		{"data over the index", set(one(), func(r *raw) { r.dataAt = ptr[uint64](64) }).bytes(), "overlaps the index"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.data)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want an ErrFormat with %q", err, c.want)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	b := core().add("a", 0, ramp(24), 2, 3).bytes()
	b[len(b)-70] ^= 1
	f, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(); !errors.Is(err, ErrFormat) {
		t.Errorf("a changed byte gives %v, want ErrFormat", err)
	}
}

func TestMetadata(t *testing.T) {
	m, err := ParseMetadata([]byte(`{"a":1,"b":null,"c":"x","d":2.0,"e":1e400,"f":true,"a":3,"g":-1}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(m.Keys(), ""); got != "abcdefg" {
		t.Errorf("keys %q", got)
	}
	if v, ok := m.Uint("a"); !ok || v != 3 {
		t.Errorf("the last of two values is %d %v, want 3", v, ok)
	}
	if v, ok := m.Uint("b", "d"); !ok || v != 2 {
		t.Errorf("an alias of null is %d %v, want 2", v, ok)
	}
	if _, ok := m.Float("e"); ok {
		t.Error("1e400 was taken for a number")
	}
	if _, ok := m.Uint("g"); ok {
		t.Error("-1 was taken for an unsigned number")
	}
	if _, err := m.Decode(new(int), "c"); !errors.Is(err, ErrFormat) {
		t.Errorf("a string as a number: %v, want ErrFormat", err)
	}
	if s, ok := m.String("c"); !ok || s != "x" {
		t.Errorf("string %q %v", s, ok)
	}
	if b, ok := m.Bool("f"); !ok || !b {
		t.Error("true is not true")
	}
}

func TestWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.apr")
	infos := []TensorInfo{
		{Name: "z", Type: Type(tensor.F32), Shape: []int{2, 3}},
		{Name: "tied", Type: Type(tensor.F32), Shape: []int{2, 3}, SameAs: "z"},
		{Name: "a", Type: Q4, Shape: []int{2, 20}},
		{Name: "m", Type: Q8, Shape: []int{7}},
		{Name: "k", Type: Type(tensor.Q6_K), Shape: []int{1, 256}},
	}
	w, err := Create(path, []Field{{"x", "<é>"}, {"list", []int{1, 2}}}, infos)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	sizes := []int{24, 36, 11, 210}
	for _, n := range sizes {
		out, err := w.NextTensor()
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range [][]byte{ramp(n)[:5], ramp(n)[5:]} {
			if _, err := out.Write(part); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(f.Warnings) != 0 {
		t.Errorf("warnings %q", f.Warnings)
	}
	if err := f.Verify(); err != nil || f.Footer < 0 {
		t.Errorf("footer at %d: %v", f.Footer, err)
	}
	if f.Header.Flags != FlagRowMajor|FlagQuantized {
		t.Errorf("flags %#x", f.Header.Flags)
	}
	if v, _ := f.Metadata.Raw("list"); !json.Valid(v) || string(v) != "[1,2]" {
		t.Errorf("list is %s", v)
	}
	for _, x := range f.Tensors {
		want := map[string]int{"z": 24, "tied": 24, "a": 36, "m": 11, "k": 210}[x.Name]
		if !bytes.Equal(x.Data, ramp(want)) || x.Offset%64 != 0 {
			t.Errorf("%s at %d has %d bytes, want %d of the ramp at a multiple of 64", x, x.Offset, len(x.Data), want)
		}
	}
	a, _ := f.Tensor("z")
	if b, _ := f.Tensor("tied"); a.Offset != b.Offset {
		t.Error("shared bytes are stored twice")
	}
}

func TestWriterErrors(t *testing.T) {
	f32 := Type(tensor.F32)
	for _, c := range []struct {
		name  string
		md    []Field
		infos []TensorInfo
		want  string
	}{
		{"type", nil, []TensorInfo{{Name: "a", Type: Type(tensor.Q8_0), Shape: []int{32}}}, "Q8_0"},
		{"row", nil, []TensorInfo{{Name: "a", Type: Type(tensor.Q4_K), Shape: []int{32}}}, "multiple"},
		{"twice", nil, []TensorInfo{{Name: "a", Type: f32, Shape: []int{1}}, {Name: "a", Type: f32, Shape: []int{1}}}, "twice"},
		{"key twice", []Field{{"k", 1}, {"k", 2}}, nil, "twice"},
		{"value", []Field{{"k", func() {}}}, nil, `"k"`},
		{"like nothing", nil, []TensorInfo{{Name: "a", Type: f32, Shape: []int{1}, SameAs: "b"}}, "like"},
		{"long name", nil, []TensorInfo{{Name: strings.Repeat("x", 257), Type: f32, Shape: []int{1}}}, "name"},
		{"no shape", nil, []TensorInfo{{Name: "a", Type: f32}}, "dimensions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := Create(filepath.Join(dir, "x"), c.md, c.infos); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if list, _ := os.ReadDir(dir); len(list) != 0 {
				t.Errorf("%v was left behind", list)
			}
		})
	}
	dir := t.TempDir()
	w, err := Create(filepath.Join(dir, "x"), nil, []TensorInfo{{Name: "a", Type: f32, Shape: []int{2}}})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := w.NextTensor()
	out.Write(make([]byte, 4))
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "lacks 4") {
		t.Errorf("got %v, want that 4 bytes are lacking", err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("%v was left behind", list)
	}
}

// FuzzParse: any bytes give either a one-line ErrFormat error or a file whose
// every part can be used.
func FuzzParse(f *testing.F) {
	for _, r := range []*raw{
		core().add("a", 0, ramp(24), 2, 3).add("b", 12, ramp(288), 2, 256),
		realizar().add("b", 8, ramp(68), 2, 32).add("a", 14, ramp(210), 1, 256),
		core(), core().add("a", 128, ramp(36), 2, 20),
	} {
		b := r.bytes()
		f.Add(b)
		f.Add(b[:len(b)/2])
		f.Add(b[:70])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrFormat) || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("error %q is not an ErrFormat of one line", err)
			}
			return
		}
		for _, x := range file.Tensors {
			_ = x.String()
			n, err := Bytes(x.Type, x.Shape)
			if x.Padded {
				var ok bool
				if n, ok = paddedBytes(x.Type, x.Shape); !ok {
					t.Errorf("%s is padded and need not be", x)
				}
			} else if err != nil {
				t.Error(err)
			}
			if n != len(x.Data) {
				t.Errorf("%s has %d bytes, want %d", x, len(x.Data), n)
			}
		}
		for _, k := range file.Metadata.Keys() {
			file.Metadata.String(k)
			file.Metadata.Uint(k)
		}
		file.Verify()
	})
}
