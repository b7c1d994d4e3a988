//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"sync/atomic"
)

// A mistake that the library does not expect, a device lost inside a call that cannot
// tell it among them, is a panic in Rust, which a C function cannot pass on: it prints
// where it was, and calls abort. On linux/amd64 such a call returns to Go instead. What
// the library holds at that moment, locks for one, stays as it is, so nothing of it is
// called again in this process: every device is lost.

// abandoned is the error of all calls once the library has given up.
var abandoned struct {
	atomic.Pointer[error]
	gone chan struct{} // closed then
}

func init() { abandoned.gone = make(chan struct{}) }

// given returns why the library is not called any more; nil while it is.
func given() error {
	if e := abandoned.Load(); e != nil {
		return *e
	}
	return nil
}

// giveUp marks the library as unusable, because it ended a call of f by abort.
func giveUp(f uintptr) {
	name := "a function"
	for n, address := range symbols {
		if *address == f {
			name = n
		}
	}
	err := fmt.Errorf("%w: wgpu-native gave up inside %s", ErrLost, name)
	if abandoned.CompareAndSwap(nil, &err) {
		close(abandoned.gone)
	}
}
