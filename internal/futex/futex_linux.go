package futex

import (
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rest is what other systems need beside the number.
type rest struct{}

// Operations of futex(2), for threads of one process.
const (
	waitPrivate = 128
	wakePrivate = 129
)

// sleep sleeps until it is woken, or returns at once if the number is not value. It may
// return early.
func (w *Word) sleep(value uint32) {
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&w.n)), waitPrivate, uintptr(value), 0, 0, 0)
}

// wakeAll does not tell Go's scheduler, since it returns at once.
func (w *Word) wakeAll() {
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&w.n)), wakePrivate, math.MaxInt32, 0, 0, 0)
}
