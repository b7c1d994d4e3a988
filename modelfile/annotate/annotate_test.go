package annotate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
)

func read(t testing.TB, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func open(t testing.TB, data []byte) *Map {
	t.Helper()
	m, err := New(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// cover checks that the fields of a window follow each other and cover it.
func cover(t *testing.T, m *Map, from, n int) {
	t.Helper()
	fields := m.Window(from, n)
	end := min(from+n, m.Size())
	if len(fields) == 0 {
		if from < end {
			t.Fatalf("no field in [%d, %d)", from, end)
		}
		return
	}
	if fields[0].Offset > from || fields[len(fields)-1].End() < end {
		t.Fatalf("fields cover [%d, %d), want [%d, %d)", fields[0].Offset, fields[len(fields)-1].End(), from, end)
	}
	for i, f := range fields {
		if f.Length <= 0 || f.Name == "" || f.End() > m.Size() {
			t.Fatalf("bad field %+v", f)
		}
		if i > 0 && f.Offset != fields[i-1].End() {
			t.Fatalf("%+v does not follow %+v", f, fields[i-1])
		}
	}
}

// apr builds a file of version 2 with two tensors.
func apr() []byte {
	le := binary.LittleEndian
	pad := func(b []byte) []byte {
		for len(b)%64 != 0 {
			b = append(b, 0)
		}
		return b
	}
	meta := `{"architecture":"qwen2"}`
	b := append(make([]byte, 64), meta...)
	b = pad(b)
	index := len(b)
	entry := func(name string, typ byte, offset, size uint64, dims ...uint64) {
		b = le.AppendUint16(b, uint16(len(name)))
		b = append(append(b, name...), typ, byte(len(dims)))
		for _, d := range dims {
			b = le.AppendUint64(b, d)
		}
		b = le.AppendUint64(le.AppendUint64(b, offset), size)
	}
	entry("lm_head.weight", 12, 0, 144, 1, 256)
	entry("model.norm.weight", 0, 192, 16, 4)
	b = pad(b)
	data := len(b)
	b = append(b, make([]byte, 192)...)
	copy(b[data:], []byte{0, 0x3c}) // d = 1
	b = append(b, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0)
	b = pad(b)
	copy(b, "APR\x00\x02\x00\x00\x04")
	le.PutUint32(b[8:], 2)
	le.PutUint64(b[12:], 64)
	le.PutUint32(b[20:], uint32(len(meta)))
	le.PutUint64(b[24:], uint64(index))
	le.PutUint64(b[32:], uint64(data))
	le.PutUint32(b[40:], crc32.ChecksumIEEE(append(append([]byte{}, b[:40]...), b[44:64]...)))
	return le.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// Every byte of every kind of file has one meaning, seen through small windows as
// through a large one, and none of it is unused.
func TestCover(t *testing.T) {
	files := map[string][]byte{
		"qwen2.gguf":         read(t, "testdata", "architectures", "qwen2.gguf"),
		"gemma3.safetensors": read(t, "testdata", "architectures", "gemma3.safetensors"),
		"file.apr":           apr(),
	}
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			m := open(t, data)
			if m.Fault != nil {
				t.Fatal(m.Fault)
			}
			cover(t, m, 0, len(data))
			all := map[int]Field{}
			for _, f := range m.Window(0, len(data)) {
				all[f.Offset] = f
				if f.Name == "unused" || strings.HasSuffix(f.Name, "(overlaps)") {
					t.Errorf("%+v", f)
				}
			}
			for from := 0; from < len(data); from += 1 + len(data)/301 {
				cover(t, m, from, 37)
				for _, f := range m.Window(from, 37) {
					if want := all[f.Offset]; f.Name != "padding" && f != want {
						t.Fatalf("window at %d has %+v, the whole file %+v", from, f, want)
					}
				}
			}
		})
	}
}

// The places agree with those of the reader, which was written apart.
func TestPlaces(t *testing.T) {
	path := filepath.Join("..", "..", "models", "tiny-coder-4m-q4_k_m.gguf")
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := open(t, read(t, "models", "tiny-coder-4m-q4_k_m.gguf"))
	if len(m.Tensors) != len(f.Tensors) {
		t.Fatalf("%d tensors, the reader has %d", len(m.Tensors), len(f.Tensors))
	}
	for i, got := range m.Tensors {
		want := f.Tensors[i]
		place, _ := f.Place(want.Name)
		shape := fmt.Sprint(want.Shape)
		if got.Name != want.Name || got.Type != want.Type || fmt.Sprint(got.Shape) != shape ||
			int64(got.Offset) != place.Offset || int(got.Size) != len(want.Data) || !got.Inside(m.Size()) {
			t.Errorf("tensor %d is %+v, the reader has %v at %d", i, got, want, place.Offset)
		}
	}
}

func TestFields(t *testing.T) {
	small := read(t, "models", "tiny-coder-4m-q4_k_m.gguf")
	qwen := read(t, "testdata", "architectures", "qwen2.safetensors")
	tests := []struct {
		name string
		data []byte
		at   int
		want Field
	}{
		{"GGUF magic", small, 0, Field{0, 4, "magic", `"GGUF"`}},
		{"GGUF tensor count", small, 9, Field{8, 8, "tensor count", "50"}},
		{"GGUF key", small, 32, Field{32, 20, "key 0 name", `"general.architecture"`}},
		{"GGUF value", small, 64, Field{64, 5, "general.architecture", `"qwen2"`}},
		{"GGUF block", small, 1043968, Field{1043968, 2, "blk.0.attn_q.weight row 0 block 0: d", "0.00044441223"}},
		{"GGUF later block", small, 1043968 + 144*3 + 20, Field{1043968 + 144*3 + 16, 128, "blk.0.attn_q.weight row 3 block 0: qs", ""}},
		{"safetensors length", qwen, 0, Field{0, 8, "header length", fmt.Sprint(binary.LittleEndian.Uint64(qwen))}},
		{"apr flags", apr(), 6, Field{6, 2, "flags", "0x0400 LAYOUT_ROW_MAJOR"}},
		{"apr type", apr(), 64 + 64 + 16, Field{144, 1, "lm_head.weight: type", "12, Q4_K"}},
		{"apr block", apr(), 256, Field{256, 2, "lm_head.weight row 0 block 0: d", "1"}},
		{"apr numbers", apr(), 448, Field{448, 16, "model.norm.weight element 0", "1, 2, 0, 0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := open(t, tt.data).Window(tt.at, 1)
			if len(got) != 1 || got[0] != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	file := apr()
	fields := open(t, file).Window(0, len(file))
	if got := fields[len(fields)-1]; got.Name != "checksum of the file" || !strings.HasSuffix(got.Value, ", correct") {
		t.Errorf("the last field is %+v", got)
	}
	file[300] = 1
	fields = open(t, file).Window(0, len(file))
	if got := fields[len(fields)-1]; !strings.Contains(got.Value, "wrong: it should be") {
		t.Errorf("after damage the last field is %+v", got)
	}
}

// Where the structure breaks, what comes before is still shown.
func TestFaults(t *testing.T) {
	small := read(t, "models", "tiny-coder-4m-q4_k_m.gguf")
	safe := read(t, "testdata", "architectures", "qwen2.safetensors")
	set := func(data []byte, at int, b ...byte) []byte {
		data = append([]byte{}, data...)
		copy(data[at:], b)
		return data
	}
	tests := []struct {
		name, want string
		data       []byte
	}{
		{"cut GGUF", "needs", small[:1000]},
		{"GGUF version", "version at byte 4 is 9", set(small, 4, 9)},
		{"GGUF value type", "unknown value type 99", set(small, 52, 99)},
		{"GGUF name length", "needs 9223372036854775807 bytes", set(small, 24, 255, 255, 255, 255, 255, 255, 255, 127)},
		{"cut apr", "needs", apr()[:30]},
		{"apr metadata", "metadata of 24 bytes at byte 65344", set(apr(), 12, 0x40, 0xff)},
		{"apr index", "lies past the end", set(apr(), 24, 0, 0, 1)},
		{"apr compressed", "compressed", set(set(apr(), 6, 2), 64, 0)},
		{"safetensors length", "more than the format's", set(safe, 0, 255, 255, 255, 255)},
		{"safetensors header", "header at byte", set(safe, 40, 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := open(t, tt.data)
			if !errors.Is(m.Fault, ErrStructure) || !strings.Contains(m.Fault.Error(), tt.want) {
				t.Errorf("fault is %v, want %s", m.Fault, tt.want)
			}
			cover(t, m, 0, len(tt.data))
		})
	}
	for _, data := range [][]byte{nil, {}, []byte("This is text.")} {
		if _, err := New(data); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v", data, err)
		}
	}
}

// A tensor past the end is described, and can be asked whether it is inside.
func TestCutTensors(t *testing.T) {
	m := open(t, read(t, "models", "tiny-coder-4m-q4_k_m.gguf")[:1500000])
	inside := 0
	for i := range m.Tensors {
		if m.Tensors[i].Inside(m.Size()) {
			inside++
		}
	}
	if m.Fault != nil || len(m.Tensors) != 50 || inside == 0 || inside == 50 {
		t.Errorf("fault %v, %d tensors, %d inside", m.Fault, len(m.Tensors), inside)
	}
	cover(t, m, 0, m.Size())
}

func FuzzWindow(f *testing.F) {
	f.Add(read(f, "testdata", "architectures", "qwen2.gguf")[:4096], 100, 500)
	f.Add(read(f, "testdata", "architectures", "qwen2.safetensors")[:4096], 0, 4096)
	f.Add(apr(), 0, 600)
	f.Fuzz(func(t *testing.T, data []byte, from, n int) {
		m, err := New(data)
		if err != nil {
			return
		}
		m.Window(from, n)
		if len(data) < 1<<16 {
			cover(t, m, 0, len(data))
		}
	})
}
