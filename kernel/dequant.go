package kernel

import "github.com/apr-engine/apr/tensor"

// dequantSlots has the kernel of every type that Dequantize knows.
var dequantSlots = map[tensor.DType]*slot[func(dst []float32, src []byte)]{}

func init() {
	for _, d := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q4_0, tensor.Q8_0, tensor.Q4_K, tensor.Q6_K} {
		dequantSlots[d] = newSlot("dequant/"+d.String(), dequantGeneric(d))
	}
}

// Dequantize expands len(dst) elements of src, stored as t, to float32. The
// result is bit for bit that of package quant. len(dst) must be a whole number
// of blocks, src at least as many.
func Dequantize(t tensor.DType, dst []float32, src []byte) {
	s := dequantSlots[t]
	if s == nil || len(dst)%t.BlockLen() != 0 || len(src) < len(dst)/t.BlockLen()*t.BlockBytes() {
		panic("kernel: cannot dequantise this type or length")
	}
	s.active(dst, src)
}
