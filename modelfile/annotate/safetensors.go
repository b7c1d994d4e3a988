package annotate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/apr-engine/apr/tensor"
)

// maxHeader is the longest header that the format allows, in bytes.
const maxHeader = 100_000_000

// safetensorsTypes are the types of the format that we can size and name.
var safetensorsTypes = map[string]tensor.DType{
	"F32": tensor.F32, "F16": tensor.F16, "BF16": tensor.BF16, "F64": tensor.F64,
	"I8": tensor.I8, "I16": tensor.I16, "I32": tensor.I32, "I64": tensor.I64,
}

// walkSafetensors follows the format's README (huggingface/safetensors): the
// header's length, a JSON object, the tensors' bytes.
func walkSafetensors(w *walker) {
	n := w.uint(8, "", "header length", nil)
	if w.err == nil && n > maxHeader {
		w.fail("header length at byte 0 is %d, more than the format's %d", n, maxHeader)
	}
	start := w.at
	header := w.take(n, "header")
	if w.err != nil {
		return
	}
	d := json.NewDecoder(bytes.NewReader(header))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		w.fail("header at byte %d is not a JSON object", start)
		return
	}
	end := start + int(d.InputOffset())
	w.span(start, end, "header", "")
	for d.More() {
		key, err := d.Token()
		if err != nil {
			w.fail("header at byte %d: %v", end, err)
			return
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			w.fail("header at byte %d: entry %v: %v", end, key, err)
			return
		}
		next := start + int(d.InputOffset())
		name, _ := key.(string) // a key of an object is a string
		w.span(end, next, "header: "+clip(name), string(raw[:min(len(raw), maxShown+20)]))
		w.safetensor(name, raw, uint64(start)+n)
		end = next
	}
	w.span(end, start+int(n), "header: end", "")
}

// span keeps a field between two offsets.
func (w *walker) span(from, to int, name, value string) {
	if from < to && from < w.to && to > w.from {
		w.fields = append(w.fields, Field{Offset: from, Length: to - from, Name: name, Value: value})
	}
}

// safetensor adds the tensor of a header entry; base is where the data begins.
func (w *walker) safetensor(name string, raw []byte, base uint64) {
	if name == "__metadata__" {
		return
	}
	var e struct {
		Type    string    `json:"dtype"`
		Shape   []uint64  `json:"shape"`
		Offsets [2]uint64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		w.fail("header entry %s: %v", name, err)
		return
	}
	t := Tensor{Name: name, TypeName: e.Type, Shape: e.Shape}
	t.Type, t.Known = safetensorsTypes[e.Type]
	if len(t.Shape) == 0 {
		t.Shape = []uint64{1} // a scalar
	}
	if t.Offset = base + e.Offsets[0]; t.Offset < base {
		t.Offset = math.MaxUint64
	}
	w.add(t)
	last := &w.tensors[len(w.tensors)-1]
	size := e.Offsets[1] - e.Offsets[0]
	switch {
	case e.Offsets[1] < e.Offsets[0]:
		w.fail("tensor %s ends at %d, before its start at %d", name, e.Offsets[1], e.Offsets[0])
	case t.Known && last.Size != size:
		w.fail("tensor %s: %s %v takes %d bytes, its offsets span %d", name, e.Type, e.Shape, last.Size, size)
	default:
		last.Size = size
	}
}

// aprFields are the parts of tensors in the types that only .apr has; other
// unknown types are one field.
func aprFields(t *Tensor, begin, end int) []Field {
	if t.TypeName == "AprQ8" && end-begin > 4 {
		return []Field{
			{Offset: begin, Length: 4, Name: clip(t.Name) + ": scale"},
			{Offset: begin + 4, Length: end - begin - 4, Name: clip(t.Name) + ": q, a signed byte each"},
		}
	}
	return []Field{{Offset: begin, Length: end - begin, Name: fmt.Sprintf("%s: %s data", clip(t.Name), t.TypeName)}}
}
