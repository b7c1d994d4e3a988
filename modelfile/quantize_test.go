package modelfile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// shared returns a file in the folder ../shared beside the repository, or skips.
func shared(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			path := filepath.Join(filepath.Dir(dir), "shared", name)
			if _, err := os.Stat(path); err != nil {
				t.Skipf("no %s beside the repository", filepath.Join("..", "shared", name))
			}
			return path
		}
	}
	t.Fatal("no go.mod above the test")
	return ""
}

// smallModel writes a model of one block, with rows that K-quants divide, F16
// matrices and F32 norms, and returns its path. change may alter the tensors.
func smallModel(t *testing.T, change func(ts []tensor.Tensor)) string {
	t.Helper()
	md := gguf.NewMetadata()
	for key, v := range map[string]any{
		"general.architecture": "llama", "llama.block_count": uint32(1),
		"llama.attention.head_count": uint32(4), "llama.attention.head_count_kv": uint32(2),
		"general.file_type": uint32(1), "general.name": "small", "split.count": uint16(1),
	} {
		if err := md.Set(key, v); err != nil {
			t.Fatal(err)
		}
	}
	ts := []tensor.Tensor{
		{Name: "token_embd.weight", Type: tensor.F16, Shape: []int{300, 256}},
		{Name: "output.weight", Type: tensor.F16, Shape: []int{300, 256}},
		{Name: "output_norm.weight", Type: tensor.F32, Shape: []int{256}},
		{Name: "blk.0.attn_norm.weight", Type: tensor.F16, Shape: []int{256}},
		{Name: "blk.0.attn_v.weight", Type: tensor.BF16, Shape: []int{128, 256}},
		{Name: "blk.0.ffn_down.weight", Type: tensor.F16, Shape: []int{256, 96}},
		{Name: "blk.0.ffn_up_exps.weight", Type: tensor.F32, Shape: []int{3, 5, 256}},
		{Name: "position.index", Type: tensor.I32, Shape: []int{7}},
	}
	for k := range ts {
		n := ts[k].Elements()
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(math.Sin(float64(i)*0.7+float64(k))) * 0.1
		}
		size, err := tensor.Bytes(ts[k].Type, ts[k].Shape)
		if err != nil {
			t.Fatal(err)
		}
		ts[k].Data = make([]byte, size)
		if ts[k].Type == tensor.I32 {
			for i := range ts[k].Data {
				ts[k].Data[i] = byte(200 + i)
			}
		} else if err := quant.Quantize(ts[k].Type, ts[k].Data, x, nil); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(ts)
	}
	path := filepath.Join(t.TempDir(), "small.gguf")
	if err := gguf.WriteFile(path, md, ts); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *gguf.File {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func numbers(t *testing.T, x tensor.Tensor) []float32 {
	t.Helper()
	y := make([]float32, x.Elements())
	if err := quant.Dequantize(x.Type, y, x.Data); err != nil {
		t.Fatal(err)
	}
	return y
}

func TestQuantizeSmall(t *testing.T) {
	in := smallModel(t, nil)
	source := open(t, in)
	for _, c := range []struct {
		recipe   string
		fileType uint64
		types    string  // of the tensors, in order
		within   float64 // absolute, of numbers up to 0.1
	}{
		{"q4_k_m", 15, "Q4_K Q6_K F32 F32 Q6_K Q8_0 Q4_K I32", 0.012},
		{"Q8_0", 7, "Q8_0 Q8_0 F32 F32 Q8_0 Q8_0 Q8_0 I32", 0.0009},
		{"f16", 1, "F16 F16 F32 F32 F16 F16 F16 I32", 0.00005},
		{"f32", 0, "F32 F32 F32 F32 F32 F32 F32 I32", 0},
	} {
		t.Run(c.recipe, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.gguf")
			var last Progress
			calls := 0
			if err := Quantize(t.Context(), in, out, c.recipe, Options{Progress: func(p Progress) { last = p; calls++ }}); err != nil {
				t.Fatal(err)
			}
			f := open(t, out)
			if v, ok := f.Metadata.Uint("general.file_type"); !ok || v != c.fileType {
				t.Errorf("file type %d, want %d", v, c.fileType)
			}
			if v, ok := f.Metadata.Uint("general.quantization_version"); !ok || v != 2 {
				t.Errorf("quantisation version %d, want 2", v)
			}
			if v, ok := f.Metadata.String("general.name"); !ok || v != "small" {
				t.Errorf("name %q was not copied", v)
			}
			if _, ok := f.Metadata.Value("split.count"); ok {
				t.Error("split.count is still there")
			}
			types := strings.Fields(c.types)
			if len(f.Tensors) != len(source.Tensors) {
				t.Fatalf("%d tensors, want %d", len(f.Tensors), len(source.Tensors))
			}
			for i, got := range f.Tensors {
				want := source.Tensors[i]
				if got.Name != want.Name || got.Elements() != want.Elements() || got.Type.String() != types[i] {
					t.Errorf("tensor %d is %s, want %s as %s", i, got, want, types[i])
					continue
				}
				if got.Type == want.Type {
					if !bytes.Equal(got.Data, want.Data) {
						t.Errorf("%s was not copied unchanged", got.Name)
					}
					continue
				}
				x, y := numbers(t, want), numbers(t, got)
				for k := range x {
					if d := math.Abs(float64(x[k]) - float64(y[k])); !(d <= c.within) {
						t.Errorf("%s element %d: %v became %v", got.Name, k, x[k], y[k])
						break
					}
				}
			}
			if calls == 0 || last.Done != last.Total || last.Index != last.Count-1 || last.Total != 300*256*2+256*2+128*256+256*96+15*256+7 {
				t.Errorf("%d calls of progress, last %+v", calls, last)
			}
		})
	}
}

