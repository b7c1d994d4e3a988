package newfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Folder is a folder in the making: its files go to a temporary folder beside it,
// which takes the name at the end. It is for one goroutine.
type Folder struct {
	path, tmp string
	done      bool
}

// CreateFolder starts a folder that will be at path. What is there stays as it is
// until Commit.
func CreateFolder(path string) (*Folder, error) {
	path = filepath.Clean(path)
	for range 100 {
		name := fmt.Sprintf("%s.%08x.tmp", path, rand.Uint32())
		err := os.Mkdir(name, 0o777)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("create %s: %w", path, plain(err))
		}
		return &Folder{path: path, tmp: name}, nil
	}
	return nil, fmt.Errorf("create %s: no free name for a temporary folder", path)
}

// File is the path under which a file of the folder is written until Commit.
func (f *Folder) File(name string) string { return filepath.Join(f.tmp, name) }

// Write writes a whole file.
func (f *Folder) Write(name string, data []byte) error {
	w, err := Create(f.File(name))
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Commit()
}

// Abort removes what was written; after Commit it does nothing.
func (f *Folder) Abort() {
	if !f.done {
		os.RemoveAll(f.tmp)
	}
}

// Commit gives the folder its name. A folder of that name is replaced with all it
// holds. There is no moment at which the name has a part of either; a computer
// that stops between two renamings leaves both whole, one as path.*.old.
func (f *Folder) Commit() error {
	if f.done {
		return nil
	}
	fail := func(err error) error {
		f.Abort()
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	old := ""
	if list, err := os.ReadDir(f.path); err == nil && len(list) > 0 {
		old = f.tmp[:len(f.tmp)-len("tmp")] + "old"
		if err := os.Rename(f.path, old); err != nil {
			return fail(err)
		}
	} else if err == nil {
		// Renaming replaces an empty folder on Linux, not everywhere.
		if err := os.Remove(f.path); err != nil {
			return fail(err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	if err := os.Rename(f.tmp, f.path); err != nil {
		if old != "" {
			err = errors.Join(err, os.Rename(old, f.path))
		}
		return fail(err)
	}
	f.done = true
	if old != "" {
		if err := os.RemoveAll(old); err != nil {
			return fmt.Errorf("write %s: the former folder remains: %w", f.path, err)
		}
	}
	return nil
}
