package jinja

// method makes a bound method. Absent optional arguments arrive as absent.
func method(name string, params []string, required int, fn func(ev *evaluator, a []any) (any, error)) *Callable {
	return &Callable{name: name, fn: func(ev *evaluator, args []any, kw []kwarg) (any, error) {
		a, err := bind(name, params, required, args, kw)
		if err != nil {
			return nil, err
		}
		return fn(ev, a)
	}}
}

func dictMethod(d *Dict, name string) (any, bool) {
	switch name {
	case "get":
		return method(name, []string{"key", "default"}, 1, func(_ *evaluator, a []any) (any, error) {
			v, ok, err := d.get(a[0])
			if err != nil || ok {
				return v, err
			}
			if a[1] == absent {
				return nil, nil
			}
			return a[1], nil
		}), true
	case "keys":
		return method(name, nil, 0, func(*evaluator, []any) (any, error) {
			return &dictView{"dict_keys", d.keys}, nil
		}), true
	case "values":
		return method(name, nil, 0, func(*evaluator, []any) (any, error) {
			return &dictView{"dict_values", d.vals}, nil
		}), true
	case "items":
		return method(name, nil, 0, func(ev *evaluator, _ []any) (any, error) {
			items, err := dictItems(ev, d)
			return &dictView{"dict_items", items}, err
		}), true
	case "copy":
		return method(name, nil, 0, func(ev *evaluator, _ []any) (any, error) {
			return copyDict(d), ev.charge(d.Len())
		}), true
	}
	return nil, false
}

func dictItems(ev *evaluator, d *Dict) ([]any, error) {
	if err := ev.charge(d.Len()); err != nil {
		return nil, err
	}
	items := make([]any, d.Len())
	for i := range items {
		items[i] = &Tuple{Items: []any{d.keys[i], d.vals[i]}}
	}
	return items, nil
}

func copyDict(d *Dict) *Dict {
	c := &Dict{}
	for h, i := range d.index {
		if c.index == nil {
			c.index = make(map[any]int, d.Len())
		}
		c.index[h] = i
	}
	c.keys = append(c.keys, d.keys...)
	c.vals = append(c.vals, d.vals...)
	return c
}

func listMethod(l *List, name string) (any, bool) {
	switch name {
	case "copy":
		return method(name, nil, 0, func(ev *evaluator, _ []any) (any, error) {
			return &List{append([]any{}, l.Items...)}, ev.charge(len(l.Items))
		}), true
	case "clear": // jinja2 3.1.2 does not count clear and pop as unsafe
		return method(name, nil, 0, func(*evaluator, []any) (any, error) {
			l.Items = nil
			return nil, nil
		}), true
	case "pop":
		return method(name, []string{"index"}, 0, func(ev *evaluator, a []any) (any, error) {
			i, n := int64(-1), int64(len(l.Items))
			if a[0] != absent {
				var ok bool
				if i, ok = asInt(a[0]); !ok {
					return nil, runtimeErr("'%s' object cannot be interpreted as an integer", typeName(a[0]))
				}
			}
			if i < 0 {
				i += n
			}
			if i < 0 || i >= n {
				return nil, runtimeErr("pop index out of range")
			}
			v := l.Items[i]
			rest := append(append(make([]any, 0, n), l.Items[:i]...), l.Items[i+1:]...)
			l.Items = rest
			return v, ev.charge(int(n))
		}), true
	}
	return seqMethod(l.Items, name)
}

func seqMethod(items []any, name string) (any, bool) {
	switch name {
	case "index":
		return method(name, []string{"value"}, 1, func(ev *evaluator, a []any) (any, error) {
			for i, x := range items {
				if same, err := ev.equal(x, a[0]); err != nil {
					return nil, err
				} else if same {
					return int64(i), nil
				}
			}
			return nil, runtimeErr("%s is not in list", shortRepr(a[0]))
		}), true
	case "count":
		return method(name, []string{"value"}, 1, func(ev *evaluator, a []any) (any, error) {
			n := int64(0)
			for _, x := range items {
				same, err := ev.equal(x, a[0])
				if err != nil {
					return nil, err
				}
				if same {
					n++
				}
			}
			return n, nil
		}), true
	}
	return nil, false
}
