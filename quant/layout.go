package quant

import "github.com/apr-engine/apr/tensor"

// Part is a run of bytes in a block.
type Part struct {
	Name string
	Size int // bytes
	// Scale says that the part is an F16 number.
	Scale bool
	What  string
}

// Layout describes how a type stores numbers, for people.
type Layout struct {
	Type tensor.DType
	// Parts cover the block from front to back, without gaps.
	Parts []Part
	// Formula is how a number x is made of the parts.
	Formula string
	// Source is where the layout is defined.
	Source string
}

// BitsPerWeight is the average storage of one number.
func (l Layout) BitsPerWeight() float64 {
	return 8 * float64(l.Type.BlockBytes()) / float64(l.Type.BlockLen())
}

const (
	ggml = " in ggml's ggml-common.h"
	ieee = "IEEE 754-2019"
	twos = "two's complement, little-endian"
)

var (
	partD    = Part{"d", 2, true, "scale, F16"}
	partM    = Part{"m", 2, true, "offset, F16"}
	partDMin = Part{"dmin", 2, true, "scale of the minimums, F16"}
	partK    = Part{"scales", 12, false, "s and m of 8 groups of 32, 6 bits each"}
	partQ4   = Part{"qs", 16, false, "q of element i in the lower half of byte i, of i+16 in the upper"}
	partQ5   = Part{"qs", 16, false, "lower 4 bits of q: element i in the lower half of byte i, i+16 in the upper"}
	partH5   = Part{"qh", 4, false, "fifth bit of q: element i in bit i"}
)

// layouts describes every type that tensors are read in.
var layouts = []Layout{
	{tensor.F32, []Part{{"x", 4, false, "the number"}}, "x", ieee + " binary32, little-endian"},
	{tensor.F16, []Part{{"x", 2, true, "the number"}}, "x", ieee + " binary16, little-endian"},
	{tensor.BF16, []Part{{"x", 2, false, "the upper half of a float32"}}, "x", "bfloat16, the upper 16 bits of binary32"},
	{tensor.Q4_0, []Part{partD, partQ4}, "x = d·(q − 8)", "block_q4_0" + ggml},
	{tensor.Q4_1, []Part{partD, partM, partQ4}, "x = d·q + m", "block_q4_1" + ggml},
	{tensor.Q5_0, []Part{partD, partH5, partQ5}, "x = d·(q − 16)", "block_q5_0" + ggml},
	{tensor.Q5_1, []Part{partD, partM, partH5, partQ5}, "x = d·q + m", "block_q5_1" + ggml},
	{tensor.Q8_0, []Part{partD, {"qs", 32, false, "q, a signed byte each"}}, "x = d·q", "block_q8_0" + ggml},
	{tensor.Q2_K, []Part{
		{"scales", 16, false, "s of group g in the lower half of byte g, m in the upper; groups of 16"},
		{"qs", 64, false, "2 bits each"}, partD, partDMin,
	}, "x = d·s·q − dmin·m", "block_q2_K" + ggml},
	{tensor.Q3_K, []Part{
		{"hmask", 32, false, "third bit of q: element e in bit e/32 of byte e%32"},
		{"qs", 64, false, "lower 2 bits of q"}, {"scales", 12, false, "s of 16 groups of 16, 6 bits each"}, partD,
	}, "x = d·(s − 32)·(q − 4)", "block_q3_K" + ggml},
	{tensor.Q4_K, []Part{
		partD, partDMin, partK, {"qs", 128, false, "q, 4 bits each: 32 bytes hold group 2k in their lower halves, 2k+1 in the upper"},
	}, "x = d·s·q − dmin·m", "block_q4_K" + ggml},
	{tensor.Q5_K, []Part{
		partD, partDMin, partK, {"qh", 32, false, "fifth bit of q: element i of group g in bit g of byte i"},
		{"qs", 128, false, "lower 4 bits of q, as in Q4_K"},
	}, "x = d·s·q − dmin·m", "block_q5_K" + ggml},
	{tensor.Q6_K, []Part{
		{"ql", 128, false, "lower 4 bits of q"}, {"qh", 64, false, "upper 2 bits of q"},
		{"scales", 16, false, "s of 16 groups of 16, a signed byte each"}, partD,
	}, "x = d·s·(q − 32)", "block_q6_K" + ggml},
	{tensor.IQ4_NL, []Part{partD, partQ4}, "x = d·table[q], a fixed table of 16 numbers", "block_iq4_nl" + ggml},
	{tensor.IQ4_XS, []Part{
		partD, {"scales_h", 2, false, "upper 2 bits of s of 8 groups of 32"}, {"scales_l", 4, false, "lower 4 bits of s"},
		{"qs", 128, false, "q, 4 bits each: 16 bytes a group, laid out as in Q4_0"},
	}, "x = d·(s − 32)·table[q], a fixed table of 16 numbers", "block_iq4_xs" + ggml},
	{tensor.I8, []Part{{"x", 1, false, "the number"}}, "x", twos},
	{tensor.I16, []Part{{"x", 2, false, "the number"}}, "x", twos},
	{tensor.I32, []Part{{"x", 4, false, "the number"}}, "x", twos},
	{tensor.I64, []Part{{"x", 8, false, "the number"}}, "x", twos},
	{tensor.F64, []Part{{"x", 8, false, "the number"}}, "x", ieee + " binary64, little-endian"},
}

// Layouts lists the layouts of all types. The slice is a copy.
func Layouts() []Layout { return append([]Layout(nil), layouts...) }

// LayoutOf returns the layout of a type; false for an unknown one.
func LayoutOf(t tensor.DType) (Layout, bool) {
	for _, l := range layouts {
		if l.Type == t {
			return l, true
		}
	}
	return Layout{}, false
}
