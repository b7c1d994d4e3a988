package wgpu

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"

	"github.com/ebitengine/purego"
)

// libraryGz is the shared library; see README.md.
//
//go:embed libwgpu_native.so.gz
var libraryGz []byte

// sysMemfdCreate is the number of memfd_create(2), which package syscall lacks.
const sysMemfdCreate = 319

// openEmbedded loads the embedded library from an anonymous file in memory, so
// that nothing is written to a disk.
func openEmbedded() (uintptr, error) {
	name := append([]byte("wgpu_native"), 0)
	const closeOnExec = 1
	fd, _, errno := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(&name[0])), closeOnExec, 0)
	if errno != 0 {
		return 0, fmt.Errorf("memfd_create: %w", errno)
	}
	f := os.NewFile(fd, "wgpu_native")
	defer f.Close()
	z, err := gzip.NewReader(bytes.NewReader(libraryGz))
	if err != nil {
		return 0, err
	}
	if _, err := io.Copy(f, z); err != nil {
		return 0, err
	}
	return purego.Dlopen(fmt.Sprintf("/proc/self/fd/%d", fd), purego.RTLD_NOW|purego.RTLD_LOCAL)
}
