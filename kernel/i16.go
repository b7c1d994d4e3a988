package kernel

import (
	"fmt"

	"github.com/apr-engine/apr/tensor"
)

// The int16 path: activations are rounded to 16-bit integers with one float32
// scale per chunk of 256 elements, weights stay in the blocks of the file.
// Products and their sums inside a chunk are exact integers; only the scales
// and the sum over chunks are float32. The rounding of the activations is the
// only error beside float32's own: at most max|x|/65278 per element, or max|x|/63518 in
// front of types that are multiplied faster if sums of an activation and a weight fit 16
// bits (I16.For).

const (
	// i16Chunk is how many columns share a scale; it is the super-block of the
	// K-quants and a multiple of every other block.
	i16Chunk = 256
	// i16Max is the largest magnitude of a quantised activation: the largest that is
	// 256 times one signed byte plus another. (−32768 is out of the question anyway:
	// two products of it would overflow VPMADDWD.)
	i16Max = 127*256 + 127
	// i16Tiny: a chunk whose largest magnitude is below this counts as zero, so
	// that neither the scale nor its inverse leaves the normal float32 range.
	i16Tiny = 0x1p-100
)

// I16 holds a batch of activation rows quantised to 16 bits. The layout is
// chunk-major, so that the same 256 columns of neighbouring tokens lie side by
// side; for one token it is the natural order. A last chunk that is shorter
// than 256 columns is padded with zeros.
type I16 struct {
	Tokens, Cols int
	Q            []int16   // (chunks, tokens, 256)
	Scale        []float32 // (chunks, tokens): x ≈ Scale × Q
	Sum          []float32 // (chunks, tokens, 16): Scale × Σ Q over 16 elements
	Sum32        []float32 // (chunks, tokens, 8): the same over 32 elements
	// Cross has, for products of sums (i16_cross.go), what activations make with each
	// other. It is filled only at levels with such kernels, and empty for at most
	// planesTokens tokens.
	Cross []int32 // (chunks, crossPerToken × tokens)
	// Planes is Q as bytes, for kernels that multiply weights while they are bytes.
	// It is filled only at levels with such kernels, and empty for more than
	// planesTokens tokens.
	Planes []i16Planes // (chunks, tokens)
	// BlockPlanes is the same in the order of formats of blocks of 32 elements.
	BlockPlanes []i16BlockPlanes // (chunks, tokens)
	// Pairs is Sum32 in the order of such kernels that work on two rows in a vector:
	// 0 1 0 1 2 3 2 3 and so on. It is as full as Planes.
	Pairs []float32 // (chunks, tokens, 16)
	// Halves is the same for kernels that multiply one token with formats whose bytes hold
	// weights of two groups of 32. It is filled for an odd number of tokens, of which the last
	// is multiplied by itself.
	Halves []i16Halves // (chunks, tokens)

	layouts i16Layout // what is filled of these, by For; all if none is named
	limit   int       // the largest magnitude of Q, by For; 0 stands for i16Max
}

// i16Layout is a set of forms of the activations; every product can do with Q.
type i16Layout uint8

const (
	wordsLayout  i16Layout = 1 << iota // Q
	planesLayout                       // Planes and Pairs
	blocksLayout                       // BlockPlanes
	sumsLayout                         // Cross
	halvesLayout                       // Halves for one token, Planes and Pairs for more
)

// For has only what products with weights of these types, and of those named before,
// read be filled from the next Resize on, and numbers be rounded so that those are fast
// (I16Largest). Products with others are right but slow. Without it all is filled.
func (a *I16) For(types ...tensor.DType) {
	a.limit = min(a.largest(), I16Largest(types...))
	for _, t := range types {
		a.layouts |= wordsLayout
		if f := i16Formats[t]; f != nil {
			a.layouts |= f.layout
			if f.sums {
				a.layouts |= sumsLayout
			}
		}
	}
}

// Like makes other, which is empty, hold what a does from its next Resize on.
func (a *I16) Like(other *I16) { other.layouts, other.limit = a.layouts, a.limit }

