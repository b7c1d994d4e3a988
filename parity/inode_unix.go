//go:build unix

package parity

import (
	"io/fs"
	"syscall"
)

// inode distinguishes a file from another one that was moved into its place.
func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Ino)
	}
	return 0
}
