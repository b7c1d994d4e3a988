//go:build (linux || darwin) && (amd64 || arm64) && !(linux && amd64)

package wgpu

import "github.com/ebitengine/purego"

// install has nothing to do: an abort inside the library ends the process here, because
// the assembly that catches it is written for Linux on amd64.
func install() error { return nil }

// call calls a function of the library. What is converted to uintptr in the
// call's own expression stays alive and in place until it returns.
//
//go:uintptrescapes
func call(f uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(f, args...)
	return r
}

// bindStructs binds the functions that take structures by value or return a float.
func bindStructs(address func(name string) (uintptr, error)) error {
	for name, f := range map[string]any{
		"wgpuAdapterRequestDevice":    &requestDevice,
		"wgpuBufferMapAsync":          &mapAsync,
		"wgpuDevicePopErrorScope":     &popScope,
		"wgpuQueueGetTimestampPeriod": &timestampPeriod,
	} {
		a, err := address(name)
		if err != nil {
			return err
		}
		purego.RegisterFunc(f, a)
	}
	return nil
}
