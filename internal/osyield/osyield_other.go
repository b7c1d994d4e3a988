//go:build !linux

// Package osyield gives the processor to another thread of the machine.
package osyield

import "runtime"

// Yield lets another goroutine run; there is no portable call for more.
func Yield() { runtime.Gosched() }
