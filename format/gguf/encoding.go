package gguf

import (
	"errors"
	"fmt"
	"math"
)

// ValueType is the type number of a metadata value, as stored in the file.
type ValueType uint32

// The value types of GGUF versions 2 and 3.
const (
	TypeUint8   ValueType = 0
	TypeInt8    ValueType = 1
	TypeUint16  ValueType = 2
	TypeInt16   ValueType = 3
	TypeUint32  ValueType = 4
	TypeInt32   ValueType = 5
	TypeFloat32 ValueType = 6
	TypeBool    ValueType = 7
	TypeString  ValueType = 8
	TypeArray   ValueType = 9
	TypeUint64  ValueType = 10
	TypeInt64   ValueType = 11
	TypeFloat64 ValueType = 12
)

// maxArrayDepth bounds arrays in arrays, so that a file cannot make the parser
// recurse. No known model nests at all and llama.cpp refuses to.
const maxArrayDepth = 4

// valueTypes has a row per type: its name and the bytes of one value, 0 where that varies.
var valueTypes = [...]struct {
	name string
	size int
}{
	TypeUint8: {"uint8", 1}, TypeInt8: {"int8", 1},
	TypeUint16: {"uint16", 2}, TypeInt16: {"int16", 2},
	TypeUint32: {"uint32", 4}, TypeInt32: {"int32", 4},
	TypeFloat32: {"float32", 4}, TypeBool: {"bool", 1},
	TypeString: {"string", 0}, TypeArray: {"array", 0},
	TypeUint64: {"uint64", 8}, TypeInt64: {"int64", 8},
	TypeFloat64: {"float64", 8},
}

// known reports whether t is one of the types above.
func (t ValueType) known() bool { return uint64(t) < uint64(len(valueTypes)) }

// size is the bytes of one value of a type of fixed size, otherwise 0.
func (t ValueType) size() int { return valueTypes[t].size }

// String returns the type's name as Go spells it, or "type N" for an unknown number.
func (t ValueType) String() string {
	if t.known() {
		return valueTypes[t].name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// text is what values are decoded from: the mapped file while it is checked,
// later the metadata's own copy.
type text interface{ ~string | ~[]byte }

// The little-endian decoders below are generic because encoding/binary has none
// for strings. The caller has checked that the bytes are there.

func le16[T text](s T, i int) uint16 { return uint16(s[i]) | uint16(s[i+1])<<8 }

func le32[T text](s T, i int) uint32 {
	return uint32(s[i]) | uint32(s[i+1])<<8 | uint32(s[i+2])<<16 | uint32(s[i+3])<<24
}

func le64[T text](s T, i int) uint64 { return uint64(le32(s, i)) | uint64(le32(s, i+4))<<32 }

// fault says what is wrong at a byte of the file. It becomes an ErrFormat error
// once the field it lies in is known.
type fault struct {
	at   int
	text string
}

func (e *fault) Error() string { return fmt.Sprintf("at byte %d: %s", e.at, e.text) }

func faultf(at int, format string, args ...any) error {
	return &fault{at, fmt.Sprintf(format, args...)}
}

// need checks that n bytes follow offset off of s.
func need[T text](s T, off int, n uint64, what string) error {
	if have := uint64(len(s) - off); n > have {
		return faultf(off, "%s needs %d bytes, but only %d are left in the file", what, n, have)
	}
	return nil
}

// skipString returns the offset just past the length-prefixed string at off.
func skipString[T text](s T, off int) (int, error) {
	if err := need(s, off, 8, "a string's length"); err != nil {
		return 0, err
	}
	n := le64(s, off)
	if err := need(s, off+8, n, "a string"); err != nil {
		return 0, err
	}
	return off + 8 + int(n), nil
}

// skipValue returns the offset just past the value of type t at off, having
// checked everything that decoding it later relies on.
func skipValue[T text](s T, off int, t ValueType, depth int) (int, error) {
	switch t {
	case TypeString:
		return skipString(s, off)
	case TypeArray:
		if depth >= maxArrayDepth {
			return 0, faultf(off, "arrays are nested deeper than %d", maxArrayDepth)
		}
		if err := need(s, off, 12, "an array's type and count"); err != nil {
			return 0, err
		}
		elem, n := ValueType(le32(s, off)), le64(s, off+4)
		if !elem.known() {
			return 0, faultf(off, "unknown array element type %d", uint32(elem))
		}
		return skipElements(s, off+12, elem, n, depth+1)
	}
	return skipElements(s, off, t, 1, depth)
}

// skipElements returns the offset just past n values of type t at off.
func skipElements[T text](s T, off int, t ValueType, n uint64, depth int) (int, error) {
	size := t.size()
	least := uint64(size)
	switch t {
	case TypeString:
		least = 8 // its length
	case TypeArray:
		least = 12 // element type and count
	}
	if have := uint64(len(s) - off); n > have/least {
		return 0, faultf(off, "%d values of type %s need at least %d bytes each, but only %d bytes are left in the file", n, t, least, have)
	}
	if size > 0 {
		end := off + int(n)*size
		if t == TypeBool {
			for i := off; i < end; i++ {
				if s[i] > 1 {
					return 0, faultf(i, "bool is %d, want 0 or 1", s[i])
				}
			}
		}
		return end, nil
	}
	var err error
	for range n {
		if t == TypeString {
			off, err = skipString(s, off)
		} else {
			off, err = skipValue(s, off, t, depth)
		}
		if err != nil {
			return 0, err
		}
	}
	return off, nil
}

// scalar decodes the scalar of type t at off as what it is; ok is false for
// strings and arrays.
func scalar(s string, off int, t ValueType) (any, bool) {
	switch t {
	case TypeUint8:
		return s[off], true
	case TypeInt8:
		return int8(s[off]), true
	case TypeUint16:
		return le16(s, off), true
	case TypeInt16:
		return int16(le16(s, off)), true
	case TypeUint32:
		return le32(s, off), true
	case TypeInt32:
		return int32(le32(s, off)), true
	case TypeFloat32:
		return math.Float32frombits(le32(s, off)), true
	case TypeBool:
		return s[off] != 0, true
	case TypeUint64:
		return le64(s, off), true
	case TypeInt64:
		return int64(le64(s, off)), true
	case TypeFloat64:
		return math.Float64frombits(le64(s, off)), true
	}
	return nil, false
}

// asFault returns the fault in err, if that is what it is.
func asFault(err error) (*fault, bool) { return errors.AsType[*fault](err) }
