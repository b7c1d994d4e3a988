// Package annotate says what the bytes of a model file mean: the fields of GGUF,
// .apr and safetensors, and the parts of the blocks of tensors. It reads as far
// as it can: where the structure breaks it says so, instead of failing, so that
// a damaged file can be looked at.
package annotate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/apr-engine/apr/tensor"
)

// Errors by kind, for errors.Is.
var (
	// ErrUnknown marks a file of no format that this package knows.
	ErrUnknown = errors.New("unknown file format")
	// ErrStructure marks what is wrong with the structure of a file.
	ErrStructure = errors.New("bad structure")
)

// Field is a run of bytes with a meaning.
type Field struct {
	Offset int `json:"offset"` // from the start of the file, in bytes
	Length int `json:"length"`
	// Name is the field's: "key 3: name", "blk.0.attn_q.weight block 7: d".
	Name string `json:"name"`
	// Value is the content in readable form; empty for bulk data.
	Value string `json:"value,omitempty"`
}

// End is the offset just past the field.
func (f Field) End() int { return f.Offset + f.Length }

// Tensor is a tensor as the file describes it, even if that is wrong.
type Tensor struct {
	Name string
	Type tensor.DType
	// TypeName is the type as the container spells it: "Q4_K", "F32", "AprQ8".
	TypeName string
	Shape    []uint64 // slowest-varying first
	Offset   uint64   // from the start of the file, in bytes
	// Size is the bytes of shape and type; 0 if they have none.
	Size uint64
	// Known says that Type is set: the bytes can be taken apart.
	Known bool
}

// Inside reports whether the tensor's bytes lie within a file of n bytes.
func (t *Tensor) Inside(n int) bool {
	return t.Offset <= uint64(n) && t.Size <= uint64(n)-t.Offset
}

// Checksum is a CRC-32 (IEEE) that a file holds.
type Checksum struct {
	What   string // "header checksum"
	Offset int    // of its four bytes
	Stored uint32
	// Compute reads what the sum is over: for one of them, the whole file.
	Compute func() uint32
}

// Map knows where things are in a file. The file's bytes are kept, not copied.
type Map struct {
	// Format is "GGUF", "APR" or "safetensors".
	Format string
	// Tensors are those that the file describes, in order, as far as its
	// structure can be followed.
	Tensors []Tensor
	// Checksums are those that the file holds; only .apr has any.
	Checksums []Checksum
	// Fault is why the structure cannot be followed to its end, an
	// ErrStructure; nil if it can.
	Fault error

	data []byte
	walk func(*walker)
}

// New finds a file's format and tensors. The error is ErrUnknown.
func New(data []byte) (*Map, error) {
	m := &Map{data: data}
	switch {
	case len(data) == 0:
		return nil, fmt.Errorf("%w: the file is empty", ErrUnknown)
	case bytes.HasPrefix(data, []byte("GGUF")):
		m.Format, m.walk = "GGUF", walkGGUF
	case bytes.HasPrefix(data, []byte("APR\x00")), bytes.HasPrefix(data, []byte("APR2")):
		m.Format, m.walk = "APR", walkAPR
	case len(data) > 8 && data[8] == '{':
		m.Format, m.walk = "safetensors", walkSafetensors
	default:
		return nil, fmt.Errorf("%w: it begins with %q; want GGUF, APR or a safetensors header", ErrUnknown, data[:min(8, len(data))])
	}
	w := &walker{data: data}
	m.walk(w)
	m.Tensors, m.Checksums, m.Fault = w.tensors, w.checksums, w.err
	return m, nil
}

// Find returns the tensor with the given name.
func (m *Map) Find(name string) (*Tensor, bool) {
	i := slices.IndexFunc(m.Tensors, func(t Tensor) bool { return t.Name == name })
	if i < 0 {
		return nil, false
	}
	return &m.Tensors[i], true
}

// Tensor returns a tensor with its bytes; false if they are not in the file or
// cannot be taken apart.
func (m *Map) Tensor(t *Tensor) (tensor.Tensor, bool) {
	if !t.Known || t.Size == 0 || !t.Inside(len(m.data)) {
		return tensor.Tensor{}, false
	}
	shape := make([]int, len(t.Shape))
	for i, n := range t.Shape {
		shape[i] = int(n) // it fits: the size does
	}
	return tensor.Tensor{Name: t.Name, Type: t.Type, Shape: shape, Data: m.data[t.Offset : t.Offset+t.Size]}, true
}

// Window returns the fields that touch n bytes from offset from, in order and
// without gaps or overlaps: what no field covers is padding (zeros), unused,
// or not understood if the structure has a fault. The
// first and last fields may reach beyond the window.
func (m *Map) Window(from, n int) []Field {
	from = min(max(from, 0), len(m.data))
	to := from + min(max(n, 0), len(m.data)-from)
	if from == to {
		return nil
	}
	w := &walker{data: m.data, from: from, to: to}
	m.walk(w)
	fields := append(w.fields, m.dataFields(from, to)...)
	slices.SortStableFunc(fields, func(a, b Field) int { return cmp.Compare(a.Offset, b.Offset) })
	return m.fill(fields, from, to)
}

// dataFields are the parts of the tensors that touch the window. What two tensors
// claim is shown as the first one's, so that a hostile file gives no more fields
// than the window has bytes.
func (m *Map) dataFields(from, to int) []Field {
	order := make([]*Tensor, 0, len(m.Tensors))
	for i := range m.Tensors {
		if t := &m.Tensors[i]; t.Offset < uint64(to) && t.Size > 0 && (t.Offset >= uint64(from) || t.Size > uint64(from)-t.Offset) {
			order = append(order, t)
		}
	}
	slices.SortStableFunc(order, func(a, b *Tensor) int { return cmp.Compare(a.Offset, b.Offset) })
	var fields []Field
	for _, t := range order {
		fields = append(fields, m.tensorFields(t, from, to)...)
		if n := len(fields); n > 0 {
			from = max(from, fields[n-1].End())
		}
		if from >= to {
			break
		}
	}
	return fields
}

// fill puts padding between fields and cuts overlaps, which only damaged files have.
func (m *Map) fill(fields []Field, from, to int) []Field {
	var out []Field
	at := from
	gap := func(end int) {
		if end <= at {
			return
		}
		name := "padding"
		if slices.ContainsFunc(m.data[at:end], func(b byte) bool { return b != 0 }) {
			name = "unused"
		}
		if m.Fault != nil {
			name = "not understood"
		}
		out = append(out, Field{Offset: at, Length: end - at, Name: name})
	}
	for _, f := range fields {
		if f.End() <= at || f.Length <= 0 {
			continue
		}
		if f.Offset < at && len(out) > 0 {
			f.Length, f.Offset, f.Name = f.End()-at, at, f.Name+" (overlaps)"
		}
		gap(f.Offset)
		out = append(out, f)
		at = f.End()
	}
	gap(to)
	return out
}

// Bytes returns the bytes of a field.
func (m *Map) Bytes(f Field) []byte { return m.data[f.Offset:f.End()] }

// Size is the size of the file in bytes.
func (m *Map) Size() int { return len(m.data) }