// i16Planes is one chunk of a token as bytes: q = 256·Upper + Lower. Vector v has
// elements 16g+4v to 16g+4v+3 at 4g, so that sums over v are those of 16 elements.
type i16Planes struct {
	Upper, Lower [4][64]int8
	Sum          [16]int32 // −32 times the sum of 16 elements
}

// i16BlockPlanes is one chunk of a token as bytes: q = 256·Upper + Lower. Vector v has
// elements 32b+8v to 32b+8v+7 at 8b, so that those that are summed over v and groups of
// four, as they are multiplied, are of one block b.
type i16BlockPlanes struct {
	Upper, Lower [4][64]int8
	Sum          [16]int32 // −16 times the sum of elements 32b+4i+8v, of four each, v from 0 to 3, at 2b+i
}

// i16Halves is one chunk of a token as bytes: q = 256·Upper + Lower. Vector 2i+n meets lower
// (n = 0) or upper halves of bytes (n = 1) of a block whose 128 bytes have the weights of
// groups 2p and 2p+1 of 32 columns in bytes 32p to 32p+31: of these eights of bytes 0, 8, 2,
// 10, 4, 12, 6, 14 (i = 0) or 1, 9, 3, 11, 5, 13, 7, 15 (i = 1), so that the first and the
// second half of the block alternate.
type i16Halves struct {
	Upper, Lower [4][64]int8
	Sum          [16]float32 // Sum32 of groups 0 4 1 5 2 6 3 7, twice
}

// planesTokens is the largest batch that is kept as bytes too.
const planesTokens = 8

// I16Chunk is how many columns are quantised together.
const I16Chunk = i16Chunk

// Chunks is the number of chunks of 256 columns, the last one maybe partial.
func (a *I16) Chunks() int { return (a.Cols + i16Chunk - 1) / i16Chunk }

// Resize makes room for tokens rows of cols columns, reusing memory where it
// can. Contents are undefined until each token has been quantised. cols must be
// a multiple of 32.
func (a *I16) Resize(tokens, cols int) {
	if tokens < 0 || cols < 0 || cols%32 != 0 {
		panic(fmt.Sprintf("kernel: I16 of %d × %d: columns must be a multiple of 32", tokens, cols))
	}
	a.Tokens, a.Cols = tokens, cols
	n := a.Chunks() * tokens
	a.Q = resized(a.Q, n*i16Chunk)
	a.Scale = resized(a.Scale, n)
	a.Sum = resized(a.Sum, n*16)
	a.Sum32 = resized(a.Sum32, n*8)
	many := tokens > planesTokens
	filled := func(l i16Layout) int {
		if many != (l == sumsLayout) || a.layouts != 0 && a.layouts&l == 0 {
			return 0
		}
		return n
	}
	a.Cross = resized(a.Cross, crossPerToken*filled(sumsLayout))
	planes := planesLayout
	if tokens > 1 {
		planes |= halvesLayout
	}
	a.Planes, a.Pairs = resized(a.Planes, filled(planes)), resized(a.Pairs, 16*filled(planes))
	a.BlockPlanes = resized(a.BlockPlanes, filled(blocksLayout))
	a.Halves = resized(a.Halves, filled(halvesLayout)*(tokens%2))
}

// Part makes part the chunks from c0 to c1 of all tokens in the same memory, so that several
// workers can quantise one value. There are at most planesTokens tokens.
func (a *I16) Part(part *I16, c0, c1 int) {
	n, m := c0*a.Tokens, c1*a.Tokens
	*part = I16{
		Tokens: a.Tokens, Cols: min(c1*i16Chunk, a.Cols) - c0*i16Chunk,
		Q: a.Q[n*i16Chunk : m*i16Chunk], Scale: a.Scale[n:m], Sum: a.Sum[n*16 : m*16], Sum32: a.Sum32[n*8 : m*8],
		Planes: partOf(a.Planes, n, m, 1), BlockPlanes: partOf(a.BlockPlanes, n, m, 1), Pairs: partOf(a.Pairs, n, m, 16), Halves: partOf(a.Halves, n, m, 1),
		layouts: a.layouts, limit: a.limit,
	}
}

