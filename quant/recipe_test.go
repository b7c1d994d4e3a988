package quant

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// recipeCase is a model and the types that llama-quantize (February 2025) gave
// its tensors: the bundled student and small random models of other shapes. A
// recipe that it refuses for a model is absent.
type recipeCase struct {
	Name, Arch           string
	Layers, GQA, Experts int
	Tied                 bool
	Tensors              [][]any           // name, type, dimensions slowest first
	Types                map[string]string // recipe: types of the tensors, in order
}

func readRecipeCases(t *testing.T) (cases []recipeCase) {
	t.Helper()
	f, err := os.Open("testdata/recipes.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(&cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

// ref makes the reference for tensor i of the case.
func (c recipeCase) ref(t *testing.T, i int) TensorRef {
	t.Helper()
	row := c.Tensors[i]
	typ, err := tensor.ParseDType(row[1].(string))
	if err != nil {
		t.Fatal(err)
	}
	r := TensorRef{
		Name: row[0].(string), Type: typ,
		Layers: c.Layers, Tied: c.Tied, GQA: c.GQA, Experts: c.Experts, Arch: c.Arch,
	}
	for _, d := range row[2:] {
		r.Shape = append(r.Shape, int(d.(float64)))
	}
	r.Layer, _ = LayerOf(r.Name)
	return r
}

func TestRecipesMatchLlamaQuantize(t *testing.T) {
	compared := 0
	for _, c := range readRecipeCases(t) {
		for _, name := range RecipeNames() {
			want, ok := c.Types[name]
			if !ok {
				continue
			}
			t.Run(c.Name+"/"+name, func(t *testing.T) {
				r, err := FindRecipe(name)
				if err != nil {
					t.Fatal(err)
				}
				types := strings.Fields(want)
				if len(types) != len(c.Tensors) {
					t.Fatalf("%d types for %d tensors", len(types), len(c.Tensors))
				}
				for i := range c.Tensors {
					ref := c.ref(t, i)
					if got := r.TypeFor(ref); got.String() != types[i] {
						t.Errorf("%s %v: got %s, want %s", ref.Name, ref.Shape, got, types[i])
					}
					compared++
				}
			})
		}
	}
	if compared < 10000 {
		t.Errorf("only %d tensors compared", compared)
	}
}

func TestTypeForCorners(t *testing.T) {
	r, err := FindRecipe("Q4_K")
	if err != nil || r.Name != "q4_k_m" || r.FileType != 15 {
		t.Fatalf("Q4_K: got %+v, %v", r, err)
	}
	for _, c := range []struct {
		name string
		ref  TensorRef
		want tensor.DType
	}{
		{"integers stay", TensorRef{Name: "a.weight", Type: tensor.I32, Shape: []int{4, 256}}, tensor.I32},
		{"F16 norm becomes F32", TensorRef{Name: "blk.0.attn_norm.weight", Type: tensor.F16, Shape: []int{256}}, tensor.F32},
		{"bias becomes F32", TensorRef{Name: "blk.0.attn_q.bias", Type: tensor.BF16, Shape: []int{256}}, tensor.F32},
		{"a single row is a vector", TensorRef{Name: "a.weight", Type: tensor.F16, Shape: []int{1, 256}}, tensor.F32},
		{"gate of experts stays", TensorRef{Name: "blk.0.ffn_gate_inp.weight", Type: tensor.F16, Shape: []int{8, 256}}, tensor.F16},
		{"odd row", TensorRef{Name: "blk.0.ffn_up.weight", Type: tensor.F16, Shape: []int{8, 100}}, tensor.F16},
		{"row of 32s", TensorRef{Name: "blk.0.ffn_up.weight", Type: tensor.F16, Shape: []int{8, 96}}, tensor.Q5_0},
		{"odd output", TensorRef{Name: "output.weight", Type: tensor.F16, Shape: []int{8, 100}}, tensor.F16},
		{"output with row of 32s", TensorRef{Name: "output.weight", Type: tensor.F16, Shape: []int{8, 96}}, tensor.Q8_0},
		{"no shape", TensorRef{Name: "x.weight", Type: tensor.F16}, tensor.F32},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := r.TypeFor(c.ref); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if _, err := FindRecipe("q7"); !errors.Is(err, ErrRecipe) {
		t.Errorf("q7: got %v, want ErrRecipe", err)
	}
}

func TestLayerOf(t *testing.T) {
	for _, c := range []struct {
		name  string
		layer int
		ok    bool
	}{
		{"blk.12.attn_v.weight", 12, true},
		{"blk.0.x", 0, true},
		{"blk.x.y", 0, false},
		{"blk.5", 0, false},
		{"blk.-1.y", 0, false},
		{"token_embd.weight", 0, false},
		{"blk.99999999999999999999.y", 0, false},
	} {
		if layer, ok := LayerOf(c.name); layer != c.layer || ok != c.ok {
			t.Errorf("LayerOf(%q) = %d, %v, want %d, %v", c.name, layer, ok, c.layer, c.ok)
		}
	}
}
