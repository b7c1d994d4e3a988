package kernel

import (
	"math"
	"unsafe"

	"github.com/apr-engine/apr/tensor"
)

// i16PanelRows is how many weight rows are unpacked and multiplied together.
const i16PanelRows = 32

// i16Panel is one chunk of 32 weight rows, unpacked for the matrix product.
// Two columns of a row are neighbours, as the instructions multiply pairs, and
// the rows of a pair lie side by side, so a vector holds one pair of 16 rows.
type i16Panel struct {
	w   [i16Chunk / 2][i16PanelRows][2]int16
	d   [8][i16PanelRows]float32  // one row of d per 32 columns; d[0] if folded
	min [16][i16PanelRows]float32 // per 16 or 32 columns, as the format says

	// Scratch of the assembly, but for cross.
	acc    [24 * 16]float32    // sums of a chunk: (12 tokens, 32 rows)
	rows   [16][i16Chunk]int16 // words of 16 rows before they are transposed
	floats [16][16]float32     // scales and minimums of the same rows
	// cross has, for each flush, what the weights of a row make with each other, less than
	// nothing; see i16_cross.go. It counts only if crossed is set.
	cross [16][i16PanelRows]int32

	// cols is how many columns of the chunk there are. What lies behind them may be
	// anything but minimums, which are 0.
	cols int
	// flush is how many columns are summed before sums might not fit.
	flush   int
	crossed bool
}

// Workspace is the scratch memory of one worker. The zero value is ready; it
// grows to what the largest product needs and then allocates nothing.
type Workspace struct {
	panels [bandPanels]*i16Panel
	tiles  []float32 // (bandPanels, tokens, 32): sums of each panel
	zeros  []float32 // (32): where sums begin
}

// unpackI16Func unpacks one chunk of 1 ≤ rows ≤ 32 rows, rowBytes apart, that
// starts at w with the given number of blocks. Missing rows are zeros or copies of
// the last one; of missing columns the minimums are 0. All weights of a row that share a
// minimum may be the same number less than those of the file, if the minimum is as much less;
// if that makes them smaller, flush may become more.
type unpackI16Func func(p *i16Panel, w []byte, rowBytes, rows, blocks int)

// matMulI16Func sets to, 32 numbers every toStep, to those of from, every fromStep,
// plus the product of a panel with one chunk of tokens: q (tokens, 256), scale
// (tokens), sum (tokens, mins). A fromStep of 0 begins every token's sums with the
// same numbers; to may be from. Lanes of
// int32 sum flush columns; mins is the number of minimums of a chunk: 0, 8, 16.
// Only the columns that the panel has are multiplied. Two arguments change nothing but
// the speed: cross (tokens, 256/flush), a part of I16.Cross, may be empty if the panel is
// not crossed or sums might not fit 16 bits, and from ahead on lies what is needed soon.
type matMulI16Func func(to []float32, toStep int, from []float32, fromStep int, p *i16Panel, q []int16, scale, sum []float32, cross []int32, ahead *int16, tokens, flush, mins int)

// One product for formats with a scale per chunk, one for a scale per 32 columns.
var (
	matMulI16Folded  = newSlot[matMulI16Func]("matmul/folded/i16", matMulI16FoldedGeneric)
	matMulI16Grouped = newSlot[matMulI16Func]("matmul/grouped/i16", matMulI16GroupedGeneric)
)

// fetchRows asks for some bytes of at least one row, rowBytes apart, that will be read
// soon. It may do nothing.
var fetchRows = func(w []byte, rowBytes, rows, bytes int) {}

// Fetch asks for memory that will be read soon. It may do nothing.
func Fetch(b []byte) {
	if len(b) > 0 {
		fetchRows(b, len(b), 1, len(b))
	}
}

// bandPanels is how many panels are unpacked together: activations, of which a wide
// matrix has more than the second-level cache holds, are then read for all their rows.
const bandPanels = 4

// bandTokens is for how many tokens the panels of a band are multiplied in turn: their
// activations in one chunk, 72 KB, stay in the second-level cache meanwhile. A multiple
// of the tokens that kernels work on side by side.
const bandTokens = 144

// bandAhead is how many activations a kernel asks for while it multiplies a panel with
// bandTokens: 2 KB with each 12 tokens, so the first three of four panels ask for all.
const bandAhead = bandTokens / 12 * 1024

