package cuda

import (
	"fmt"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// operand is a product to compute: y (tokens, w.rows) = x (tokens, w.k) · wᵀ + bias.
type operand struct {
	w      *weight
	id     graph.ID // the value that x is, so that it is converted once
	x      cuda.Ptr // float32
	bias   cuda.Ptr // float32 (w.rows); 0 for none
	y      cuda.Ptr // float32
	tokens int
}

// productKernel is a way to compute products.
type productKernel struct {
	name string // in variants
	// fits reports whether the kernel takes such weights and so many tokens on the
	// device.
	fits func(l *library, t tensor.DType, rows, k, tokens int) bool
	// variant names what is chosen within the kernel by the number of tokens.
	variant func(tokens int) string
	// want asks for scratch memory for weights of a shape.
	want func(s *scratch, rows, k int)
	emit func(r *recorder, o operand) error
}

// productKernels are the kernels in order of preference.
var productKernels = []productKernel{
	{
		name:    "plain",
		fits:    func(*library, tensor.DType, int, int, int) bool { return true },
		variant: amountName,
		emit: func(r *recorder, o operand) error {
			return r.launch("matmul_plain", [3]int{(o.w.rows + 3) / 4}, 128, 0, o.w.data, int(o.w.dtype), o.w.rows, o.w.k, o.x, o.bias, o.y, o.tokens)
		},
	},
}

// productVariant names the kernel that multiplies a tensor.
func (e *executor) productVariant(t tensor.Tensor, tokens int) string {
	for _, p := range productKernels {
		if p.fits(e.lib, t.Type, t.Rows(), t.Cols(), tokens) {
			return fmt.Sprintf("matmul/%s/%s/%s", t.Type, p.name, p.variant(tokens))
		}
	}
	return ""
}