// TestQuantizeStudent: types and file size equal those of llama-quantize's file,
// and the errors against the F16 weights are no larger.
func TestQuantizeStudent(t *testing.T) {
	in := shared(t, "models/student-f16.gguf")
	exact := open(t, in)
	for _, c := range []struct{ recipe, peer string }{
		{"q4_k_m", "models/student-q4_k_m.gguf"},
		{"q8_0", "models/student-q8_0.gguf"},
	} {
		t.Run(c.recipe, func(t *testing.T) {
			peer := open(t, shared(t, c.peer))
			out := filepath.Join(t.TempDir(), "out.gguf")
			if err := Quantize(t.Context(), in, out, c.recipe, Options{}); err != nil {
				t.Fatal(err)
			}
			ours := open(t, out)
			if len(ours.Tensors) != len(peer.Tensors) {
				t.Fatalf("%d tensors, llama-quantize has %d", len(ours.Tensors), len(peer.Tensors))
			}
			for _, got := range ours.Tensors {
				theirs, ok := peer.Tensor(got.Name)
				if !ok || theirs.Type != got.Type {
					t.Errorf("%s: llama-quantize has %s", got, theirs)
					continue
				}
				want, _ := exact.Tensor(got.Name)
				x := numbers(t, want)
				a, b := squares(x, numbers(t, got)), squares(x, numbers(t, theirs))
				if !(a <= b) {
					t.Errorf("%s: squared error %.6g, llama-quantize's %.6g", got, a, b)
				}
			}
		})
	}
}

func squares(x, y []float32) (sum float64) {
	for i := range x {
		d := float64(x[i]) - float64(y[i])
		sum += d * d
	}
	return sum
}

// TestQuantizeThreads: the file does not depend on the number of workers, and
// tensors larger than a window come out whole.
func TestQuantizeThreads(t *testing.T) {
	in := shared(t, "models/student-f16.gguf")
	var first []byte
	for _, threads := range []int{1, 2, 5} {
		out := filepath.Join(t.TempDir(), "out.gguf")
		if err := Quantize(t.Context(), in, out, "q4_0", Options{Threads: threads}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = data
		}
		if !bytes.Equal(data, first) {
			t.Errorf("with %d threads the file is another", threads)
		}
	}
}

