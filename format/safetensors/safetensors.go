// Package safetensors reads and writes safetensors files: a JSON header of
// names, types, shapes and extents, then the tensors' bytes. The layout is that
// of huggingface/safetensors; models in several files are joined by the index
// beside them (model.safetensors.index.json).
//
// A file is treated as hostile: the header's length, every shape and every
// extent is checked against the file before it is used, so that a bad file gives
// an ErrFormat error, never a panic or a large allocation.
package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/apr-engine/apr/internal/mmapfile"
	"github.com/apr-engine/apr/tensor"
)

// ErrFormat marks every error about a file's content.
var ErrFormat = errors.New("bad safetensors file")

// Limits. The header's is that of the reference implementation.
const (
	maxHeader  = 100_000_000
	maxDims    = 8
	maxNameLen = 512
	headerAt   = 8
)

// types maps the header's type names to ours; bool and unsigned types are read
// as integers of their width, which is all that copying needs.
var types = map[string]tensor.DType{
	"F64": tensor.F64, "F32": tensor.F32, "F16": tensor.F16, "BF16": tensor.BF16,
	"I64": tensor.I64, "I32": tensor.I32, "I16": tensor.I16, "I8": tensor.I8,
	"U8": tensor.I8, "U16": tensor.I16, "U32": tensor.I32, "U64": tensor.I64, "BOOL": tensor.I8,
}

// Place is where a tensor lies and how its file calls its type.
type Place struct {
	Path   string
	Offset int64  // from the start of that file, in bytes
	Type   string // the header's name, such as "BF16"
}

// File is an opened file, or several opened as one. It is safe for concurrent
// reading.
type File struct {
	// Metadata is the header's "__metadata__", of the first file.
	Metadata map[string]string
	// Tensors lists the tensors in the order of their bytes, file by file. Their
	// Data alias the map: it must not be written, nor used after Close. A scalar
	// has the shape [1].
	Tensors []tensor.Tensor
	// HeaderBytes is the length of the JSON header (of the first file).
	HeaderBytes int

	places []Place
	index  map[string]int
	paths  []string
	size   int64
	maps   []*mmapfile.File
}

// Open maps the file at path.
func Open(path string) (*File, error) {
	m, err := mmapfile.Open(path)
	if errors.Is(err, mmapfile.ErrEmpty) {
		return nil, fmt.Errorf("%s: %w: the file is empty", path, ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	f, err := Parse(m.Bytes())
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.maps, f.paths = []*mmapfile.File{m}, []string{path}
	for i := range f.places {
		f.places[i].Path = path
	}
	return f, nil
}

// Tensor returns the tensor with the given name.
func (f *File) Tensor(name string) (tensor.Tensor, bool) {
	i, ok := f.index[name]
	if !ok {
		return tensor.Tensor{}, false
	}
	return f.Tensors[i], true
}

// Place returns where a tensor's bytes lie.
func (f *File) Place(name string) (Place, bool) {
	i, ok := f.index[name]
	if !ok {
		return Place{}, false
	}
	return f.places[i], true
}

// Paths returns the files.
func (f *File) Paths() []string { return f.paths }

// Size is the size of all files together, in bytes.
func (f *File) Size() int64 { return f.size }

// Close unmaps the files.
func (f *File) Close() error {
	for i := range f.Tensors {
		f.Tensors[i].Data = nil // a late use is a panic instead of a fault
	}
	var errs []error
	for _, m := range f.maps {
		errs = append(errs, m.Close())
	}
	f.maps = nil
	return errors.Join(errs...)
}

// quote shortens and quotes a name from the file for a message.
func quote(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return strconv.Quote(s)
}

// Parse reads a file that is in memory; tensors alias the bytes.
func Parse(data []byte) (*File, error) {
	if len(data) < headerAt {
		return nil, fmt.Errorf("%w: %d bytes are too few for the header's length", ErrFormat, len(data))
	}
	n := binary.LittleEndian.Uint64(data)
	if n > maxHeader {
		return nil, fmt.Errorf("%w: the header's length at byte 0 is %d, more than %d", ErrFormat, n, maxHeader)
	}
	if n > uint64(len(data)-headerAt) {
		return nil, fmt.Errorf("%w: the header's length at byte 0 is %d, the file has %d bytes", ErrFormat, n, len(data))
	}
	f := &File{Metadata: map[string]string{}, index: map[string]int{}, size: int64(len(data)), HeaderBytes: int(n)}
	if err := f.header(data[headerAt:headerAt+int(n)], data[headerAt+int(n):]); err != nil {
		return nil, err
	}
	f.sort()
	if err := f.checkExtents(len(data)); err != nil {
		return nil, err
	}
	return f, nil
}

// header reads the JSON object key by key, so that a repeated key is seen.
func (f *File) header(text, body []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("%w: the header at byte %d is no JSON object", ErrFormat, headerAt)
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return headerError(err)
		}
		name := t.(string) // the decoder accepts no other key
		if name == "__metadata__" {
			var md map[string]string
			if err := d.Decode(&md); err != nil {
				return fmt.Errorf("%w: __metadata__ is not an object of strings", ErrFormat)
			}
			for k, v := range md {
				f.Metadata[k] = v
			}
			continue
		}
		if len(name) == 0 || len(name) > maxNameLen {
			return fmt.Errorf("%w: tensor name %s has %d bytes, want 1 to %d", ErrFormat, quote(name), len(name), maxNameLen)
		}
		if _, dup := f.index[name]; dup {
			return fmt.Errorf("%w: tensor %s occurs twice", ErrFormat, quote(name))
		}
		var e entry
		if err := d.Decode(&e); err != nil {
			return fmt.Errorf("%w: tensor %s: %s", ErrFormat, quote(name), oneLine(err))
		}
		if err := f.add(name, e, body, headerAt+len(text)); err != nil {
			return fmt.Errorf("%w: tensor %s: %w", ErrFormat, quote(name), err)
		}
	}
	if _, err := d.Token(); err != nil {
		return headerError(err)
	}
	// Writers pad the header with spaces to align the data.
	if rest, err := io.ReadAll(d.Buffered()); err != nil || len(bytes.Trim(rest, " ")) != 0 {
		return fmt.Errorf("%w: something follows the header's JSON object", ErrFormat)
	}
	return nil
}

