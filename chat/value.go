package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"

	"github.com/apr-engine/apr/chat/internal/jinja"
)

// Kind says what a Value holds.
type Kind uint8

// The kinds of JSON values.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// Value is a JSON value whose objects keep the order of their keys and whose numbers keep their digits. Templates print
// tools with tojson, so an object that came in as {"type": …, "function": …} must not go out sorted. The zero Value is
// null. A Value is not changed after it is made.
type Value struct {
	kind  Kind
	b     bool
	s     string // text, or a number as it was written
	items []Value
	keys  []string // of an object, parallel to items
}

// maxJSONDepth bounds the nesting of decoded values.
const maxJSONDepth = 64

// ErrJSON is wrapped by errors about malformed JSON.
var ErrJSON = errors.New("invalid JSON")

// NewBool, NewInt, NewString, NewArray and NewObject make values.
func NewBool(b bool) Value { return Value{kind: Bool, b: b} }

// NewInt makes a number.
func NewInt(n int64) Value { return Value{kind: Number, s: strconv.FormatInt(n, 10)} }

// NewString makes a string.
func NewString(s string) Value { return Value{kind: String, s: s} }

// NewArray makes an array of the given items.
func NewArray(items ...Value) Value { return Value{kind: Array, items: items} }

// Member is a key of an object with its value.
type Member struct {
	Key   string
	Value Value
}

// NewObject makes an object. Of a key given twice the first place and the last value count, as in Python.
func NewObject(members ...Member) Value {
	v := Value{kind: Object}
	for _, m := range members {
		v.put(m.Key, m.Value)
	}
	return v
}

// put is for building; it compares all keys, which decode avoids for large objects.
func (v *Value) put(key string, x Value) {
	for i, k := range v.keys {
		if k == key {
			v.items[i] = x
			return
		}
	}
	v.keys = append(v.keys, key)
	v.items = append(v.items, x)
}

// ParseJSON decodes one JSON value. Its errors wrap ErrJSON.
func ParseJSON(data []byte) (Value, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := decodeValue(dec, 0)
	if err == nil {
		if _, tail := dec.Token(); tail != io.EOF {
			err = errors.New("more than one value")
		}
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return Value{}, fmt.Errorf("%w: %w", ErrJSON, err)
	}
	return v, nil
}

func decodeValue(dec *json.Decoder, depth int) (Value, error) {
	if depth > maxJSONDepth {
		return Value{}, fmt.Errorf("nested deeper than %d", maxJSONDepth)
	}
	t, err := dec.Token()
	if err != nil {
		return Value{}, err
	}
	switch t := t.(type) {
	case nil:
		return Value{}, nil
	case bool:
		return NewBool(t), nil
	case json.Number:
		return Value{kind: Number, s: string(t)}, nil
	case string:
		return NewString(t), nil
	case json.Delim:
		if t == '[' {
			return decodeArray(dec, depth)
		}
		return decodeObject(dec, depth)
	}
	return Value{}, fmt.Errorf("unexpected token %v", t)
}

func decodeArray(dec *json.Decoder, depth int) (Value, error) {
	v := Value{kind: Array}
	for dec.More() {
		x, err := decodeValue(dec, depth+1)
		if err != nil {
			return Value{}, err
		}
		v.items = append(v.items, x)
	}
	_, err := dec.Token()
	return v, err
}

func decodeObject(dec *json.Decoder, depth int) (Value, error) {
	v := Value{kind: Object}
	at := map[string]int{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return Value{}, err
		}
		key, _ := t.(string)
		x, err := decodeValue(dec, depth+1)
		if err != nil {
			return Value{}, err
		}
		if i, ok := at[key]; ok {
			v.items[i] = x
			continue
		}
		at[key] = len(v.keys)
		v.keys = append(v.keys, key)
		v.items = append(v.items, x)
	}
	_, err := dec.Token()
	return v, err
}

// UnmarshalJSON decodes a value; see ParseJSON.
func (v *Value) UnmarshalJSON(data []byte) error {
	x, err := ParseJSON(data)
	if err == nil {
		*v = x
	}
	return err
}

// MarshalJSON writes the value without insignificant space, keys and digits as they came.
func (v Value) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	v.write(&b)
	return b.Bytes(), nil
}

func (v Value) write(b *bytes.Buffer) {
	switch v.kind {
	case Null:
		b.WriteString("null")
	case Bool:
		b.WriteString(strconv.FormatBool(v.b))
	case Number:
		b.WriteString(v.s)
	case String:
		writeString(b, v.s)
	case Array, Object:
		open, end := byte('['), byte(']')
		if v.kind == Object {
			open, end = '{', '}'
		}
		b.WriteByte(open)
		for i, x := range v.items {
			if i > 0 {
				b.WriteByte(',')
			}
			if v.kind == Object {
				writeString(b, v.keys[i])
				b.WriteByte(':')
			}
			x.write(b)
		}
		b.WriteByte(end)
	}
}

func writeString(b *bytes.Buffer, s string) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s)       // a string always encodes, and a Buffer always takes it
	b.Truncate(b.Len() - 1) // the encoder's newline
}

// String is the value as JSON.
func (v Value) String() string {
	b, _ := v.MarshalJSON()
	return string(b)
}

// Kind says what v holds.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether v is null, as the zero Value is.
func (v Value) IsNull() bool { return v.kind == Null }

// Bool is the value of a Bool, else false.
func (v Value) Bool() bool { return v.b }

// Text is the text of a String or the digits of a Number, else "".
func (v Value) Text() string { return v.s }

// Len is the number of items of an Array or members of an Object, else 0.
func (v Value) Len() int { return len(v.items) }

// Item is the i-th item of an Array or the i-th member's value of an Object.
func (v Value) Item(i int) Value { return v.items[i] }

// Key is the i-th member's key of an Object.
func (v Value) Key(i int) string { return v.keys[i] }

// Get is the member of an Object with the given key.
func (v Value) Get(key string) (Value, bool) {
	for i, k := range v.keys {
		if k == key {
			return v.items[i], true
		}
	}
	return Value{}, false
}

// jinja converts to what templates see: Python's reading of the JSON.
func (v Value) jinja() any {
	switch v.kind {
	case Bool:
		return v.b
	case Number:
		return jinjaNumber(v.s)
	case String:
		return v.s
	case Array:
		l := &jinja.List{Items: make([]any, len(v.items))}
		for i, x := range v.items {
			l.Items[i] = x.jinja()
		}
		return l
	case Object:
		d := &jinja.Dict{}
		for i, x := range v.items {
			d.SetString(v.keys[i], x.jinja())
		}
		return d
	}
	return nil
}

// maxDigits is the longest integer Python's json module reads.
const maxDigits = 4300

func jinjaNumber(s string) any {
	if !strings.ContainsAny(s, ".eE") && len(s) <= maxDigits {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
		if n, ok := new(big.Int).SetString(s, 10); ok {
			return n
		}
	}
	f, _ := strconv.ParseFloat(s, 64) // out of range gives infinity, as in Python
	return f
}
