package synth

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// write writes a model into the test's folder and opens it.
func write(t *testing.T, o Options) (*gguf.File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := Write(path, o); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path
}

// Every preset has its tiny twin, which can be written with blocks that the quant
// package calls valid: one of a width that K-quants do not fit and one of a width
// that they do in every recipe, the others in one.
func TestPresets(t *testing.T) {
	for _, name := range Presets() {
		if !strings.HasPrefix(name, "tiny-") {
			if !slices.Contains(Presets(), "tiny-"+name) {
				t.Errorf("%s has no tiny variant", name)
			}
			continue
		}
		recipes := []string{"q4_k_m"}
		if name == "tiny-qwen2.5-0.5b" || name == "tiny-llama-3.1-8b" {
			recipes = quant.RecipeNames()
		}
		for _, q := range recipes {
			t.Run(name+"/"+q, func(t *testing.T) {
				f, _ := write(t, Options{Preset: name, Quant: q, VocabSize: minVocab})
				for _, x := range f.Tensors {
					if block, ok := quant.Validate(x.Type, x.Data); !ok {
						t.Errorf("%v: block %d is invalid", x, block)
					}
				}
				if arch, _ := f.Metadata.String("general.architecture"); arch != presets[name].arch {
					t.Errorf("architecture is %q, want %q", arch, presets[name].arch)
				}
				if _, has := f.Tensor("output.weight"); has == presets[name].tied {
					t.Errorf("output.weight is there: %v; tied: %v", has, presets[name].tied)
				}
			})
		}
	}
}

// The number of parameters that the model cards give, without biases and norms
// to within 1 %, and the size of the published Q4_K_M file.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		preset     string
		parameters float64 // in millions, from the model card
		q4km       float64 // in megabytes, published file; 0 if not compared
	}{
		{"qwen2.5-0.5b", 494, 397.8},
		{"qwen2.5-1.5b", 1544, 986.0},
		{"qwen2.5-7b", 7616, 4683.1},
		{"llama-3.1-8b", 8030, 4920.7},
		{"llama-3.2-1b", 1236, 807.7},
		{"qwen3-0.6b", 596, 0},
		{"qwen3-1.7b", 1721, 0},
		{"qwen3-8b", 8191, 0},
		{"gemma3-1b", 1000, 0},
		{"mistral-7b", 7248, 4372.8},
	} {
		t.Run(c.preset, func(t *testing.T) {
			o := Options{Preset: c.preset, Quant: "q4_k_m"}
			s, err := o.resolve()
			if err != nil {
				t.Fatal(err)
			}
			r, err := quant.FindRecipe(o.Quant)
			if err != nil {
				t.Fatal(err)
			}
			b := &builder{o: o, s: s, recipe: r}
			b.model()
			var elements, size float64
			for _, x := range b.tensors {
				n := 1
				for _, d := range x.Shape {
					n *= d
				}
				bytes, err := tensor.Bytes(x.Type, x.Shape)
				if err != nil {
					t.Fatal(err)
				}
				elements += float64(n)
				size += float64(bytes)
			}
			if got := elements / 1e6; !(math.Abs(got/c.parameters-1) <= 0.01) {
				t.Errorf("%.1f million parameters, want %.0f", got, c.parameters)
			}
			// Published files hold some megabytes of vocabulary as well.
			if got := size / 1e6; c.q4km > 0 && !(math.Abs(got/c.q4km-1) <= 0.02) {
				t.Errorf("%.1f MB of tensors, want about %.1f", got, c.q4km)
			}
		})
	}
}

