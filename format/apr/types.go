package apr

import (
	"fmt"
	"math"

	"github.com/apr-engine/apr/tensor"
)

// Type is how a tensor's numbers are stored: a tensor.DType of the same number,
// or one of the types that only this container has.
type Type uint32

// The container's own types.
const (
	// Q4 is blocks of 32 over the flat tensor: an f16 scale, then 16 bytes with
	// element 2i in the low and 2i+1 in the high half of byte i. A number is
	// (half − 8) · scale. The last block is padded.
	Q4 Type = 128
	// Q8 is one f32 scale for the tensor, then a signed byte for each number.
	Q8 Type = 129
	// U8 is unsigned bytes.
	U8 Type = 1000
)

// String returns the type's name.
func (t Type) String() string {
	switch t {
	case Q4:
		return "AprQ4"
	case Q8:
		return "AprQ8"
	case U8:
		return "U8"
	}
	return tensor.DType(t).String()
}

// DType returns the type of the same layout in other containers; false for the
// container's own types.
func (t Type) DType() (tensor.DType, bool) {
	if t >= Q4 {
		return 0, false
	}
	return tensor.DType(t), true
}

// meanings lists, by number in the file, the types that some writer means by
// it, the likeliest first. Of several the tensor's size decides.
var meanings = map[uint8][]Type{
	0: {Type(tensor.F32)}, 1: {Type(tensor.F16)},
	2: {Type(tensor.BF16), Type(tensor.Q4_0)},
	3: {Type(tensor.F64), Type(tensor.Q4_1)},
	4: {Type(tensor.I32)}, 5: {Type(tensor.I64)},
	6: {Type(tensor.I8), Type(tensor.Q5_0)},
	7: {U8, Type(tensor.Q5_1)},
	8: {Q4, Type(tensor.Q8_0)}, 9: {Q8},
	10: {Type(tensor.Q2_K)}, 11: {Type(tensor.Q3_K)}, 12: {Type(tensor.Q4_K)},
	13: {Type(tensor.Q5_K)}, 14: {Type(tensor.Q6_K)}, 30: {Type(tensor.BF16)},
	128: {Q4}, 129: {Q8},
}

// codes are the numbers that are written: those that mean the same to every reader.
var codes = map[Type]uint8{
	Type(tensor.F32): 0, Type(tensor.F16): 1, Type(tensor.Q4_K): 12, Type(tensor.Q6_K): 14,
	Type(tensor.BF16): 30, Q4: 128, Q8: 129,
}

// Holds reports whether tensors of a type can be written.
func Holds(t tensor.DType) bool { _, ok := codes[Type(t)]; return ok }

// Bytes returns the size of a dense tensor, with rows of whole blocks.
func Bytes(t Type, shape []int) (int, error) {
	if d, ok := t.DType(); ok {
		return tensor.Bytes(d, shape)
	}
	n, err := tensor.Bytes(tensor.I8, shape) // the number of elements
	switch {
	case err != nil:
		return 0, err
	case n > math.MaxInt-31:
		return 0, fmt.Errorf("shape %v overflows", shape)
	case t == Q4:
		return (n + 31) / 32 * 18, nil
	case t == Q8:
		return 4 + n, nil
	}
	return n, nil
}

// paddedBytes is the size of a tensor of a block type whose rows fill up to
// whole blocks; false for other types and for rows that need no filling.
func paddedBytes(t Type, shape []int) (int, bool) {
	d, ok := t.DType()
	if !ok || d.BlockLen() < 2 || len(shape) == 0 {
		return 0, false
	}
	last, block := shape[len(shape)-1], d.BlockLen()
	if last%block == 0 || last > math.MaxInt-block {
		return 0, false
	}
	wide := append(append([]int(nil), shape[:len(shape)-1]...), (last+block-1)/block*block)
	n, err := tensor.Bytes(d, wide)
	return n, err == nil
}

// resolve finds out what a type number means for a tensor of this size.
func resolve(code uint8, shape []int, size uint64) (t Type, padded bool, err error) {
	list, ok := meanings[code]
	if !ok {
		return 0, false, fmt.Errorf("type number %d is unknown or not supported", code)
	}
	for _, t := range list {
		if n, err := Bytes(t, shape); err == nil && uint64(n) == size {
			return t, false, nil
		}
	}
	for _, t := range list {
		if n, ok := paddedBytes(t, shape); ok && uint64(n) == size {
			return t, true, nil
		}
	}
	want := ""
	for i, t := range list {
		if i > 0 {
			want += " or "
		}
		if n, err := Bytes(t, shape); err != nil {
			want += fmt.Sprintf("%s (%v)", t, err)
		} else {
			want += fmt.Sprintf("%d for %s", n, t)
		}
	}
	return 0, false, fmt.Errorf("type number %d with shape %v has %d bytes, want %s", code, shape, size, want)
}
