package backend

import (
	"math"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
)

// Spoil computes one row of a graph.Tamper: dst from src (and alt, the row of
// Tamper.Alt) for a token at the given position of a step with the given number
// of tokens. dst may be src or alt. It is the definition that other
// implementations of the operation are compared with.
func Spoil(o *graph.Tamper, dst, src, alt []float32, position, tokens int) {
	if !o.Rows.Touches(position, tokens) {
		copy(dst, src)
		return
	}
	switch o.How {
	case graph.Replace:
		copy(dst, alt)
	case graph.Multiply:
		for i, x := range src {
			dst[i] = o.Amount * x
		}
	case graph.Drift:
		f := 1 + o.Amount*float32(position)
		for i, x := range src {
			dst[i] = f * x
		}
	case graph.Half:
		for i, x := range src {
			dst[i] = quant.F16ToF32(quant.F32ToF16(o.Amount*x)) / o.Amount
		}
	case graph.Int8:
		for i := 0; i < len(src); i += o.Group {
			n := min(i+o.Group, len(src))
			spoilInt8(dst[i:n], src[i:n])
		}
	case graph.Heads:
		row := src
		if &dst[0] == &src[0] {
			row = append([]float32(nil), src...)
		}
		for h, from := range o.Order {
			copy(dst[h*o.Group:(h+1)*o.Group], row[from*o.Group:])
		}
	}
}

// spoilInt8 rounds a group to 127 steps either side of zero.
func spoilInt8(dst, src []float32) {
	var top float32
	for _, x := range src {
		top = max(top, float32(math.Abs(float64(x))))
	}
	if top == 0 {
		copy(dst, src)
		return
	}
	scale := top / 127
	for i, x := range src {
		dst[i] = scale * float32(math.RoundToEven(float64(x/scale)))
	}
}
