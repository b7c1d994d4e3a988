//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly || solaris)

package mmapfile

import (
	"io"
	"os"
)

// load reads the first size bytes of f: this system has no mmap that we use.
func load(f *os.File, size int) (data []byte, mapped bool, err error) {
	data = make([]byte, size)
	_, err = io.ReadFull(f, data)
	return data, false, err
}

func unload([]byte) error { return nil }

func advise([]byte, Hint) error { return nil }