func partOf[T float32 | i16Planes | i16BlockPlanes | i16Halves](s []T, n, m, size int) []T {
	if len(s) == 0 {
		return nil
	}
	return s[n*size : m*size]
}

func resized[T int16 | int32 | float32 | i16Planes | i16BlockPlanes | i16Halves](s []T, n int) []T {
	if cap(s) < n {
		return aligned[T](n)
	}
	return s[:n]
}

// QuantizeI16 stores x, of dst.Cols elements, as one token of dst:
// Q = round(x / Scale), ties to even, with Scale = max|x|/32639 of the chunk, or of
// somewhat less than 32639 in front of some types of weights (For). A chunk of zeros
// (or below 2^-100) has scale 0. A chunk with a NaN or an infinity has scale NaN, so
// every product with it is NaN. Different tokens may be quantised concurrently.
func QuantizeI16(dst *I16, token int, x []float32) {
	if token < 0 || token >= dst.Tokens || len(x) != dst.Cols {
		panic(fmt.Sprintf("kernel: quantise token %d of %d with %d of %d columns", token, dst.Tokens, len(x), dst.Cols))
	}
	quantizeI16Slot.active(dst, token, x)
}

type quantizeI16Func func(dst *I16, token int, x []float32)

var quantizeI16Slot = newSlot[quantizeI16Func]("quantize/i16", quantizeI16Generic)

// SupportsI16 reports whether weights of type t can be multiplied with I16.
func SupportsI16(t tensor.DType) bool { return i16Formats[t] != nil }

// MatVecI16 sets out[i] = w.row(r0+i)·x[token] for r0 ≤ r0+i < r1. A result
// depends on its row and token only, not on the range or the batch.
func MatVecI16(out []float32, w tensor.Tensor, r0, r1 int, x *I16, token int) {
	MatVecsI16(out, r1-r0, w, r0, r1, x, token, token+1)
}

// MatVecsI16 is MatVecI16 for the few tokens t0 ≤ t < t1, reading the weights
// about once: out[(t-t0)*stride+i] = w.row(r0+i)·x[t]. The results are bit for
// bit those of MatVecI16. From about eight tokens on MatMulI16 is faster.
func MatVecsI16(out []float32, stride int, w tensor.Tensor, r0, r1 int, x *I16, t0, t1 int) {
	f := checkI16(w, r0, r1, x, t0, t1)
	rows := r1 - r0
	if rows == 0 || t0 == t1 || len(w.Data) == 0 {
		clear(out)
		return
	}
	if stride < rows || len(out) < (t1-t0-1)*stride+rows {
		panic("kernel: output of matrix-vector product is too short")
	}
	rowBytes := len(w.Data) / w.Rows()
	f.matVec.active(out, stride, w.Data[r0*rowBytes:r1*rowBytes], rowBytes, rows, x, t0, t1)
}

// checkI16 panics unless the operands fit: a mismatch is a bug of the caller,
// since shapes are checked when a model is loaded.
func checkI16(w tensor.Tensor, r0, r1 int, x *I16, t0, t1 int) *i16Format {
	f := i16Formats[w.Type]
	if f == nil {
		panic(fmt.Sprintf("kernel: no int16 product for %s", w))
	}
	size, err := w.Type.RowBytes(x.Cols)
	if err != nil || w.Cols() != x.Cols || len(w.Data) != size*w.Rows() {
		panic(fmt.Sprintf("kernel: %s does not fit %d columns", w, x.Cols))
	}
	if r0 < 0 || r1 < r0 || r1 > w.Rows() || t0 < 0 || t1 < t0 || t1 > x.Tokens {
		panic(fmt.Sprintf("kernel: rows %d to %d, tokens %d to %d of %s × %d", r0, r1, t0, t1, w, x.Tokens))
	}
	return f
}
