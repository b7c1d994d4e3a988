//go:build !noasm

package kernel

import (
	"sync"
	"unsafe"

	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/tensor"
)

// matVecPlanesAsm is matVecI16Asm for I16.Planes.
type matVecPlanesAsm func(out *float32, stride int, w *byte, rows, chunks int, planes *int8, scale, sum *float32, batch int)

// matVecBlockAsm is matVecPlanesAsm for some columns of rows that are rowBytes
// apart; see the stubs.
type matVecBlockAsm func(out *float32, stride int, w *byte, rowBytes, rows, chunks int, planes *int8, scale, sum *float32, batch int, part *float32, last, ahead int)

// planesAsm is the product of 1, 2 and 4 tokens in one format, and the same for
// blocks of columns or, without those, for rows so wide that the activations do not
// fit the first-level cache; both may be nil.
type planesAsm struct {
	tokens int
	rows   matVecPlanesAsm
	block  matVecBlockAsm
	wide   matVecPlanesAsm
	halves bool // rows and block read I16.Halves
	// strip is how many bytes of rows block fetches, in the order of memory, while as many
	// are multiplied; 0 if it fetches pieces of rows some rows early.
	strip int
}

// stripRows is how many rows are multiplied with a block of columns before the next block.
func (k *planesAsm) stripRows(rowBytes int) int {
	if k.strip == 0 {
		return planesStrip
	}
	return max(1, min(planesStrip, k.strip/rowBytes))
}

// activations points to what rows and block read of chunk-token at of x.
func (k *planesAsm) activations(x *I16, at int) (planes *int8, sum *float32) {
	if k.halves {
		return &x.Halves[at].Upper[0][0], nil // the sums lie there too
	}
	return &x.Planes[at].Upper[0][0], &x.Pairs[at*16]
}

// blockPlanesAsm are the products in a format of blocks of 32 columns.
func blockPlanesAsm(x4, wide4, x2, wide2, x1 matVecPlanesAsm) [3]planesAsm {
	return [3]planesAsm{{tokens: 4, rows: x4, wide: wide4}, {tokens: 2, rows: x2, wide: wide2}, {tokens: 1, rows: x1}}
}

const (
	// planesCache is how many bytes of activations are multiplied at a time: what the
	// first-level cache of 48 KiB holds beside the weights that pass through it.
	planesCache = 32 << 10
	// fourCache is the same for four tokens in blocks of columns: blocks of all that fits
	// are slower, as is one block more for rows that are not divided.
	fourCache = 21 << 10
	// wideCache is from how many bytes of activations on kernels for wide rows are better.
	wideCache = 48 << 10
	// planesStrip is how many rows are multiplied at most with a block of columns before
	// the next block: their sums have to be kept meanwhile.
	planesStrip = 64
	// fetchedStrip is planesAsm.strip of a strip that the second-level cache of 1 MiB holds
	// beside the one that is fetched.
	fetchedStrip = 320 << 10
)

// The assembly relies on this layout.
var (
	_ [512]byte = [unsafe.Offsetof(i16Halves{}.Sum)]byte{}
	_ [576]byte = [unsafe.Sizeof(i16Halves{})]byte{}
)

// planesSums are the sums of a strip of rows, 16 lanes for each row and token.
type planesSums [(planesStrip + 1) * 4 * 16]float32

var planesSumsPool = sync.Pool{New: func() any { return (*planesSums)(aligned[float32](len(planesSums{}))) }}

