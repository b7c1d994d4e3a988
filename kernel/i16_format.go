package kernel

import (
	"strings"

	"github.com/apr-engine/apr/tensor"
)

// i16Format is how one weight type takes part in int16 products.
type i16Format struct {
	dtype tensor.DType
	// halves lists the offsets of the binary16 scales in a block.
	halves []int
	// decode expands one chunk: 256 columns, or fewer blocks at the end of a row.
	decode func(dst *i16Weights, blocks []byte)
	// folded: the integer weights contain the sub-block scales and one float
	// scale d[0] holds for the chunk. Otherwise there is one d per 32 columns.
	folded bool
	// minEvery is the number of columns that share a minimum: 0 (none), 16 or 32.
	minEvery int
	// largest is the bound on max|weight| below, in panels of kernels that multiply sums:
	// 8·63 for Q4_K and 16·63 for Q5_K there.
	largest int
	// flush is how many columns a lane of int32 may sum without overflow: flush
	// × max|weight| × 32639 < 2^31.
	flush int
	// layout is the form of the activations that its products with few tokens read at some
	// level, if it is not Q.
	layout i16Layout
	// sums: at some level its products with many tokens are products of sums.
	sums bool

	blockLen       int // columns of a block
	blocksPerChunk int
	chunkBytes     int // of 256 columns of a row

	matVec *slot[matVecI16Func]
	unpack *slot[unpackI16Func]
}

// i16Weights is one chunk of one row: weight k is d·w[k] − min[k/16].
type i16Weights struct {
	w   [i16Chunk]int16
	d   [8]float32  // one per 32 columns; only d[0] if folded
	min [16]float32 // one per 16 columns
}

// matVecI16Func computes out[(t-t0)*stride+i] for rows 0 ≤ i < rows of w, each
// rowBytes long, and tokens t0 ≤ t < t1. Lengths have been checked.
type matVecI16Func func(out []float32, stride int, w []byte, rowBytes, rows int, x *I16, t0, t1 int)

// i16Formats has the types of the int16 path. Bounds on max|weight|:
// Q2_K 3·15, Q3_K 4·32, Q4_K 15·63, Q5_K 31·63, Q6_K 32·128, IQ4_XS 127·32;
// unfolded types at most 128.
var i16Formats = map[tensor.DType]*i16Format{}

func init() {
	for _, f := range []*i16Format{
		{dtype: tensor.Q4_0, halves: []int{0}, decode: decodeQ4_0, largest: 8, flush: 32},
		{dtype: tensor.Q4_1, halves: []int{0, 2}, decode: decodeQ4_1, largest: 15, flush: 32, minEvery: 32},
		{dtype: tensor.Q5_0, halves: []int{0}, decode: decodeQ5_0, largest: 16, flush: 32},
		{dtype: tensor.Q5_1, halves: []int{0, 2}, decode: decodeQ5_1, largest: 31, flush: 32, minEvery: 32},
		{dtype: tensor.Q8_0, halves: []int{0}, decode: decodeQ8_0, largest: 128, flush: 32},
		{dtype: tensor.IQ4_NL, halves: []int{0}, decode: decodeIQ4NL, largest: 127, flush: 32},
		{dtype: tensor.Q2_K, halves: []int{80, 82}, decode: decodeQ2K, folded: true, largest: 3 * 15, flush: 256, minEvery: 16},
		{dtype: tensor.Q3_K, halves: []int{108}, decode: decodeQ3K, folded: true, largest: 4 * 32, flush: 256},
		{dtype: tensor.Q4_K, halves: []int{0, 2}, decode: decodeQ4K, folded: true, largest: 8 * 63, flush: 64, minEvery: 32},
		{dtype: tensor.Q5_K, halves: []int{0, 2}, decode: decodeQ5K, folded: true, largest: 16 * 63, flush: 32, minEvery: 32},
		{dtype: tensor.Q6_K, halves: []int{208}, decode: decodeQ6K, folded: true, largest: 32 * 128, flush: 16},
		{dtype: tensor.IQ4_XS, halves: []int{0}, decode: decodeIQ4XS, folded: true, largest: 127 * 32, flush: 16},
	} {
		f.blockLen = f.dtype.BlockLen()
		f.blocksPerChunk = i16Chunk / f.blockLen
		f.chunkBytes = f.blocksPerChunk * f.dtype.BlockBytes()
		name := strings.ToLower(f.dtype.String())
		f.matVec = newSlot("matvec/"+name+"/i16", matVecI16Generic(f))
		f.unpack = newSlot("unpack/"+name+"/i16", unpackI16Generic(f))
		i16Formats[f.dtype] = f
	}
	registerI16Variants()
}

// mins is the number of minimums of a chunk in a panel: 0, 8 or 16.
func (f *i16Format) mins() int {
	if f.minEvery == 0 {
		return 0
	}
	return i16Chunk / f.minEvery
}
