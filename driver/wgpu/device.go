//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// Device is an open adapter. Its methods may be called by several goroutines.
type Device struct {
	Info
	id, handle, queue uintptr
	// Spin makes Read keep a processor busy while it waits, for some milliseconds.
	Spin bool

	mu     sync.Mutex // guards err
	err    error      // the first that makes the device useless
	submit sync.Mutex // keeps a recording's check and submission together
	scopes sync.Mutex // held while error scopes are open
}

// fail records the first error that nothing else caught.
func (d *Device) fail(err error) {
	d.mu.Lock()
	if d.err == nil {
		d.err = err
	}
	d.mu.Unlock()
}

// Err is why the device cannot be used any more; nil while it can.
func (d *Device) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = given()
	}
	return d.err
}

// Error scopes (WGPUErrorFilter). The third, internal errors, ends the process
// in this version of the library.
const (
	scopeValidation = 1
	scopeMemory     = 2
)

// scoped runs f and returns its result and the error that it caused. The library has one
// stack of scopes a device, so only one goroutine at a time has any open; f must not call
// scoped.
func (d *Device) scoped(f func() uintptr) (uintptr, error) {
	if err := d.Err(); err != nil {
		return 0, err
	}
	d.scopes.Lock()
	defer d.scopes.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	call(proc.pushScope, d.handle, scopeValidation)
	call(proc.pushScope, d.handle, scopeMemory)
	h := f()
	var err error
	for range 2 {
		id, done := expect()
		popScope(d.handle, callbackInfo{mode: allowSpontaneous, callback: callbacks.scope, userdata1: id})
		select {
		case r := <-done:
			if r.kind > errorNone && err == nil {
				err = errorOf(r.kind, r.text)
				if errors.Is(err, ErrLost) {
					d.fail(err)
				}
			}
		default: // the library answers within the call
			forget(id)
			if err = d.Err(); err == nil {
				err = fmt.Errorf("%w: an error scope gave no answer", ErrInvalid)
			}
		}
	}
	if err == nil {
		err = d.Err()
	}
	return h, err
}

// Close releases the device. Buffers, pipelines and groups must be released
// before or not at all. What belongs to a lost device stays: the library waits for a
// device that it releases, and ends the process where waiting fails.
func (d *Device) Close() error {
	leave(d.id)
	if errors.Is(d.Err(), ErrLost) {
		return nil
	}
	d.fail(fmt.Errorf("%w: it was closed", ErrLost))
	call(proc.releaseQueue, d.queue)
	call(proc.releaseDevice, d.handle)
	return nil
}

// Destroy makes the device lost, as a reset would: for tests.
func (d *Device) Destroy() { call(proc.destroyDevice, d.handle) }

// Usage is what a buffer may be used for.
type Usage uint64

// Usages (WGPUBufferUsage).
const (
	MapRead  Usage = 1
	CopySrc  Usage = 4
	CopyDst  Usage = 8
	Uniform  Usage = 0x40
	Storage  Usage = 0x80
	queryDst Usage = 0x200
)

// Buffer is memory of the device.
type Buffer struct {
	handle uintptr
	base   uint64 // where a part begins
	part   bool
	Size   uint64 // bytes
}

// PartAlignment is what offsets of parts are multiples of: enough for every adapter.
const PartAlignment = 256

// Part is size bytes of a buffer from offset on, a multiple of PartAlignment. It goes with
// the buffer: releasing it does nothing.
func (b *Buffer) Part(offset, size uint64) *Buffer {
	return &Buffer{b.handle, b.base + offset, true, size}
}

// NewBuffer allocates size bytes, a multiple of 4, filled with zeros.
func (d *Device) NewBuffer(size uint64, usage Usage) (*Buffer, error) {
	desc := &bufferDescriptor{usage: uint64(usage), size: size}
	h, err := d.scoped(func() uintptr { return call(proc.createBuffer, d.handle, uintptr(unsafe.Pointer(desc))) })
	if err != nil {
		if h != 0 {
			call(proc.releaseBuffer, h)
		}
		return nil, fmt.Errorf("buffer of %d bytes: %w", size, err)
	}
	return &Buffer{handle: h, Size: size}, nil
}

