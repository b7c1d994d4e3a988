// Package cuda calls the CUDA driver (libcuda.so.1) without cgo. It binds and
// nothing more: no arithmetic, no choice of kernels.
//
// The library is opened at the first call of Open, never by importing the
// package. Where it is missing, Open returns an error that wraps ErrNoDriver. A
// context is used through Context.Do, one goroutine at a time.
package cuda

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"
)

// LibraryEnv is the environment variable that names the driver library; empty
// for the usual places.
const LibraryEnv = "APR_CUDA_LIBRARY"

// ErrNoDriver marks a machine without a usable driver.
var ErrNoDriver = errors.New("no CUDA driver")

// libraries are the names under which drivers are installed: by the loader's
// path, under WSL, and where container runtimes mount them.
var libraries = []string{
	"libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1",
	"/usr/local/nvidia/lib64/libcuda.so.1", "/usr/local/nvidia/lib/libcuda.so.1",
}

// Code is a CUresult. Only those that somebody asks about have names here.
type Code int32

// Results of driver calls.
const (
	InvalidValue   Code = 1
	OutOfMemory    Code = 2
	NoDevice       Code = 100
	InvalidPTX     Code = 218
	NotFound       Code = 500
	NotReady       Code = 600
	IllegalAddress Code = 700
	LaunchFailed   Code = 719
)

// Error is what a driver call returned.
type Error struct {
	Call string // the function, "cuMemAlloc"
	Code Code
	Text string // the driver's name and sentence for the code
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Call, e.Text) }

// IsCode reports whether an error is a driver's with the given code.
func IsCode(err error, c Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == c
}

// entryPoints are the functions by the names that the library exports; many
// carry the version of their signature.
type entryPoints struct {
	init, driverGetVersion, deviceGetCount, deviceGet, deviceGetName, deviceTotalMem, deviceGetAttribute, deviceGetUUID,
	ctxCreate, ctxDestroy, ctxSetCurrent, ctxSynchronize, memGetInfo,
	moduleLoadDataEx, moduleUnload, moduleGetFunction, funcSetAttribute, funcGetAttribute, occupancy,
	memAlloc, memFree, memHostAlloc, memFreeHost, memHostRegister, memHostUnregister, memcpyHtoD, memcpyDtoH, memcpyHtoDAsync, memcpyDtoHAsync, memsetD8Async,
	streamCreate, streamDestroy, streamSynchronize, streamQuery, streamBeginCapture, streamEndCapture,
	graphInstantiate, graphLaunch, graphUpload, graphGetNodes, graphDestroy, graphExecDestroy,
	eventCreate, eventRecord, eventSynchronize, eventElapsedTime, eventDestroy,
	getErrorName, getErrorString, launchKernel, launchKernelEx uintptr
}

func (p *entryPoints) table() map[string]*uintptr {
	return map[string]*uintptr{
		"cuInit": &p.init, "cuDriverGetVersion": &p.driverGetVersion,
		"cuDeviceGetCount": &p.deviceGetCount, "cuDeviceGet": &p.deviceGet, "cuDeviceGetName": &p.deviceGetName,
		"cuDeviceTotalMem_v2": &p.deviceTotalMem, "cuDeviceGetAttribute": &p.deviceGetAttribute, "cuDeviceGetUuid": &p.deviceGetUUID,
		"cuCtxCreate_v2": &p.ctxCreate, "cuCtxDestroy_v2": &p.ctxDestroy, "cuCtxSetCurrent": &p.ctxSetCurrent,
		"cuCtxSynchronize": &p.ctxSynchronize, "cuMemGetInfo_v2": &p.memGetInfo,
		"cuModuleLoadDataEx": &p.moduleLoadDataEx, "cuModuleUnload": &p.moduleUnload, "cuModuleGetFunction": &p.moduleGetFunction,
		"cuFuncSetAttribute": &p.funcSetAttribute, "cuFuncGetAttribute": &p.funcGetAttribute,
		"cuOccupancyMaxActiveBlocksPerMultiprocessor": &p.occupancy,
		"cuMemAlloc_v2": &p.memAlloc, "cuMemFree_v2": &p.memFree, "cuMemHostAlloc": &p.memHostAlloc, "cuMemFreeHost": &p.memFreeHost,
		"cuMemHostRegister_v2": &p.memHostRegister, "cuMemHostUnregister": &p.memHostUnregister,
		"cuMemcpyHtoD_v2": &p.memcpyHtoD, "cuMemcpyDtoH_v2": &p.memcpyDtoH,
		"cuMemcpyHtoDAsync_v2": &p.memcpyHtoDAsync, "cuMemcpyDtoHAsync_v2": &p.memcpyDtoHAsync, "cuMemsetD8Async": &p.memsetD8Async,
		"cuStreamCreate": &p.streamCreate, "cuStreamDestroy_v2": &p.streamDestroy,
		"cuStreamSynchronize": &p.streamSynchronize, "cuStreamQuery": &p.streamQuery,
		"cuStreamBeginCapture_v2": &p.streamBeginCapture, "cuStreamEndCapture": &p.streamEndCapture,
		"cuGraphInstantiateWithFlags": &p.graphInstantiate, "cuGraphLaunch": &p.graphLaunch, "cuGraphUpload": &p.graphUpload,
		"cuGraphGetNodes": &p.graphGetNodes, "cuGraphDestroy": &p.graphDestroy, "cuGraphExecDestroy": &p.graphExecDestroy,
		"cuEventCreate": &p.eventCreate, "cuEventRecord": &p.eventRecord, "cuEventSynchronize": &p.eventSynchronize,
		"cuEventElapsedTime": &p.eventElapsedTime, "cuEventDestroy_v2": &p.eventDestroy,
		"cuGetErrorName": &p.getErrorName, "cuGetErrorString": &p.getErrorString,
		"cuLaunchKernel": &p.launchKernel, "cuLaunchKernelEx": &p.launchKernelEx,
	}
}

