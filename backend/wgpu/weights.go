//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/packed"
	"github.com/apr-engine/apr/backend/wgpu/kernels"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// weight is a matrix on the device, laid out by package packed. One that is
// larger than a binding may be is cut into parts of whole rows, a buffer each.
type weight struct {
	tensor.Tensor
	reader string // WGSL that reads it as w
	parts  []part
}

// part holds rows first to first+rows.
type part struct {
	first, rows int
	buffer      *driver.Buffer
}

// float says that the weights are plain numbers, which multiply float32
// activations; others multiply integers.
func (w *weight) float() bool {
	return w.Type == tensor.F32 || w.Type == tensor.F16 || w.Type == tensor.BF16
}

// weight uploads a matrix once an executor.
func (e *executor) weight(name string, t tensor.Tensor) (*weight, error) {
	if w := e.weights[name]; w != nil {
		return w, nil
	}
	reader, err := kernels.NewWeight("w", t.Type, t.Cols())
	if err != nil {
		return nil, fmt.Errorf("%w: tensor %v: %w", backend.ErrUnsupported, t, err)
	}
	w := &weight{Tensor: t, reader: kernels.Helpers() + reader.Functions()}
	e.weights[name] = w // so that Close releases what an error leaves behind
	size := reader.RowVec4s() * 16
	limit := min(e.gpu.Binding, e.gpu.Buffer)
	if uint64(size) > limit {
		return nil, fmt.Errorf("%w: tensor %v: a row of %d bytes is more than the device's binding limit of %d", backend.ErrUnsupported, t, size, limit)
	}
	most := int(limit / uint64(size))
	for first := 0; first < t.Rows(); first += most {
		p := part{first: first, rows: min(most, t.Rows()-first)}
		if p.buffer, err = e.room(uint64(p.rows * size)); err != nil {
			return nil, fmt.Errorf("tensor %v: %w", t, err)
		}
		w.parts = append(w.parts, p)
		if err := e.pack(w, p, size); err != nil {
			return nil, fmt.Errorf("tensor %v: %w", t, err)
		}
	}
	return w, nil
}

// Weights lie in buffers of up to arenaBytes, each twice as large as the one before, but
// for those larger than a quarter of that: the library looks at every buffer of a step
// when it is submitted, which for the hundreds of matrices of a model takes as long as some
// of their products.
const arenaBytes, firstArena = 64 << 20, 1 << 20

// room is memory for size bytes of weights. Close releases it.
func (e *executor) room(size uint64) (*driver.Buffer, error) {
	own := size > arenaBytes/4 || arenaBytes > min(e.gpu.Binding, e.gpu.Buffer)
	if !own && e.arena != nil && e.arenaUsed+size <= e.arena.Size {
		b := e.arena.Part(e.arenaUsed, size)
		const step = driver.PartAlignment
		e.arenaUsed += (size + step - 1) / step * step
		return b, nil
	}
	total := size
	if !own {
		for total = firstArena; total < size || e.arena != nil && total <= e.arena.Size && total < arenaBytes; {
			total *= 2
		}
	}
	b, err := e.gpu.NewBuffer(total, driver.Storage|driver.CopyDst)
	if err != nil {
		return nil, err
	}
	e.owned = append(e.owned, b)
	if own {
		return b, nil
	}
	e.arena, e.arenaUsed = b, 0
	return e.room(size)
}

// packBytes is about how much is laid out at a time.
const packBytes = 16 << 20

// pack lays out a part's rows and copies them to the device, some at a time: one
// is laid out while the one before is on its way.
func (e *executor) pack(w *weight, p part, size int) error {
	each := max(1, packBytes/size)
	row := len(w.Data) / w.Rows()
	type chunk struct {
		at   int // bytes in the part
		data []byte
		err  error
	}
	chunks := make(chan chunk)
	stop := make(chan struct{})
	defer func() { // the rows are in a mapped file that may go after an error
		close(stop)
		for range chunks {
		}
	}()
	go func() {
		defer close(chunks)
		for at := 0; at < p.rows; at += each {
			n := min(each, p.rows-at)
			c := chunk{at: at * size, data: make([]byte, n*size)}
			first := p.first + at
			c.err = packRows(c.data, w.Data[first*row:(first+n)*row], w.Tensor, n)
			select {
			case chunks <- c:
			case <-stop:
				return
			}
		}
	}()
	for c := range chunks {
		if c.err != nil {
			return c.err
		}
		if err := e.gpu.Write(p.buffer, uint64(c.at), c.data); err != nil {
			return err
		}
		if len(c.data) == each*size && p.rows > each { // many follow: the library holds a copy of each
			if err := e.gpu.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// packRows lays out rows on all processors.
func packRows(dst, src []byte, t tensor.Tensor, rows int) error {
	workers := min(runtime.GOMAXPROCS(0), rows)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			from, to := rows*i/workers, rows*(i+1)/workers
			d, s := len(dst)/rows, len(src)/rows
			errs[i] = packed.Rows(dst[from*d:to*d], src[from*s:to*s], t.Type, t.Cols(), to-from)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// upload copies bytes, a multiple of 4, to a new buffer.
func (e *executor) upload(data []byte) (*driver.Buffer, error) {
	b, err := e.room(uint64(max(len(data), 16)))
	if err != nil {
		return nil, err
	}
	if err := e.gpu.Write(b, 0, data); err != nil {
		b.Release()
		return nil, err
	}
	return b, nil
}

// numbers uploads vectors of float32 numbers end to end, once an executor.
func (e *executor) numbers(key string, vectors ...[]float32) (*driver.Buffer, error) {
	if b := e.vectors[key]; b != nil {
		return b, nil
	}
	b, err := e.upload(bytesOf(slices.Concat(vectors...)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	e.vectors[key] = b
	return b, nil
}

// floats are the numbers of a tensor of one row.
func floats(t tensor.Tensor) ([]float32, error) {
	v := make([]float32, t.Elements())
	if err := quant.Dequantize(t.Type, v, t.Data); err != nil {
		return nil, fmt.Errorf("tensor %v: %w", t, err)
	}
	return v, nil
}

// bytesOf is the memory of a slice of plain numbers; all systems that this
// package is built for are little-endian, as devices are.
func bytesOf[T float32 | uint32 | [4]uint32](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}
