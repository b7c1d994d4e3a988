package kernel

import (
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// rowsFunc multiplies rows, rowBytes apart in w, with one vector:
// out[r] = Σ_k w[r][k]·x[k] for k in [0,len(x)), r in [0,len(out)), a multiple of four.
type rowsFunc func(out, x []float32, w []byte, rowBytes int)

// fusedSlots has the types whose weights one token meets in registers, without
// the way through a panel. At the level of the tile kernel they give the same
// bits as dequantising a panel and multiplying it.
var fusedSlots = func() (index [64]*slot[rowsFunc]) {
	for _, t := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q8_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K} {
		index[t] = newSlot("f32/fused-"+typeName(t), rowsGeneric(t))
	}
	return index
}()

// fewFunc is rowsFunc for the vectors of n elements in x:
// out[t*stride+r] = Σ_k w[r][k]·x[t*n+k], r in [0,rows).
type fewFunc func(out []float32, stride int, x []float32, n int, w []byte, rowBytes, rows int)

// fewSlots has the types whose weights a few tokens meet in registers, with the same bits.
var fewSlots = func() (index [64]*slot[fewFunc]) {
	for _, t := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16} {
		index[t] = newSlot("f32/few-"+typeName(t), fewGeneric(t))
	}
	return index
}()

// FewTokens is up to how many tokens it is faster to multiply row by row than to unpack a
// panel of rows first. A step of so many, such as some sequences that
// decode together, has the bits of one token at a time.
const FewTokens = 7

func fewGeneric(t tensor.DType) fewFunc {
	one := rowsGeneric(t)
	return func(out []float32, stride int, x []float32, n int, w []byte, rowBytes, rows int) {
		for t := range len(x) / n {
			one(out[t*stride:][:rows], x[t*n:][:n], w, rowBytes)
		}
	}
}

func rowsGeneric(t tensor.DType) rowsFunc {
	f, _ := quant.Lookup(t)
	blockLen, blockBytes := t.BlockLen(), t.BlockBytes()
	return func(out, x []float32, w []byte, rowBytes int) {
		scratch := scratchF32(matmulK) // on the stack it would escape through f
		defer scratch.free()
		part := scratch.x
		clear(out)
		for k := 0; k < len(x); k += matmulK {
			n := min(matmulK, len(x)-k)
			lo, hi := k/blockLen*blockBytes, (k+n)/blockLen*blockBytes
			for r := range out {
				f.Dequantize(part[:n], w[r*rowBytes:][lo:hi])
				out[r] += dotF32Generic(part[:n], x[k:][:n])
			}
		}
	}
}

// fusedRows multiplies rows [r0,r) of w with the vectors in x, whose results are stride
// apart, as far as the fused kernel of its type goes and returns the first row that is left.
func fusedRows(out []float32, stride int, w tensor.Tensor, r0, r1 int, x []float32) int {
	n, cols := (r1-r0)/tileRows*tileRows, w.Cols()
	if n == 0 || cols == 0 {
		return r0
	}
	rowBytes := len(w.Data) / w.Rows()
	one, few := fusedSlots[w.Type], fewSlots[w.Type]
	switch tokens := len(x) / cols; {
	case tokens == 1 && one != nil && one.level == slotTile.level:
		one.active(out[r0:r0+n], x, w.Data[r0*rowBytes:], rowBytes)
	case tokens > 1 && tokens <= FewTokens && few != nil && few.level == slotTile.level:
		few.active(out[r0:], stride, x, cols, w.Data[r0*rowBytes:], rowBytes, n)
	default:
		return r0
	}
	return r0 + n
}
