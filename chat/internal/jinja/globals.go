package jinja

// maxRange is the longest range the sandbox allows.
const maxRange = 100_000

// globalFuncs are the names every template has beside its variables.
var globalFuncs = map[string]any{
	"range":     &Callable{name: "range", fn: rangeFunc},
	"dict":      &Callable{name: "dict", fn: dictFunc},
	"namespace": &Callable{name: "namespace", fn: namespaceFunc},
	"self":      &namespace{}, // in jinja2 the template's blocks
	"lipsum": &Callable{name: "lipsum", fn: func(*evaluator, []any, []kwarg) (any, error) {
		return nil, runtimeErr("lipsum is not supported")
	}},
	"joiner": &Callable{name: "joiner", fn: joiner},
	"cycler": &Callable{name: "cycler", fn: cycler},
	"raise_exception": &Callable{name: "raise_exception", fn: func(ev *evaluator, args []any, kw []kwarg) (any, error) {
		a, err := bind("raise_exception", []string{"message"}, 1, args, kw)
		if err != nil {
			return nil, err
		}
		s, err := ev.str(a[0])
		if err != nil {
			return nil, err
		}
		return nil, Raise(s)
	}},
}

func rangeFunc(_ *evaluator, args []any, kw []kwarg) (any, error) {
	if len(kw) > 0 || len(args) < 1 || len(args) > 3 {
		return nil, runtimeErr("range expected 1 to 3 positional arguments")
	}
	var n [3]int64
	for i, a := range args {
		if u, ok := a.(*Undefined); ok {
			return nil, u.fail()
		}
		var ok bool
		if n[i], ok = asInt(a); !ok {
			return nil, runtimeErr("'%s' object cannot be interpreted as an integer", typeName(a))
		}
		if n[i] > 1<<40 || n[i] < -1<<40 {
			return nil, limitErr("range")
		}
	}
	r := &rangeObj{0, n[0], 1}
	if len(args) > 1 {
		r = &rangeObj{n[0], n[1], 1}
	}
	if len(args) == 3 {
		r.step = n[2]
	}
	if r.step == 0 {
		return nil, runtimeErr("range() arg 3 must not be zero")
	}
	if r.len() > maxRange {
		return nil, limitErr("range")
	}
	return r, nil
}

func dictFunc(ev *evaluator, args []any, kw []kwarg) (any, error) {
	d := &Dict{}
	if len(args) > 1 {
		return nil, runtimeErr("dict expected at most 1 argument, got %d", len(args))
	}
	if len(args) == 1 {
		if src, ok := args[0].(*Dict); ok {
			d = copyDict(src)
		} else if err := dictFromPairs(ev, d, args[0]); err != nil {
			return nil, err
		}
	}
	for _, k := range kw {
		d.SetString(k.name, k.v)
	}
	return d, ev.charge(d.Len())
}

func dictFromPairs(ev *evaluator, d *Dict, v any) error {
	pairs, err := ev.iterate(v)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		kv, err := ev.iterate(p)
		if err != nil {
			return err
		}
		if len(kv) != 2 {
			return runtimeErr("dictionary update sequence element has length %d; 2 is required", len(kv))
		}
		h, err := hashKey(kv[0])
		if err != nil {
			return err
		}
		d.set(h, kv[0], kv[1])
	}
	return ev.charge(len(pairs))
}

func namespaceFunc(ev *evaluator, args []any, kw []kwarg) (any, error) {
	d, err := dictFunc(ev, args, kw)
	if err != nil {
		return nil, err
	}
	return &namespace{*d.(*Dict)}, nil
}

func joiner(ev *evaluator, args []any, kw []kwarg) (any, error) {
	a, err := bind("joiner", []string{"sep"}, 0, args, kw)
	if err != nil {
		return nil, err
	}
	if a[0] == absent {
		a[0] = ", "
	}
	used := false
	return &Callable{name: "joiner", fn: func(*evaluator, []any, []kwarg) (any, error) {
		if !used {
			used = true
			return "", nil
		}
		return a[0], nil
	}}, nil
}

func cycler(_ *evaluator, args []any, kw []kwarg) (any, error) {
	if len(args) == 0 || len(kw) > 0 {
		return nil, runtimeErr("at least one item has to be provided")
	}
	pos := 0
	c := &Callable{name: "cycler", attrs: map[string]any{"current": args[0]}}
	move := func(to int) {
		pos = to % len(args)
		c.attrs["current"] = args[pos]
	}
	c.attrs["next"] = &Callable{name: "next", fn: func(*evaluator, []any, []kwarg) (any, error) {
		v := args[pos]
		move(pos + 1)
		return v, nil
	}}
	c.attrs["reset"] = &Callable{name: "reset", fn: func(*evaluator, []any, []kwarg) (any, error) {
		move(0)
		return nil, nil
	}}
	c.fn = func(*evaluator, []any, []kwarg) (any, error) {
		return nil, runtimeErr("'Cycler' object is not callable")
	}
	return c, nil
}