func headerError(err error) error {
	return fmt.Errorf("%w: the header is not valid JSON: %s", ErrFormat, oneLine(err))
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", " ") }

// entry is one tensor of the header.
type entry struct {
	DType   string   `json:"dtype"`
	Shape   []uint64 `json:"shape"`
	Offsets []uint64 `json:"data_offsets"`
}

// add checks an entry and appends its tensor. start is where body begins in the file.
func (f *File) add(name string, e entry, body []byte, start int) error {
	t := tensor.Tensor{Name: name}
	var ok bool
	if t.Type, ok = types[e.DType]; !ok {
		return fmt.Errorf("type %s is not supported", quote(e.DType))
	}
	if len(e.Shape) > maxDims {
		return fmt.Errorf("%d dimensions, want at most %d", len(e.Shape), maxDims)
	}
	for _, d := range e.Shape {
		if d == 0 || d > math.MaxInt {
			return fmt.Errorf("dimension %d in %v", d, e.Shape)
		}
		t.Shape = append(t.Shape, int(d))
	}
	if len(t.Shape) == 0 {
		t.Shape = []int{1}
	}
	size, err := tensor.Bytes(t.Type, t.Shape)
	if err != nil {
		return err
	}
	if len(e.Offsets) != 2 {
		return fmt.Errorf("data_offsets has %d numbers, want 2", len(e.Offsets))
	}
	from, to := e.Offsets[0], e.Offsets[1]
	if from > to || to > uint64(len(body)) {
		return fmt.Errorf("data_offsets %v are outside the %d bytes of data: the file may be truncated", e.Offsets, len(body))
	}
	if to-from != uint64(size) {
		return fmt.Errorf("%d bytes, want %d for %s %v", to-from, size, e.DType, e.Shape)
	}
	t.Data = body[from:to:to]
	f.index[name] = len(f.Tensors)
	f.Tensors = append(f.Tensors, t)
	f.places = append(f.places, Place{Offset: int64(start) + int64(from), Type: e.DType})
	return nil
}

// sort brings tensors into the order of their bytes, which is the order to read
// a disk in.
func (f *File) sort() {
	order := make([]int, len(f.Tensors))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return int(max(-1, min(1, f.places[a].Offset-f.places[b].Offset)))
	})
	tensors, places := make([]tensor.Tensor, len(order)), make([]Place, len(order))
	for to, from := range order {
		tensors[to], places[to] = f.Tensors[from], f.places[from]
		f.index[tensors[to].Name] = to
	}
	f.Tensors, f.places = tensors, places
}

// checkExtents refuses overlaps, holes and bytes that belong to no tensor, as
// the format's specification asks.
func (f *File) checkExtents(end int) error {
	at := int64(headerAt + f.HeaderBytes)
	for i, t := range f.Tensors {
		switch p := f.places[i]; {
		case p.Offset < at:
			return fmt.Errorf("%w: tensor %s at byte %d overlaps the one before, which ends at %d", ErrFormat, quote(t.Name), p.Offset, at)
		case p.Offset > at:
			return fmt.Errorf("%w: the %d bytes before tensor %s belong to no tensor", ErrFormat, p.Offset-at, quote(t.Name))
		}
		at += int64(len(t.Data))
	}
	if at != int64(end) {
		return fmt.Errorf("%w: the last tensor ends at byte %d, the file has %d", ErrFormat, at, end)
	}
	return nil
}
