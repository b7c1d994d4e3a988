package modelfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// chunkElements is about how many elements a worker takes at a time: large
// enough to hide the hand-over, small enough to keep all workers busy to the end.
const chunkElements = 1 << 16

// chunksPerWindow is how many chunks per worker are finished before they are
// written out in order; it bounds the memory held.
const chunksPerWindow = 8

// write converts and writes all tensors.
func (j *job) write(ctx context.Context, w sink) error {
	for i, t := range j.items {
		j.at.Tensor, j.at.From, j.at.To, j.at.Index = t.Name, t.Type, j.types[i], i
		out, err := w.NextTensor()
		if err != nil {
			return err
		}
		if j.verbatim(i) {
			err = j.copyOwn(ctx, out, t)
		} else {
			err = j.convert(ctx, out, t, j.types[i])
		}
		if err != nil {
			return fmt.Errorf("tensor %s: %w", t, err)
		}
	}
	return nil
}

// copyOwn writes a tensor of one of .apr's own types as it is.
func (j *job) copyOwn(ctx context.Context, out io.Writer, t item) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := out.Write(t.own.Data); err != nil {
		return err
	}
	j.at.Done += int64(t.Elements())
	j.at.BytesWritten += int64(len(t.own.Data))
	j.at.BytesInSource += int64(len(t.own.Data))
	if j.opts.Progress != nil {
		j.opts.Progress(j.at)
	}
	return nil
}

// convert writes tensor t as type to, a window of rows at a time.
func (j *job) convert(ctx context.Context, out io.Writer, t item, to tensor.DType) error {
	rows, cols := t.Rows(), t.Cols()
	rowBytes, err := to.RowBytes(cols)
	if err != nil {
		return err
	}
	chunk := max(1, chunkElements/cols)
	window := min(rows, chunk*chunksPerWindow*j.opts.Threads)
	buf := make([]byte, window*rowBytes)
	source := len(t.Data) / rows
	for from := 0; from < rows; from += window {
		n := min(window, rows-from)
		if err := j.window(ctx, buf[:n*rowBytes], t, to, from, n, chunk); err != nil {
			return err
		}
		if _, err := out.Write(buf[:n*rowBytes]); err != nil {
			return err
		}
		j.at.Done += int64(n * cols)
		j.at.BytesWritten += int64(n * rowBytes)
		j.at.BytesInSource += int64(n * source)
		if j.opts.Progress != nil {
			j.opts.Progress(j.at)
		}
	}
	return nil
}

// window converts n rows from row first into buf, chunk rows at a time on all
// workers. It returns the error of the earliest chunk that failed.
func (j *job) window(ctx context.Context, buf []byte, t item, to tensor.DType, first, n, chunk int) error {
	rowBytes := len(buf) / n
	chunks := (n + chunk - 1) / chunk
	errs := make([]error, chunks)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(j.opts.Threads, chunks) {
		wg.Go(func() {
			var numbers []float32
			for {
				c := int(next.Add(1)) - 1
				if c >= chunks {
					return
				}
				if errs[c] = ctx.Err(); errs[c] != nil {
					return
				}
				from, end := c*chunk, min((c+1)*chunk, n)
				numbers, errs[c] = convertRows(buf[from*rowBytes:end*rowBytes], t, to, first+from, end-from, numbers)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// convertRows converts n rows from row first into dst. numbers is scratch space,
// returned for reuse.
func convertRows(dst []byte, t item, to tensor.DType, first, n int, numbers []float32) ([]float32, error) {
	rowBytes := len(t.Data) / t.Rows()
	src := t.Data[first*rowBytes : (first+n)*rowBytes]
	if t.row != nil {
		src = make([]byte, 0, n*rowBytes)
		for r := first; r < first+n; r++ {
			src = append(src, t.Data[t.row(r)*rowBytes:(t.row(r)+1)*rowBytes]...)
		}
	}
	if t.Type == to {
		if _, known := quant.Lookup(to); known {
			if block, ok := quant.Validate(to, src); !ok {
				at := (first*rowBytes/to.BlockBytes() + block) * to.BlockLen()
				return numbers, fmt.Errorf("%w: the block at %s is not finite", quant.ErrNotFinite, position(t, at))
			}
		}
		copy(dst, src)
		return numbers, nil
	}
	cols := t.Cols()
	if cap(numbers) < n*cols {
		numbers = make([]float32, n*cols)
	}
	numbers = numbers[:n*cols]
	if err := quant.Dequantize(t.Type, numbers, src); err != nil {
		return numbers, err
	}
	err := quant.Quantize(to, dst, numbers, nil)
	if bad, ok := errors.AsType[*quant.ElementError](err); ok {
		return numbers, fmt.Errorf("%w: %v at %s does not fit %s", quant.ErrNotFinite, bad.Value, position(t, first*cols+bad.Index), to)
	}
	return numbers, err
}

// position names an element by row and column.
func position(t item, element int) string {
	return fmt.Sprintf("row %d, column %d", element/t.Cols(), element%t.Cols())
}
