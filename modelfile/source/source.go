// Package source opens model files for the commands that look inside them: one
// view of metadata and tensors, whatever the container.
package source

import (
	"errors"
	"fmt"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/internal/mmapfile"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/modelfile/annotate"
	"github.com/apr-engine/apr/tensor"
)

// Model is an open model file. It is safe for concurrent reading.
type Model struct {
	// Path is the path that was opened.
	Path string
	// Format names the container: "GGUF v3", "safetensors".
	Format string
	// Files are the files it consists of: several for a set of shards.
	Files []string
	// Size is that of all files together, in bytes.
	Size int64
	// Metadata holds keys and values, under GGUF's names; empty if the container
	// has none.
	Metadata *gguf.Metadata
	// Warnings says what is unusual about the file and was accepted.
	Warnings []string
	// Tensors are in file order, those of types that only .apr has as the nearest
	// type of GGUF. Their Data must not be used after Close.
	Tensors []tensor.Tensor

	index map[string]int
	place func(name string) (gguf.Place, bool)
	// stored names the type that a tensor has in the file; nil for that of Tensors.
	stored func(name string) string
	close  func() error
}

// Open opens the model file at path: GGUF, .apr or safetensors, by what its first
// bytes say. A safetensors file has no metadata, and its tensors have the names of
// Hugging Face. The error is fs.ErrNotExist for a missing file, and for a bad one
// gguf.ErrFormat, annotate.ErrUnknown or annotate.ErrStructure.
func Open(path string) (*Model, error) {
	raw, err := mmapfile.Open(path)
	if errors.Is(err, mmapfile.ErrEmpty) {
		return openFile(path) // says so
	}
	if err != nil {
		return nil, err
	}
	m, err := annotate.New(raw.Bytes())
	if err != nil || m.Format != "safetensors" {
		raw.Close()
		return openFile(path) // also says what is wrong with a file of no format
	}
	if m.Fault != nil {
		raw.Close()
		return nil, fmt.Errorf("%s: %w", path, m.Fault)
	}
	view, err := fromMap(path, m)
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	view.close = raw.Close
	return view, nil
}

// openFile opens a container that the engine runs: tensors have GGUF's names.
func openFile(path string) (*Model, error) {
	f, err := modelfile.Open(path)
	if err != nil {
		return nil, err
	}
	m := New(f.Metadata, f.Tensors)
	m.Path, m.Format, m.Files, m.Size, m.close = path, f.Format, f.Paths(), f.Size(), f.Close
	m.Warnings, m.place, m.stored = f.Warnings, f.Place, f.StoredType
	return m, nil
}

// fromMap is the view of a file that only its map describes.
func fromMap(path string, m *annotate.Map) (*Model, error) {
	tensors := make([]tensor.Tensor, 0, len(m.Tensors))
	places := map[string]gguf.Place{}
	for i := range m.Tensors {
		t := &m.Tensors[i]
		if !t.Inside(m.Size()) {
			return nil, fmt.Errorf("%w: tensor %s: its %d bytes at byte %d go past the end of the file at %d", annotate.ErrStructure, t.Name, t.Size, t.Offset, m.Size())
		}
		x, ok := m.Tensor(t)
		if !ok {
			return nil, fmt.Errorf("%w: tensor %s: type %s with shape %v cannot be decoded", annotate.ErrStructure, t.Name, t.TypeName, t.Shape)
		}
		tensors = append(tensors, x)
		places[t.Name] = gguf.Place{Path: path, Offset: int64(t.Offset)}
	}
	view := New(gguf.NewMetadata(), tensors)
	view.Path, view.Format, view.Files, view.Size = path, m.Format, []string{path}, int64(m.Size())
	view.place = func(name string) (gguf.Place, bool) { p, ok := places[name]; return p, ok }
	return view, nil
}

// New is a view of metadata and tensors that are in memory.
func New(md *gguf.Metadata, tensors []tensor.Tensor) *Model {
	m := &Model{Metadata: md, Tensors: tensors, index: make(map[string]int, len(tensors))}
	for i, t := range tensors {
		m.index[t.Name] = i
		m.Size += int64(len(t.Data))
	}
	return m
}

// Tensor returns the tensor with the given name.
func (m *Model) Tensor(name string) (tensor.Tensor, bool) {
	i, ok := m.index[name]
	if !ok {
		return tensor.Tensor{}, false
	}
	return m.Tensors[i], true
}

// StoredType names the type that a tensor has in the file, which for types that
// only .apr has is not that of Tensors.
func (m *Model) StoredType(t tensor.Tensor) string {
	if m.stored == nil {
		return t.Type.String()
	}
	return m.stored(t.Name)
}

// Place returns where a tensor's bytes lie; false if it is in memory alone.
func (m *Model) Place(name string) (gguf.Place, bool) {
	if m.place == nil {
		return gguf.Place{}, false
	}
	return m.place(name)
}

// Architecture is general.architecture; empty if the file does not say.
func (m *Model) Architecture() string {
	s, _ := m.Metadata.String("general.architecture")
	return s
}

// Close releases the file.
func (m *Model) Close() error {
	if m.close == nil {
		return nil
	}
	return m.close()
}
