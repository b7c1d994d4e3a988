package tensor

import (
	"fmt"
	"math"
	"strings"
)

// Tensor is a named, dense block of numbers. Data aliases the file it came
// from (usually a read-only memory map) and must not be written.
type Tensor struct {
	Name string
	Type DType
	// Shape lists the dimensions slowest-varying first, as PyTorch prints them:
	// a weight matrix is {rows, columns} and a row is contiguous. GGUF stores
	// the same list reversed.
	Shape []int
	Data  []byte
}

// Cols is the length of the contiguous dimension; 0 for a tensor without dimensions.
func (t Tensor) Cols() int {
	if len(t.Shape) == 0 {
		return 0
	}
	return t.Shape[len(t.Shape)-1]
}

// Rows is the number of contiguous rows: the product of all other dimensions.
func (t Tensor) Rows() int {
	if len(t.Shape) == 0 {
		return 0
	}
	n := 1
	for _, d := range t.Shape[:len(t.Shape)-1] {
		n *= d
	}
	return n
}

// Elements is the number of elements.
func (t Tensor) Elements() int { return t.Rows() * t.Cols() }

// Row returns the bytes of row r.
func (t Tensor) Row(r int) []byte {
	n := len(t.Data) / t.Rows()
	return t.Data[r*n : (r+1)*n : (r+1)*n]
}

// String gives "name TYPE [a, b]", the form used in error messages.
func (t Tensor) String() string {
	dims := make([]string, len(t.Shape))
	for i, d := range t.Shape {
		dims[i] = fmt.Sprint(d)
	}
	return fmt.Sprintf("%s %s [%s]", t.Name, t.Type, strings.Join(dims, ", "))
}

// Bytes returns the size of a dense tensor of the given type and shape. It
// fails where DType.RowBytes does, on a negative dimension and on overflow.
func Bytes(d DType, shape []int) (int, error) {
	if len(shape) == 0 {
		return 0, fmt.Errorf("no dimensions")
	}
	n, err := d.RowBytes(shape[len(shape)-1])
	if err != nil {
		return 0, err
	}
	for _, dim := range shape[:len(shape)-1] {
		if dim < 0 {
			return 0, fmt.Errorf("negative dimension %d", dim)
		}
		if n != 0 && dim > math.MaxInt/n {
			return 0, fmt.Errorf("shape %v overflows", shape)
		}
		n *= dim
	}
	return n, nil
}