// TestRequantize goes through a quantised file, and from a file to its own recipe.
func TestRequantize(t *testing.T) {
	in := smallModel(t, nil)
	dir := t.TempDir()
	q8, q4, again := filepath.Join(dir, "q8"), filepath.Join(dir, "q4"), filepath.Join(dir, "again")
	for _, step := range []struct{ from, to, recipe string }{{in, q8, "q8_0"}, {q8, q4, "q4_0"}, {q4, again, "q4_0"}} {
		if err := Quantize(t.Context(), step.from, step.to, step.recipe, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	a, err := os.ReadFile(q4)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("a file quantised to its own recipe changed")
	}
}

// TestQuantizeSplit joins the shards of a split model.
func TestQuantizeSplit(t *testing.T) {
	source := open(t, smallModel(t, nil))
	dir := t.TempDir()
	var shards []string
	for no := range 2 {
		md := source.Metadata.Clone()
		if err := errors.Join(
			md.Set("split.no", uint16(no)), md.Set("split.count", uint16(2)),
			md.Set("split.tensors.count", int32(len(source.Tensors))),
		); err != nil {
			t.Fatal(err)
		}
		shards = append(shards, gguf.ShardPath(filepath.Join(dir, "model"), no, 2))
		half := source.Tensors[no*4:][:4]
		if err := gguf.WriteFile(shards[no], md, half); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "out.gguf")
	if err := Quantize(t.Context(), shards[1], out, "q8_0", Options{}); err != nil {
		t.Fatal(err)
	}
	if f := open(t, out); len(f.Tensors) != len(source.Tensors) || len(f.Paths()) != 1 {
		t.Errorf("%d tensors in %d files, want %d in 1", len(f.Tensors), len(f.Paths()), len(source.Tensors))
	}
	if err := Quantize(t.Context(), shards[1], shards[0], "q8_0", Options{Force: true}); !errors.Is(err, ErrSameFile) {
		t.Errorf("writing over the other shard: got %v, want ErrSameFile", err)
	}
}

func TestQuantizeErrors(t *testing.T) {
	in := smallModel(t, nil)
	nan := smallModel(t, func(ts []tensor.Tensor) {
		binary.LittleEndian.PutUint16(ts[0].Data[2*(17*256+33):], 0x7e00)
	})
	nanNorm := smallModel(t, func(ts []tensor.Tensor) {
		binary.LittleEndian.PutUint32(ts[2].Data[4*8:], 0x7f800000)
	})
	large := smallModel(t, func(ts []tensor.Tensor) {
		binary.LittleEndian.PutUint32(ts[6].Data[4*(256+2):], math.Float32bits(1e6))
	})
	dir := t.TempDir()
	existing := filepath.Join(dir, "existing")
	if err := os.WriteFile(existing, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(in, link); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("GGUF\x03\x00\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(dir, "fresh")
	for _, c := range []struct {
		name, in, out, recipe string
		ctx                   context.Context
		force                 bool
		want                  error
		says                  string
	}{
		{name: "unknown recipe", in: in, out: fresh, recipe: "q9", want: quant.ErrRecipe, says: "q4_k_m"},
		{name: "no input", in: filepath.Join(dir, "none"), out: fresh, want: fs.ErrNotExist, says: "none"},
		{name: "broken input", in: broken, out: fresh, want: gguf.ErrFormat, says: "broken"},
		{name: "output exists", in: in, out: existing, want: fs.ErrExist, says: "existing"},
		{name: "same file", in: in, out: in, force: true, want: ErrSameFile},
		{name: "same file through a link", in: in, out: link, force: true, want: ErrSameFile},
		{name: "output is a folder", in: in, out: dir, force: true, says: "folder"},
		{name: "no such folder", in: in, out: filepath.Join(dir, "a", "b"), want: fs.ErrNotExist},
		{name: "NaN", in: nan, out: fresh, want: quant.ErrNotFinite, says: "token_embd.weight F16 [300, 256]: number cannot be stored: NaN at row 17, column 33"},
		{name: "NaN, existing output", in: nan, out: existing, force: true, want: quant.ErrNotFinite},
		{name: "infinite norm, copied", in: nanNorm, out: fresh, want: quant.ErrNotFinite, says: "output_norm.weight F32 [256]: number cannot be stored: the block at row 0, column 8"},
		{name: "too large for F16", in: large, out: fresh, recipe: "f16", want: quant.ErrNotFinite, says: "1e+06 at row 1, column 2"},
		{name: "cancelled", in: in, out: fresh, ctx: cancelled, want: context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.recipe == "" {
				c.recipe = "q4_k_m"
			}
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			err := Quantize(c.ctx, c.in, c.out, c.recipe, Options{Force: c.force})
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.says)
			}
			after, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(after) != len(before) {
				t.Errorf("files left behind: %v", after)
			}
			if data, err := os.ReadFile(existing); err != nil || string(data) != "precious" {
				t.Errorf("the existing file was touched: %q, %v", data, err)
			}
		})
	}
	if err := Quantize(t.Context(), in, existing, "q4_0", Options{Force: true}); err != nil {
		t.Errorf("with Force: %v", err)
	} else {
		open(t, existing)
	}
}
