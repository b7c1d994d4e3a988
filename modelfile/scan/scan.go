// Package scan walks over the numbers of tensors with several workers and
// little memory. Work is cut the same way for any number of workers, so that
// results merged in order do not depend on it.
package scan

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/apr-engine/apr/kernel"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// chunkBytes is about how many bytes a worker takes at a time: large enough to
// hide the hand-over, small enough that the workers end together.
const chunkBytes = 1 << 20

// Piece is the most numbers decoded at a time: 128 KiB as float64, which stays
// in a core's second-level cache. It is a multiple of every block length.
const Piece = 1 << 14

// Chunk is a run of rows of one tensor.
type Chunk struct {
	Tensor      int // index in the list given to Chunks
	First, Rows int
}

// Chunks cuts tensors into runs of whole rows of about a megabyte, in order.
func Chunks(tensors []tensor.Tensor) []Chunk {
	var list []Chunk
	for i, t := range tensors {
		rows := t.Rows()
		if rows <= 0 {
			continue
		}
		step := max(1, chunkBytes/max(1, len(t.Data)/rows))
		for r := 0; r < rows; r += step {
			list = append(list, Chunk{i, r, min(step, rows-r)})
		}
	}
	return list
}

// Each calls work for 0 … n−1 from several goroutines; threads 0 means one for
// each processor. It ends early, with the error, when the context does or when
// work fails.
func Each(ctx context.Context, threads, n int, work func(i int) error) error {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	var (
		next  atomic.Int64
		wait  sync.WaitGroup
		once  sync.Once
		first error
	)
	stop := func(err error) {
		once.Do(func() { first = err })
		next.Store(int64(n))
	}
	for range min(threads, n) {
		wait.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := ctx.Err(); err != nil {
					stop(err)
					return
				}
				if err := work(i); err != nil {
					stop(err)
					return
				}
			}
		})
	}
	wait.Wait()
	return first
}

// Number is what Decode writes.
type Number interface{ float32 | float64 }

// Exact reports whether numbers of type t fit a float32 exactly, as all formats
// of package quant do; wider types are decoded as float64.
func Exact(t tensor.DType) bool { _, ok := quant.Lookup(t); return ok }

// Readable reports whether Decode knows type t.
func Readable(t tensor.DType) bool { return Exact(t) || widths[t] != nil }

// Decode sets dst to the numbers of type t in src, whole blocks. Integers of
// 64 bits beyond 2^53 are rounded.
func Decode[T Number](t tensor.DType, dst []T, src []byte) error {
	if Exact(t) {
		if n, err := t.RowBytes(len(dst)); err != nil || n != len(src) {
			return fmt.Errorf("%w: %d elements of %v in %d bytes", quant.ErrLength, len(dst), t, len(src))
		}
		if f, ok := any(dst).([]float32); ok {
			kernel.Dequantize(t, f, src)
			return nil
		}
		narrow := make([]float32, len(dst))
		kernel.Dequantize(t, narrow, src)
		for i, x := range narrow {
			dst[i] = T(x)
		}
		return nil
	}
	get := widths[t]
	size := t.BlockBytes()
	if get == nil || size*len(dst) != len(src) {
		return fmt.Errorf("%w: %d elements of %v in %d bytes", quant.ErrType, len(dst), t, len(src))
	}
	for i := range dst {
		dst[i] = T(get(src[i*size:]))
	}
	return nil
}

// widths decode one number of the types that package quant has no format for.
var widths = map[tensor.DType]func([]byte) float64{
	tensor.I8:  func(b []byte) float64 { return float64(int8(b[0])) },
	tensor.I16: func(b []byte) float64 { return float64(int16(binary.LittleEndian.Uint16(b))) },
	tensor.I32: func(b []byte) float64 { return float64(int32(binary.LittleEndian.Uint32(b))) },
	tensor.I64: func(b []byte) float64 { return float64(int64(binary.LittleEndian.Uint64(b))) },
	tensor.F64: func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) },
}

// Pieces decodes a row piece by piece into buf, which holds at least
// min(Piece, cols) numbers, and calls visit with each and where it begins.
func Pieces[T Number](t tensor.Tensor, row int, buf []T, visit func(at int, x []T)) error {
	for at := 0; at < t.Cols(); at += Piece {
		x, err := PieceAt(t, row, at, buf)
		if err != nil {
			return err
		}
		visit(at, x)
	}
	return nil
}

// PieceAt decodes the piece of a row that begins at column at, a multiple of
// Piece, into buf.
func PieceAt[T Number](t tensor.Tensor, row, at int, buf []T) ([]T, error) {
	n := min(Piece, t.Cols()-at)
	begin, err := t.Type.RowBytes(at)
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", t.Name, err)
	}
	size, err := t.Type.RowBytes(n)
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", t.Name, err)
	}
	if err := Decode(t.Type, buf[:n], t.Row(row)[begin:begin+size]); err != nil {
		return nil, fmt.Errorf("tensor %s: %w", t.Name, err)
	}
	return buf[:n], nil
}

// Buffer makes a buffer for Pieces of rows of t.
func Buffer[T Number](t tensor.Tensor) []T { return make([]T, min(Piece, t.Cols())) }
