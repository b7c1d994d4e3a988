package jinja

import (
	"strconv"
	"strings"
)

// getter makes the function behind an attribute argument: "a.b.0" walks items, absent or None is the value itself.
// post, if not nil, is applied to what was found.
func (ev *evaluator) getter(attr any, post func(any) any) (func(any) (any, error), error) {
	if post == nil {
		post = func(v any) any { return v }
	}
	if attr == absent || attr == nil {
		return func(v any) (any, error) { return post(v), nil }, nil
	}
	var path []any
	if s, ok := asString(attr); ok {
		for _, part := range strings.Split(s, ".") {
			if i, err := strconv.ParseUint(part, 10, 62); err == nil {
				path = append(path, int64(i))
			} else {
				path = append(path, part)
			}
		}
	} else {
		path = []any{attr}
	}
	return func(v any) (any, error) {
		for _, k := range path {
			var err error
			if v, err = ev.getItem(v, k); err != nil {
				return nil, err
			}
		}
		return post(v), nil
	}, nil
}

// foldCase is the key that filters compare by unless they are case sensitive.
func foldCase(sensitive any) func(any) any {
	if sensitive != absent && truthy(sensitive) {
		return nil
	}
	return func(v any) any {
		if s, ok := asString(v); ok {
			return strings.ToLower(s)
		}
		return v
	}
}

// copied lists v's items for a filter that reorders them.
func (ev *evaluator) copied(v any) ([]any, error) {
	items, err := ev.iterate(v)
	if err != nil {
		return nil, err
	}
	return append([]any{}, items...), ev.charge(len(items))
}

func sortFilter(ev *evaluator, v any, a []any) (any, error) {
	items, err := ev.copied(v)
	if err != nil {
		return nil, err
	}
	key, err := ev.sortKey(a[2], foldCase(a[1]))
	if err != nil {
		return nil, err
	}
	return &List{items}, ev.sortBy(items, a[0] != absent && truthy(a[0]), key)
}

// sortKey is getter for sort, where "a,b" names several attributes.
func (ev *evaluator) sortKey(attr any, post func(any) any) (func(any) (any, error), error) {
	s, ok := asString(attr)
	if !ok || !strings.Contains(s, ",") {
		return ev.getter(attr, post)
	}
	var gets []func(any) (any, error)
	for _, part := range strings.Split(s, ",") {
		g, err := ev.getter(part, post)
		if err != nil {
			return nil, err
		}
		gets = append(gets, g)
	}
	return func(v any) (any, error) {
		l := &List{}
		for _, g := range gets {
			k, err := g(v)
			if err != nil {
				return nil, err
			}
			l.Items = append(l.Items, k)
		}
		return l, nil
	}, nil
}

func dictSort(ev *evaluator, v any, a []any) (any, error) {
	d, ok := v.(*Dict)
	if !ok {
		if u, ok := v.(*Undefined); ok {
			return nil, u.fail()
		}
		return nil, runtimeErr("'%s' object has no attribute 'items'", typeName(v))
	}
	at := 0
	if a[1] != absent {
		switch by, _ := asString(a[1]); by {
		case "key":
		case "value":
			at = 1
		default:
			return nil, runtimeErr("you can only sort by either \"key\" or \"value\"")
		}
	}
	items, err := dictItems(ev, d)
	if err != nil {
		return nil, err
	}
	post := foldCase(a[0])
	err = ev.sortBy(items, a[2] != absent && truthy(a[2]), func(x any) (any, error) {
		k := x.(*Tuple).Items[at]
		if post != nil {
			k = post(k)
		}
		return k, nil
	})
	return &List{items}, err
}

func unique(ev *evaluator, v any, a []any) (any, error) {
	items, err := ev.iterate(v)
	if err != nil {
		return nil, err
	}
	key, err := ev.getter(a[1], foldCase(a[0]))
	if err != nil {
		return nil, err
	}
	seen := map[any]bool{}
	var out []any
	for _, x := range items {
		k, err := key(x)
		if err != nil {
			return nil, err
		}
		h, err := hashKey(k)
		if err != nil {
			return nil, err
		}
		if !seen[h] {
			seen[h] = true
			out = append(out, x)
		}
	}
	return &iterator{out, "do_unique"}, ev.charge(len(items))
}

func extreme(op string) func(ev *evaluator, v any, a []any) (any, error) {
	return func(ev *evaluator, v any, a []any) (any, error) {
		items, err := ev.iterate(v)
		if err != nil {
			return nil, err
		}
		if len(items) == 0 {
			return &Undefined{hint: "no aggregated item, sequence was empty"}, nil
		}
		key, err := ev.getter(a[1], foldCase(a[0]))
		if err != nil {
			return nil, err
		}
		best := items[0]
		bk, err := key(best)
		if err != nil {
			return nil, err
		}
		for _, x := range items[1:] {
			k, err := key(x)
			if err != nil {
				return nil, err
			}
			better, err := ev.ordered(op, k, bk)
			if err != nil {
				return nil, err
			}
			if better {
				best, bk = x, k
			}
		}
		return best, nil
	}
}

func sum(ev *evaluator, v any, a []any) (any, error) {
	items, err := ev.iterate(v)
	if err != nil {
		return nil, err
	}
	get, err := ev.getter(a[0], nil)
	if err != nil {
		return nil, err
	}
	total := a[1]
	if total == absent {
		total = int64(0)
	}
	if _, ok := asString(total); ok {
		return nil, runtimeErr("sum() can't sum strings")
	}
	for _, x := range items {
		if x, err = get(x); err != nil {
			return nil, err
		}
		if total, err = ev.binary("+", total, x); err != nil {
			return nil, err
		}
	}
	return total, nil
}

