package kernel

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/apr-engine/apr/internal/cpufeat"
)

func init() {
	registerSelfTest(quantizeI16Slot.name, checkQuantizeI16)
	for _, d := range slices.Sorted(maps.Keys(i16Formats)) {
		f := i16Formats[d]
		registerSelfTest(f.matVec.name, func() error { return f.checkMatVec(3, 2*f.blocksPerChunk+f.rest(), 7) })
		registerSelfTest(f.unpack.name, func() error { return f.checkUnpack(f.blocksPerChunk) })
		if f.rest() > 0 {
			registerSelfTest(f.unpack.name, func() error { return f.checkUnpack(f.rest()) })
		}
	}
	for _, crossed := range []bool{false, true} {
		for _, c := range []struct{ flush, mins int }{{16, 0}, {64, 8}, {256, 16}} {
			registerSelfTest(matMulI16Folded.name, func() error { return checkMatMulI16(matMulI16Folded, i16Chunk, c.flush, c.mins, crossed) })
		}
		for _, cols := range []int{i16Chunk, 5 * 32} {
			registerSelfTest(matMulI16Grouped.name, func() error { return checkMatMulI16(matMulI16Grouped, cols, 32, 8, crossed) })
		}
	}
}

// rest is how many blocks the last chunk of a tested row has, 0 where a block is a chunk.
// Of eight it is five: kernels multiply four together and then what is left.
func (f *i16Format) rest() int { return f.blocksPerChunk * 5 / 8 }

// i16SelfTestRows makes activations of cols columns for the self-test.
func i16SelfTestRows(tokens, cols, largest int, quantize quantizeI16Func) *I16 {
	r := selfTestRNG(cols)
	x := &I16{limit: largest}
	x.Resize(tokens, cols)
	for t := range tokens {
		quantize(x, t, r.floats(cols))
	}
	return x
}

func checkQuantizeI16() error {
	flat := func(quantize quantizeI16Func) []float32 {
		var out []float32
		for _, tokens := range []int{2, planesTokens + 1} {
			x := i16SelfTestRows(tokens, 544, 30000, quantize)
			out = append(append(append(out, x.Scale...), x.Sum...), x.Sum32...)
			for _, q := range x.Q {
				out = append(out, float32(q))
			}
			if quantizeI16Slot.level != cpufeat.AVX512 {
				continue // nobody reads Cross
			}
			for _, v := range x.Cross {
				out = append(out, float32(v&0xffff), float32(v>>16)) // nothing is rounded
			}
		}
		return out
	}
	return compareResults(flat(quantizeI16Slot.active), flat(quantizeI16Generic), exact)
}

// selfTestBlocks fills rows with random blocks whose scales are finite: a
// binary16 of all exponents but the highest is what clearing one bit leaves.
func (f *i16Format) selfTestBlocks(rows, blocks int) []byte {
	r := selfTestRNG(f.dtype + 1)
	data := make([]byte, rows*blocks*f.dtype.BlockBytes())
	for i := range data {
		data[i] = byte(r.next())
	}
	for b := 0; b < len(data); b += f.dtype.BlockBytes() {
		for _, at := range f.halves {
			data[b+at+1] = data[b+at+1]&^0x7c | 0x24
		}
	}
	return data
}

// checkMatVec multiplies some rows of so many blocks. With 7 tokens assembly for 4, 2 and 1
// takes part, with 3 rows that for two rows and what it does with the last one. Both
// products share activations that the active kernel has rounded, whose own check was before.
func (f *i16Format) checkMatVec(rows, blocks, tokens int) error {
	w := f.selfTestBlocks(rows, blocks)
	x := i16SelfTestRows(tokens, blocks*f.blockLen, 0, quantizeI16Slot.active)
	run := func(product matVecI16Func) []float32 {
		out := make([]float32, tokens*rows)
		product(out, rows, w, len(w)/rows, rows, x, 0, tokens)
		return out
	}
	return compareResults(run(f.matVec.active), run(f.matVec.generic()), manyTerms)
}

