// Package source opens model files for the commands that look inside them: one
// view of metadata and tensors, whatever the container.
package source

import (
	"fmt"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/tensor"
)

// Model is an open model file. It is safe for concurrent reading.
type Model struct {
	// Path is the path that was opened.
	Path string
	// Format names the container: "GGUF v3".
	Format string
	// Files are the files it consists of: several for a set of shards.
	Files []string
	// Size is that of all files together, in bytes.
	Size int64
	// Metadata holds keys and values, under GGUF's names.
	Metadata *gguf.Metadata
	// Tensors are in file order. Their Data must not be used after Close.
	Tensors []tensor.Tensor

	index map[string]int
	close func() error
}

// Open opens the model file at path. The error is fs.ErrNotExist for a missing
// file and the container's format error, such as gguf.ErrFormat, for a bad one.
func Open(path string) (*Model, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	return FromGGUF(path, f), nil
}

// FromGGUF is the view of an open GGUF file, which the view's Close closes.
func FromGGUF(path string, f *gguf.File) *Model {
	m := New(f.Metadata, f.Tensors)
	m.Path, m.Format, m.Files, m.Size, m.close = path, fmt.Sprintf("GGUF v%d", f.Version), f.Paths(), f.Size(), f.Close
	return m
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
