// Package source opens model files for the commands that look inside them: one
// view of metadata and tensors, whatever the container.
package source

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/format/safetensors"
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
	// Problems says what keeps a Hugging Face folder from being imported.
	Problems []string
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

// Open opens the model at path: GGUF, .apr or safetensors, by what the first bytes
// say, or a Hugging Face folder, or the index of safetensors in several files.
// Tensors of an .apr file get GGUF's names, those of safetensors keep Hugging Face's.
// A folder has the metadata of its config.json and tokenizer, a single file none. The error is fs.ErrNotExist for a missing
// file, and for a bad one that of modelfile.Open or safetensors.ErrFormat.
func Open(path string) (*Model, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return openFolder(path, path, safetensors.OpenFolder)
	}
	if strings.HasSuffix(path, ".index.json") {
		return openFolder(path, filepath.Dir(path), safetensors.OpenIndex)
	}
	raw, err := mmapfile.Open(path)
	if errors.Is(err, mmapfile.ErrEmpty) {
		return openFile(path) // says so
	}
	if err != nil {
		return nil, err
	}
	m, err := annotate.New(raw.Bytes())
	isSafetensors := err == nil && m.Format == "safetensors"
	if err := raw.Close(); err != nil {
		return nil, err
	}
	if isSafetensors {
		return openSafetensors(path, safetensors.Open)
	}
	return openFile(path) // also says what is wrong with a file of no format
}

// openFolder opens the weights of a Hugging Face folder, with the metadata that
// config.json and the tokenizer give. A folder without them, or with some that
// cannot be used, has none.
func openFolder(path, dir string, open func(string) (*safetensors.File, error)) (*Model, error) {
	m, err := openSafetensors(path, open)
	if err != nil {
		return nil, err
	}
	v, err := modelfile.ViewFolder(dir)
	if err != nil {
		return m, nil // the weights alone can be looked at
	}
	if v.Metadata != nil {
		m.Metadata = v.Metadata
	}
	for _, p := range v.Problems {
		m.Problems = append(m.Problems, p.Err.Error())
	}
	m.Warnings = v.Warnings
	return m, v.Close()
}

// openSafetensors opens one file or a set, with one of the package's functions.
func openSafetensors(path string, open func(string) (*safetensors.File, error)) (*Model, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	m := New(gguf.NewMetadata(), f.Tensors)
	m.Path, m.Format, m.Files, m.Size, m.close = path, "safetensors", f.Paths(), f.Size(), f.Close
	m.place = func(name string) (gguf.Place, bool) {
		p, ok := f.Place(name)
		return gguf.Place{Path: p.Path, Offset: p.Offset}, ok
	}
	return m, nil
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
