//go:build !linux

package cuda

import "errors"

var errSystem = errors.New("the CUDA driver is looked for on Linux only")

func openLibrary(string) (uintptr, error)     { return 0, errSystem }
func symbol(uintptr, string) (uintptr, error) { return 0, errSystem }

// invoke cannot be reached: no library opens.
func invoke(uintptr, ...uintptr) int32 { return int32(NotFound) }
