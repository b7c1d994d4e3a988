//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"
)

// Commands is a recording of what the device will do. Mistakes show at Submit.
// Dispatches that follow each other are one pass; the library orders those that
// touch the same buffers.
type Commands struct {
	d       *Device
	encoder uintptr
	pass    uintptr // 0 outside a pass
	last    *Pipeline

	finished bool
	commands uintptr // of the finished recording; 0 if it failed
	err      error   // why
}

// Begin starts a recording, which must end in Submit.
func (d *Device) Begin() *Commands {
	if d.Err() != nil {
		return &Commands{d: d}
	}
	return &Commands{d: d, encoder: call(proc.createEncoder, d.handle, 0)}
}

// Dispatch runs a pipeline over x·y·z workgroups.
func (c *Commands) Dispatch(p *Pipeline, g *Group, x, y, z int) {
	if c.encoder == 0 {
		return
	}
	if c.pass == 0 {
		c.pass = call(proc.beginPass, c.encoder, 0)
	}
	if p != c.last {
		call(proc.setPipeline, c.pass, p.handle)
		c.last = p
	}
	call(proc.setGroup, c.pass, 0, g.handle, 0, 0)
	call(proc.dispatch, c.pass, uintptr(x), uintptr(y), uintptr(z))
}

func (c *Commands) endPass() {
	if c.pass != 0 {
		call(proc.endPass, c.pass)
		call(proc.releasePass, c.pass)
		c.pass, c.last = 0, nil
	}
}

// Copy copies n bytes; offsets and n are multiples of 4.
func (c *Commands) Copy(dst *Buffer, dstOffset uint64, src *Buffer, srcOffset, n uint64) {
	if c.encoder == 0 {
		return
	}
	c.endPass()
	call(proc.copyBuffer, c.encoder, src.handle, uintptr(src.base+srcOffset), dst.handle, uintptr(dst.base+dstOffset), uintptr(n))
}

// Finish ends the recording, so that Submit has little left to do: what is sure to
// follow can be recorded while the device is busy. Mistakes show here.
func (c *Commands) Finish() error {
	if c.encoder == 0 {
		return c.d.Err()
	}
	if !c.finished {
		c.endPass()
		c.commands, c.err = c.d.scoped(func() uintptr { return call(proc.finish, c.encoder, 0) })
		c.finished = true
	}
	return c.err
}

// Release drops a recording that is not submitted, or has been.
func (c *Commands) Release() {
	if c.encoder == 0 {
		return
	}
	c.endPass()
	if c.commands != 0 {
		call(proc.releaseCommands, c.commands)
	}
	call(proc.releaseEncoder, c.encoder)
	c.encoder, c.commands = 0, 0
}

// Submit ends the recording and hands it to the device, unless something was
// wrong with it. It does not wait. A recording is submitted once.
func (c *Commands) Submit() error {
	if c.encoder == 0 {
		return c.d.Err()
	}
	c.d.submit.Lock()
	defer c.d.submit.Unlock()
	defer c.Release()
	if err := c.Finish(); err != nil {
		// The recording must not reach the queue: the library would end the process.
		return err
	}
	if err := c.d.Err(); err != nil {
		return err
	}
	list := &[1]uintptr{c.commands}
	call(proc.submit, c.d.queue, 1, uintptr(unsafe.Pointer(list)))
	return c.d.Err()
}

// Timer measures times on the device.
type Timer struct {
	d               *Device
	set             uintptr
	n               int
	resolve, result *Buffer
}

// NewTimer makes a timer with n marks. The device must have been opened with
// Features.Timestamps.
func (d *Device) NewTimer(n int) (*Timer, error) {
	desc := &querySetDescriptor{kind: queryTimestamp, count: uint32(n)}
	set, err := d.scoped(func() uintptr { return call(proc.createQuerySet, d.handle, uintptr(unsafe.Pointer(desc))) })
	if err != nil {
		return nil, fmt.Errorf("timer: %w", err)
	}
	t := &Timer{d: d, set: set, n: n}
	if t.resolve, err = d.NewBuffer(uint64(n)*8, queryDst|CopySrc); err != nil {
		return nil, err
	}
	if t.result, err = d.NewBuffer(uint64(n)*8, MapRead|CopyDst); err != nil {
		return nil, err
	}
	return t, nil
}

// Mark records the time when the device comes to it: between two dispatches.
func (c *Commands) Mark(t *Timer, i int) {
	if c.encoder == 0 {
		return
	}
	if c.pass == 0 {
		c.pass = call(proc.beginPass, c.encoder, 0)
	}
	call(proc.writeTimestamp, c.pass, t.set, uintptr(i))
}

// Collect makes the timer's first n marks readable after the commands before it.
func (c *Commands) Collect(t *Timer, n int) {
	if c.encoder == 0 {
		return
	}
	c.endPass()
	call(proc.resolveQueries, c.encoder, t.set, 0, uintptr(n), t.resolve.handle, 0)
	call(proc.copyBuffer, c.encoder, t.resolve.handle, 0, t.result.handle, 0, uintptr(n)*8)
}

// Times waits for the device and returns the first n marks, counted from the first.
func (t *Timer) Times(n int) ([]time.Duration, error) {
	raw := make([]byte, n*8)
	if err := t.d.Read(t.result, 0, raw); err != nil {
		return nil, err
	}
	period := float64(timestampPeriod(t.d.queue)) // nanoseconds
	times := make([]time.Duration, n)
	first := binary.LittleEndian.Uint64(raw)
	for i := range times {
		times[i] = time.Duration(float64(binary.LittleEndian.Uint64(raw[i*8:])-first) * period)
	}
	return times, nil
}

// Release frees the timer.
func (t *Timer) Release() {
	call(proc.releaseQuerySet, t.set)
	t.resolve.Release()
	t.result.Release()
}
