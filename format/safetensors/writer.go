package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/apr-engine/apr/internal/newfile"
	"github.com/apr-engine/apr/tensor"
)

// TensorInfo describes a tensor that is going to be written.
type TensorInfo struct {
	Name  string
	Type  tensor.DType
	Shape []int
}

// typeNames are the types that can be written.
var typeNames = map[tensor.DType]string{
	tensor.F64: "F64", tensor.F32: "F32", tensor.F16: "F16", tensor.BF16: "BF16",
	tensor.I64: "I64", tensor.I32: "I32", tensor.I16: "I16", tensor.I8: "I8",
}

// Holds reports whether the format has the type.
func Holds(t tensor.DType) bool { _, ok := typeNames[t]; return ok }

// Writer writes a file from front to back: the header at once, then each
// tensor's bytes in the order announced. The file appears when Close has found
// it complete.
type Writer struct {
	f     *newfile.File
	infos []TensorInfo
	sizes []int
	next  int // index of the tensor to be started
	left  int // bytes that the tensor being written still lacks
}

// Create starts a file at path with the given "__metadata__" and tensors.
func Create(path string, md map[string]string, infos []TensorInfo) (*Writer, error) {
	header, sizes, err := encodeHeader(md, infos)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	f, err := newfile.Create(path)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(header); err != nil {
		return nil, err
	}
	return &Writer{f: f, infos: infos, sizes: sizes}, nil
}

// encodeHeader writes the length and the JSON object, padded with spaces so that
// data starts at a multiple of 8.
func encodeHeader(md map[string]string, infos []TensorInfo) ([]byte, []int, error) {
	var b bytes.Buffer
	text := func(v any) {
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.Encode(v) // strings and numbers cannot fail
		b.Truncate(b.Len() - 1)
	}
	b.WriteByte('{')
	if len(md) > 0 {
		b.WriteString(`"__metadata__":{`)
		for i, k := range slices.Sorted(maps.Keys(md)) {
			if i > 0 {
				b.WriteByte(',')
			}
			text(k)
			b.WriteByte(':')
			text(md[k])
		}
		b.WriteByte('}')
	}
	seen := map[string]bool{"__metadata__": true}
	sizes := make([]int, len(infos))
	at := 0
	for i, t := range infos {
		name, ok := typeNames[t.Type]
		if !ok {
			return nil, nil, fmt.Errorf("tensor %s: safetensors has no type %s", quote(t.Name), t.Type)
		}
		size, err := tensor.Bytes(t.Type, t.Shape)
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
		if seen[t.Name] || t.Name == "" || len(t.Name) > maxNameLen {
			return nil, nil, fmt.Errorf("tensor name %s is listed twice, reserved, empty or too long", quote(t.Name))
		}
		seen[t.Name] = true
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		text(t.Name)
		b.WriteByte(':')
		text(struct {
			DType   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}{name, t.Shape, [2]int{at, at + size}})
		sizes[i] = size
		at += size
	}
	b.WriteByte('}')
	b.Write(bytes.Repeat([]byte{' '}, -b.Len()&7))
	if b.Len() > maxHeader {
		return nil, nil, fmt.Errorf("the header has %d bytes, more than %d", b.Len(), maxHeader)
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(b.Len())), b.Bytes()...), sizes, nil
}

// NextTensor starts the next tensor and returns a writer for its bytes, which
// must be complete before the following tensor or Close.
func (w *Writer) NextTensor() (io.Writer, error) {
	if err := w.complete(); err != nil {
		return nil, err
	}
	if w.next == len(w.infos) {
		return nil, w.f.Fail(fmt.Errorf("more tensors are written than the %d announced", len(w.infos)))
	}
	w.left = w.sizes[w.next]
	w.next++
	return tensorWriter{w, w.next}, nil
}

// complete checks that the tensor in progress has all its bytes.
func (w *Writer) complete() error {
	if w.left > 0 {
		return w.f.Fail(fmt.Errorf("tensor %s lacks %d of its %d bytes", quote(w.infos[w.next-1].Name), w.left, w.sizes[w.next-1]))
	}
	return nil
}

type tensorWriter struct {
	w  *Writer
	no int // which tensor, counted from 1; a stale writer is noticed by it
}

func (t tensorWriter) Write(p []byte) (int, error) {
	w := t.w
	if t.no != w.next || len(p) > w.left {
		return 0, w.f.Fail(fmt.Errorf("tensor %s gets more than its %d bytes", quote(w.infos[t.no-1].Name), w.sizes[t.no-1]))
	}
	n, err := w.f.Write(p)
	w.left -= n
	return n, err
}

// Close checks that every tensor was written and gives the file its name.
func (w *Writer) Close() error {
	if err := w.complete(); err != nil {
		return err
	}
	if w.next < len(w.infos) {
		return w.f.Fail(errors.New("tensor " + quote(w.infos[w.next].Name) + " was not written"))
	}
	return w.f.Commit()
}

// Abort gives up and removes what was written. After Close it does nothing.
func (w *Writer) Abort() { w.f.Abort() }
