package cuda

import "unsafe"

// Ptr is an address in device memory; 0 is none.
type Ptr uint64

// Alloc allocates n bytes, aligned to 256.
func (c *Context) Alloc(n int64) (Ptr, error) {
	p := new(Ptr)
	err := c.call("cuMemAlloc", c.memAlloc, uintptr(unsafe.Pointer(p)), uintptr(n))
	return *p, err
}

// Free frees what Alloc returned.
func (c *Context) Free(p Ptr) error { return c.call("cuMemFree", c.memFree, uintptr(p)) }

// HostAlloc allocates n bytes of host memory that the device reads and writes
// directly. It is not Go memory: FreeHost frees it, or closing the context.
func (c *Context) HostAlloc(n int) ([]byte, error) {
	p := new(unsafe.Pointer)
	if err := c.call("cuMemHostAlloc", c.memHostAlloc, uintptr(unsafe.Pointer(p)), uintptr(n), 0); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(*p), n), nil
}

// FreeHost frees what HostAlloc returned.
func (c *Context) FreeHost(b []byte) error {
	return c.call("cuMemFreeHost", c.memFreeHost, uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

// Register lets the device read and write b, which is large and lives on the heap,
// directly. The caller keeps it alive until Unregister.
func (c *Context) Register(b []byte) error {
	return c.call("cuMemHostRegister", c.memHostRegister, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0)
}

// Unregister undoes Register.
func (c *Context) Unregister(b []byte) error {
	return c.call("cuMemHostUnregister", c.memHostUnregister, uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

// size is the number of bytes of a slice of plain values.
func size[T any](s []T) uintptr {
	var t T
	return uintptr(len(s)) * unsafe.Sizeof(t)
}

// Upload copies a slice of plain values to the device and waits for it. The driver's
// call alone may return while the device still copies, and other streams would not
// wait for that.
func Upload[T any](c *Context, dst Ptr, src []T) error {
	if err := c.call("cuMemcpyHtoD", c.memcpyHtoD, uintptr(dst), uintptr(unsafe.Pointer(unsafe.SliceData(src))), size(src)); err != nil {
		return err
	}
	return c.Wait(0) // the default stream
}

// Download fills a slice of plain values from the device.
func Download[T any](c *Context, dst []T, src Ptr) error {
	return c.call("cuMemcpyDtoH", c.memcpyDtoH, uintptr(unsafe.Pointer(unsafe.SliceData(dst))), uintptr(src), size(dst))
}

// UploadAsync enqueues a copy to the device; src should be of HostAlloc and must
// not change before the stream has passed it.
func (c *Context) UploadAsync(dst Ptr, src []byte, s Stream) error {
	return c.call("cuMemcpyHtoDAsync", c.memcpyHtoDAsync, uintptr(dst), uintptr(unsafe.Pointer(unsafe.SliceData(src))), uintptr(len(src)), uintptr(s))
}

// DownloadAsync enqueues a copy from the device into memory of HostAlloc.
func (c *Context) DownloadAsync(dst []byte, src Ptr, s Stream) error {
	return c.call("cuMemcpyDtoHAsync", c.memcpyDtoHAsync, uintptr(unsafe.Pointer(unsafe.SliceData(dst))), uintptr(src), uintptr(len(dst)), uintptr(s))
}

// Fill enqueues setting n bytes to v.
func (c *Context) Fill(p Ptr, v byte, n int64, s Stream) error {
	return c.call("cuMemsetD8Async", c.memsetD8Async, uintptr(p), uintptr(v), uintptr(n), uintptr(s))
}
