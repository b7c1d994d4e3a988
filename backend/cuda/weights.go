package cuda

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// weight is a matrix in device memory, in the layout of kernels/quant.h.
type weight struct {
	name     string
	dtype    tensor.DType
	rows, k  int
	rowBytes int
	data     cuda.Ptr
	// scales (rows) are powers of two that rows are divided by on their way to f16,
	// for matrices that are multiplied; 0 for others.
	scales cuda.Ptr
}

func (w *weight) bytes() int64 { return int64(w.rows) * int64(w.rowBytes) }

// tensors lists the matrices and vectors that a program reads, each once, in the
// order of use.
func tensors(p *graph.Program, w graph.Weights) (matrices, vectors []tensor.Tensor) {
	seen := map[string]bool{}
	for _, op := range p.Ops {
		for _, name := range op.Weights() {
			if seen[name] {
				continue
			}
			seen[name] = true
			if t, _ := w.Tensor(name); isVector(op, name) {
				vectors = append(vectors, t)
			} else {
				matrices = append(matrices, t)
			}
		}
	}
	return matrices, vectors
}

// isVector reports whether an operation reads a tensor as one row of float32.
func isVector(op graph.Op, name string) bool {
	switch o := op.(type) {
	case *graph.RMSNorm:
		return true
	case *graph.MatMul:
		return name == o.Bias
	}
	return false
}

// Staging is what lies between a mapped file and the device: pinned memory, so
// that packing the next piece goes on while one is copied.
const (
	stagingBytes = 16 << 20
	stagingCount = 3
)

type staging struct {
	c       *cuda.Context
	stream  cuda.Stream
	step    func() error // before each piece
	buffers [stagingCount][]byte
	passed  [stagingCount]cuda.Event
	next    int
}

func newStaging(c *cuda.Context, s cuda.Stream, bytes int, step func() error) (*staging, error) {
	st := &staging{c: c, stream: s, step: step}
	var err error
	for i := range st.buffers {
		if st.buffers[i], err = c.HostAlloc(bytes); err != nil {
			return nil, fmt.Errorf("memory to load weights through: %w", err)
		}
		if st.passed[i], err = c.NewEvent(); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// buffer returns memory that the device has finished reading.
func (s *staging) buffer() ([]byte, error) {
	return s.buffers[s.next], s.c.WaitEvent(s.passed[s.next])
}

// send enqueues the first n bytes of the last buffer.
func (s *staging) send(to cuda.Ptr, n int) error {
	if err := s.c.UploadAsync(to, s.buffers[s.next][:n], s.stream); err != nil {
		return err
	}
	err := s.c.Record(s.passed[s.next], s.stream)
	s.next = (s.next + 1) % stagingCount
	return err
}

func (s *staging) close() error {
	if err := s.c.Wait(s.stream); err != nil {
		return err
	}
	for i := range s.buffers {
		if err := s.c.FreeHost(s.buffers[i]); err != nil {
			return err
		}
		if err := s.c.DestroyEvent(s.passed[i]); err != nil {
			return err
		}
	}
	return nil
}

// upload packs a matrix and copies it, some rows at a time.
func (s *staging) upload(w *weight, t tensor.Tensor) error {
	raw, err := t.Type.RowBytes(w.k)
	if err != nil {
		return fmt.Errorf("tensor %s: %w", w.name, err)
	}
	step := max(len(s.buffers[0])/w.rowBytes, 1)
	for r := 0; r < w.rows; r += step {
		n := min(step, w.rows-r)
		if err := s.step(); err != nil {
			return err
		}
		buf, err := s.buffer()
		if err != nil {
			return err
		}
		if err := packParallel(buf[:n*w.rowBytes], t.Data[r*raw:(r+n)*raw], t.Type, w.k, n); err != nil {
			return fmt.Errorf("tensor %s: %w", w.name, err)
		}
		if err := s.send(w.data+cuda.Ptr(r*w.rowBytes), n*w.rowBytes); err != nil {
			return fmt.Errorf("tensor %s: %w", w.name, err)
		}
	}
	return nil
}

// packParallel is packRows on several processors.
func packParallel(dst, src []byte, t tensor.DType, k, rows int) error {
	workers := min(runtime.GOMAXPROCS(0), 8, rows)
	to, from := len(dst)/rows, len(src)/rows
	errs := make([]error, workers)
	var wait sync.WaitGroup
	for w := range workers {
		a, b := rows*w/workers, rows*(w+1)/workers
		wait.Go(func() { errs[w] = packRows(dst[a*to:b*to], src[a*from:b*from], t, k, b-a) })
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// describeWeights makes the entries of all matrices, still without data.
func (e *executor) describeWeights(w graph.Weights) error {
	matrices, _ := tensors(e.program, w)
	for _, t := range matrices {
		n, err := packedRowBytes(t.Type, t.Cols())
		if err != nil {
			return fmt.Errorf("tensor %v: %w", t, err)
		}
		e.weights[t.Name] = &weight{name: t.Name, dtype: t.Type, rows: t.Rows(), k: t.Cols(), rowBytes: n}
	}
	return nil
}

// loadWeights puts every tensor of the program into device memory.
func (e *executor) loadWeights(w graph.Weights) error {
	matrices, vectors := tensors(e.program, w)
	largest := stagingBytes
	for _, m := range e.weights {
		largest = max(largest, m.rowBytes)
	}
	s, err := newStaging(e.c, e.stream, largest, e.watch.step)
	if err != nil {
		return err
	}
	for _, t := range matrices {
		m := e.weights[t.Name]
		if m.data, err = e.alloc(m.bytes()); err != nil {
			return fmt.Errorf("tensor %v: %w", t, err)
		}
		if err := s.upload(m, t); err != nil {
			return err
		}
	}
	for _, t := range vectors {
		if e.vectors[t.Name], err = e.uploadVector(t); err != nil {
			return fmt.Errorf("tensor %v: %w", t, err)
		}
	}
	// At the end: the kernel may still be compiled while tensors are uploaded.
	for _, t := range matrices {
		if err := e.rowScales(e.weights[t.Name]); err != nil {
			return fmt.Errorf("tensor %v: %w", t, err)
		}
	}
	return s.close()
}

// rowScales enqueues the computation of a matrix's scales.
func (e *executor) rowScales(w *weight) error {
	if !e.multiplied[w.name] {
		return nil
	}
	var err error
	if w.scales, err = e.alloc(int64(w.rows) * 4); err != nil {
		return err
	}
	run, err := rowScalesLaunch(e.c, e.lib.find, w.data, w.dtype, w.scales, w.rows, w.k)
	if err != nil {
		return err
	}
	run.Overlap = false
	return e.c.Run(run, e.stream)
}

func (e *executor) uploadVector(t tensor.Tensor) (cuda.Ptr, error) {
	v := make([]float32, t.Elements())
	if err := quant.Dequantize(t.Type, v, t.Data); err != nil {
		return 0, err
	}
	return allocWith(e, v)
}

// allocWith allocates device memory with the content of a slice.
func allocWith[T any](e *executor, v []T) (cuda.Ptr, error) {
	p, err := e.alloc(sizeOf(v))
	if err != nil {
		return 0, err
	}
	return p, cuda.Upload(e.c, p, v)
}
