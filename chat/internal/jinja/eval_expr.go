package jinja

import (
	"math/big"
	"strings"
)

// eval computes an expression. Operands are evaluated in Python's order.
func (ev *evaluator) eval(x expr, sc *scope) (any, error) {
	if ev.depth++; ev.depth > evalDepth {
		return nil, limitErr("nesting")
	}
	defer func() { ev.depth-- }()
	if err := ev.charge(1); err != nil {
		return nil, err
	}
	switch x := x.(type) {
	case *constExpr:
		return x.v, nil
	case *nameExpr:
		if v, ok := sc.get(x.name); ok {
			return v, nil
		}
		return undefinedName(x.name), nil
	case capturedExpr:
		v, _ := sc.get(capturedName)
		return v, nil
	case *listExpr:
		items, err := ev.evalAll(x.items, sc)
		return &List{items}, err
	case *tupleExpr:
		items, err := ev.evalAll(x.items, sc)
		return &Tuple{Items: items}, err
	case *dictExpr:
		return ev.evalDict(x, sc)
	case *unaryExpr:
		return ev.evalUnary(x, sc)
	case *binExpr:
		return ev.evalBinary(x, sc)
	case *cmpExpr:
		return ev.evalCompare(x, sc)
	case *concatExpr:
		return ev.evalConcat(x, sc)
	case *condExpr:
		return ev.evalCond(x, sc)
	case *attrExpr:
		v, err := ev.eval(x.x, sc)
		if err != nil {
			return nil, err
		}
		return ev.getAttr(v, x.name)
	case *itemExpr:
		v, err := ev.eval(x.x, sc)
		if err != nil {
			return nil, err
		}
		if s, ok := x.key.(*sliceExpr); ok {
			return ev.evalSlice(v, s, sc)
		}
		k, err := ev.eval(x.key, sc)
		if err != nil {
			return nil, err
		}
		return ev.getItem(v, k)
	case *callExpr:
		fn, args, kw, err := ev.callParts(x, sc)
		if err != nil {
			return nil, err
		}
		v, err := ev.callValue(fn, args, kw)
		return v, atLine(err, x.line)
	case *filterExpr:
		return ev.evalFilter(x, sc)
	case *testExpr:
		return ev.evalTest(x, sc)
	}
	return nil, runtimeErr("unknown expression %T", x)
}

