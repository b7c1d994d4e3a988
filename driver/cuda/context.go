package cuda

import (
	"errors"
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// ErrBusy marks a context whose driver call does not come back.
var ErrBusy = errors.New("the CUDA context is busy")

// Context is the state of one device for one user: its memory, modules and
// streams live until Close, which is also the only way out after an error such as
// an illegal address, which every later call returns again. After that one NVIDIA's driver
// makes no other context in the process either. Except for Do, Try, Beside
// and Close, its methods and those of what it makes must be called inside Do.
type Context struct {
	*Driver
	Device Device
	ctx    uintptr
	lock   chan struct{}    // a mutex that can be waited for with a limit
	closed bool             // under lock
	later  sync.Once        // destroys the context when a call that hangs comes back
	shared map[Function]int // what kernels have been allowed, in bytes
}

// NewContext makes a context of its own on a device. It does not touch the
// primary context, which other libraries of the process may use.
func (d *Driver) NewContext(dev Device) (*Context, error) {
	c := &Context{Driver: d, Device: dev, lock: make(chan struct{}, 1), shared: map[Function]int{}}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := new(uintptr)
	if err := d.call("cuCtxCreate", d.ctxCreate, uintptr(unsafe.Pointer(p)), 0, uintptr(dev.handle)); err != nil {
		return nil, err
	}
	c.ctx = *p
	// Creating leaves it current on this thread, which belongs to nobody.
	return c, d.call("cuCtxSetCurrent", d.ctxSetCurrent, 0)
}

// ErrClosed marks the use of a context that has been closed.
var ErrClosed = errors.New("the CUDA context is closed")

// Do runs f on one OS thread with the context current, alone.
func (c *Context) Do(f func() error) error {
	c.lock <- struct{}{}
	return c.locked(f)
}

// Try is Do for those who must not hang: it returns ErrBusy if the context is
// not free within the limit.
func (c *Context) Try(limit time.Duration, f func() error) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case c.lock <- struct{}{}:
		return c.locked(f)
	case <-t.C:
		return ErrBusy
	}
}

// Beside runs f on an OS thread of its own with the context current, beside the
// function in Do that has started it and waits for its end: the driver compiles
// modules on as many threads as ask it to. In f are LoadModule and Function allowed.
func (c *Context) Beside(f func() error) error { return c.attached(f) }

func (c *Context) locked(f func() error) error {
	defer func() { <-c.lock }()
	if c.closed {
		return ErrClosed
	}
	return c.attached(f)
}

// attached runs f on one thread with the context current.
func (c *Context) attached(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.call("cuCtxSetCurrent", c.ctxSetCurrent, c.ctx); err != nil {
		return err
	}
	return f()
}

// closeLimit is how long Close waits for a call that is under way.
const closeLimit = time.Second

// Close destroys the context and all that is in it, also after an error. While a call
// does not come back it returns ErrBusy; should the call do so later, the context goes
// then.
func (c *Context) Close() error {
	destroy := func() error {
		c.closed = true
		return c.call("cuCtxDestroy", c.ctxDestroy, c.ctx)
	}
	err := c.Try(closeLimit, destroy)
	switch {
	case errors.Is(err, ErrClosed):
		return nil
	case errors.Is(err, ErrBusy):
		c.later.Do(func() { go c.Do(destroy) })
	}
	return err
}

// Memory is the device's memory that is free now, and all of it, in bytes.
func (c *Context) Memory() (free, total int64, err error) {
	f, t := new(uint64), new(uint64)
	err = c.call("cuMemGetInfo", c.memGetInfo, uintptr(unsafe.Pointer(f)), uintptr(unsafe.Pointer(t)))
	return int64(*f), int64(*t), err
}

// Synchronize waits for everything in the context.
func (c *Context) Synchronize() error { return c.call("cuCtxSynchronize", c.ctxSynchronize) }
