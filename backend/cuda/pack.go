package cuda

import (
	"github.com/apr-engine/apr/backend/packed"
	"github.com/apr-engine/apr/tensor"
)

// The layouts are described in package packed; kernels/quant.h reads what it writes.

// packedRowBytes is the size of a packed row of k weights of a type: a multiple of 32.
func packedRowBytes(t tensor.DType, k int) (int, error) { return packed.RowBytes(t, k) }

// packRows lays out rows of k weights of a type for the kernels.
func packRows(dst, src []byte, t tensor.DType, k, rows int) error {
	return packed.Rows(dst, src, t, k, rows)
}
