// Package quant holds the tensor storage formats: for each its block layout,
// the exact definition of its numbers (dequantise), a quantiser and a reference
// dot product. One file a format, one table of all of them.
//
// Everything here is plain Go and is the definition that faster kernels are
// compared with. Dequantisation performs the same float32 operations in the same
// order as gguf-py (llama.cpp's gguf-py/gguf/quants.py) and ggml's
// dequantize_row_*, so the results agree bit for bit. Products are written
// float32(a*b) where an addition follows, if only in a later statement: without
// the conversion Go may fuse the two on some platforms, which rounds once
// instead of twice.
package quant

import (
	"errors"
	"fmt"
	"math"

	"github.com/apr-engine/apr/tensor"
)

// Sentinel errors; test with errors.Is.
var (
	// ErrType means that the tensor type has no format here.
	ErrType = errors.New("unsupported tensor type")
	// ErrLength means that source, destination or weights do not fit together,
	// or are not a whole number of blocks.
	ErrLength = errors.New("lengths do not match")
	// ErrNotFinite means that a number to be stored is NaN, infinite or too
	// large for the format.
	ErrNotFinite = errors.New("number cannot be stored")
)

// ElementError is the ErrNotFinite of Quantize: which number was refused.
type ElementError struct {
	Index int // in the source
	Value float32
	Type  tensor.DType // that cannot hold it
}

// Error describes the number and what the type holds.
func (e *ElementError) Error() string {
	return fmt.Sprintf("%v: element %d is %v, %s holds at most ±%g", ErrNotFinite, e.Index, e.Value, e.Type, largest(e.Type))
}

// Unwrap makes it an ErrNotFinite.
func (e *ElementError) Unwrap() error { return ErrNotFinite }

// Format is one row of the table: how numbers of one type are stored.
//
// Dequantize and Quantize do not check lengths; use the functions of the same
// names for data whose size is not known to fit.
type Format struct {
	Type tensor.DType

	// Dequantize sets dst to the numbers stored in src. len(dst) is a multiple
	// of the block length and src holds exactly that many blocks.
	Dequantize func(dst []float32, src []byte)

	// Quantize stores src, whose length is a multiple of the block length and
	// whose numbers are finite, in dst. It minimises the sum of
	// weights[i]·(src[i] − stored[i])² block by block. weights is as long as
	// src; nil means the format's own choice, given in its file.
	Quantize func(dst []byte, src, weights []float32)

	// finite reports the first block of data with a scale (for plain types, a
	// number) that is NaN or infinite, or −1. data is whole blocks.
	finite func(data []byte) int
}

// formats is the table. A new format is a file and a row here; the tests take
// it from this list.
var formats = []Format{
	{tensor.F32, dequantizeF32, quantizeF32, finiteF32},
	{tensor.F16, dequantizeF16, quantizeF16, finiteF16},
	{tensor.BF16, dequantizeBF16, quantizeBF16, finiteBF16},
	{tensor.Q4_0, dequantizeQ4_0, quantizeQ4_0, finiteQ4_0},
	{tensor.Q4_1, dequantizeQ4_1, quantizeQ4_1, finiteQ4_1},
	{tensor.Q5_0, dequantizeQ5_0, quantizeQ5_0, finiteQ5_0},
	{tensor.Q5_1, dequantizeQ5_1, quantizeQ5_1, finiteQ5_1},
	{tensor.Q8_0, dequantizeQ8_0, quantizeQ8_0, finiteQ8_0},
	{tensor.Q2_K, dequantizeQ2K, quantizeQ2K, finiteQ2K},
	{tensor.Q3_K, dequantizeQ3K, quantizeQ3K, finiteQ3K},
	{tensor.Q4_K, dequantizeQ4K, quantizeQ4K, finiteQ4K},
	{tensor.Q5_K, dequantizeQ5K, quantizeQ5K, finiteQ5K},
	{tensor.Q6_K, dequantizeQ6K, quantizeQ6K, finiteQ6K},
	{tensor.IQ4_NL, dequantizeIQ4NL, quantizeIQ4NL, finiteIQ4NL},
	{tensor.IQ4_XS, dequantizeIQ4XS, quantizeIQ4XS, finiteIQ4XS},
}

// byType finds a row by type number; all type numbers here are below 32.
var byType = func() (index [32]*Format) {
	for i := range formats {
		index[formats[i].Type] = &formats[i]
	}
	return index
}()

// Formats lists every format in the order of the table. The slice is a copy.
func Formats() []Format { return append([]Format(nil), formats...) }

// Lookup returns the format of type t; false if there is none.
func Lookup(t tensor.DType) (Format, bool) {
	if int64(t) >= int64(len(byType)) || byType[t] == nil {
		return Format{}, false
	}
	return *byType[t], true
}