// MatMulI16 sets out[t*stride+r] = w.row(r)·x[t] for rows r0 ≤ r < r1 and
// tokens t0 ≤ t < t1. A result depends on its row and token only, but it is
// rounded differently from MatVecI16's. ws belongs to the calling worker.
func MatMulI16(out []float32, stride int, w tensor.Tensor, r0, r1 int, x *I16, t0, t1 int, ws *Workspace) {
	f := checkI16(w, r0, r1, x, t0, t1)
	if r0 == r1 || t0 == t1 {
		return
	}
	if stride < r1 || len(out) < (t1-1)*stride+r1 {
		panic("kernel: output of matrix product is too short")
	}
	ws.reserve(t1 - t0)
	for r := r0; r < r1; r += bandPanels * i16PanelRows {
		b := i16Band{format: f, x: x, t0: t0, t1: t1, w: w.Data, rowBytes: len(w.Data) / w.Rows(), r0: r, r1: min(r+bandPanels*i16PanelRows, r1)}
		b.multiply(out, stride, ws)
	}
}

// i16Band is a product of at most bandPanels panels of rows.
type i16Band struct {
	format   *i16Format
	x        *I16
	t0, t1   int
	w        []byte // the whole matrix
	rowBytes int
	r0, r1   int
}

func (b *i16Band) multiply(out []float32, stride int, ws *Workspace) {
	f, tokens := b.format, b.t1-b.t0
	chunks := b.x.Chunks()
	for c := range chunks {
		blocks := min(f.blocksPerChunk, b.x.Cols/f.blockLen-c*f.blocksPerChunk)
		for r := b.r0; r < b.r1; r += i16PanelRows {
			p := ws.panels[(r-b.r0)/i16PanelRows]
			p.cols, p.flush, p.crossed = blocks*f.blockLen, f.flush, false
			f.unpack.active(p, b.w[r*b.rowBytes+c*f.chunkBytes:], b.rowBytes, min(i16PanelRows, b.r1-r), blocks)
		}
		for t := 0; t < tokens; t += bandTokens {
			n := min(bandTokens, tokens-t)
			b.fetch(c, t)
			for r := b.r0; r < b.r1; r += i16PanelRows {
				i := (r - b.r0) / i16PanelRows
				tile := ws.tiles[(i*tokens+t)*i16PanelRows:]
				from, fromStep, to, toStep := tile, i16PanelRows, tile, i16PanelRows
				if c == 0 {
					from, fromStep = ws.zeros, 0
				}
				if c == chunks-1 && r+i16PanelRows <= b.r1 {
					// Sums are complete: they go to out while the next tokens are multiplied.
					to, toStep = out[(b.t0+t)*stride+r:], stride
				}
				b.panel(to, toStep, from, fromStep, ws.panels[i], i, c, t, n)
			}
		}
	}
	if rows := (b.r1 - b.r0) % i16PanelRows; rows > 0 {
		last := ws.tiles[(b.r1-b.r0)/i16PanelRows*tokens*i16PanelRows:]
		for t := range tokens {
			copy(out[(b.t0+t)*stride+b.r1-rows:(b.t0+t)*stride+b.r1], last[t*i16PanelRows:])
		}
	}
}

// panel multiplies p, which is panel i and has chunk c, with n tokens from t on, of those
// from t0 on.
func (b *i16Band) panel(to []float32, toStep int, from []float32, fromStep int, p *i16Panel, i, c, t, n int) {
	ahead := b.ahead(i, c, t+n)
	t += b.t0
	f, at := b.format, c*b.x.Tokens+t
	multiply, mins, sum := matMulI16Grouped.active, f.mins(), b.x.Sum32[at*8:]
	if f.folded {
		multiply = matMulI16Folded.active
	}
	if mins == 16 {
		sum = b.x.Sum[at*16:]
	}
	var cross []int32
	if p.crossed && len(b.x.Cross) > 0 && b.x.largest()+f.largest <= math.MaxInt16 {
		cross = b.x.Cross[b.x.crossAt(c, t, i16Chunk/p.flush):]
	}
	multiply(to, toStep, from, fromStep, p, b.x.Q[at*i16Chunk:], b.x.Scale[at:], sum, cross, ahead, n, p.flush, mins)
}

// ahead is which activations a kernel may ask for while it multiplies panel i: of the
// tokens that come after, from t on, of chunk c or the next. Only the first panel would
// wait for them, but all share the asking. A wide matrix has more activations than any
// cache holds.
func (b *i16Band) ahead(i, c, t int) *int16 {
	if t >= b.t1-b.t0 {
		c, t = (c+1)%b.x.Chunks(), 0
	}
	at := (c*b.x.Tokens+b.t0+t)*i16Chunk + i*bandAhead
	return &b.x.Q[min(at, len(b.x.Q)-1)]
}

