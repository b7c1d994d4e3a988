package fault

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// editor changes a copy of a program and overlays its weights.
type editor struct {
	program *graph.Program
	weights graph.Weights
	layer   int // negative for all
	changed bool
	overlay map[string]func() (tensor.Tensor, error)
}

func newEditor(p *graph.Program, w graph.Weights, layer int) *editor {
	c := *p
	c.Values, c.Caches = slices.Clone(p.Values), slices.Clone(p.Caches)
	c.Ops = make([]graph.Op, len(p.Ops))
	for i, op := range p.Ops {
		c.Ops[i] = copyOp(op)
	}
	return &editor{program: &c, weights: w, layer: layer, overlay: map[string]func() (tensor.Tensor, error){}}
}

// copyOp copies the struct that op points to; slices in it are never written.
func copyOp(op graph.Op) graph.Op {
	v := reflect.New(reflect.TypeOf(op).Elem())
	v.Elem().Set(reflect.ValueOf(op).Elem())
	return v.Interface().(graph.Op)
}

// in reports whether the fault touches a value or tensor by its name.
func (e *editor) in(name string) bool {
	return e.layer < 0 || strings.HasPrefix(name, fmt.Sprintf("blk.%d.", e.layer))
}

// suffix cuts the layer's prefix off a name: "blk.3.attn_q" is "attn_q".
func suffix(name string) string {
	rest, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return name
	}
	_, rest, _ = strings.Cut(rest, ".")
	return rest
}

// name is the stable name of a value.
func (e *editor) name(id graph.ID) string { return e.program.Values[id].Name }

// find returns the id of the value with the given name.
func (e *editor) find(name string) (graph.ID, bool) {
	i := slices.IndexFunc(e.program.Values, func(v graph.Value) bool { return v.Name == name })
	return graph.ID(i), i >= 0
}

// value adds a value of the given width.
func (e *editor) value(name string, width int) graph.ID {
	e.program.Values = append(e.program.Values, graph.Value{Name: name, Width: width})
	return graph.ID(len(e.program.Values) - 1)
}

// edit calls change for each operation of type T whose value is in the fault's
// layers (KVStore has no value and counts by its key). The change may replace
// the operation by several; nil leaves it alone.
func edit[T graph.Op](e *editor, change func(op T, name string) []graph.Op) {
	var ops []graph.Op
	for _, op := range e.program.Ops {
		t, ok := op.(T)
		if !ok {
			ops = append(ops, op)
			continue
		}
		id := op.Output()
		if id < 0 {
			id = op.Inputs()[0]
		}
		var replaced []graph.Op
		if e.in(e.name(id)) {
			replaced = change(t, e.name(id))
		}
		if replaced == nil {
			replaced = []graph.Op{op}
		} else {
			e.changed = true
		}
		ops = append(ops, replaced...)
	}
	e.program.Ops = ops
}

// redirect makes an operation write a new value and returns it with the old
// one, for an operation that spoils the result: the spoilt value keeps the name,
// so that the first difference is named after the operation that is wrong.
func redirect(e *editor, op graph.Op) (sound, out graph.ID) {
	out = op.Output()
	sound = e.value(e.name(out)+" (sound)", e.program.Values[out].Width)
	reflect.ValueOf(op).Elem().FieldByName("Out").SetInt(int64(sound))
	return sound, out
}

// matrices returns the tensors that operations multiply with, each once, in
// program order and within the fault's layers.
func (e *editor) matrices() []tensor.Tensor {
	var list []tensor.Tensor
	seen := map[string]bool{}
	for _, op := range e.program.Ops {
		name := ""
		switch o := op.(type) {
		case *graph.MatMul:
			name = o.Weight
		case *graph.Logits:
			name = o.Weight
		}
		if t, ok := e.weights.Tensor(name); ok && !seen[name] && e.in(name) {
			seen[name] = true
			list = append(list, t)
		}
	}
	return list
}

// replace overlays a tensor; make is called when a backend first reads it.
func (e *editor) replace(name string, make func() (tensor.Tensor, error)) {
	e.overlay[name] = make
	e.changed = true
}

// blocks overlays every matrix of the given types by a copy with changed blocks.
func (e *editor) blocks(change map[tensor.DType]func(block []byte)) error {
	for _, t := range e.matrices() {
		if f := change[t.Type]; f != nil {
			e.replace(t.Name, func() (tensor.Tensor, error) {
				t.Data = slices.Clone(t.Data)
				for rest, n := t.Data, t.Type.BlockBytes(); len(rest) >= n; rest = rest[n:] {
					f(rest[:n:n])
				}
				return t, nil
			})
		}
	}
	return nil
}

// spoiled returns the weights with the overlay.
func (e *editor) spoiled() graph.Weights {
	if len(e.overlay) == 0 {
		return e.weights
	}
	w := &overlaid{Weights: e.weights, made: map[string]func() (tensor.Tensor, error){}}
	for name, f := range e.overlay {
		w.made[name] = sync.OnceValues(f)
	}
	return w
}

// overlaid is a model's weights with some tensors replaced.
type overlaid struct {
	graph.Weights
	made map[string]func() (tensor.Tensor, error)
}

// Tensor makes a replaced tensor at its first use. One that cannot be made is
// missing, which every backend refuses.
func (w *overlaid) Tensor(name string) (tensor.Tensor, bool) {
	f := w.made[name]
	if f == nil {
		return w.Weights.Tensor(name)
	}
	t, err := f()
	return t, err == nil
}

// floats dequantises a tensor.
func floats(t tensor.Tensor) ([]float32, error) {
	v := make([]float32, t.Elements())
	return v, quant.Dequantize(t.Type, v, t.Data)
}

// outlying reports whether one number stands out of a vector: a multiple of
// the root mean square of the numbers.
func outlying(v []float32, multiple float64) bool {
	var sum, top float64
	for _, x := range v {
		sum += float64(x) * float64(x)
		top = math.Max(top, math.Abs(float64(x)))
	}
	return top*top*float64(len(v)) > multiple*multiple*sum
}
