//go:build !unix

package parity

import "io/fs"

// inode is not known on this system; path, size and time must do.
func inode(fs.FileInfo) uint64 { return 0 }