func registerI16Planes() {
	for _, v := range []struct {
		dtype   tensor.DType
		kernels [3]planesAsm // for 4, 2 and 1 tokens
	}{
		{tensor.Q4_0, blockPlanesAsm(matVecQ4_0I16x4AVX512, matVecQ4_0I16Wide4AVX512, matVecQ4_0I16x2AVX512, matVecQ4_0I16Wide2AVX512, matVecQ4_0I16x1AVX512)},
		{tensor.Q4_1, blockPlanesAsm(matVecQ4_1I16x4AVX512, matVecQ4_1I16Wide4AVX512, matVecQ4_1I16x2AVX512, matVecQ4_1I16Wide2AVX512, matVecQ4_1I16x1AVX512)},
		{tensor.Q5_0, blockPlanesAsm(matVecQ5_0I16x4AVX512, matVecQ5_0I16Wide4AVX512, matVecQ5_0I16x2AVX512, matVecQ5_0I16Wide2AVX512, matVecQ5_0I16x1AVX512)},
		{tensor.Q5_1, blockPlanesAsm(matVecQ5_1I16x4AVX512, matVecQ5_1I16Wide4AVX512, matVecQ5_1I16x2AVX512, matVecQ5_1I16Wide2AVX512, matVecQ5_1I16x1AVX512)},
		{tensor.IQ4_NL, blockPlanesAsm(matVecIQ4NLI16x4AVX512, matVecIQ4NLI16Wide4AVX512, matVecIQ4NLI16x2AVX512, matVecIQ4NLI16Wide2AVX512, matVecIQ4NLI16x1AVX512)},
		{tensor.Q8_0, blockPlanesAsm(matVecQ8_0I16x4AVX512, matVecQ8_0I16Wide4AVX512, matVecQ8_0I16x2AVX512, matVecQ8_0I16Wide2AVX512, matVecQ8_0I16x1AVX512)},
		{tensor.Q4_K, [3]planesAsm{{tokens: 4, rows: matVecQ4KI16x4AVX512, block: matVecQ4KI16Block4AVX512}, {tokens: 2, rows: matVecQ4KI16x2AVX512, block: matVecQ4KI16Block2AVX512}, {tokens: 1, rows: matVecQ4KI16x1AVX512, block: matVecQ4KI16Block1AVX512, halves: true}}},
		{tensor.Q5_K, [3]planesAsm{{tokens: 4, rows: matVecQ5KI16x4AVX512, block: matVecQ5KI16Block4AVX512}, {tokens: 2, rows: matVecQ5KI16x2AVX512, block: matVecQ5KI16Block2AVX512}, {tokens: 1, rows: matVecQ5KI16x1AVX512, block: matVecQ5KI16Block1AVX512, halves: true}}},
		{tensor.Q6_K, [3]planesAsm{{tokens: 4, rows: matVecQ6KI16x4AVX512, block: matVecQ6KI16Block4AVX512}, {tokens: 2, rows: matVecQ6KI16x2AVX512, block: matVecQ6KI16Block2AVX512}, {tokens: 1, rows: matVecQ6KI16x1AVX512, block: matVecQ6KI16Block1AVX512, strip: fetchedStrip}}},
	} {
		f := i16Formats[v.dtype]
		switch {
		case f.blockLen < i16Chunk:
			f.layout = blocksLayout
		case v.kernels[2].halves:
			f.layout = halvesLayout
		default:
			f.layout = planesLayout
		}
		f.matVec.add(cpufeat.AVX512, f.matVecPlanes(v.kernels))
		for _, k := range v.kernels {
			if k.block != nil {
				registerSelfTest(f.matVec.name, func() error { return f.checkMatVec(1, planesBlock(k.tokens)+1, k.tokens) })
			}
			if k.wide != nil {
				registerSelfTest(f.matVec.name, func() error { return f.checkMatVec(1, wideChunks(k.tokens)*f.blocksPerChunk+f.rest(), k.tokens) })
			}
		}
	}
}