func (ev *evaluator) evalAll(xs []expr, sc *scope) ([]any, error) {
	out := make([]any, 0, len(xs))
	for _, x := range xs {
		v, err := ev.eval(x, sc)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (ev *evaluator) evalDict(x *dictExpr, sc *scope) (any, error) {
	d := &Dict{}
	for i, kx := range x.keys {
		k, err := ev.eval(kx, sc)
		if err != nil {
			return nil, err
		}
		v, err := ev.eval(x.vals[i], sc)
		if err != nil {
			return nil, err
		}
		h, err := hashKey(k)
		if err != nil {
			return nil, err
		}
		d.set(h, k, v)
	}
	return d, nil
}

func (ev *evaluator) evalUnary(x *unaryExpr, sc *scope) (any, error) {
	v, err := ev.eval(x.x, sc)
	if err != nil {
		return nil, err
	}
	if x.op == "not" {
		return !truthy(v), nil
	}
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	if f, ok := v.(float64); ok {
		if x.op == "-" {
			f = -f
		}
		return f, nil
	}
	if b := toBig(v); b != nil {
		if x.op == "-" {
			return ev.bigOp("-", new(big.Int), b)
		}
		return ev.bigOp("+", new(big.Int), b)
	}
	return nil, runtimeErr("bad operand type for unary %s: '%s'", x.op, typeName(v))
}

func (ev *evaluator) evalBinary(x *binExpr, sc *scope) (any, error) {
	a, err := ev.eval(x.x, sc)
	if err != nil {
		return nil, err
	}
	switch x.op {
	case "and":
		if !truthy(a) {
			return a, nil
		}
		return ev.eval(x.y, sc)
	case "or":
		if truthy(a) {
			return a, nil
		}
		return ev.eval(x.y, sc)
	}
	b, err := ev.eval(x.y, sc)
	if err != nil {
		return nil, err
	}
	return ev.binary(x.op, a, b)
}

func (ev *evaluator) evalCompare(x *cmpExpr, sc *scope) (any, error) {
	a, err := ev.eval(x.x, sc)
	if err != nil {
		return nil, err
	}
	for i, op := range x.ops {
		b, err := ev.eval(x.ys[i], sc)
		if err != nil {
			return nil, err
		}
		var ok bool
		switch op {
		case "==", "!=":
			ok, err = ev.equal(a, b)
			ok = ok == (op == "==")
		case "in", "not in":
			ok, err = ev.contains(a, b)
			ok = ok == (op == "in")
		default:
			ok, err = ev.ordered(op, a, b)
		}
		if err != nil {
			return nil, err
		}
		if !ok {
			return false, nil
		}
		a = b
	}
	return true, nil
}

func (ev *evaluator) evalConcat(x *concatExpr, sc *scope) (any, error) {
	vals, err := ev.evalAll(x.items, sc)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, v := range vals {
		s, err := ev.str(v)
		if err != nil {
			return nil, err
		}
		if err := ev.chargeBytes(len(s)); err != nil {
			return nil, err
		}
		b.WriteString(s)
	}
	return b.String(), nil // never Markup: autoescape is off
}

func (ev *evaluator) evalCond(x *condExpr, sc *scope) (any, error) {
	t, err := ev.eval(x.test, sc)
	if err != nil {
		return nil, err
	}
	if truthy(t) {
		return ev.eval(x.x, sc)
	}
	if x.els == nil {
		return &Undefined{hint: "the inline if-expression evaluated to false and no else section was defined"}, nil
	}
	return ev.eval(x.els, sc)
}

// callParts evaluates the callee and its arguments.
func (ev *evaluator) callParts(x *callExpr, sc *scope) (fn any, args []any, kw []kwarg, err error) {
	if fn, err = ev.eval(x.fn, sc); err != nil {
		return nil, nil, nil, err
	}
	args, kw, err = ev.evalArgs(&x.args, sc)
	return fn, args, kw, err
}

func (ev *evaluator) evalArgs(a *callArgs, sc *scope) ([]any, []kwarg, error) {
	args, err := ev.evalAll(a.pos, sc)
	if err != nil {
		return nil, nil, err
	}
	var kw []kwarg
	for i, name := range a.names {
		v, err := ev.eval(a.named[i], sc)
		if err != nil {
			return nil, nil, err
		}
		for _, k := range kw {
			if k.name == name {
				return nil, nil, runtimeErr("keyword argument repeated: %s", name)
			}
		}
		kw = append(kw, kwarg{name, v})
	}
	if a.star != nil {
		v, err := ev.eval(a.star, sc)
		if err != nil {
			return nil, nil, err
		}
		more, err := ev.iterate(v)
		if err != nil {
			return nil, nil, err
		}
		args = append(args, more...)
	}
	if a.starStar != nil {
		v, err := ev.eval(a.starStar, sc)
		if err != nil {
			return nil, nil, err
		}
		d, ok := v.(*Dict)
		if !ok {
			return nil, nil, runtimeErr("argument after ** must be a mapping, not %s", typeName(v))
		}
		for i, k := range d.keys {
			name, ok := asString(k)
			if !ok {
				return nil, nil, runtimeErr("keywords must be strings")
			}
			kw = append(kw, kwarg{name, d.vals[i]})
		}
	}
	return args, kw, ev.charge(len(args) + len(kw))
}

func (ev *evaluator) callValue(fn any, args []any, kw []kwarg) (any, error) {
	switch f := fn.(type) {
	case *Callable:
		return f.fn(ev, args, kw)
	case *Undefined:
		return nil, f.fail()
	case *loopObj:
		if f.recurse == nil {
			return nil, runtimeErr("the loop must have the 'recursive' marker to be called recursively")
		}
		a, err := bind("loop", []string{"iterable"}, 1, args, kw)
		if err != nil {
			return nil, err
		}
		return f.recurse(a[0])
	}
	return nil, runtimeErr("'%s' object is not callable", typeName(fn))
}

func (ev *evaluator) evalFilter(x *filterExpr, sc *scope) (any, error) {
	v, err := ev.eval(x.x, sc)
	if err != nil {
		return nil, err
	}
	if x.fn == nil {
		return nil, atLine(runtimeErr("no filter named '%s' found", x.name), x.line)
	}
	args, kw, err := ev.evalArgs(&x.args, sc)
	if err != nil {
		return nil, err
	}
	v, err = x.fn(ev, v, args, kw)
	return v, atLine(err, x.line)
}

func (ev *evaluator) evalTest(x *testExpr, sc *scope) (any, error) {
	v, err := ev.eval(x.x, sc)
	if err != nil {
		return nil, err
	}
	if x.fn == nil {
		return nil, atLine(runtimeErr("no test named '%s' found", x.name), x.line)
	}
	args, kw, err := ev.evalArgs(&x.args, sc)
	if err != nil {
		return nil, err
	}
	ok, err := x.fn(ev, v, args, kw)
	return ok != x.not, atLine(err, x.line)
}

// absent marks an argument that was not given.
var absent any = &struct{ _ int }{}

// bind orders positional and keyword arguments by parameter; those not given are absent.
func bind(fname string, params []string, required int, args []any, kw []kwarg) ([]any, error) {
	if len(args) > len(params) {
		return nil, runtimeErr("%s() takes at most %d arguments (%d given)", fname, len(params), len(args))
	}
	out := make([]any, len(params))
	for i := range out {
		out[i] = absent
	}
	copy(out, args)
next:
	for _, k := range kw {
		for i, p := range params {
			if p != k.name {
				continue
			}
			if out[i] != absent {
				return nil, runtimeErr("%s() got multiple values for argument '%s'", fname, p)
			}
			out[i] = k.v
			continue next
		}
		return nil, runtimeErr("%s() got an unexpected keyword argument '%s'", fname, k.name)
	}
	for i := range required {
		if out[i] == absent {
			return nil, runtimeErr("%s() missing required argument: '%s'", fname, params[i])
		}
	}
	return out, nil
}
