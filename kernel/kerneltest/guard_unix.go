//go:build unix

package kerneltest

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Place says where a slice lies within its mapping.
type Place int

const (
	// AtEnd puts the last element right before an unmapped page.
	AtEnd Place = iota
	// AtStart puts the first element right after an unmapped page.
	AtStart
)

const canary = 0xA5

// Slice returns n zero elements in memory of their own, with an unmapped page
// against the side that place names: a read or write past it faults. The other
// side has canaries, which are checked when the test ends.
func Slice[T any](t testing.TB, n int, place Place) []T {
	t.Helper()
	var elem T
	page := unix.Getpagesize()
	bytes := n * int(unsafe.Sizeof(elem))
	inner := (bytes + 64 + page - 1) / page * page // room for at least 64 canaries
	m, err := unix.Mmap(-1, 0, inner+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("map %d bytes: %v", inner+2*page, err)
	}
	for _, guard := range [][]byte{m[:page], m[page+inner:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatalf("protect guard page: %v", err)
		}
	}
	body := m[page : page+inner]
	off := 0
	if place == AtEnd {
		off = inner - bytes
	}
	rest := [][]byte{body[:off], body[off+bytes:]}
	for _, r := range rest {
		for i := range r {
			r[i] = canary
		}
	}
	t.Cleanup(func() {
		for _, r := range rest {
			for i := range r {
				if r[i] != canary {
					t.Errorf("canary at byte %d beside a slice of %d elements was overwritten", i, n)
					break
				}
			}
		}
		if err := unix.Munmap(m); err != nil {
			t.Errorf("unmap: %v", err)
		}
	})
	if n == 0 {
		return []T{}
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&body[off])), n)
}