// matVecPlanes makes a kernel for any number of tokens out of assembly that reads
// I16.Planes and gives the same bits per token.
func (f *i16Format) matVecPlanes(kernels [3]planesAsm) matVecI16Func {
	tiles := func(out []float32, stride int, w []byte, rowBytes, rows int, x *I16, t0, t1 int) {
		for t := t0; t < t1; {
			k := &kernels[2]
			for i := range kernels[:2] {
				if t1-t >= kernels[i].tokens {
					k = &kernels[i]
					break
				}
			}
			to := out[(t-t0)*stride:]
			if k.block != nil && x.Chunks() > planesBlock(k.tokens) {
				f.matVecBlocks(k, to, stride, w, rowBytes, rows, x, t)
			} else {
				var planes *int8
				var sum *float32
				if f.layout == blocksLayout {
					planes, sum = &x.BlockPlanes[t].Upper[0][0], &x.Sum[t*16]
				} else {
					planes, sum = k.activations(x, t)
				}
				multiply := k.rows
				if k.wide != nil && x.Chunks() > wideChunks(k.tokens) {
					multiply = k.wide
				}
				multiply(&to[0], stride, &w[0], rows, rowBytes/f.dtype.BlockBytes(), planes, &x.Scale[t], sum, x.Tokens)
			}
			t += k.tokens
		}
	}
	return func(out []float32, stride int, w []byte, rowBytes, rows int, x *I16, t0, t1 int) {
		if f.fits(x, t1-t0) {
			tiles(out, stride, w, rowBytes, rows, x, t0, t1)
			return
		}
		// A few tokens of a large batch, or of one that was made for other weights.
		part := i16PartPool.Get().(*I16)
		defer i16PartPool.Put(part)
		for t := t0; t < t1; t += planesTokens {
			n := min(planesTokens, t1-t)
			part.copyTokens(x, t, n)
			tiles(out[(t-t0)*stride:], stride, w, rowBytes, rows, part, 0, n)
		}
	}
}

// fits reports whether x has what the products of so many of its tokens read.
func (f *i16Format) fits(x *I16, tokens int) bool {
	switch f.layout {
	case blocksLayout:
		return len(x.BlockPlanes) > 0
	case halvesLayout:
		return (tokens == 1 || len(x.Planes) > 0) && (tokens%2 == 0 || len(x.Halves) > 0)
	}
	return len(x.Planes) > 0
}

// planesBlock is how many chunks of some tokens fit planesCache.
func planesBlock(tokens int) int { return planesCache / (tokens * int(unsafe.Sizeof(i16Planes{}))) }

// wideChunks is how many chunks of some tokens fit wideCache.
func wideChunks(tokens int) int { return wideCache / (tokens * int(unsafe.Sizeof(i16BlockPlanes{}))) }

// matVecBlocks multiplies blocks of columns so that the activations of one block
// stay in the first-level cache; those of all columns would be read from the
// second level for every row.
func (f *i16Format) matVecBlocks(k *planesAsm, out []float32, stride int, w []byte, rowBytes, rows int, x *I16, t int) {
	sums := planesSumsPool.Get().(*planesSums)
	defer planesSumsPool.Put(sums)
	chunks, most := x.Chunks(), planesBlock(k.tokens)
	if k.tokens == 4 {
		most = most * fourCache / planesCache
	}
	blocks := (chunks + most - 1) / most
	strip := k.stripRows(rowBytes)
	for r := 0; r < rows; r += strip {
		n := min(strip, rows-r)
		clear(sums[:(n+1)*k.tokens*16]) // one more: rows are read in pairs
		for b := range blocks {
			c0, c1 := chunks*b/blocks, chunks*(b+1)/blocks
			last := 0
			if b == blocks-1 {
				last = 1
			}
			// The columns before c0 have fetched as much of each of the next n rows.
			ahead := n*rowBytes + (n-1)*c0*f.chunkBytes
			at := c0*x.Tokens + t
			planes, sum := k.activations(x, at)
			k.block(&out[r], stride, &w[r*rowBytes+c0*f.chunkBytes], rowBytes, n, c1-c0, planes, &x.Scale[at], sum, x.Tokens, &sums[0], last, ahead)
		}
	}
}

var i16PartPool = sync.Pool{New: func() any { return new(I16) }}

// copyTokens makes a batch of n ≤ planesTokens tokens of x, from t on.
func (a *I16) copyTokens(x *I16, t, n int) {
	a.Resize(n, x.Cols)
	for c := range a.Chunks() {
		to, from := c*n, c*x.Tokens+t
		copy(a.Q[to*i16Chunk:(to+n)*i16Chunk], x.Q[from*i16Chunk:])
		copy(a.Scale[to:to+n], x.Scale[from:])
		copy(a.Sum[to*16:(to+n)*16], x.Sum[from*16:])
		copy(a.Sum32[to*8:(to+n)*8], x.Sum32[from*8:])
	}
	for i := range n {
		fillPlanesGeneric(a, i)
	}
}
