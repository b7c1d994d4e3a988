package jinja

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"unicode/utf8"
)

// Template values are Go values of these types:
//
//	nil None   bool   int64   *big.Int (int too large for int64)   float64   string   markup (escaped string)
//	*List   *Tuple   *Dict   *Undefined   *namespace   *rangeObj   *iterator   *dictView   *Callable   *loopObj

type markup string

// List is a Python list.
type List struct{ Items []any }

// Tuple is a Python tuple; names, if set, are attribute names of its items.
type Tuple struct {
	Items []any
	names []string
}

// Dict is a Python dict: keys keep insertion order.
type Dict struct {
	keys, vals []any
	index      map[any]int // by hashKey
}

// Len reports the number of entries.
func (d *Dict) Len() int { return len(d.keys) }

// SetString stores a value under a string key; a key that exists keeps its place.
func (d *Dict) SetString(key string, v any) { d.set(key, key, v) }

func (d *Dict) set(hash, key, v any) {
	if i, ok := d.index[hash]; ok {
		d.vals[i] = v
		return
	}
	if d.index == nil {
		d.index = map[any]int{}
	}
	d.index[hash] = len(d.keys)
	d.keys = append(d.keys, key)
	d.vals = append(d.vals, v)
}

func (d *Dict) get(key any) (any, bool, error) {
	h, err := hashKey(key)
	if err != nil {
		return nil, false, err
	}
	i, ok := d.index[h]
	if !ok {
		return nil, false, nil
	}
	return d.vals[i], true, nil
}

func (d *Dict) str(key string) (any, bool) {
	i, ok := d.index[key]
	if !ok {
		return nil, false
	}
	return d.vals[i], true
}

// Undefined stands for a name or attribute that does not exist.
type Undefined struct {
	hint string // whole message, if set
	obj  any    // what lacked it; missing{} for a variable
	name any
}

type missing struct{}

func (u *Undefined) fail() error {
	if u.hint != "" {
		return runtimeErr("%s", u.hint)
	}
	if _, ok := u.obj.(missing); ok {
		return runtimeErr("'%v' is undefined", u.name)
	}
	if s, ok := u.name.(string); ok {
		return runtimeErr("'%s' has no attribute '%s'", objectName(u.obj), s)
	}
	return runtimeErr("%s has no element %s", objectName(u.obj), shortRepr(u.name))
}

func undefinedName(name string) *Undefined { return &Undefined{obj: missing{}, name: name} }

type namespace struct{ d Dict }

type rangeObj struct{ start, stop, step int64 }

func (r *rangeObj) len() int64 {
	if r.step > 0 && r.stop > r.start {
		return (r.stop - r.start + r.step - 1) / r.step
	}
	if r.step < 0 && r.stop < r.start {
		return (r.start - r.stop - r.step - 1) / -r.step
	}
	return 0
}

// iterator is a Python generator: it can be walked once and has no length.
type iterator struct {
	items []any
	name  string
}

func (it *iterator) take() []any {
	items := it.items
	it.items = nil
	return items
}

// dictView is what dict.keys(), values() and items() return.
type dictView struct {
	name  string
	items []any
}

// Callable is a function or a class a template can call.
type Callable struct {
	name  string
	fn    func(ev *evaluator, args []any, kw []kwarg) (any, error)
	attrs map[string]any // of macros
}

type kwarg struct {
	name string
	v    any
}

// Func makes a value that templates can call. Keyword arguments are appended in the order of params; an argument that
// is not given arrives as an absent trailing or nil value.
func Func(name string, params []string, required int, fn func(args []any) (any, error)) *Callable {
	return &Callable{name: name, fn: func(ev *evaluator, args []any, kw []kwarg) (any, error) {
		a, err := bind(name, params, required, args, kw)
		if err != nil {
			return nil, err
		}
		for i, v := range a {
			if v == absent {
				a[i] = nil
			}
		}
		return fn(a)
	}}
}