// checkUnpack compares panels of so many blocks. With 17 rows the second half of the panel
// has one row, so both loops and the end of the rows take part.
func (f *i16Format) checkUnpack(blocks int) error {
	const rows = 17
	w := f.selfTestBlocks(rows, blocks)
	got, want := newI16Panel(), newI16Panel()
	got.cols, got.flush = blocks*f.blockLen, f.flush
	f.unpack.active(got, w, len(w)/rows, rows, blocks)
	f.unpack.generic()(want, w, len(w)/rows, rows, blocks)
	for k := range blocks * f.blockLen / 2 {
		for r := range rows {
			g, w := &got.w[k][r], &want.w[k][r]
			// What the first of those with a minimum is less, all have to be.
			if less := f.lessened(got, want, 2*k, r); g[0]+less != w[0] || g[1]+less != w[1] {
				return fmt.Errorf("columns %d and %d of row %d are %v, less by %d, plain Go gives %v", 2*k, 2*k+1, r, *g, less, *w)
			}
		}
	}
	for g := range f.mins() {
		for r := 0; r < rows && got.flush != f.flush; r++ { // changes the sign of a zero
			less := f.lessened(got, want, g*i16Chunk/f.mins(), r)
			want.min[g][r] = float32(float64(want.min[g][r]) - float64(want.d[0][r])*float64(less))
		}
	}
	if got.crossed {
		want.w, want.cols = got.w, got.cols
		want.fillCrossGeneric(got.flush)
		for g := range got.cols / got.flush {
			if g, w := got.cross[g][:rows], want.cross[g][:rows]; !slices.Equal(g, w) {
				return fmt.Errorf("products of the weights of rows are %v, plain Go gives %v", g, w)
			}
		}
	}
	scales := 1
	if !f.folded {
		scales = blocks
	}
	for g := range scales {
		if err := compareResults(got.d[g][:rows], want.d[g][:rows], exact); err != nil {
			return fmt.Errorf("scales %d: %w", g, err)
		}
	}
	for g := range f.mins() {
		if err := compareResults(got.min[g][:rows], want.min[g][:rows], exact); err != nil {
			return fmt.Errorf("minimums %d: %w", g, err)
		}
	}
	return nil
}

// lessened is by how much the weights of a row around a column are less than plain Go's,
// which may be so where that allows more columns to a flush.
func (f *i16Format) lessened(p, plain *i16Panel, column, row int) int16 {
	if p.flush == f.flush {
		return 0
	}
	first := column / f.minEvery * f.minEvery / 2
	return plain.w[first][row][0] - p.w[first][row][0]
}

// checkMatMulI16 multiplies a panel of so many columns with 27 tokens, so that every width of tile
// takes part. Two kinds of token alternate, so plain Go needs to run only two.
func checkMatMulI16(s *slot[matMulI16Func], cols, flush, mins int, crossed bool) error {
	const tokens, kinds = 27, 2
	r := selfTestRNG(flush)
	p := newI16Panel()
	p.cols = cols
	limit := int64(math.MaxInt32/(flush*i16Max)) - 1 // of weights, so that nothing overflows
	for k := range p.w {
		for row := range p.w[k] {
			p.w[k][row] = [2]int16{int16(int64(r.next()>>32) % limit), -int16(int64(r.next()>>32) % limit)}
		}
	}
	for g := range p.d {
		copy(p.d[g][:], r.floats(i16PanelRows))
	}
	for g := range p.min {
		copy(p.min[g][:], r.floats(i16PanelRows))
	}
	p.fillCrossGeneric(flush)
	x := i16SelfTestRows(kinds, i16Chunk, min(i16Max, math.MaxInt16-int(limit)), quantizeI16Generic)
	many := new(I16)
	many.Resize(tokens, i16Chunk)
	for t := range tokens {
		copy(many.Q[t*i16Chunk:], x.Q[t%kinds*i16Chunk:][:i16Chunk])
		many.Scale[t] = x.Scale[t%kinds]
		copy(many.Sum[t*mins:], x.Sum[t%kinds*mins:][:mins])
		fillCrossGeneric(many, t)
	}
	cross := many.Cross[many.crossAt(0, 0, i16Chunk/flush):]
	if !crossed {
		cross = nil
	}
	want, got := make([]float32, kinds*i16PanelRows), make([]float32, tokens*i16PanelRows)
	zeros := make([]float32, i16PanelRows)
	s.generic()(want, i16PanelRows, zeros, 0, p, x.Q, x.Scale, x.Sum, nil, nil, kinds, flush, mins)
	s.active(got, i16PanelRows, zeros, 0, p, many.Q, many.Scale, many.Sum, cross, nil, tokens, flush, mins)
	for t := 0; t < tokens; t++ {
		at := t % kinds * i16PanelRows
		if err := compareResults(got[t*i16PanelRows:][:i16PanelRows], want[at:][:i16PanelRows], manyTerms); err != nil {
			return err
		}
	}
	return nil
}
