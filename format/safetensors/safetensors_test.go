package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// build makes a file of a header's text and some bytes.
func build(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range data {
		b = append(b, byte(i))
	}
	return b
}

func TestParse(t *testing.T) {
	f, err := Parse(build(`{"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},"__metadata__":{"format":"pt"},"a":{"dtype":"I32","shape":[],"data_offsets":[0,4]},"c":{"dtype":"BOOL","shape":[2],"data_offsets":[16,18]}}   `, 18))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range f.Tensors {
		got = append(got, x.String())
	}
	if s := strings.Join(got, "; "); s != "a I32 [1]; b F16 [2, 3]; c I8 [2]" {
		t.Errorf("tensors %s", s)
	}
	b, _ := f.Tensor("b")
	p, _ := f.Place("b")
	if b.Data[0] != 4 || len(b.Data) != 12 || p.Type != "F16" || p.Offset != int64(8+f.HeaderBytes+4) || f.Metadata["format"] != "pt" {
		t.Errorf("b has %d at %+v, metadata %v", b.Data, p, f.Metadata)
	}
}

func TestParseErrors(t *testing.T) {
	one := func(entry string) string { return `{"w":` + entry + `}` }
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "too few"},
		{"length past the end", build("{}", 0)[:9], "length at byte 0"},
		{"huge length", binary.LittleEndian.AppendUint64(nil, 1<<60), "length at byte 0"},
		{"no object", build("[]", 0), "no JSON object"},
		{"broken", build(`{"a" 1}`, 0), `tensor "a"`},
		{"nested", build(strings.Repeat(`{"a":`, 20000), 0), `tensor "a"`},
		{"more", build(`{} x`, 0), "follows"},
		{"metadata", build(`{"__metadata__":{"a":1}}`, 0), "__metadata__"},
		{"unknown type", build(one(`{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}`), 1), "F8_E4M3"},
		{"dimension 0", build(one(`{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`), 0), "dimension 0"},
		{"negative dimension", build(one(`{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}`), 4), `tensor "w"`},
		{"overflow", build(one(`{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}`), 4), "overflows"},
		{"many dimensions", build(one(`{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}`), 4), "dimensions"},
		{"truncated", build(one(`{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`), 4), "truncated"},
		{"backwards", build(one(`{"dtype":"F32","shape":[1],"data_offsets":[4,0]}`), 4), "data_offsets"},
		{"wrong size", build(one(`{"dtype":"F32","shape":[2],"data_offsets":[0,4]}`), 4), "4 bytes, want 8"},
		{"one offset", build(one(`{"dtype":"F32","shape":[1],"data_offsets":[0]}`), 4), "data_offsets"},
		{"twice", build(`{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, 1), "twice"},
		{"overlap", build(`{"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"I8","shape":[2],"data_offsets":[1,3]}}`, 3), "overlaps"},
		{"hole", build(`{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"I8","shape":[1],"data_offsets":[2,3]}}`, 3), "belong to no tensor"},
		{"rest", build(one(`{"dtype":"I8","shape":[1],"data_offsets":[0,1]}`), 2), "the file has"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.data)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want an ErrFormat with %q", err, c.want)
			}
		})
	}
}

func write(t *testing.T, path string, tensors ...tensor.Tensor) {
	t.Helper()
	var infos []TensorInfo
	for _, x := range tensors {
		infos = append(infos, TensorInfo{x.Name, x.Type, x.Shape})
	}
	w, err := Create(path, map[string]string{"format": "pt", "a": "<b>"}, infos)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, x := range tensors {
		out, err := w.NextTensor()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(x.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	x := tensor.Tensor{Name: "x", Type: tensor.F32, Shape: []int{2, 1}, Data: []byte("12345678")}
	y := tensor.Tensor{Name: "y", Type: tensor.BF16, Shape: []int{3}, Data: []byte("abcdef")}
	write(t, path, x, y)
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Metadata["a"] != "<b>" || f.HeaderBytes%8 != 0 || len(f.Tensors) != 2 {
		t.Errorf("metadata %v, header of %d bytes, %d tensors", f.Metadata, f.HeaderBytes, len(f.Tensors))
	}
	for i, want := range []tensor.Tensor{x, y} {
		if got := f.Tensors[i]; got.String() != want.String() || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("%v is %q, want %v %q", got, got.Data, want, want.Data)
		}
	}
	if _, err := Create(path, nil, []TensorInfo{{"q", tensor.Q4_K, []int{256}}}); err == nil || !strings.Contains(err.Error(), "Q4_K") {
		t.Errorf("a Q4_K tensor: %v", err)
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	byteTensor := func(name string) tensor.Tensor {
		return tensor.Tensor{Name: name, Type: tensor.I8, Shape: []int{1}, Data: []byte(name)}
	}
	if _, err := OpenFolder(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder: %v, want fs.ErrNotExist", err)
	}
	write(t, filepath.Join(dir, "s-1.safetensors"), byteTensor("a"), byteTensor("b"))
	write(t, filepath.Join(dir, "s-2.safetensors"), byteTensor("b"), byteTensor("c"))
	if _, err := OpenFolder(dir); !errors.Is(err, ErrFormat) {
		t.Errorf("two files without an index: %v, want ErrFormat", err)
	}
	for _, c := range []struct{ name, index, want string }{
		{"good", `{"weight_map":{"a":"s-1.safetensors","b":"s-2.safetensors","c":"s-2.safetensors"}}`, ""},
		{"missing tensor", `{"weight_map":{"d":"s-1.safetensors"}}`, `"d"`},
		{"missing file", `{"weight_map":{"d":"s-3.safetensors"}}`, "s-3"},
		{"path", `{"weight_map":{"d":"../x.safetensors"}}`, "plain file name"},
		{"empty", `{}`, "weight_map"},
		{"broken", `{`, "JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, IndexName), []byte(c.index), 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := OpenFolder(dir)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p, _ := f.Place("b")
			if len(f.Tensors) != 3 || len(f.Paths()) != 2 || filepath.Base(p.Path) != "s-2.safetensors" {
				t.Errorf("%d tensors in %v, b in %v", len(f.Tensors), f.Paths(), p)
			}
		})
	}
}

// TestTeacher reads a model in four files that another program wrote.
func TestTeacher(t *testing.T) {
	f, err := OpenFolder(golden.Shared(t, "models", "teacher-hf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	total := 0
	for _, x := range f.Tensors {
		total += len(x.Data)
	}
	if len(f.Tensors) != 99 || total != 56652800 || len(f.Paths()) != 4 {
		t.Errorf("%d tensors of %d bytes in %d files, want 99 of 56652800 in 4", len(f.Tensors), total, len(f.Paths()))
	}
}

// FuzzParse: any bytes give either a one-line ErrFormat error or tensors whose
// bytes fit their shapes.
func FuzzParse(f *testing.F) {
	good := build(`{"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},"__metadata__":{"format":"pt"},"a":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}`, 16)
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(good[:60])
	f.Add(build("{}", 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrFormat) || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("error %q is not an ErrFormat of one line", err)
			}
			return
		}
		for _, x := range file.Tensors {
			if n, err := tensor.Bytes(x.Type, x.Shape); err != nil || n != len(x.Data) {
				t.Errorf("%v has %d bytes, want %d (%v)", x, len(x.Data), n, err)
			}
		}
	})
}