// fetch asks, before tokens from t on are multiplied with chunk c, for a part of what is
// unpacked next: the next chunk, or the first of the next rows. All at once would make
// the loads of the product wait, and what is fetched much earlier has left the
// second-level cache again before its use.
func (b *i16Band) fetch(c, t int) {
	r, at := b.r0, (c+1)*b.format.chunkBytes
	if at >= b.rowBytes {
		r, at = b.r1, 0
	}
	parts, part, rows := (b.t1-b.t0+bandTokens-1)/bandTokens, t/bandTokens, b.r1-b.r0
	first, end := r+rows*part/parts, min(r+rows*(part+1)/parts, len(b.w)/b.rowBytes)
	if first < end {
		fetchRows(b.w[first*b.rowBytes+at:], b.rowBytes, end-first, min(b.format.chunkBytes, b.rowBytes-at))
	}
}

// newI16Panel allocates a panel at a multiple of 64 bytes.
func newI16Panel() *i16Panel {
	return (*i16Panel)(unsafe.Pointer(&aligned[byte](int(unsafe.Sizeof(i16Panel{})))[0]))
}

func (ws *Workspace) reserve(tokens int) {
	if ws.zeros == nil {
		ws.zeros = aligned[float32](i16PanelRows)
		for i := range ws.panels {
			ws.panels[i] = newI16Panel()
		}
	}
	if need := bandPanels * tokens * i16PanelRows; len(ws.tiles) < need {
		ws.tiles = aligned[float32](need)
	}
}

// aligned allocates n elements that start at a multiple of 64 bytes: vector
// loads that straddle cache lines run at half speed.
func aligned[T byte | int16 | int32 | float32 | i16Planes | i16BlockPlanes | i16Halves](n int) []T {
	var zero T
	size := int(unsafe.Sizeof(zero))
	b := make([]byte, n*size+63)
	skip := -uintptr(unsafe.Pointer(&b[0])) & 63
	return unsafe.Slice((*T)(unsafe.Pointer(&b[skip])), n)
}

func unpackI16Generic(f *i16Format) unpackI16Func {
	return func(p *i16Panel, w []byte, rowBytes, rows, blocks int) {
		c := i16WeightsPool.Get().(*i16Weights)
		defer i16WeightsPool.Put(c)
		for r := range i16PanelRows {
			if r < rows {
				f.decode(c, w[r*rowBytes:r*rowBytes+blocks*f.dtype.BlockBytes()])
			} else {
				*c = i16Weights{}
			}
			for k := range p.w {
				p.w[k][r] = [2]int16{c.w[2*k], c.w[2*k+1]}
			}
			for g, d := range c.d {
				p.d[g][r] = d
			}
			for g := range f.mins() {
				p.min[g][r] = c.min[g*16/f.mins()]
			}
		}
	}
}

func matMulI16FoldedGeneric(to []float32, toStep int, from []float32, fromStep int, p *i16Panel, q []int16, scale, sum []float32, cross []int32, ahead *int16, tokens, flush, mins int) {
	for t := range tokens {
		x := (*[i16Chunk]int16)(q[t*i16Chunk:])
		b, y := (*[i16PanelRows]float32)(from[t*fromStep:]), (*[i16PanelRows]float32)(to[t*toStep:])
		for r := range y {
			var acc float32
			for k := 0; k < p.cols; k += flush {
				acc += float32(p.dotRow(r, x, k, k+flush))
			}
			y[r] = b[r] + acc*p.d[0][r]*scale[t]
		}
		p.subtractMins(y, sum[t*mins:(t+1)*mins])
	}
}

func matMulI16GroupedGeneric(to []float32, toStep int, from []float32, fromStep int, p *i16Panel, q []int16, scale, sum []float32, cross []int32, ahead *int16, tokens, flush, mins int) {
	for t := range tokens {
		x := (*[i16Chunk]int16)(q[t*i16Chunk:])
		b, y := (*[i16PanelRows]float32)(from[t*fromStep:]), (*[i16PanelRows]float32)(to[t*toStep:])
		for r := range y {
			var acc float32
			for g := range p.cols / 32 {
				acc += float32(p.dotRow(r, x, 32*g, 32*g+32)) * p.d[g][r]
			}
			y[r] = b[r] + acc*scale[t]
		}
		p.subtractMins(y, sum[t*mins:(t+1)*mins])
	}
}

// dotRow is the integer product of columns k0 to k1 of row r.
func (p *i16Panel) dotRow(r int, x *[i16Chunk]int16, k0, k1 int) (isum int32) {
	for k := k0; k < k1; k += 2 {
		w := p.w[k/2][r]
		isum += int32(w[0])*int32(x[k]) + int32(w[1])*int32(x[k+1])
	}
	return isum
}

func (p *i16Panel) subtractMins(y *[i16PanelRows]float32, sum []float32) {
	for g, s := range sum {
		for r := range y {
			y[r] -= p.min[g][r] * s
		}
	}
}
