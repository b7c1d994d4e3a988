package jinja

import (
	"strings"
)

// unsafeAttr are the methods that change a value; the immutable sandbox hands out an undefined value for them.
var unsafeAttr = map[string]map[string]bool{
	"list": set("append", "reverse", "insert", "sort", "extend", "remove"),
	"dict": set("clear", "pop", "popitem", "setdefault", "update"),
}

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

func unsafeUndefined(v any, name string) *Undefined {
	return &Undefined{hint: "access to attribute '" + name + "' of '" + typeName(v) + "' object is unsafe", obj: v, name: name}
}

// attribute is Python's getattr: methods and properties, not items.
func (ev *evaluator) attribute(v any, name string) (any, bool) {
	if unsafeAttr[typeName(v)][name] || strings.HasPrefix(name, "__") {
		return unsafeUndefined(v, name), true
	}
	switch v := v.(type) {
	case string:
		return strMethod(v, name)
	case markup:
		return markupMethod(v, name)
	case int64, float64:
		if name == "real" {
			return v, true
		}
	case *Dict:
		return dictMethod(v, name)
	case *List:
		return listMethod(v, name)
	case *Tuple:
		for i, n := range v.names {
			if n == name {
				return v.Items[i], true
			}
		}
		return seqMethod(v.Items, name)
	case *namespace:
		return v.d.str(name)
	case *loopObj:
		return v.attr(name)
	case *rangeObj:
		switch name {
		case "start":
			return v.start, true
		case "stop":
			return v.stop, true
		case "step":
			return v.step, true
		}
	case *Callable:
		a, ok := v.attrs[name]
		return a, ok
	}
	return nil, false
}

// getAttr is "v.name": an attribute, else an item.
func (ev *evaluator) getAttr(v any, name string) (any, error) {
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	if a, ok := ev.attribute(v, name); ok {
		return a, nil
	}
	if d, ok := v.(*Dict); ok {
		if x, ok := d.str(name); ok {
			return x, nil
		}
	}
	return &Undefined{obj: v, name: name}, nil
}

// getItem is "v[key]": an item, else an attribute.
func (ev *evaluator) getItem(v, key any) (any, error) {
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	if d, ok := v.(*Dict); ok {
		if x, ok, err := d.get(key); err == nil && ok {
			return x, nil
		}
	} else if i, ok := asInt(key); ok {
		if x, ok, err := ev.index(v, i); ok || err != nil {
			return x, err
		}
	}
	if name, ok := asString(key); ok {
		if a, ok := ev.attribute(v, name); ok {
			return a, nil
		}
	}
	return &Undefined{obj: v, name: key}, nil
}

// index is a sequence's item by position, counted from the end when negative.
func (ev *evaluator) index(v any, i int64) (any, bool, error) {
	var items []any
	switch v := v.(type) {
	case *List:
		items = v.Items
	case *Tuple:
		items = v.Items
	case *rangeObj:
		n := v.len()
		if i < 0 {
			i += n
		}
		return v.start + i*v.step, i >= 0 && i < n, nil
	default:
		s, ok := asString(v)
		if !ok {
			return nil, false, nil
		}
		var err error
		if items, err = ev.iterate(s); err != nil {
			return nil, false, err
		}
	}
	if i < 0 {
		i += int64(len(items))
	}
	if i < 0 || i >= int64(len(items)) {
		return nil, false, nil
	}
	return items[i], true, nil
}

// evalSlice is "v[start:stop:step]".
func (ev *evaluator) evalSlice(v any, s *sliceExpr, sc *scope) (any, error) {
	var bounds [3]*int64
	for i, x := range []expr{s.start, s.stop, s.step} {
		if x == nil {
			continue
		}
		b, err := ev.eval(x, sc)
		if err != nil {
			return nil, err
		}
		if b == nil {
			continue
		}
		n, ok := asInt(b)
		if !ok {
			return nil, runtimeErr("slice indices must be integers or None or have an __index__ method")
		}
		bounds[i] = &n
	}
	var items []any
	switch v := v.(type) {
	case *Undefined:
		return nil, v.fail()
	case *List, *Tuple, *rangeObj, string, markup:
		var err error
		if items, err = ev.iterate(v); err != nil {
			return nil, err
		}
	default:
		return nil, runtimeErr("'%s' object is not subscriptable", typeName(v))
	}
	picked, err := sliceItems(items, bounds)
	if err != nil {
		return nil, err
	}
	if err := ev.charge(len(picked)); err != nil {
		return nil, err
	}
	switch v.(type) {
	case string, markup:
		var b strings.Builder
		for _, x := range picked {
			b.WriteString(x.(string))
		}
		if _, ok := v.(markup); ok {
			return markup(b.String()), nil
		}
		return b.String(), nil
	case *Tuple:
		return &Tuple{Items: picked}, nil
	}
	return &List{picked}, nil
}

// sliceItems applies Python's rules for omitted, negative and overlong bounds.
func sliceItems(items []any, bounds [3]*int64) ([]any, error) {
	n := int64(len(items))
	step := int64(1)
	if bounds[2] != nil {
		step = *bounds[2]
	}
	if step == 0 {
		return nil, runtimeErr("slice step cannot be zero")
	}
	lo, hi := int64(0), n
	start, stop := lo, hi
	if step < 0 {
		lo, hi = -1, n-1
		start, stop = hi, lo
	}
	clip := func(p *int64, d int64) int64 {
		if p == nil {
			return d
		}
		i := *p
		if i < 0 {
			i += n
		}
		return max(lo, min(i, hi))
	}
	start, stop = clip(bounds[0], start), clip(bounds[1], stop)
	out := []any{}
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		out = append(out, items[i])
		if step > n || step < -n { // one item at most; i+step could overflow
			break
		}
	}
	return out, nil
}

func (l *loopObj) attr(name string) (any, bool) {
	i, n := l.index0, len(l.items)
	switch name {
	case "index":
		return int64(i + 1), true
	case "index0":
		return int64(i), true
	case "revindex":
		return int64(n - i), true
	case "revindex0":
		return int64(n - i - 1), true
	case "first":
		return i == 0, true
	case "last":
		return i == n-1, true
	case "length":
		return int64(n), true
	case "depth":
		return int64(l.depth0 + 1), true
	case "depth0":
		return int64(l.depth0), true
	case "previtem":
		if i == 0 {
			return &Undefined{hint: "there is no previous item"}, true
		}
		return l.items[i-1], true
	case "nextitem":
		if i == n-1 {
			return &Undefined{hint: "there is no next item"}, true
		}
		return l.items[i+1], true
	case "cycle":
		return &Callable{name: "cycle", fn: func(_ *evaluator, args []any, kw []kwarg) (any, error) {
			if len(args) == 0 || len(kw) > 0 {
				return nil, runtimeErr("no items for cycling given")
			}
			return args[i%len(args)], nil
		}}, true
	case "changed":
		return &Callable{name: "changed", fn: func(ev *evaluator, args []any, _ []kwarg) (any, error) {
			same, err := ev.equalItems(l.changed, args, 0)
			if err != nil || l.called && same {
				return false, err
			}
			l.called, l.changed = true, args
			return true, nil
		}}, true
	}
	return nil, false
}
