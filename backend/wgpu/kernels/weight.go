package kernels

import (
	"github.com/apr-engine/apr/backend/packed"
	"github.com/apr-engine/apr/tensor"
)

// Weight is a matrix in package packed's layout, bound as
// var<storage, read> Name: array<vec4<u32>>. Row r begins at r·RowVec4s.
type Weight struct {
	Name string // of the variable, and the beginning of its functions' names
	Type tensor.DType
	K    int // weights a row

	layout packed.Layout
}

// NewWeight describes a matrix; it fails as packed.Of does.
func NewWeight(name string, t tensor.DType, k int) (Weight, error) {
	l, err := packed.Of(t, k)
	return Weight{name, t, k, l}, err
}

// RowVec4s is the length of a row in units of 16 bytes.
func (w Weight) RowVec4s() int { return w.layout.RowBytes / 16 }

// Section is where section i of a row begins, in units of 16 bytes.
func (w Weight) Section(i int) int { return w.layout.Sections[i] / 16 }

// Kind is the name of the type, for templates.
func (w Weight) Kind() string { return w.Type.String() }

// Float says that the weights are plain numbers without a scale.
func (w Weight) Float() bool {
	return w.Type == tensor.F32 || w.Type == tensor.F16 || w.Type == tensor.BF16
}

// Halves says that each 16 weights have a scale of their own, not each 32.
func (w Weight) Halves() bool {
	return w.Type == tensor.Q2_K || w.Type == tensor.Q3_K || w.Type == tensor.Q6_K
}

// Offset says that weights are s·q − m; else they are s·q.
func (w Weight) Offset() bool {
	switch w.Type {
	case tensor.Q4_1, tensor.Q5_1, tensor.Q2_K, tensor.Q4_K, tensor.Q5_K:
		return true
	}
	return false
}

// Functions is WGSL that reads the matrix, where b counts groups of 32 weights in a
// row and name stands for Name:
//
//	fn name_dequant32(row: u32, b: u32) -> array<vec4<f32>, 8>   the 32 weights
//	fn name_group(row: u32, b: u32) -> Group                     not for F32, F16, BF16
//
// The caller declares the variable and puts Helpers before the first matrix.
func (w Weight) Functions() string { return expand("weight.wgsl", w) }

// Helpers is WGSL that Functions of any number of matrices need once.
func Helpers() string { return expand("helpers.wgsl", nil) }
