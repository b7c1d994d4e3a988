// Package apr reads and writes .apr model files, version 2: a header of 64
// bytes, metadata as a JSON object, an index of tensors and the tensors' bytes.
// docs/formats.md describes the layout and where writers of it disagree.
//
// Two kinds of writers are read. One sorts the index, pads it and stores
// checksums; the other does none of this and puts GGML's type numbers where the
// format has others. Numbers that mean different types are told apart by the
// tensor's size, and refused if that fits none.
//
// A file is treated as hostile: every count, length and offset is checked
// against the file's size before it is used, so that a bad file gives an
// ErrFormat error, never a panic or a large allocation.
package apr

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/apr-engine/apr/internal/mmapfile"
	"github.com/apr-engine/apr/tensor"
)

// ErrFormat marks every error about a file's content.
var ErrFormat = errors.New("bad .apr file")

// Magic starts every file that this package writes.
const Magic = "APR\x00"

// Limits on what a file may claim.
const (
	headerLen   = 64
	alignment   = 64
	maxMetadata = 512 << 20 // vocabulary and merges of 150,000 tokens take about 8 MB
	maxDims     = 8
	maxNameLen  = 256
	maxTensors  = 1 << 20
)

// Flags of the header. Writers set few of them, so they are no evidence of
// what a file holds.
type Flags uint16

// The flags, by bit.
const (
	FlagLZ4 Flags = 1 << iota
	FlagZSTD
	FlagEncrypted
	FlagSigned
	FlagSharded
	FlagQuantized
	FlagFilterbank
	FlagModelCard
	FlagStreaming
	FlagVocab
	FlagRowMajor
	FlagColumnMajor
)

// Header is the fixed part of a file.
type Header struct {
	Magic          string
	Major, Minor   uint8
	Flags          Flags
	TensorCount    uint32
	MetadataOffset uint64
	MetadataSize   uint32 // without padding
	IndexOffset    uint64
	DataOffset     uint64
	Checksum       uint32 // of the header; 0 from writers that store none
}

// Tensor is one entry of the index with its bytes, which alias the mapped file.
type Tensor struct {
	Name string
	// Code is the type number in the file, Type what it means.
	Code  uint8
	Type  Type
	Shape []int // slowest-varying first
	// Padded says that each row of a block type fills up to whole blocks, so
	// that rows are longer than the last dimension.
	Padded bool
	Offset int64 // from the start of the file, in bytes
	Data   []byte
}

// String gives "name TYPE [a, b]", the form used in messages.
func (t Tensor) String() string {
	x := tensor.Tensor{Shape: t.Shape}
	return t.Name + " " + t.Type.String() + x.String()[len(" "+tensor.DType(0).String()):]
}

// File is an opened file. It is safe for concurrent reading.
type File struct {
	Header   Header
	Metadata *Metadata
	// Tensors lists the tensors in the order of the index.
	Tensors []Tensor
	// Warnings says what is unusual about the file and was accepted.
	Warnings []string
	// IndexEnd is where the last entry of the index ends, in bytes; DataEnd the
	// last tensor.
	IndexEnd, DataEnd int64
	// Footer is where the checksum of the whole file lies, or -1 without one.
	Footer int64

	data  []byte
	index map[string]int
	path  string
	m     *mmapfile.File
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
	f.m, f.path = m, path
	return f, nil
}

// Tensor returns the tensor with the given name.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.index[name]
	if !ok {
		return Tensor{}, false
	}
	return f.Tensors[i], true
}

// Path is the file's path; empty after Parse.
func (f *File) Path() string { return f.path }

// Size is the file's size in bytes.
func (f *File) Size() int64 { return int64(len(f.data)) }

// Prefetch asks the system to start reading the file. It is a hint.
func (f *File) Prefetch() error {
	if f.m == nil {
		return nil
	}
	return f.m.Advise(0, len(f.data), mmapfile.WillNeed)
}

// Close unmaps the file. Tensor data must not be used afterwards; metadata may.
func (f *File) Close() error {
	for i := range f.Tensors {
		f.Tensors[i].Data = nil // a late use is a panic instead of a fault
	}
	f.data = nil
	if f.m == nil {
		return nil
	}
	return f.m.Close()
}

// quote shortens and quotes a name from the file for a message.
func quote(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return strconv.Quote(s)
}
