package compare

import (
	"fmt"
	"reflect"

	"github.com/apr-engine/apr/format/gguf"
)

// Metadata is what differs between the keys of two files.
type Metadata struct {
	Equal   int      `json:"equal"` // keys with the same type and value
	Changed []Change `json:"changed"`
	OnlyA   []Entry  `json:"only_a"`
	OnlyB   []Entry  `json:"only_b"`
}

// Entry is a key with its value in readable form.
type Entry struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Change is a key with two values, arrays as the first element that differs.
type Change struct {
	Key string `json:"key"`
	A   string `json:"a"`
	B   string `json:"b"`
}

func compareMetadata(a, b *gguf.Metadata) Metadata {
	m := Metadata{Changed: []Change{}, OnlyA: []Entry{}, OnlyB: []Entry{}}
	for key, x := range a.All() {
		y, ok := b.Value(key)
		switch {
		case !ok:
			m.OnlyA = append(m.OnlyA, Entry{key, x.String()})
		case x == y: // the same bytes
			m.Equal++
		default:
			c := Change{Key: key}
			c.A, c.B = difference(x, y)
			m.Changed = append(m.Changed, c)
		}
	}
	for key, y := range b.All() {
		if _, ok := a.Value(key); !ok {
			m.OnlyB = append(m.OnlyB, Entry{key, y.String()})
		}
	}
	return m
}

// difference renders two values, with their types if only those differ.
func difference(x, y gguf.Value) (a, b string) {
	if x.Type == gguf.TypeArray && y.Type == gguf.TypeArray {
		u, v := reflect.ValueOf(x.Any()), reflect.ValueOf(y.Any())
		for i := range min(u.Len(), v.Len()) {
			if p, q := u.Index(i).Interface(), v.Index(i).Interface(); !reflect.DeepEqual(p, q) {
				return element(i, p, u.Len()), element(i, q, v.Len())
			}
		}
		return x.Kind(), y.Kind()
	}
	a, b = x.String(), y.String()
	if a == b {
		a, b = x.Kind()+" "+a, y.Kind()+" "+b
	}
	return a, b
}

func element(i int, v any, n int) string {
	text := fmt.Sprint(v)
	if s, ok := v.(string); ok {
		text = fmt.Sprintf("%.60q", s)
	}
	return fmt.Sprintf("[%d] = %s of %d", i, text, n)
}