// optional entry points are absent from drivers before CUDA 11.8.
var optional = map[string]bool{"cuLaunchKernelEx": true}

// Driver is the opened library.
type Driver struct {
	entryPoints
	lib uintptr
	// Path is the name under which the library was found.
	Path string
	// Version is what the driver supports: 13000 is CUDA 13.0.
	Version int
}

// opened keeps one driver for each library: it can neither be closed nor does
// opening it twice serve anything.
var opened struct {
	sync.Mutex
	byPath map[string]*Driver
}

// Open finds the driver and initialises it. The environment variable
// APR_CUDA_LIBRARY names a library to use instead of searching.
func Open() (*Driver, error) {
	names := libraries
	if path := os.Getenv(LibraryEnv); path != "" {
		names = []string{path}
	}
	opened.Lock()
	defer opened.Unlock()
	var first error
	for _, name := range names {
		if d := opened.byPath[name]; d != nil {
			return d, d.start()
		}
		lib, err := openLibrary(name)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		d := &Driver{lib: lib, Path: name}
		if err := d.bind(); err != nil {
			return nil, err
		}
		if opened.byPath == nil {
			opened.byPath = map[string]*Driver{}
		}
		opened.byPath[name] = d
		return d, d.start()
	}
	return nil, fmt.Errorf("%w: %v", ErrNoDriver, first)
}

func (d *Driver) bind() error {
	for name, p := range d.table() {
		a, err := symbol(d.lib, name)
		if err != nil && !optional[name] {
			return fmt.Errorf("%w: %s is too old or no CUDA driver: %v", ErrNoDriver, d.Path, err)
		}
		*p = a
	}
	return nil
}

// start initialises the driver; doing it again costs nothing.
func (d *Driver) start() error {
	if err := d.call("cuInit", d.init, 0); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoDriver, d.Path, err)
	}
	v := new(int32)
	if err := d.call("cuDriverGetVersion", d.driverGetVersion, uintptr(unsafe.Pointer(v))); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoDriver, d.Path, err)
	}
	d.Version = int(*v)
	return nil
}

// call makes one driver call. The directive keeps alive, and on the heap,
// whatever the arguments point to, as for syscall.Syscall.
//
//go:uintptrescapes
func (d *Driver) call(name string, fn uintptr, args ...uintptr) error {
	if r := invoke(fn, args...); r != 0 {
		return d.failure(name, r)
	}
	return nil
}

// failure asks the driver for the words to a result.
func (d *Driver) failure(call string, code int32) error {
	e := &Error{Call: call, Code: Code(code), Text: fmt.Sprintf("error %d", code)}
	name, text := new(*byte), new(*byte)
	invoke(d.getErrorName, uintptr(code), uintptr(unsafe.Pointer(name)))
	invoke(d.getErrorString, uintptr(code), uintptr(unsafe.Pointer(text)))
	if *name != nil && *text != nil {
		e.Text = fmt.Sprintf("%s (%d): %s", cString(*name), code, cString(*text))
	}
	return e
}

// cString copies a string that ends in a zero byte.
func cString(p *byte) string {
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}

// Symbol is the address of an exported function, for libraries that stand in for
// the driver and have switches of their own; see package emutest.
func (d *Driver) Symbol(name string) (uintptr, error) { return symbol(d.lib, name) }

// Call calls a function found by Symbol with integer arguments.
func (d *Driver) Call(name string, fn uintptr, args ...uintptr) error {
	return d.call(name, fn, args...)
}
