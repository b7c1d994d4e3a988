// Package mmapfile maps whole files read-only into memory, so that a model of
// many gigabytes opens at once and its pages are shared between processes and
// dropped by the kernel under pressure.
//
// A mapping follows the file: if another process truncates it, touching the
// lost pages kills this process (SIGBUS). Replace model files by renaming, never
// by writing over them.
package mmapfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
)

// ErrNotRegular reports a path that names a directory, a pipe or a device.
var ErrNotRegular = errors.New("not a regular file")

// ErrEmpty reports a file without any bytes, which cannot be mapped.
var ErrEmpty = errors.New("file is empty")

// Hint tells the kernel how a range will be read. It changes speed, never results.
type Hint int

// The hints that every supported system understands.
const (
	Normal     Hint = iota // no special treatment
	Sequential             // read ahead generously, drop pages soon after
	Random                 // do not read ahead
	WillNeed               // start reading now, in the background
	DontNeed               // pages may be dropped; they are read again when touched
)

// File is one mapped file. Its methods may be called from several goroutines,
// but Close must not run while others still read the bytes.
type File struct {
	path   string
	data   []byte
	mapped bool // data came from mmap and has to be unmapped
}

// Open maps the file at path. Nothing is read until it is touched, except on
// systems without mmap, where the whole file is read here. The error satisfies
// errors.Is with fs.ErrNotExist, fs.ErrPermission, ErrNotRegular or ErrEmpty
// where that is the cause.
func Open(path string) (*File, error) {
	// Ask before opening: opening a pipe for reading blocks until someone writes.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, cause(err))
	}
	if err := regular(path, info); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, cause(err))
	}
	defer f.Close() // a mapping keeps the file alive by itself
	// Ask again: the path may have been replaced since.
	if info, err = f.Stat(); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, cause(err))
	}
	if err := regular(path, info); err != nil {
		return nil, err
	}
	size := info.Size()
	if size == 0 {
		return nil, fmt.Errorf("open %s: %w", path, ErrEmpty)
	}
	if size > math.MaxInt {
		return nil, fmt.Errorf("open %s: %d bytes do not fit this machine's address space", path, size)
	}
	data, mapped, err := load(f, int(size))
	if err != nil {
		return nil, fmt.Errorf("open %s: map %d bytes: %w", path, size, err)
	}
	return &File{path: path, data: data, mapped: mapped}, nil
}

// regular refuses what cannot be mapped.
func regular(path string, info fs.FileInfo) error {
	switch {
	case info.Mode().IsRegular():
		return nil
	case info.IsDir():
		return fmt.Errorf("open %s: is a directory: %w", path, ErrNotRegular)
	}
	return fmt.Errorf("open %s: %w (%s)", path, ErrNotRegular, info.Mode().Type())
}

// cause drops the operation and path that the os package puts into its errors,
// since Open adds its own.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// Path returns the path given to Open.
func (f *File) Path() string { return f.path }

// Bytes returns the file's content; nil after Close. Writing to it faults.
func (f *File) Bytes() []byte { return f.data }

// Advise passes a hint for n bytes from offset off, widened to whole pages. A
// range outside the file is an error; on systems without mmap it does nothing.
func (f *File) Advise(off, n int, hint Hint) error {
	if off < 0 || n < 0 || off > len(f.data) || n > len(f.data)-off {
		return fmt.Errorf("advise %s: range of %d bytes at %d is outside the file of %d bytes", f.path, n, off, len(f.data))
	}
	if n == 0 || !f.mapped {
		return nil
	}
	// The mapping starts on a page, so rounding the offset down stays inside it.
	start := off &^ (os.Getpagesize() - 1)
	if err := advise(f.data[start:off+n], hint); err != nil {
		return fmt.Errorf("advise %s: %w", f.path, err)
	}
	return nil
}

// Close unmaps the file. Slices of Bytes must not be used afterwards: reading
// them faults. A second Close does nothing.
func (f *File) Close() error {
	data := f.data
	f.data = nil
	if data == nil || !f.mapped {
		return nil
	}
	if err := unload(data); err != nil {
		return fmt.Errorf("close %s: %w", f.path, err)
	}
	return nil
}
