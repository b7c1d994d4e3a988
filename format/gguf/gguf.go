// Package gguf reads and writes GGUF files, versions 2 and 3, little-endian: an
// ordered list of typed metadata, a list of tensors, and the tensors' bytes. The
// layout is the one in ggml's docs/gguf.md and src/gguf.cpp.
//
// A file is treated as hostile: every count, length and offset is checked
// against the file's size before it is used, so that a bad file gives an
// ErrFormat error, never a panic or a large allocation.
//
// Where the format leaves room, this package decides as follows. Tensors may
// come in any order and with gaps, but may not overlap (a model that uses one
// tensor twice names it once). A dimension of 0 and a tensor without dimensions
// are refused, as are duplicate keys and names. Padding after the last tensor
// may be missing.
package gguf

import (
	"errors"
	"fmt"

	"github.com/apr-engine/apr/internal/mmapfile"
	"github.com/apr-engine/apr/tensor"
)

// ErrFormat marks every error about a file's content, as opposed to one about
// reaching or writing it.
var ErrFormat = errors.New("bad GGUF file")

// Limits of the format. llama.cpp has the same dimensions, and names of at most 63 bytes.
const (
	maxDims          = 4
	maxNameLen       = 255 // some writers go beyond llama.cpp's 63
	defaultAlignment = 32
	magic            = "GGUF"
	headerLen        = 24 // magic, version, tensor count, key count
)

// Metadata keys that the container itself gives a meaning.
const (
	keyAlignment    = "general.alignment"
	keySplitNo      = "split.no"
	keySplitCount   = "split.count"
	keySplitTensors = "split.tensors.count"
)

// File is an opened GGUF file, or a set of shards opened as one. It is safe for
// concurrent reading.
type File struct {
	// Version is the format version, 2 or 3 (of the first shard).
	Version uint32
	// Metadata is that of the first shard, which holds the whole model's.
	Metadata *Metadata
	// Tensors lists the tensors in file order, shard by shard. Their Data alias
	// the mapped file: it must not be written, nor used after Close.
	Tensors []tensor.Tensor

	alignment int
	places    []Place // beside Tensors
	index     map[string]int
	paths     []string
	size      int64
	maps      []*mmapfile.File
}

// Place is where a tensor's bytes lie.
type Place struct {
	Path   string // the shard; empty if the bytes were parsed from memory
	Offset int64  // from the start of that file, in bytes
}

// Open maps the file at path. If its metadata says that it is one shard of
// several, the others are opened beside it by name, whichever was given. The
// error is fs.ErrNotExist for a missing file or shard and ErrFormat for a bad one.
func Open(path string) (*File, error) {
	f, err := openOne(path)
	if err != nil {
		return nil, err
	}
	if v, ok := f.Metadata.Value(keySplitCount); !ok || v.isWhole() {
		return f, nil
	}
	return openSet(path, f)
}

// openOne maps and parses a single file.
func openOne(path string) (*File, error) {
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
	f.maps, f.paths, f.Metadata.path = []*mmapfile.File{m}, []string{path}, path
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

// Place returns where a tensor's bytes lie, for listings and messages.
func (f *File) Place(name string) (Place, bool) {
	i, ok := f.index[name]
	if !ok {
		return Place{}, false
	}
	return f.places[i], true
}

// Paths returns the files, in shard order; empty after Parse.
func (f *File) Paths() []string { return f.paths }

// Size is the size of all files together, in bytes.
func (f *File) Size() int64 { return f.size }

// Alignment is the multiple, in bytes, at which tensors start (in the first shard).
func (f *File) Alignment() int { return f.alignment }

// Prefetch asks the system to start reading the files in the background. It is
// a hint: nothing depends on it.
func (f *File) Prefetch() error {
	var errs []error
	for _, m := range f.maps {
		errs = append(errs, m.Advise(0, len(m.Bytes()), mmapfile.WillNeed))
	}
	return errors.Join(errs...)
}

// Close unmaps the files. Tensor data must not be used afterwards; metadata may.
func (f *File) Close() error {
	// Without data a late use of f.Tensors is a Go panic; copies would fault.
	for i := range f.Tensors {
		f.Tensors[i].Data = nil
	}
	var errs []error
	for _, m := range f.maps {
		errs = append(errs, m.Close())
	}
	f.maps = nil
	return errors.Join(errs...)
}
