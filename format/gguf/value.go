package gguf

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Value is one metadata value. It keeps the bytes of the file and decodes them
// when asked, so that a vocabulary nobody reads costs nothing. Values are
// immutable and stay valid after the File is closed.
type Value struct {
	// Type is the value's type; TypeArray for arrays, whose element type is Elem.
	Type ValueType

	elem ValueType
	n    int    // elements of an array
	raw  string // as in the file; for an array, what follows its type and count
}

// Elem is the element type of an array; for other values the type itself.
func (v Value) Elem() ValueType {
	if v.Type == TypeArray {
		return v.elem
	}
	return v.Type
}

// Len is the number of elements of an array, and 1 for other values.
func (v Value) Len() int {
	if v.Type == TypeArray {
		return v.n
	}
	return 1
}

// Kind describes the type for messages, such as "uint32" or "array of 3 string".
func (v Value) Kind() string {
	if v.Type == TypeArray {
		return fmt.Sprintf("array of %d %s", v.n, v.elem)
	}
	return v.Type.String()
}

// Any returns the value as the Go type of the same name. Arrays become slices
// of that type; an array of arrays becomes []any.
func (v Value) Any() any {
	switch {
	case v.Type == TypeString:
		return v.raw[8:]
	case v.Type != TypeArray:
		x, _ := scalar(v.raw, 0, v.Type)
		return x
	}
	switch v.elem {
	case TypeUint8:
		return []byte(v.raw)
	case TypeInt8:
		return scalars[int8](v)
	case TypeUint16:
		return scalars[uint16](v)
	case TypeInt16:
		return scalars[int16](v)
	case TypeUint32:
		return scalars[uint32](v)
	case TypeInt32:
		return scalars[int32](v)
	case TypeFloat32:
		return scalars[float32](v)
	case TypeBool:
		return scalars[bool](v)
	case TypeUint64:
		return scalars[uint64](v)
	case TypeInt64:
		return scalars[int64](v)
	case TypeFloat64:
		return scalars[float64](v)
	case TypeString:
		s, _ := v.strings()
		return s
	}
	out := make([]any, v.n)
	for i, off := 0, 0; i < v.n; i++ {
		e, next := v.nested(off)
		out[i], off = e.Any(), next
	}
	return out
}

// scalars decodes an array whose elements have Go type T.
func scalars[T any](v Value) []T {
	out := make([]T, v.n)
	size := v.elem.size()
	for i := range out {
		x, _ := scalar(v.raw, i*size, v.elem)
		out[i] = x.(T)
	}
	return out
}

// nested returns the array at byte off of an array of arrays, and where the next begins.
func (v Value) nested(off int) (Value, int) {
	end, err := skipValue(v.raw, off, TypeArray, 0)
	if err != nil { // checked when the value was read or set
		panic("gguf: corrupt nested array in memory: " + err.Error())
	}
	return arrayValue(v.raw[off:end]), end
}

// arrayValue wraps an encoded array: element type, count, elements.
func arrayValue(raw string) Value {
	return Value{Type: TypeArray, elem: ValueType(le32(raw, 0)), n: int(le64(raw, 4)), raw: raw[12:]}
}

// strings decodes an array of strings. They share the metadata's memory.
func (v Value) strings() ([]string, bool) {
	if v.Type != TypeArray || v.elem != TypeString {
		return nil, false
	}
	out := make([]string, v.n)
	rest := v.raw
	for i := range out {
		n := int(le64(rest, 0))
		out[i], rest = rest[8:8+n], rest[8+n:]
	}
	return out, true
}

// intAt decodes integer i of a scalar (i = 0) or an array of type t: its sign
// and 64 bits. ok is false for types that are not integers.
func (v Value) intAt(i int) (bits uint64, negative, ok bool) {
	t := v.Elem()
	var s int64
	switch off := i * t.size(); t {
	case TypeUint8:
		return uint64(v.raw[off]), false, true
	case TypeUint16:
		return uint64(le16(v.raw, off)), false, true
	case TypeUint32:
		return uint64(le32(v.raw, off)), false, true
	case TypeUint64:
		return le64(v.raw, off), false, true
	case TypeInt8:
		s = int64(int8(v.raw[off]))
	case TypeInt16:
		s = int64(int16(le16(v.raw, off)))
	case TypeInt32:
		s = int64(int32(le32(v.raw, off)))
	case TypeInt64:
		s = int64(le64(v.raw, off))
	default:
		return 0, false, false
	}
	return uint64(s), s < 0, true
}

// int64At is intAt for values that fit an int64.
func (v Value) int64At(i int) (int64, bool) {
	bits, negative, ok := v.intAt(i)
	if !ok || !negative && bits > math.MaxInt64 {
		return 0, false
	}
	return int64(bits), true
}

// floatAt decodes number i, integers included, as a float64.
func (v Value) floatAt(i int) (float64, bool) {
	switch v.Elem() {
	case TypeFloat32:
		return float64(math.Float32frombits(le32(v.raw, 4*i))), true
	case TypeFloat64:
		return math.Float64frombits(le64(v.raw, 8*i)), true
	}
	bits, negative, ok := v.intAt(i)
	if negative {
		return float64(int64(bits)), ok
	}
	return float64(bits), ok
}

// Limits of String: what fits a line of a listing.
const (
	shownElements = 6
	shownBytes    = 60
)

// String renders the value for display on one line: strings quoted and cut,
// long arrays abbreviated with their length.
func (v Value) String() string {
	var b strings.Builder
	v.write(&b)
	return b.String()
}

func (v Value) write(b *strings.Builder) {
	switch v.Type {
	case TypeString:
		b.WriteString(quote(v.raw[8:]))
		return
	case TypeArray:
	default:
		x, _ := scalar(v.raw, 0, v.Type)
		fmt.Fprint(b, x)
		return
	}
	b.WriteByte('[')
	off := 0
	for i := range min(v.n, shownElements) {
		if i > 0 {
			b.WriteString(", ")
		}
		switch v.elem {
		case TypeString:
			n := int(le64(v.raw, off))
			b.WriteString(quote(v.raw[off+8 : off+8+n]))
			off += 8 + n
		case TypeArray:
			var e Value
			e, off = v.nested(off)
			e.write(b)
		default:
			x, _ := scalar(v.raw, off, v.elem)
			fmt.Fprint(b, x)
			off += v.elem.size()
		}
	}
	if v.n > shownElements {
		fmt.Fprintf(b, ", … %d in all", v.n)
	}
	b.WriteByte(']')
}

// quote quotes a string from a file for a message, cut to a printable length.
func quote(s string) string {
	if len(s) <= shownBytes {
		return strconv.Quote(s)
	}
	// Cutting inside a character shows as an escape; good enough for a message.
	return strconv.Quote(s[:shownBytes]) + "…"
}
