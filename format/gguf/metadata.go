package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
)

// Metadata is the ordered list of keys and values of a file. It may be read
// from several goroutines; Set and Delete must be alone. It stays valid after
// the File it came from is closed.
type Metadata struct {
	path   string // for messages; empty for metadata made in memory
	keys   []string
	values map[string]Value
}

// NewMetadata returns an empty list, to be filled with Set and given to Create.
func NewMetadata() *Metadata { return &Metadata{values: map[string]Value{}} }

// Clone returns a copy that can be changed without changing m.
func (m *Metadata) Clone() *Metadata {
	c := NewMetadata()
	for k, v := range m.All() {
		c.put(k, v)
	}
	return c
}

// Len is the number of keys.
func (m *Metadata) Len() int { return len(m.keys) }

// Keys returns the keys in file order.
func (m *Metadata) Keys() []string { return slices.Clone(m.keys) }

// All iterates over keys and values in file order.
func (m *Metadata) All() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		for _, k := range m.keys {
			if !yield(k, m.values[k]) {
				return
			}
		}
	}
}

// Value returns the value of a key.
func (m *Metadata) Value(key string) (Value, bool) {
	v, ok := m.values[key]
	return v, ok
}

// String returns a string value; false if it is absent or of another type.
func (m *Metadata) String(key string) (string, bool) {
	v, ok := m.values[key]
	if !ok || v.Type != TypeString {
		return "", false
	}
	return v.raw[8:], true
}

// Uint returns an integer of any type that is not negative.
func (m *Metadata) Uint(key string) (uint64, bool) {
	v, ok := m.scalar(key)
	if !ok {
		return 0, false
	}
	bits, negative, ok := v.intAt(0)
	if !ok || negative {
		return 0, false
	}
	return bits, true
}

// Int returns an integer of any type that fits an int64.
func (m *Metadata) Int(key string) (int64, bool) {
	v, ok := m.scalar(key)
	if !ok {
		return 0, false
	}
	return v.int64At(0)
}

// Float returns a float of either width, or an integer as a float (beyond 2^53
// rounded). NaN and infinities are returned as they are.
func (m *Metadata) Float(key string) (float64, bool) {
	v, ok := m.scalar(key)
	if !ok {
		return 0, false
	}
	return v.floatAt(0)
}

// Bool returns a bool; integers are not taken for one.
func (m *Metadata) Bool(key string) (value, ok bool) {
	v, ok := m.values[key]
	if !ok || v.Type != TypeBool {
		return false, false
	}
	return v.raw[0] != 0, true
}

// Strings returns an array of strings. They share memory with the metadata,
// which stays in use as long as one of them does.
func (m *Metadata) Strings(key string) ([]string, bool) {
	v, ok := m.values[key]
	if !ok {
		return nil, false
	}
	return v.strings()
}

// Ints returns an array of integers of any type, if all fit an int64.
func (m *Metadata) Ints(key string) ([]int64, bool) {
	return list(m, key, Value.int64At)
}

// Floats returns an array of floats or integers of any type.
func (m *Metadata) Floats(key string) ([]float64, bool) {
	return list(m, key, Value.floatAt)
}

// list decodes an array with at, which says false for an element it cannot give.
func list[T any](m *Metadata, key string, at func(Value, int) (T, bool)) ([]T, bool) {
	v, ok := m.values[key]
	if !ok || v.Type != TypeArray || v.elem.size() == 0 || v.elem == TypeBool {
		return nil, false
	}
	out := make([]T, v.n)
	for i := range out {
		if out[i], ok = at(v, i); !ok {
			return nil, false
		}
	}
	return out, true
}

// scalar returns a value that is no array.
func (m *Metadata) scalar(key string) (Value, bool) {
	v, ok := m.values[key]
	return v, ok && v.Type != TypeArray
}