func groupBy(ev *evaluator, v any, a []any) (any, error) {
	items, err := ev.copied(v)
	if err != nil {
		return nil, err
	}
	raw, err := ev.getter(a[0], func(x any) any {
		if _, ok := x.(*Undefined); ok && a[1] != absent && a[1] != nil {
			return a[1]
		}
		return x
	})
	if err != nil {
		return nil, err
	}
	fold := foldCase(a[2])
	key := func(x any) (any, error) {
		k, err := raw(x)
		if err == nil && fold != nil {
			k = fold(k)
		}
		return k, err
	}
	if err := ev.sortBy(items, false, key); err != nil {
		return nil, err
	}
	out := &List{}
	var group *List
	var prev any
	for _, x := range items {
		k, err := key(x)
		if err != nil {
			return nil, err
		}
		same := false
		if group != nil {
			if same, err = ev.equal(prev, k); err != nil {
				return nil, err
			}
		}
		if !same {
			name, err := raw(x)
			if err != nil {
				return nil, err
			}
			group = &List{}
			prev = k
			out.Items = append(out.Items, &Tuple{Items: []any{name, group}, names: []string{"grouper", "list"}})
		}
		group.Items = append(group.Items, x)
	}
	return out, nil
}

func batch(ev *evaluator, v any, a []any) (any, error) {
	items, err := ev.copied(v)
	if err != nil {
		return nil, err
	}
	n, ok := asInt(a[0])
	if !ok || n < 1 {
		return nil, runtimeErr("batch: size must be a positive integer")
	}
	if n > int64(ev.limits.Work) {
		return nil, limitErr("work")
	}
	var out []any
	for i := 0; i < len(items); i += int(n) {
		row := append([]any{}, items[i:min(len(items), i+int(n))]...)
		if a[1] != absent && a[1] != nil {
			if err := ev.charge(int(n)); err != nil {
				return nil, err
			}
			for int64(len(row)) < n {
				row = append(row, a[1])
			}
		}
		out = append(out, &List{row})
	}
	return &iterator{out, "do_batch"}, nil
}

func sliceFilter(ev *evaluator, v any, a []any) (any, error) {
	items, err := ev.copied(v)
	if err != nil {
		return nil, err
	}
	n, ok := asInt(a[0])
	if !ok || n < 1 {
		return nil, runtimeErr("slice: number of slices must be a positive integer")
	}
	if n > int64(ev.limits.Work) {
		return nil, limitErr("work")
	}
	if err := ev.charge(int(n)); err != nil {
		return nil, err
	}
	per, extra := len(items)/int(n), len(items)%int(n)
	var out []any
	at := 0
	for i := range int(n) {
		end := at + per
		if i < extra {
			end++
		}
		row := append([]any{}, items[at:end]...)
		if a[1] != absent && a[1] != nil && i >= extra {
			row = append(row, a[1])
		}
		at = end
		out = append(out, &List{row})
	}
	return &iterator{out, "do_slice"}, nil
}

// iterateIfAny is iterate for map, select and the like, which look at truth first and so accept None.
func (ev *evaluator) iterateIfAny(v any) ([]any, error) {
	if !truthy(v) {
		return nil, nil
	}
	return ev.iterate(v)
}

// mapFilter is map('filter', args…) or map(attribute=…, default=…).
func mapFilter(ev *evaluator, v any, args []any, kw []kwarg) (any, error) {
	var apply func(any) (any, error)
	if len(args) == 0 {
		a, err := bind("map", []string{"attribute", "default"}, 1, nil, kw)
		if err != nil {
			return nil, err
		}
		apply, err = ev.getter(a[0], func(x any) any {
			if _, ok := x.(*Undefined); ok && a[1] != absent && a[1] != nil {
				return a[1]
			}
			return x
		})
		if err != nil {
			return nil, err
		}
	} else {
		name, _ := asString(args[0])
		fn := filterFuncs[name]
		if fn == nil {
			return nil, runtimeErr("no filter named '%s'", name)
		}
		apply = func(x any) (any, error) { return fn(ev, x, args[1:], kw) }
	}
	items, err := ev.iterateIfAny(v)
	if err != nil {
		return nil, err
	}
	out := make([]any, 0, len(items))
	for _, x := range items {
		y, err := apply(x)
		if err != nil {
			return nil, err
		}
		out = append(out, y)
	}
	return &iterator{out, "sync_do_map"}, ev.charge(len(items))
}

// selectFilter is select, reject, selectattr and rejectattr.
func selectFilter(name string, attr, reject bool) filterFunc {
	return func(ev *evaluator, v any, args []any, kw []kwarg) (any, error) {
		get := func(x any) (any, error) { return x, nil }
		if attr {
			if len(args) == 0 {
				return nil, runtimeErr("%s: missing parameter for attribute name", name)
			}
			var err error
			if get, err = ev.getter(args[0], nil); err != nil {
				return nil, err
			}
			args = args[1:]
		}
		pass := func(x any) (bool, error) { return truthy(x), nil }
		if len(args) > 0 {
			test, _ := asString(args[0])
			fn := testFuncs[test]
			if fn == nil {
				return nil, runtimeErr("no test named '%s'", test)
			}
			pass = func(x any) (bool, error) { return fn(ev, x, args[1:], kw) }
		}
		items, err := ev.iterateIfAny(v)
		if err != nil {
			return nil, err
		}
		var out []any
		for _, x := range items {
			y, err := get(x)
			if err != nil {
				return nil, err
			}
			ok, err := pass(y)
			if err != nil {
				return nil, err
			}
			if ok != reject {
				out = append(out, x)
			}
		}
		return &iterator{out, "select_or_reject"}, ev.charge(len(items))
	}
}
