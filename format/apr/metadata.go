package apr

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strings"
)

// Metadata is the JSON object of a file: keys in file order, each with the text
// of its value. Of a key that occurs twice the last value counts. Accessors take
// several names of one thing and use the first that is there and not null.
type Metadata struct {
	keys   []string
	values map[string]json.RawMessage
}

// ParseMetadata reads a JSON object.
func ParseMetadata(text []byte) (*Metadata, error) {
	m := &Metadata{values: map[string]json.RawMessage{}}
	if len(text) == 0 {
		return m, nil // some writers store none
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%w: the metadata is no JSON object", ErrFormat)
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, jsonError(err)
		}
		key := t.(string) // the decoder accepts no other key
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, jsonError(err)
		}
		if _, dup := m.values[key]; !dup {
			m.keys = append(m.keys, key)
		}
		m.values[key] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, jsonError(err)
	}
	rest, err := io.ReadAll(d.Buffered())
	if err != nil || len(bytes.Trim(rest, " \t\r\n\x00")) != 0 {
		return nil, fmt.Errorf("%w: something follows the metadata's JSON object", ErrFormat)
	}
	return m, nil
}

func jsonError(err error) error {
	return fmt.Errorf("%w: the metadata is not valid JSON: %s", ErrFormat, strings.ReplaceAll(err.Error(), "\n", " "))
}

// Len is the number of keys.
func (m *Metadata) Len() int { return len(m.keys) }

// Keys returns the keys in file order.
func (m *Metadata) Keys() []string { return slices.Clone(m.keys) }

// All iterates over keys and the JSON text of their values in file order.
func (m *Metadata) All() iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		for _, k := range m.keys {
			if !yield(k, m.values[k]) {
				return
			}
		}
	}
}

// Raw returns the JSON text of the first of the names that is there and not null.
func (m *Metadata) Raw(names ...string) (json.RawMessage, bool) {
	for _, name := range names {
		if v, ok := m.values[name]; ok && string(v) != "null" {
			return v, true
		}
	}
	return nil, false
}

// Decode reads a value into v, which is as for json.Unmarshal. It says false for
// one that is absent and fails with ErrFormat for one of another kind.
func (m *Metadata) Decode(v any, names ...string) (bool, error) {
	raw, ok := m.Raw(names...)
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("%w: metadata key %s: %s", ErrFormat, quote(names[0]), strings.ReplaceAll(err.Error(), "\n", " "))
	}
	return true, nil
}

// String returns a string; false if it is absent or something else.
func (m *Metadata) String(names ...string) (s string, ok bool) {
	ok, err := m.Decode(&s, names...)
	return s, ok && err == nil
}

// Float returns a number.
func (m *Metadata) Float(names ...string) (x float64, ok bool) {
	ok, err := m.Decode(&x, names...)
	return x, ok && err == nil
}

// Uint returns a whole number that is not negative, whether written as 7 or 7.0.
func (m *Metadata) Uint(names ...string) (uint64, bool) {
	var n uint64
	if ok, err := m.Decode(&n, names...); ok && err == nil {
		return n, true
	}
	x, ok := m.Float(names...)
	if !ok || x < 0 || x > 1<<53 || x != math.Trunc(x) {
		return 0, false
	}
	return uint64(x), true
}

// Bool returns true or false.
func (m *Metadata) Bool(names ...string) (b, ok bool) {
	ok, err := m.Decode(&b, names...)
	return b, ok && err == nil
}