// Problem makes the error for a required key after an accessor has said false:
// it tells whether the key is missing or what it holds instead. want names what
// was needed, such as "a string" or "an integer of at least 1". It is an ErrFormat.
func (m *Metadata) Problem(key, want string) error {
	at := ""
	if m.path != "" {
		at = m.path + ": "
	}
	v, ok := m.values[key]
	switch {
	case !ok:
		return fmt.Errorf("%s%w: metadata key %s is missing, want %s", at, ErrFormat, quote(key), want)
	case v.Type == TypeArray:
		return fmt.Errorf("%s%w: metadata key %s is an %s, want %s", at, ErrFormat, quote(key), v.Kind(), want)
	}
	return fmt.Errorf("%s%w: metadata key %s is %s %s, want %s", at, ErrFormat, quote(key), v.Kind(), v, want)
}

// Set adds a key or replaces its value in place. v is a string, a bool, a sized
// integer or float, a slice of one of those, or a Value of another file. Plain
// int and uint are refused, because readers care which width is stored.
func (m *Metadata) Set(key string, v any) error {
	if key == "" || len(key) > math.MaxUint16 {
		return fmt.Errorf("metadata key %s has %d bytes, want 1 to %d", quote(key), len(key), math.MaxUint16)
	}
	val, err := encode(v)
	if err != nil {
		return fmt.Errorf("metadata key %s: %w", quote(key), err)
	}
	m.put(key, val)
	return nil
}

// put stores a value, keeping the place of a key that exists.
func (m *Metadata) put(key string, v Value) {
	if _, ok := m.values[key]; !ok {
		m.keys = append(m.keys, key)
	}
	m.values[key] = v
}

// Delete removes a key if it is there.
func (m *Metadata) Delete(key string) {
	if _, ok := m.values[key]; ok {
		delete(m.values, key)
		m.keys = slices.DeleteFunc(m.keys, func(k string) bool { return k == key })
	}
}

// encode turns a Go value into the bytes a file has for it.
func encode(v any) (Value, error) {
	switch x := v.(type) {
	case Value:
		if x.raw == "" && x.Type != TypeArray {
			return Value{}, errors.New("the value is empty")
		}
		return x, nil
	case string:
		return Value{Type: TypeString, raw: string(appendString(nil, x))}, nil
	case []string:
		var b []byte
		for _, s := range x {
			b = appendString(b, s)
		}
		return Value{Type: TypeArray, elem: TypeString, n: len(x), raw: string(b)}, nil
	}
	t, n, array, err := goType(v)
	if err != nil {
		return Value{}, err
	}
	// binary.Append writes fixed-size values and slices of them; bools as 0 and 1.
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		return Value{}, err
	}
	if array {
		return Value{Type: TypeArray, elem: t, n: n, raw: string(b)}, nil
	}
	return Value{Type: t, raw: string(b)}, nil
}

// goType maps a Go number, bool or slice of them to its value type and length.
func goType(v any) (t ValueType, n int, array bool, err error) {
	switch x := v.(type) {
	case uint8:
		return TypeUint8, 1, false, nil
	case int8:
		return TypeInt8, 1, false, nil
	case uint16:
		return TypeUint16, 1, false, nil
	case int16:
		return TypeInt16, 1, false, nil
	case uint32:
		return TypeUint32, 1, false, nil
	case int32:
		return TypeInt32, 1, false, nil
	case float32:
		return TypeFloat32, 1, false, nil
	case bool:
		return TypeBool, 1, false, nil
	case uint64:
		return TypeUint64, 1, false, nil
	case int64:
		return TypeInt64, 1, false, nil
	case float64:
		return TypeFloat64, 1, false, nil
	case []uint8:
		return TypeUint8, len(x), true, nil
	case []int8:
		return TypeInt8, len(x), true, nil
	case []uint16:
		return TypeUint16, len(x), true, nil
	case []int16:
		return TypeInt16, len(x), true, nil
	case []uint32:
		return TypeUint32, len(x), true, nil
	case []int32:
		return TypeInt32, len(x), true, nil
	case []float32:
		return TypeFloat32, len(x), true, nil
	case []bool:
		return TypeBool, len(x), true, nil
	case []uint64:
		return TypeUint64, len(x), true, nil
	case []int64:
		return TypeInt64, len(x), true, nil
	case []float64:
		return TypeFloat64, len(x), true, nil
	}
	return 0, 0, false, fmt.Errorf("a %T cannot be stored, want a string, bool, sized integer, float or a slice of them", v)
}

// appendString appends a string with its length, as files have it.
func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}