func TestDeterministic(t *testing.T) {
	read := func(o Options) []byte {
		_, path := write(t, o)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	o := Options{Preset: "tiny-qwen2.5-0.5b", Quant: "q4_k_m", Seed: 7, OutlierChannels: 2}
	first := read(o)
	if !bytes.Equal(first, read(o)) {
		t.Error("the same options give different files")
	}
	o.Seed = 8
	if bytes.Equal(first, read(o)) {
		t.Error("another seed gives the same file")
	}
}

// Dequantised values must have the standard deviation asked for and mean 0.
func TestBlocksDistribution(t *testing.T) {
	const rows, cols = 64, 1024
	for dtype := range blockTypes {
		t.Run(dtype.String(), func(t *testing.T) {
			for _, sigma := range []float64{1, 0.02, 0.0073} {
				f, err := newFiller(dtype, sigma)
				if err != nil {
					t.Fatal(err)
				}
				n, err := dtype.RowBytes(cols)
				if err != nil {
					t.Fatal(err)
				}
				row, values := make([]byte, n), make([]float32, cols)
				var sum, sq float64
				for r := range rows {
					f.row(row, uint64(r))
					if err := quant.Dequantize(dtype, values, row); err != nil {
						t.Fatal(err)
					}
					for _, v := range values {
						sum += float64(v)
						sq += float64(v) * float64(v)
					}
				}
				mean, std := sum/(rows*cols), math.Sqrt(sq/(rows*cols))
				// 65,536 values estimate a deviation to 0.3 %; scales varied by
				// block add as much, and half-precision scales up to 1 % at 0.0073.
				if !(math.Abs(std/sigma-1) <= 0.02) {
					t.Errorf("standard deviation %v, want %v", std, sigma)
				}
				// The mean of that many values has a deviation of 0.004 sigma,
				// more where a whole sub-block shares an offset.
				if !(math.Abs(mean/sigma) <= 0.03) {
					t.Errorf("mean %v for a standard deviation of %v", mean, sigma)
				}
			}
		})
	}
}

// Rows, also of the same tensor, must differ.
func TestRowsDiffer(t *testing.T) {
	f, _ := write(t, Options{Preset: "tiny-qwen3-0.6b", Quant: "q8_0"})
	seen := map[string]string{}
	for _, x := range f.Tensors {
		if len(x.Shape) < 2 {
			continue
		}
		for r := range x.Rows() {
			key := string(x.Row(r))
			if other, dup := seen[key]; dup {
				t.Fatalf("row %d of %s is a copy of one in %s", r, x.Name, other)
			}
			seen[key] = x.Name
		}
	}
}

func TestOutliers(t *testing.T) {
	f, _ := write(t, Options{Preset: "tiny-llama-3.2-1b", Quant: "q8_0", OutlierChannels: 3})
	var first []int
	for _, name := range []string{"blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "blk.1.attn_norm.weight", "blk.1.ffn_norm.weight"} {
		x, ok := f.Tensor(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		w := make([]float32, x.Elements())
		if err := quant.Dequantize(x.Type, w, x.Data); err != nil {
			t.Fatal(err)
		}
		var large []int
		for i, v := range w {
			switch {
			case v > 26*0.6 && v < 26*1.4: // the weights have a deviation of 0.1, cut at 3.7
				large = append(large, i)
			case !(v > 0.6 && v < 1.4):
				t.Errorf("%s[%d] = %v", name, i, v)
			}
		}
		if first == nil {
			first = large
		}
		if len(large) != 3 || !slices.Equal(large, first) {
			t.Errorf("%s: outliers at %v, want three, the same in every norm: %v", name, large, first)
		}
	}
}

func TestLlama3Factors(t *testing.T) {
	f := llama3Factors(presets["llama-3.1-8b"])
	if len(f) != 64 || f[0] != 1 || f[63] != 8 || !slices.IsSorted(f) {
		t.Errorf("factors %v: want 64, rising from 1 to 8", f)
	}
}

func TestWriteRefuses(t *testing.T) {
	good := Options{Preset: "tiny-qwen2.5-7b", Quant: "q8_0"}
	for _, c := range []struct {
		name string
		edit func(o *Options)
		want string
	}{
		{"preset", func(o *Options) { o.Preset = "gpt-9" }, `unknown preset "gpt-9"`},
		{"quant", func(o *Options) { o.Quant = "q3" }, `unknown quantisation recipe "q3"`},
		{"layers", func(o *Options) { o.Layers = -1 }, "layers is -1"},
		{"vocabulary too small", func(o *Options) { o.VocabSize = 100 }, "vocabulary size is 100"},
		{"vocabulary too large", func(o *Options) { o.VocabSize = 1 << 20 }, "vocabulary size is 1048576"},
		{"outliers", func(o *Options) { o.OutlierChannels = 500 }, "outlier channels is 500"},
		{"outlier scale", func(o *Options) { o.OutlierScale = math.NaN() }, "outlier scale is NaN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := good
			c.edit(&o)
			err := Write(filepath.Join(dir, "m.gguf"), o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func BenchmarkRow(b *testing.B) {
	const cols = 4096
	for dtype := range blockTypes {
		b.Run(dtype.String(), func(b *testing.B) {
			f, err := newFiller(dtype, 0.02)
			if err != nil {
				b.Fatal(err)
			}
			n, err := dtype.RowBytes(cols)
			if err != nil {
				b.Fatal(err)
			}
			row := make([]byte, n)
			for b.Loop() {
				f.row(row, 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/cols, "ns/element")
		})
	}
}
