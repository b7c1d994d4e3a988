// Package newfile writes a file that appears under its name only when it is
// complete: the bytes go to a temporary file beside it, which takes the name at
// the end. Until then a file of that name stays as it is.
package newfile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
)

// File is a file in the making. Its first error sticks and removes what was
// written. It is for one goroutine.
type File struct {
	path, tmp string
	f         *os.File
	out       *Blocks
	n         int64
	err       error
	done      bool
}

// Create starts a file that will be at path.
func Create(path string) (*File, error) {
	// Not os.CreateTemp: its mode 0600 would make the result unreadable to others.
	for range 100 {
		name := fmt.Sprintf("%s.%08x.tmp", path, rand.Uint32())
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("create %s: %w", path, plain(err))
		}
		return &File{path: path, tmp: name, f: f, out: NewBlocks(f)}, nil
	}
	return nil, fmt.Errorf("create %s: no free name for a temporary file", path)
}

// plain is an error of the system without the temporary name.
func plain(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}

// Path is the name that the file will have.
func (f *File) Path() string { return f.path }

// Offset is the number of bytes written so far.
func (f *File) Offset() int64 { return f.n }

// Write appends bytes.
func (f *File) Write(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	if f.done {
		return 0, fmt.Errorf("write %s: already closed", f.path)
	}
	n, err := f.out.Write(p)
	f.n += int64(n)
	if err != nil {
		return n, f.Fail(err)
	}
	return n, nil
}

// Pad appends zeros up to the next multiple of alignment, a power of two.
func (f *File) Pad(alignment int) error {
	_, err := f.Write(make([]byte, int(-f.n&int64(alignment-1))))
	return err
}

// Fail gives up: the temporary file is removed. It returns the first error,
// which names the file.
func (f *File) Fail(err error) error {
	if f.err == nil && !f.done {
		f.err = fmt.Errorf("write %s: %w", f.path, err)
		f.f.Close()
		os.Remove(f.tmp)
	}
	return f.err
}

// Abort gives up; after Commit it does nothing, so it can be deferred.
func (f *File) Abort() { f.Fail(errors.New("aborted")) }

// Commit makes the file durable and gives it its name.
func (f *File) Commit() error {
	if f.err != nil || f.done {
		return f.err
	}
	if err := f.out.Flush(); err != nil {
		return f.Fail(err)
	}
	// Without this a crash soon after could leave the name on empty blocks.
	if err := f.f.Sync(); err != nil {
		return f.Fail(err)
	}
	if err := f.f.Close(); err != nil {
		return f.Fail(err)
	}
	if err := os.Rename(f.tmp, f.path); err != nil {
		return f.Fail(err)
	}
	f.done = true
	return nil
}
