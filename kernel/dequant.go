package kernel

import (
	"strings"

	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// dequantSlots has the kernel of every type in quant's table, by type number;
// the plain Go version is quant's.
var dequantSlots = func() (index [64]*slot[func(dst []float32, src []byte)]) {
	for _, f := range quant.Formats() {
		index[f.Type] = newSlot("dequant/"+typeName(f.Type), f.Dequantize)
	}
	return index
}()

// typeName is a type's name as kernels' names have it, say q4_k.
func typeName(t tensor.DType) string { return strings.ToLower(t.String()) }

func dequantSlot(t tensor.DType) *slot[func(dst []float32, src []byte)] {
	if int(t) < len(dequantSlots) {
		return dequantSlots[t]
	}
	return nil
}

// Dequantize expands len(dst) elements of src, stored as t, to float32. The
// result is bit for bit that of package quant (any NaN for any NaN). len(dst)
// must be a whole number of blocks and src must hold at least as many; t must
// be in quant's table.
func Dequantize(t tensor.DType, dst []float32, src []byte) {
	s := dequantSlot(t)
	if s == nil || len(dst)%t.BlockLen() != 0 {
		panic("kernel: cannot dequantise this type or length")
	}
	bytes := len(dst) / t.BlockLen() * t.BlockBytes()
	mustLen(len(src), bytes)
	s.active(dst, src[:bytes])
}
