package annotate

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/apr-engine/apr/tensor"
)

// maxDepth bounds arrays in arrays.
const maxDepth = 4

// ggufTypes are the value types of GGUF by number: name and size, 0 where it
// varies. Source: ggml's docs/gguf.md.
var ggufTypes = []struct {
	name string
	size int
}{
	{"uint8", 1}, {"int8", 1}, {"uint16", 2}, {"int16", 2}, {"uint32", 4}, {"int32", 4}, {"float32", 4}, {"bool", 1},
	{"string", 0}, {"array", 0}, {"uint64", 8}, {"int64", 8}, {"float64", 8},
}

const (
	ggufString = 8
	ggufArray  = 9
)

func ggufTypeName(v uint64) string {
	if v < uint64(len(ggufTypes)) {
		return fmt.Sprintf("%d, %s", v, ggufTypes[v].name)
	}
	return fmt.Sprintf("%d, unknown", v)
}

// walkGGUF follows ggml's docs/gguf.md.
func walkGGUF(w *walker) {
	w.text(4, "", "magic")
	if v := w.uint(4, "", "version", nil); w.err == nil && v != 2 && v != 3 {
		w.fail("version at byte 4 is %d, want 2 or 3", v)
	}
	tensors := w.uint(8, "", "tensor count", nil)
	keys := w.uint(8, "", "key count", nil)
	alignment := uint64(32)
	for i := uint64(0); i < keys && w.err == nil; i++ {
		prefix := fmt.Sprintf("key %d ", i)
		key := w.text(w.uint(8, prefix, "name length", nil), prefix, "name")
		typ := w.uint(4, clip(key)+": ", "type", ggufTypeName)
		start := w.at
		w.ggufValue(clip(key), typ, 0)
		if key == "general.alignment" && w.err == nil && typ == 4 {
			alignment = uint64(binary.LittleEndian.Uint32(w.data[start:]))
		}
	}
	if w.err == nil && (alignment == 0 || alignment&(alignment-1) != 0) {
		w.fail("general.alignment is %d, not a power of two", alignment)
	}
	first := len(w.tensors)
	for i := uint64(0); i < tensors && w.err == nil; i++ {
		w.ggufTensor(i)
	}
	// Offsets count from the data section, at the next multiple of the alignment.
	// What was described before a break has a place only if there is a section.
	base := (uint64(w.at) + alignment - 1) &^ (alignment - 1)
	if w.err != nil {
		w.tensors = w.tensors[:first]
		return
	}
	for i := range w.tensors {
		if t := &w.tensors[i]; t.Offset > math.MaxUint64-base {
			t.Offset = math.MaxUint64
		} else {
			t.Offset += base
		}
	}
}

// ggufValue reads a value. Numbers of arrays are grouped into fields of 16 bytes.
func (w *walker) ggufValue(name string, typ uint64, depth int) {
	switch {
	case w.err != nil:
	case typ >= uint64(len(ggufTypes)):
		w.fail("%s has the unknown value type %d at byte %d", name, typ, w.at-4)
	case typ == ggufString:
		w.text(w.uint(8, name+": ", "length", nil), name, "")
	case typ == ggufArray:
		if depth == maxDepth {
			w.fail("%s: arrays are nested deeper than %d", name, maxDepth)
			return
		}
		elem := w.uint(4, name+": ", "element type", ggufTypeName)
		n := w.uint(8, name+": ", "count", nil)
		if w.err == nil && elem < uint64(len(ggufTypes)) && ggufTypes[elem].size > 0 {
			w.ggufNumbers(name, elem, n)
			return
		}
		for i := uint64(0); i < n && w.err == nil; i++ {
			if elem != ggufString || !w.skipString() {
				w.ggufValue(fmt.Sprintf("%s[%d]", name, i), elem, depth+1)
			}
		}
	default:
		size := ggufTypes[typ].size
		kept := w.wants(size)
		if b := w.take(uint64(size), name); b != nil && kept {
			w.keep(size, name, ggufScalar(b, typ))
		}
	}
}

// skipString passes over a string outside the window, of which a vocabulary has
// hundreds of thousands. It reports false, at the same place, for one that is to
// be looked at: it touches the window or the end of the file.
func (w *walker) skipString() bool {
	rest := w.data[w.at:]
	if len(rest) < 8 {
		return false
	}
	n := binary.LittleEndian.Uint64(rest)
	if n > uint64(len(rest)-8) || w.wants(8+int(n)) {
		return false
	}
	w.at += 8 + int(n)
	return true
}

// ggufNumbers reads an array of n numbers.
func (w *walker) ggufNumbers(name string, elem, n uint64) {
	size := ggufTypes[elem].size
	begin := w.at
	if n > uint64(len(w.data)) || w.take(n*uint64(size), name) == nil {
		w.fail("%s at byte %d has %d elements, more than the file holds", name, begin, n)
		return
	}
	end := w.at
	defer func() { w.at = end }()
	const row = 16
	first := max(0, min(w.from, end)-begin) / row * row
	for at := begin + first; at < end && at < w.to; at += row {
		b := w.data[at:min(at+row, end)]
		var list []string
		for i := 0; i+size <= len(b); i += size {
			list = append(list, ggufScalar(b[i:i+size], elem))
		}
		from := (at - begin) / size
		w.at = at + len(b)
		w.keep(len(b), fmt.Sprintf("%s[%d:%d]", name, from, from+len(list)), strings.Join(list, ", "))
	}
}

func ggufScalar(b []byte, typ uint64) string {
	var wide [8]byte
	copy(wide[:], b)
	v := binary.LittleEndian.Uint64(wide[:])
	switch ggufTypes[typ].name {
	case "int8":
		return fmt.Sprint(int8(v))
	case "int16":
		return fmt.Sprint(int16(v))
	case "int32":
		return fmt.Sprint(int32(v))
	case "int64":
		return fmt.Sprint(int64(v))
	case "float32":
		return fmt.Sprint(math.Float32frombits(uint32(v)))
	case "float64":
		return fmt.Sprint(math.Float64frombits(v))
	case "bool":
		if v > 1 {
			return fmt.Sprintf("%d, not a bool", v)
		}
		return fmt.Sprint(v == 1)
	}
	return fmt.Sprint(v)
}

// ggufTensor reads one description; its offset counts from the data section.
func (w *walker) ggufTensor(i uint64) {
	prefix := fmt.Sprintf("tensor %d ", i)
	t := Tensor{Name: w.text(w.uint(8, prefix, "name length", nil), prefix, "name")}
	prefix = clip(t.Name) + ": "
	dims := w.uint(4, prefix, "dimensions", nil)
	for d := uint64(0); d < dims && w.err == nil; d++ {
		t.Shape = append([]uint64{w.uint(8, prefix, fmt.Sprintf("dimension %d", d), nil)}, t.Shape...)
		if len(t.Shape) > 4 {
			w.fail("%shas %d dimensions, want 1 to 4", prefix, dims)
		}
	}
	typ := w.uint(4, prefix, "type", func(v uint64) string { return fmt.Sprintf("%d, %v", v, tensor.DType(v)) })
	t.Type = tensor.DType(typ)
	t.Known, t.TypeName = t.Type.Known(), t.Type.String()
	t.Offset = w.uint(8, prefix, "offset in the data section", nil)
	if w.err == nil {
		w.add(t)
	}
}
