// Package tensor names and shapes blocks of numbers: element types, shapes and
// the bytes they occupy. It does no arithmetic and imports nothing of ours.
package tensor

import (
	"fmt"
	"math"
	"strings"
)

// DType is the storage type of a tensor's elements. The values are those of
// GGUF's ggml_type field, so a type read from a file needs no translation, and
// an unknown number stays visible instead of turning into a neighbour.
type DType uint32

// The element types this program can name. Types that llama.cpp retired
// (numbers 4, 5, 31–33, 36–38) have no name here and are refused by readers.
const (
	F32    DType = 0
	F16    DType = 1
	Q4_0   DType = 2
	Q4_1   DType = 3
	Q5_0   DType = 6
	Q5_1   DType = 7
	Q8_0   DType = 8
	Q2_K   DType = 10
	Q3_K   DType = 11
	Q4_K   DType = 12
	Q5_K   DType = 13
	Q6_K   DType = 14
	IQ4_NL DType = 20
	IQ4_XS DType = 23
	I8     DType = 24
	I16    DType = 25
	I32    DType = 26
	I64    DType = 27
	F64    DType = 28
	BF16   DType = 30
)

// geometry is how many elements share one block and the bytes a block takes.
type geometry struct {
	name       string
	blockLen   int
	blockBytes int
}

var geometries = map[DType]geometry{
	F32:    {"F32", 1, 4},
	F16:    {"F16", 1, 2},
	Q4_0:   {"Q4_0", 32, 18},
	Q4_1:   {"Q4_1", 32, 20},
	Q5_0:   {"Q5_0", 32, 22},
	Q5_1:   {"Q5_1", 32, 24},
	Q8_0:   {"Q8_0", 32, 34},
	Q2_K:   {"Q2_K", 256, 84},
	Q3_K:   {"Q3_K", 256, 110},
	Q4_K:   {"Q4_K", 256, 144},
	Q5_K:   {"Q5_K", 256, 176},
	Q6_K:   {"Q6_K", 256, 210},
	IQ4_NL: {"IQ4_NL", 32, 18},
	IQ4_XS: {"IQ4_XS", 256, 136},
	I8:     {"I8", 1, 1},
	I16:    {"I16", 1, 2},
	I32:    {"I32", 1, 4},
	I64:    {"I64", 1, 8},
	F64:    {"F64", 1, 8},
	BF16:   {"BF16", 1, 2},
}

// Known reports whether d is a type whose bytes this program can size.
func (d DType) Known() bool { _, ok := geometries[d]; return ok }

// String returns the name llama.cpp prints, or "type N" for an unknown number.
func (d DType) String() string {
	if g, ok := geometries[d]; ok {
		return g.name
	}
	return fmt.Sprintf("type %d", uint32(d))
}

// ParseDType returns the type with the given name, ignoring case.
func ParseDType(name string) (DType, error) {
	for d, g := range geometries {
		if strings.EqualFold(g.name, name) {
			return d, nil
		}
	}
	return 0, fmt.Errorf("unknown tensor type %q", name)
}

// BlockLen is the number of elements in a block (1 for plain types, 0 if unknown).
func (d DType) BlockLen() int { return geometries[d].blockLen }

// BlockBytes is the number of bytes in a block (0 if unknown).
func (d DType) BlockBytes() int { return geometries[d].blockBytes }

// RowBytes returns the bytes of a row of n elements. It fails for an unknown
// type, for a row that is not a whole number of blocks and on overflow.
func (d DType) RowBytes(n int) (int, error) {
	g, ok := geometries[d]
	if !ok {
		return 0, fmt.Errorf("unknown tensor type %d", uint32(d))
	}
	if n < 0 || n%g.blockLen != 0 {
		return 0, fmt.Errorf("row of %d elements is not a multiple of the %s block of %d", n, g.name, g.blockLen)
	}
	blocks := n / g.blockLen
	if blocks > math.MaxInt/g.blockBytes {
		return 0, fmt.Errorf("row of %d elements overflows", n)
	}
	return blocks * g.blockBytes, nil
}
