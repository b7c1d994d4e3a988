package wgpu

import (
	"testing"
	"unsafe"
)

// The library's empty texts have addresses that are none; other texts end by
// length or at a zero byte.
func TestLibraryText(t *testing.T) {
	bytes := []byte("lost\x00more")
	at := uintptr(unsafe.Pointer(&bytes[0]))
	for name, tt := range map[string]struct {
		v    libraryText
		want string
	}{
		"none":           {libraryText{}, ""},
		"empty":          {libraryText{1, 0}, ""},
		"by length":      {libraryText{at, 2}, "lo"},
		"to a zero byte": {libraryText{at, nulTerminated}, "lost"},
	} {
		if got := tt.v.text(); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
