package wgpu

import (
	"fmt"
	"math"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// callBlock is a call of the library for guard, in guard_linux_amd64.s.
type callBlock struct {
	f       uintptr
	args    [6]uintptr // in registers
	stack   [5]uintptr // a WGPU…CallbackInfo that goes by value
	result  uintptr
	float   uint64  // result of functions that return one
	aborted uintptr // 1 if the library ended the call by abort
}

var blocks = sync.Pool{New: func() any { return new(callBlock) }}

// slot says that a thread is inside the library.
type slot struct {
	//lint:ignore U1000 guard_linux_amd64.s uses it
	thread uintptr // the thread's pointer; 0 for none
	//lint:ignore U1000 guard_linux_amd64.s uses it
	frame uintptr  // of guard on its stack
	_     [48]byte // the rest of a cache line
}

// slotCount is how many threads are guarded at a time; more than 16 compile at no time.
const slotCount = 64

// Read and written by guard and onAbort, which may stop any thread anywhere: no Go code
// uses them after install.
var (
	slots [slotCount]slot
	//lint:ignore U1000 guard_linux_amd64.s uses it
	spare slot // of calls that found no slot
	//lint:ignore U1000 guard_linux_amd64.s uses it
	processID int32 // ours
	//lint:ignore U1000 guard_linux_amd64.s uses it
	previous uintptr // SIGABRT's handler before ours
)

// Addresses of the assembly.
var guardPC, onAbortPC uintptr

// kernelAction is the kernel's struct sigaction.
type kernelAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// install puts onAbort before Go's handler of SIGABRT, with the same flags: on the
// thread's stack for signals, with all others blocked.
func install() error {
	var a kernelAction
	if err := action(nil, &a); err != nil {
		return err
	}
	const ignoring = 1 // SIG_IGN; 0 is SIG_DFL
	if a.handler <= ignoring {
		return nil // somebody wants an abort to end the process, or not to: so be it
	}
	processID, previous = int32(os.Getpid()), a.handler
	a.handler = onAbortPC
	return action(&a, nil)
}

func action(set, old *kernelAction) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGABRT), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(old.mask), 0, 0)
	if errno != 0 {
		return fmt.Errorf("%w: sigaction: %w", ErrUnavailable, errno)
	}
	return nil
}

// call calls a function of the library, unless that has given up. What is converted to
// uintptr in the call's own expression stays alive and in place until it returns.
//
//go:uintptrescapes
func call(f uintptr, args ...uintptr) uintptr {
	r, _ := callWith(f, callbackInfo{}, args...)
	return r
}

// callWith is call for functions that take a callback info behind their arguments, or
// return a float.
//
//go:uintptrescapes
func callWith(f uintptr, cb callbackInfo, args ...uintptr) (uintptr, uint64) {
	if given() != nil {
		return 0, 0
	}
	b := blocks.Get().(*callBlock)
	defer blocks.Put(b)
	*b = callBlock{f: f, stack: *(*[5]uintptr)(unsafe.Pointer(&cb))}
	//lint:ignore S1001 copy would drop arguments that do not fit, this panics
	for i, a := range args {
		b.args[i] = a
	}
	cgocall(guardPC, unsafe.Pointer(b))
	if b.aborted != 0 {
		giveUp(f)
	}
	return b.result, b.float
}

// bindStructs binds the functions that take structures by value or return a float.
func bindStructs(address func(name string) (uintptr, error)) error {
	var request, mapping, pop, period uintptr
	for name, to := range map[string]*uintptr{
		"wgpuAdapterRequestDevice":    &request,
		"wgpuBufferMapAsync":          &mapping,
		"wgpuDevicePopErrorScope":     &pop,
		"wgpuQueueGetTimestampPeriod": &period,
	} {
		var err error
		if *to, err = address(name); err != nil {
			return err
		}
		symbols[name] = to
	}
	requestDevice = func(adapter uintptr, d *deviceDescriptor, cb callbackInfo) uint64 {
		r, _ := callWith(request, cb, adapter, uintptr(unsafe.Pointer(d)))
		return uint64(r)
	}
	mapAsync = func(buffer uintptr, mode, offset, size uint64, cb callbackInfo) uint64 {
		r, _ := callWith(mapping, cb, buffer, uintptr(mode), uintptr(offset), uintptr(size))
		return uint64(r)
	}
	popScope = func(device uintptr, cb callbackInfo) uint64 {
		r, _ := callWith(pop, cb, device)
		return uint64(r)
	}
	timestampPeriod = func(queue uintptr) float32 {
		_, f := callWith(period, callbackInfo{}, queue)
		return math.Float32frombits(uint32(f))
	}
	return nil
}

// cgocall is the runtime's, which purego uses as well: it runs f on the thread's stack.
//
//go:linkname cgocall runtime.cgocall
func cgocall(f uintptr, block unsafe.Pointer) int32
