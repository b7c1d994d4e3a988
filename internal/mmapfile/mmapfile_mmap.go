//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly || solaris

package mmapfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// load maps the first size bytes of f, shared and read-only.
func load(f *os.File, size int) (data []byte, mapped bool, err error) {
	data, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	return data, err == nil, err
}

func unload(data []byte) error { return unix.Munmap(data) }

func advise(data []byte, hint Hint) error {
	advice := unix.MADV_NORMAL
	switch hint {
	case Sequential:
		advice = unix.MADV_SEQUENTIAL
	case Random:
		advice = unix.MADV_RANDOM
	case WillNeed:
		advice = unix.MADV_WILLNEED
	case DontNeed:
		advice = unix.MADV_DONTNEED
	}
	return unix.Madvise(data, advice)
}