// lookup is Lookup with the error that callers report.
func lookup(t tensor.DType) (Format, error) {
	f, ok := Lookup(t)
	if !ok {
		return f, fmt.Errorf("%w: %s", ErrType, t)
	}
	return f, nil
}

// checkBlocks fails unless n elements are whole blocks of t in exactly size bytes.
func checkBlocks(t tensor.DType, n, size int) error {
	want, err := t.RowBytes(n)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLength, err)
	}
	if size != want {
		return fmt.Errorf("%w: %d elements of %s take %d bytes, got %d", ErrLength, n, t, want, size)
	}
	return nil
}

// Dequantize sets dst to the numbers of type t stored in src. It fails with
// ErrType or ErrLength and then leaves dst alone.
func Dequantize(t tensor.DType, dst []float32, src []byte) error {
	f, err := lookup(t)
	if err != nil {
		return err
	}
	if err := checkBlocks(t, len(dst), len(src)); err != nil {
		return err
	}
	f.Dequantize(dst, src)
	return nil
}

// Quantize stores src as type t in dst: one row or many, as long as a row is
// whole blocks. weights is nil, as long as src, or as long as one row of
// several and then used for each; see Format.Quantize. Input that the format
// cannot hold (NaN, infinite, beyond its range) is refused with its position.
func Quantize(t tensor.DType, dst []byte, src, weights []float32) error {
	f, err := lookup(t)
	if err != nil {
		return err
	}
	if err := checkBlocks(t, len(src), len(dst)); err != nil {
		return err
	}
	if len(src) == 0 {
		return nil
	}
	limit := largest(t)
	for i, v := range src {
		// Written so that NaN fails too.
		if !(v <= limit && v >= -limit) {
			return &ElementError{i, v, t}
		}
	}
	if weights == nil {
		f.Quantize(dst, src, nil)
		return nil
	}
	return quantizeWeighted(f, dst, src, weights)
}

// quantizeWeighted checks the weights and applies them row by row.
func quantizeWeighted(f Format, dst []byte, src, weights []float32) error {
	row := len(weights)
	if row == 0 || len(src)%row != 0 {
		return fmt.Errorf("%w: %d weights for %d elements", ErrLength, row, len(src))
	}
	rowBytes, err := f.Type.RowBytes(row)
	if err != nil {
		return fmt.Errorf("%w: weights: %w", ErrLength, err)
	}
	for i, w := range weights {
		if !(w >= 0 && w <= math.MaxFloat32) {
			return fmt.Errorf("%w: weight %d is %v, want a finite number that is not negative", ErrNotFinite, i, w)
		}
	}
	for r := 0; r < len(src)/row; r++ {
		f.Quantize(dst[r*rowBytes:(r+1)*rowBytes], src[r*row:(r+1)*row], weights)
	}
	return nil
}

// largest is the greatest magnitude that Quantize accepts for t. Quantised
// types keep an F16 scale, times at least one of the levels; F16's maximum is
// safe for all of them and far above any weight. BF16 numbers above its own
// maximum would round to infinity.
func largest(t tensor.DType) float32 {
	switch t {
	case tensor.F32:
		return math.MaxFloat32
	case tensor.BF16:
		return BF16ToF32(0x7f7f)
	default:
		return maxF16
	}
}

// Dot returns the dot product of a stored row with x: the weights dequantised,
// the products and the sum in float64, in order. It is a reference, not fast.
// If t is unknown or the lengths disagree the result is NaN, which every
// comparison refuses.
func Dot(t tensor.DType, row []byte, x []float32) float64 {
	f, ok := Lookup(t)
	if !ok || checkBlocks(t, len(x), len(row)) != nil {
		return math.NaN()
	}
	const chunk = 256 // a multiple of every block length
	var w [chunk]float32
	var sum float64
	for len(x) > 0 {
		n := min(chunk, len(x))
		size := n / t.BlockLen() * t.BlockBytes()
		f.Dequantize(w[:n], row[:size])
		for i, v := range w[:n] {
			// Exact: the product of two float32 fits a float64.
			sum += float64(v) * float64(x[i])
		}
		x, row = x[n:], row[size:]
	}
	return sum
}

// Validate looks for blocks of type t in data whose scale is NaN or infinite
// (for F32, F16 and BF16: numbers that are). It returns the first such block.
// An unknown type, or bytes left over at the end, is a bad block too. It reads
// the scales only and runs at memory speed, so whole files can be checked.
func Validate(t tensor.DType, data []byte) (badBlock int, ok bool) {
	f, known := Lookup(t)
	if !known {
		return 0, false
	}
	n := len(data) / t.BlockBytes()
	if i := f.finite(data[:n*t.BlockBytes()]); i >= 0 {
		return i, false
	}
	if len(data) != n*t.BlockBytes() {
		return n, false
	}
	return 0, true
}
