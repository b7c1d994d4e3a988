//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"unsafe"

	"github.com/apr-engine/apr/backend"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// weight is a matrix on the device, as its file stores it. One that is larger
// than a binding may be is cut into parts of whole rows, a buffer each.
type weight struct {
	tensor.Tensor
	format format
	parts  []part
}

// part holds rows first to first+rows.
type part struct {
	first, rows int
	buffer      *driver.Buffer
}

// weight uploads a matrix once an executor.
func (e *executor) weight(name string, t tensor.Tensor) (*weight, error) {
	if w := e.weights[name]; w != nil {
		return w, nil
	}
	if t.Cols()%plainGroup != 0 {
		return nil, fmt.Errorf("%w: tensor %v has rows that are not a multiple of %d", backend.ErrUnsupported, t, plainGroup)
	}
	f, err := formatOf(t.Type, t.Cols())
	if err != nil {
		return nil, fmt.Errorf("tensor %v: %w", t, err)
	}
	w := &weight{Tensor: t, format: f}
	e.weights[name] = w // so that Close releases what an error leaves behind
	// A reading of 4 bytes may begin in the last 2 of a row.
	const slack = 8
	limit := min(e.gpu.Binding, e.gpu.Buffer)
	if uint64(f.RowBytes)+slack > limit {
		return nil, fmt.Errorf("%w: tensor %v: a row of %d bytes is more than the device's binding limit of %d", backend.ErrUnsupported, t, f.RowBytes, limit)
	}
	most := int((limit - slack) / uint64(f.RowBytes))
	for first := 0; first < t.Rows(); first += most {
		rows := min(most, t.Rows()-first)
		b, err := e.upload(t.Data[first*f.RowBytes:(first+rows)*f.RowBytes], slack)
		if err != nil {
			return nil, fmt.Errorf("tensor %v: %w", t, err)
		}
		w.parts = append(w.parts, part{first, rows, b})
	}
	return w, nil
}

// upload copies bytes to a new buffer, with at least slack zeros after them.
func (e *executor) upload(data []byte, slack int) (*driver.Buffer, error) {
	b, err := e.gpu.NewBuffer(uint64(len(data)+slack+3)&^3, driver.Storage|driver.CopyDst)
	if err != nil {
		return nil, err
	}
	whole := len(data) &^ 3
	err = e.gpu.Write(b, 0, data[:whole])
	if rest := data[whole:]; err == nil && len(rest) > 0 {
		var last [4]byte
		copy(last[:], rest)
		err = e.gpu.Write(b, uint64(whole), last[:])
	}
	if err != nil {
		b.Release()
		return nil, err
	}
	return b, nil
}

// vector uploads a tensor of one row as float32 numbers, once an executor.
func (e *executor) vector(name string, t tensor.Tensor) (*driver.Buffer, error) {
	if b := e.vectors[name]; b != nil {
		return b, nil
	}
	v := make([]float32, t.Elements())
	if err := quant.Dequantize(t.Type, v, t.Data); err != nil {
		return nil, fmt.Errorf("tensor %v: %w", t, err)
	}
	b, err := e.upload(bytesOf(v), 0)
	if err != nil {
		return nil, fmt.Errorf("tensor %v: %w", t, err)
	}
	e.vectors[name] = b
	return b, nil
}

// bytesOf is the memory of a slice of plain numbers; all systems that this
// package is built for are little-endian, as devices are.
func bytesOf[T float32 | uint32 | [4]uint32](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}