// typeName is Python's type(v).__name__.
func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case markup:
		return "Markup"
	case *List:
		return "list"
	case *Tuple:
		return "tuple"
	case *Dict:
		return "dict"
	case *Undefined:
		return "Undefined"
	case *namespace:
		return "Namespace"
	case *rangeObj:
		return "range"
	case *iterator:
		return "generator"
	case *dictView:
		return v.name
	case *loopObj:
		return "LoopContext"
	}
	return "function"
}

func objectName(v any) string {
	switch v.(type) {
	case nil:
		return "None"
	case *namespace:
		return "jinja2.utils.Namespace object"
	}
	return typeName(v) + " object"
}

// asString reports the text of a str or Markup.
func asString(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case markup:
		return string(v), true
	}
	return "", false
}

// asInt reports the value of an int or bool.
func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

func asFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case *big.Int:
		f, _ := new(big.Float).SetInt(v).Float64()
		return f, true
	}
	i, ok := asInt(v)
	return float64(i), ok
}

func truthy(v any) bool {
	switch v := v.(type) {
	case nil, *Undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case markup:
		return v != ""
	case *List:
		return len(v.Items) > 0
	case *Tuple:
		return len(v.Items) > 0
	case *Dict:
		return v.Len() > 0
	case *dictView:
		return len(v.items) > 0
	case *rangeObj:
		return v.len() > 0
	}
	return true
}

type (
	noneKey  struct{}
	tupleKey string
)

// hashKey maps values that Python considers the same key to the same Go value.
func hashKey(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return noneKey{}, nil
	case markup:
		return string(v), nil
	case bool:
		i, _ := asInt(v)
		return i, nil
	case float64:
		if i := int64(v); float64(i) == v && math.Abs(v) < 1<<62 {
			return i, nil
		}
		return v, nil
	case *big.Int:
		return tupleKey("int " + v.String()), nil
	case *List, *Dict:
		return nil, runtimeErr("unhashable type: '%s'", typeName(v))
	case *Tuple:
		if len(v.Items) > 64 {
			return nil, limitErr("tuple key size")
		}
		var b strings.Builder
		for _, x := range v.Items {
			h, err := hashKey(x)
			if err != nil {
				return nil, err
			}
			s := fmt.Sprintf("%T %v", h, h)
			if b.Len()+len(s) > 1<<16 {
				return nil, limitErr("tuple key size")
			}
			fmt.Fprintf(&b, "%d:%s", len(s), s)
		}
		return tupleKey(b.String()), nil
	}
	return v, nil // pointers compare by identity, as Python objects do
}

// iterate lists what a for loop over v would visit.
func (ev *evaluator) iterate(v any) ([]any, error) {
	switch v := v.(type) {
	case *List:
		return v.Items, nil
	case *Tuple:
		return v.Items, nil
	case *Dict:
		return v.keys, nil
	case *dictView:
		return v.items, nil
	case *iterator:
		return v.take(), nil
	case *Undefined:
		return nil, nil
	case *rangeObj:
		n := v.len()
		if err := ev.charge(int(n)); err != nil {
			return nil, err
		}
		out := make([]any, n)
		for i := range out {
			out[i] = v.start + int64(i)*v.step
		}
		return out, nil
	}
	if s, ok := asString(v); ok {
		if err := ev.charge(len(s)); err != nil {
			return nil, err
		}
		out := make([]any, 0, utf8.RuneCountInString(s))
		for _, r := range s {
			out = append(out, string(r))
		}
		return out, nil
	}
	return nil, runtimeErr("'%s' object is not iterable", typeName(v))
}

// length is Python's len(v).
func length(v any) (int, error) {
	switch v := v.(type) {
	case *List:
		return len(v.Items), nil
	case *Tuple:
		return len(v.Items), nil
	case *Dict:
		return v.Len(), nil
	case *dictView:
		return len(v.items), nil
	case *rangeObj:
		return int(v.len()), nil
	case *Undefined:
		return 0, nil
	case *loopObj:
		return len(v.items), nil
	}
	if s, ok := asString(v); ok {
		return utf8.RuneCountInString(s), nil
	}
	return 0, runtimeErr("object of type '%s' has no len()", typeName(v))
}
