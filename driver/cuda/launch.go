package cuda

import (
	"fmt"
	"runtime"
	"unsafe"
)

// maxArgs is the most arguments of a kernel.
const maxArgs = 32

// Launch is a kernel with its shape and arguments, prepared once and run many
// times without allocating. NewLaunch makes it: the driver reads it through
// pointers into itself, so it must not be copied.
type Launch struct {
	Name        string // of the kernel, for error messages
	Function    Function
	Grid, Block [3]uint32
	Shared      uint32 // dynamic shared memory, bytes
	// Overlap lets the kernel start before the one before it in the stream has
	// ended (programmatic dependent launch); it must wait by itself, with
	// pdl_wait, before it reads that one's results. Ignored by old drivers and
	// devices before compute capability 9.0.
	Overlap bool

	values   [maxArgs]uint64
	pointers [maxArgs]unsafe.Pointer
	args     [11]uintptr
	config   launchConfig
	attr     launchAttribute
}

// launchConfig is a CUlaunchConfig.
type launchConfig struct {
	grid, block [3]uint32
	shared      uint32
	stream      uintptr
	attrs       unsafe.Pointer
	n           uint32
	_           uint32
}

// launchAttribute is a CUlaunchAttribute.
type launchAttribute struct {
	id    uint32
	_     uint32
	value [64]byte
}

const attrProgrammaticStreamSerialization = 6

// NewLaunch prepares a kernel of a one-dimensional grid and block; Grid and Block
// may be changed. Arguments are of type Ptr, int32, uint32, uint64, int (passed
// as int32) and float32.
func NewLaunch(name string, f Function, grid, block, shared int, args ...any) (*Launch, error) {
	l := &Launch{Name: name, Function: f, Grid: [3]uint32{uint32(grid), 1, 1}, Block: [3]uint32{uint32(block), 1, 1}, Shared: uint32(shared)}
	if len(args) > maxArgs {
		return nil, fmt.Errorf("%s: %d arguments, the limit is %d", name, len(args), maxArgs)
	}
	for i, a := range args {
		if err := l.Set(i, a); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Set changes an argument.
func (l *Launch) Set(i int, arg any) error {
	l.pointers[i] = unsafe.Pointer(&l.values[i])
	switch v := arg.(type) {
	case Ptr:
		l.values[i] = uint64(v)
	case int:
		l.values[i] = uint64(uint32(int32(v)))
	case int32:
		l.values[i] = uint64(uint32(v))
	case uint32:
		l.values[i] = uint64(v)
	case uint64:
		l.values[i] = v
	case float32:
		*(*float32)(unsafe.Pointer(&l.values[i])) = v
	default:
		return fmt.Errorf("%s: argument %d is of type %T", l.Name, i, arg)
	}
	return nil
}

// Run enqueues the kernel. An error may be of earlier work in the context.
func (c *Context) Run(l *Launch, s Stream) error {
	if l.Overlap && c.launchKernelEx != 0 && c.Device.Major >= 9 {
		return c.runOverlapped(l, s)
	}
	l.args = [11]uintptr{
		uintptr(l.Function), uintptr(l.Grid[0]), uintptr(l.Grid[1]), uintptr(l.Grid[2]), uintptr(l.Block[0]), uintptr(l.Block[1]), uintptr(l.Block[2]),
		uintptr(l.Shared), uintptr(s), uintptr(unsafe.Pointer(&l.pointers)), 0,
	}
	r := invoke(c.launchKernel, l.args[:]...)
	runtime.KeepAlive(l)
	if r != 0 {
		return c.failure("cuLaunchKernel("+l.Name+")", r)
	}
	return nil
}

func (c *Context) runOverlapped(l *Launch, s Stream) error {
	l.attr.id, l.attr.value[0] = attrProgrammaticStreamSerialization, 1
	l.config = launchConfig{grid: l.Grid, block: l.Block, shared: l.Shared, stream: uintptr(s), attrs: unsafe.Pointer(&l.attr), n: 1}
	l.args = [11]uintptr{uintptr(unsafe.Pointer(&l.config)), uintptr(l.Function), uintptr(unsafe.Pointer(&l.pointers)), 0}
	r := invoke(c.launchKernelEx, l.args[:4]...)
	runtime.KeepAlive(l)
	if r != 0 {
		return c.failure("cuLaunchKernelEx("+l.Name+")", r)
	}
	return nil
}
