// Package compare tells what differs between two model files: metadata, and
// tensors matched by name across the naming schemes of GGUF and Hugging Face.
package compare

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/apr-engine/apr/modelfile/names"
	"github.com/apr-engine/apr/modelfile/scan"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/apr-engine/apr/modelfile/stats"
	"github.com/apr-engine/apr/tensor"
)

// Options of Models.
type Options struct {
	// Keep chooses tensors by their GGUF name; nil keeps all.
	Keep func(name string) bool
	// Worst is how many elements to list for each tensor.
	Worst int
	// Threads is the number of workers; 0 means one for each processor.
	Threads int
}

// Diff is what differs.
type Diff struct {
	Metadata Metadata `json:"metadata"`
	// Tensors are those in both files, those that differ most first.
	Tensors []Tensor `json:"tensors"`
	OnlyA   []string `json:"only_a"` // as the file calls them
	OnlyB   []string `json:"only_b"`
}

// Identical is the number of tensors with the same type, shape and bytes.
func (d *Diff) Identical() (n int) {
	for i := range d.Tensors {
		if d.Tensors[i].Identical {
			n++
		}
	}
	return n
}

// Below lists the tensors whose cosine is not at least min, or that could not be
// compared.
func (d *Diff) Below(min float64) (list []string) {
	for i := range d.Tensors {
		if t := &d.Tensors[i]; !(float64(t.Cosine) >= min) || t.NotFinite > 0 {
			list = append(list, t.Name)
		}
	}
	return list
}

// Tensor compares two tensors. Numbers that are not finite in one of them are
// left out of all but NotFinite.
type Tensor struct {
	Name      string `json:"name"` // in GGUF's scheme, if the name is known
	A         Side   `json:"a"`
	B         Side   `json:"b"`
	Identical bool   `json:"identical"` // type, shape and bytes
	// Cosine of the angle between the tensors as vectors: 1 for equal directions,
	// 1 for two zero vectors, 0 if one is zero; NaN if they cannot be compared.
	Cosine stats.Number `json:"cosine"`
	// Error is |A − B| / |A|, as vectors.
	Error stats.Number `json:"relative_error"`
	// MaxDiff is the largest difference of two elements.
	MaxDiff stats.Number `json:"max_diff"`
	// NotFinite counts elements that are NaN or infinite in A or B and not the
	// same in both.
	NotFinite int64     `json:"not_finite"`
	Worst     []Element `json:"worst,omitempty"`
	// Note says what explains a difference, or why there is no comparison.
	Note string `json:"note,omitempty"`
}

// Side is a tensor as one of the files has it.
type Side struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape []int  `json:"shape"`
}

// Element is one number of both tensors.
type Element struct {
	Row    int          `json:"row"`
	Column int          `json:"column"`
	A      stats.Number `json:"a"`
	B      stats.Number `json:"b"`
}

// pair is a tensor of A and its partner.
type pair struct {
	name string
	a, b tensor.Tensor
	// row says which row of b belongs to row r of a; nil for the same.
	row func(r int) int
}

// Models compares two open files.
func Models(ctx context.Context, a, b *source.Model, o Options) (*Diff, error) {
	d := &Diff{Metadata: compareMetadata(a.Metadata, b.Metadata), Tensors: []Tensor{}, OnlyA: []string{}, OnlyB: []string{}}
	var pairs []pair
	left, right := byName(a, o.Keep), byName(b, o.Keep)
	inB := map[string]tensor.Tensor{}
	for _, n := range right {
		inB[n.name] = n.a
	}
	inA := map[string]bool{}
	for _, n := range left {
		inA[n.name] = true
		other, ok := inB[n.name]
		if !ok {
			d.OnlyA = append(d.OnlyA, n.a.Name)
			continue
		}
		pairs = append(pairs, pair{name: n.name, a: n.a, b: other})
	}
	for _, n := range right {
		if !inA[n.name] {
			d.OnlyB = append(d.OnlyB, n.a.Name)
		}
	}
	for _, p := range pairs {
		t, err := compareTensor(ctx, p, o)
		if err != nil {
			return nil, err
		}
		if !(float64(t.Cosine) >= reordered) {
			if t, err = tryOrders(ctx, p, t, a, b, o); err != nil {
				return nil, err
			}
		}
		d.Tensors = append(d.Tensors, t)
	}
	slices.SortStableFunc(d.Tensors, func(x, y Tensor) int { return cmp.Compare(rank(&x), rank(&y)) })
	return d, nil
}

// rank orders tensors: not comparable, not finite, small cosine, large error,
// identical.
func rank(t *Tensor) float64 {
	switch c := float64(t.Cosine); {
	case t.Identical:
		return 10
	case c != c:
		return -10
	case t.NotFinite > 0:
		return -5
	default:
		return c - math.Min(float64(t.Error), 1)*1e-3
	}
}

// byName lists the tensors to compare with their GGUF names.
func byName(m *source.Model, keep func(string) bool) []pair {
	all := make([]string, len(m.Tensors))
	for i, t := range m.Tensors {
		all[i] = t.Name
	}
	gemma := names.IsGemma(all)
	var list []pair
	for _, t := range m.Tensors {
		if name := names.Canonical(t.Name, gemma); keep == nil || keep(name) {
			list = append(list, pair{name: name, a: t})
		}
	}
	return list
}

func side(t tensor.Tensor) Side { return Side{t.Name, t.Type.String(), t.Shape} }

// compareTensor compares two tensors of the same shape.
func compareTensor(ctx context.Context, p pair, o Options) (Tensor, error) {
	nan := stats.Number(math.NaN())
	t := Tensor{Name: p.name, A: side(p.a), B: side(p.b), Cosine: nan, Error: nan, MaxDiff: nan}
	switch {
	case !slices.Equal(squeeze(p.a.Shape), squeeze(p.b.Shape)):
		t.Note = fmt.Sprintf("the shapes differ: %v and %v", p.a.Shape, p.b.Shape)
		if len(p.a.Shape) == 2 && len(p.b.Shape) == 2 && p.a.Shape[0] == p.b.Shape[1] && p.a.Shape[1] == p.b.Shape[0] {
			t.Note += " (transposed)"
		}
		return t, nil
	case !scan.Readable(p.a.Type) || !scan.Readable(p.b.Type):
		t.Note = fmt.Sprintf("types %v and %v cannot both be decoded", p.a.Type, p.b.Type)
		return t, nil
	case p.row == nil && p.a.Type == p.b.Type && bytes.Equal(p.a.Data, p.b.Data):
		t.Identical, t.Cosine, t.Error, t.MaxDiff = true, 1, 0, 0
		return t, nil
	}
	// Both are walked in the shape of A, so that their rows are equally long.
	p.b.Shape = p.a.Shape
	chunks := scan.Chunks([]tensor.Tensor{p.a})
	parts := make([]sums, len(chunks))
	err := scan.Each(ctx, o.Threads, len(chunks), func(i int) (err error) {
		if scan.Exact(p.a.Type) && scan.Exact(p.b.Type) {
			parts[i], err = sum[float32](p, chunks[i], o.Worst)
		} else {
			parts[i], err = sum[float64](p, chunks[i], o.Worst)
		}
		return err
	})
	if err != nil {
		return t, err
	}
	total := newSums(o.Worst)
	for i := range parts {
		total.add(&parts[i])
	}
	total.result(&t)
	return t, nil
}

// squeeze drops dimensions of 1, which some writers add.
func squeeze(shape []int) []int {
	return slices.DeleteFunc(slices.Clone(shape), func(n int) bool { return n == 1 })
}
