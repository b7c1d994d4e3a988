//go:build unix

package kerneltest

import (
	"testing"
	"unsafe"
)

// TestSliceGuards touches the element just past the guarded side, and a canary
// on the other side.
func TestSliceGuards(t *testing.T) {
	for _, n := range []int{1, 3, 1000, 1024, 5000} {
		for _, place := range []Place{AtEnd, AtStart} {
			s := Slice[float32](t, n, place)
			if len(s) != n {
				t.Fatalf("%d elements, want %d", len(s), n)
			}
			beyond := func(i int) *float32 { return (*float32)(unsafe.Add(unsafe.Pointer(&s[0]), 4*i)) }
			guarded, free := n, -1
			if place == AtStart {
				guarded, free = -1, n
			}
			if !faults(func() { *beyond(guarded) = 1 }) {
				t.Errorf("n=%d place=%d: element %d can be written", n, place, guarded)
			}
			failed := record(func(t testing.TB) {
				s = Slice[float32](t, n, place)
				*beyond(free) = 1
			})
			if failed == "" {
				t.Errorf("n=%d place=%d: writing element %d went unnoticed", n, place, free)
			}
		}
	}
}