// Release frees the memory once the device has done with it. A nil buffer is
// released already.
func (b *Buffer) Release() {
	if b != nil && b.handle != 0 && !b.part {
		call(proc.releaseBuffer, b.handle)
		b.handle = 0
	}
}

// uploadChunk is how much is on its way to the device at a time: the library
// holds a copy until the device has taken it.
const uploadChunk = 32 << 20

// Write copies data, a multiple of 4 bytes, to offset in b, before whatever is
// submitted next.
func (d *Device) Write(b *Buffer, offset uint64, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), uploadChunk)
		part := data[:n]
		if _, err := d.scoped(func() uintptr {
			return call(proc.writeBuffer, d.queue, b.handle, uintptr(b.base+offset), uintptr(unsafe.Pointer(&part[0])), uintptr(n))
		}); err != nil {
			return err
		}
		data, offset = data[n:], offset+uint64(n)
		if len(data) > 0 {
			if err := d.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flush hands pending writes to the device and waits for it.
func (d *Device) Flush() error {
	c := d.Begin()
	if err := c.Submit(); err != nil {
		return err
	}
	return d.Wait()
}

// Wait returns when the device has done all that was submitted.
func (d *Device) Wait() error {
	if err := d.Err(); err != nil {
		return err
	}
	call(proc.poll, d.handle, 1, 0)
	return d.Err()
}

// Reclaim frees the memory of buffers that were released and that the device has
// done with. It does not wait.
func (d *Device) Reclaim() {
	if d.Err() == nil {
		call(proc.poll, d.handle, 0, 0)
	}
}

// spinning is how long Read asks the device again and again before it lets the thread
// sleep, from which it takes tens of microseconds to wake up: as long as a few tokens.
const spinning = 20 * time.Millisecond

// Read waits for the device and copies dst's length of bytes from offset, both
// multiples of 8, out of a buffer made for MapRead.
func (d *Device) Read(b *Buffer, offset uint64, dst []byte) error {
	if err := d.Err(); err != nil {
		return err
	}
	const modeRead = 1
	id, done := expect()
	mapAsync(b.handle, modeRead, offset, uint64(len(dst)), callbackInfo{mode: allowSpontaneous, callback: callbacks.mapped, userdata1: id})
	r, err := d.await(id, done)
	if err != nil {
		return err
	}
	if r.status != statusSuccess {
		return fmt.Errorf("%w: reading a buffer: status %d %s", ErrInvalid, r.status, r.text)
	}
	from := call(proc.mappedRange, b.handle, uintptr(offset), uintptr(len(dst)))
	if from == 0 {
		return fmt.Errorf("%w: reading a buffer: not mapped", ErrInvalid)
	}
	copyAll(dst, unsafe.Slice(*(**byte)(unsafe.Pointer(&from)), len(dst)))
	call(proc.unmap, b.handle)
	return d.Err()
}

// copyAll copies with a few processors what is very long. The logits of a token are not: waking
// the others costs more than they save, and leaves the numbers in their caches, far from who
// reads them next.
func copyAll(dst, src []byte) {
	const part = 1 << 20
	var others sync.WaitGroup
	for len(dst) >= 2*part {
		n := max(part, len(dst)/4) &^ 63
		to, from := dst[:n], src[:n]
		others.Go(func() { copy(to, from) })
		dst, src = dst[n:], src[n:]
	}
	copy(dst, src)
	others.Wait()
}

// await polls the device until a callback has come.
func (d *Device) await(id uintptr, done <-chan result) (result, error) {
	// Where a CPU plays the device, spinning would take it away.
	for start := time.Now(); d.Spin && time.Since(start) < spinning; {
		if err := d.Err(); err != nil {
			forget(id)
			return result{}, err
		}
		call(proc.poll, d.handle, 0, 0)
		select {
		case r := <-done:
			return r, d.Err()
		default:
		}
	}
	if err := d.Err(); err != nil {
		forget(id)
		return result{}, err
	}
	call(proc.poll, d.handle, 1, 0)
	// After poll the callback has come, unless another goroutine polls and is
	// about to make it.
	if err := d.Err(); err != nil {
		forget(id)
		return result{}, err
	}
	select {
	case r := <-done:
		return r, nil
	case <-abandoned.gone: // inside another goroutine's call
		forget(id)
		return result{}, d.Err()
	}
}
