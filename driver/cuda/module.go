package cuda

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"
)

type (
	// Module is compiled code on a device.
	Module uintptr
	// Function is a kernel of a module.
	Function uintptr
)

// Options of the driver's compiler (CUjit_option).
const (
	jitInfoLog      = 3
	jitInfoLogSize  = 4
	jitErrorLog     = 5
	jitErrorLogSize = 6
	jitLogVerbose   = 12
	jitSplitCompile = 34 // threads of the compiler, 0 for all processors
	jitLogBytes     = 64 << 10
)

// splitVersion is the first driver with jitSplitCompile: CUDA 12.9.
const splitVersion = 12090

// LoadModule compiles PTX text, or takes machine code, and returns the compiler's
// log. The driver keeps what it has compiled for the next process. It compiles one module
// at a time, whoever asks, but newer ones compile a module's kernels on several threads:
// all processors, if parallel is set. An error holds the compiler's own.
func (c *Context) LoadModule(image []byte, parallel bool) (m Module, log string, err error) {
	if parallel = parallel && c.Version >= splitVersion; parallel {
		if m, log, err = c.loadModule(image, true); !IsCode(err, InvalidValue) {
			return m, log, err
		}
		// A driver that does not know the option after all.
	}
	return c.loadModule(image, false)
}

func (c *Context) loadModule(image []byte, parallel bool) (m Module, log string, err error) {
	text := append(append(make([]byte, 0, len(image)+1), image...), 0)
	info, bad := make([]byte, jitLogBytes), make([]byte, jitLogBytes)
	// The values hold addresses as integers, where the collector does not see them.
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info[0])
	pin.Pin(&bad[0])
	options := []int32{jitInfoLog, jitInfoLogSize, jitErrorLog, jitErrorLogSize, jitLogVerbose}
	values := []uintptr{uintptr(unsafe.Pointer(&info[0])), jitLogBytes, uintptr(unsafe.Pointer(&bad[0])), jitLogBytes, 1}
	if parallel {
		options, values = append(options, jitSplitCompile), append(values, 0)
	}
	p := new(Module)
	err = c.call("cuModuleLoadDataEx", c.moduleLoadDataEx, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&text[0])),
		uintptr(len(options)), uintptr(unsafe.Pointer(&options[0])), uintptr(unsafe.Pointer(&values[0])))
	if err != nil {
		if why := strings.TrimSpace(cString(&bad[0])); why != "" {
			err = fmt.Errorf("%w: %s", err, why)
		}
	}
	return *p, cString(&info[0]), err
}

// Unload frees a module.
func (c *Context) Unload(m Module) error {
	return c.call("cuModuleUnload", c.moduleUnload, uintptr(m))
}

// Function finds a kernel by name.
func (c *Context) Function(m Module, name string) (Function, error) {
	text := append([]byte(name), 0)
	f := new(Function)
	err := c.call("cuModuleGetFunction("+name+")", c.moduleGetFunction, uintptr(unsafe.Pointer(f)), uintptr(m), uintptr(unsafe.Pointer(&text[0])))
	return *f, err
}

// Attributes of a function (CUfunction_attribute).
const (
	funcSharedBytes  = 1 // static
	funcLocalBytes   = 3
	funcRegisters    = 4
	funcDynamicSmem  = 8
	funcSmemCarveout = 9
)

// AllowShared lets a kernel ask for n bytes of dynamic shared memory, where that
// and its static memory are more than the 48 KiB that it has without asking. What
// it may ask for never becomes less: launches that are prepared stay possible.
func (c *Context) AllowShared(f Function, n int) error {
	if n <= c.shared[f] {
		return nil
	}
	static := new(int32)
	if err := c.call("cuFuncGetAttribute", c.funcGetAttribute, uintptr(unsafe.Pointer(static)), funcSharedBytes, uintptr(f)); err != nil {
		return err
	}
	if n+int(*static) <= defaultShared {
		return nil
	}
	if err := c.call("cuFuncSetAttribute", c.funcSetAttribute, uintptr(f), funcDynamicSmem, uintptr(n)); err != nil {
		return err
	}
	c.shared[f] = n
	return nil
}

// defaultShared is the shared memory in bytes that a block gets without asking.
const defaultShared = 48 << 10

// PreferShared asks for a share, in percent, of a multiprocessor's memory as
// shared memory.
func (c *Context) PreferShared(f Function, percent int) error {
	return c.call("cuFuncSetAttribute", c.funcSetAttribute, uintptr(f), funcSmemCarveout, uintptr(percent))
}

// Registers is the number of registers of each thread of a kernel, and the bytes
// of local memory, which should be none.
func (c *Context) Registers(f Function) (registers, local int, err error) {
	v := new(int32)
	if err := c.call("cuFuncGetAttribute", c.funcGetAttribute, uintptr(unsafe.Pointer(v)), funcRegisters, uintptr(f)); err != nil {
		return 0, 0, err
	}
	registers = int(*v)
	err = c.call("cuFuncGetAttribute", c.funcGetAttribute, uintptr(unsafe.Pointer(v)), funcLocalBytes, uintptr(f))
	return registers, int(*v), err
}

// Occupancy is how many blocks of a kernel a multiprocessor holds at once.
func (c *Context) Occupancy(f Function, threads, shared int) (int, error) {
	v := new(int32)
	err := c.call("cuOccupancyMaxActiveBlocksPerMultiprocessor", c.occupancy, uintptr(unsafe.Pointer(v)), uintptr(f), uintptr(threads), uintptr(shared))
	return int(*v), err
}
