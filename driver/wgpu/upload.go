//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"unsafe"
)

// mapWrite lets the host write a buffer while it is mapped (WGPUBufferUsage, and WGPUMapMode).
const mapWrite = 2

// Upload is memory that the host writes and recorded commands copy from. For a few bytes that
// change with every submission it costs the host far less than Write, which makes a buffer and
// a command buffer of its own each time. The host and the device have it in turns: Fill, then
// Submit, then Reopen, any number of times.
type Upload struct {
	Buffer *Buffer // only to copy from
	d      *Device
	id     uintptr
	done   <-chan result // will tell that the memory is the host's again; nil if it is
}

// NewUpload allocates size bytes, a multiple of 8.
func (d *Device) NewUpload(size uint64) (*Upload, error) {
	desc := &bufferDescriptor{usage: uint64(mapWrite | CopySrc), size: size, mappedAtCreation: 1}
	h, err := d.scoped(func() uintptr { return call(proc.createBuffer, d.handle, uintptr(unsafe.Pointer(desc))) })
	if err != nil {
		if h != 0 {
			call(proc.releaseBuffer, h)
		}
		return nil, fmt.Errorf("upload buffer of %d bytes: %w", size, err)
	}
	return &Upload{Buffer: &Buffer{handle: h, Size: size}, d: d}, nil
}

// Fill writes data to the beginning of the memory and hands it to the device. It waits for the
// commands that copy from it, if any were submitted before Reopen.
func (u *Upload) Fill(data []byte) error {
	if err := u.d.Err(); err != nil {
		return err
	}
	if uint64(len(data)) > u.Buffer.Size {
		return fmt.Errorf("%w: %d bytes for an upload buffer of %d", ErrInvalid, len(data), u.Buffer.Size)
	}
	if u.done != nil {
		r, err := u.opened()
		if err != nil {
			return err
		}
		if r.status != statusSuccess {
			return fmt.Errorf("%w: writing a buffer: status %d %s", ErrInvalid, r.status, r.text)
		}
		u.done = nil
	}
	at := call(proc.writableRange, u.Buffer.handle, 0, uintptr(u.Buffer.Size))
	if at == 0 {
		return fmt.Errorf("%w: writing a buffer: not mapped", ErrInvalid)
	}
	copy(unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), len(data)), data)
	call(proc.unmap, u.Buffer.handle)
	return u.d.Err()
}

// opened waits until the memory is the host's; whoever read what the same commands computed
// has waited already.
func (u *Upload) opened() (result, error) {
	select {
	case r := <-u.done:
		return r, u.d.Err()
	default:
		return u.d.await(u.id, u.done)
	}
}

// Reopen asks for the memory back once all that was submitted is done. It does not wait.
func (u *Upload) Reopen() {
	if u.d.Err() != nil || u.done != nil {
		return
	}
	u.id, u.done = expect()
	mapAsync(u.Buffer.handle, mapWrite, 0, u.Buffer.Size, callbackInfo{mode: allowSpontaneous, callback: callbacks.mapped, userdata1: u.id})
}

// Release frees the memory.
func (u *Upload) Release() {
	if u != nil {
		u.Buffer.Release()
	}
}
