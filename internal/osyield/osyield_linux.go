// Package osyield gives the processor to another thread of the machine.
package osyield

import "golang.org/x/sys/unix"

// Yield asks the operating system to run another thread on this processor. It
// is for a waiting loop whose partner may have lost its processor to another
// process: runtime.Gosched only looks for goroutines of this one.
func Yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
