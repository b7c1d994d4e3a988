package jinja

import (
	"math"
	"math/big"
	"strings"
)

// equal is Python's ==.
func (ev *evaluator) equal(a, b any) (bool, error) { return ev.equalAt(a, b, 0) }

func (ev *evaluator) equalAt(a, b any, depth int) (bool, error) {
	if depth > ev.limits.Nest {
		return false, limitErr("nesting")
	}
	if err := ev.charge(1); err != nil {
		return false, err
	}
	if s, ok := asString(a); ok {
		t, ok := asString(b)
		if ok && len(s) == len(t) {
			if err := ev.chargeBytes(len(s)); err != nil {
				return false, err
			}
		}
		return ok && s == t, nil
	}
	if c, ok := compareNumbers(a, b); ok {
		return c == 0, nil
	}
	switch a := a.(type) {
	case nil:
		return b == nil, nil
	case *Undefined:
		_, ok := b.(*Undefined)
		return ok, nil
	case *List:
		if b, ok := b.(*List); ok {
			return ev.equalItems(a.Items, b.Items, depth)
		}
	case *Tuple:
		if b, ok := b.(*Tuple); ok {
			return ev.equalItems(a.Items, b.Items, depth)
		}
	case *Dict:
		b, ok := b.(*Dict)
		if !ok || a.Len() != b.Len() {
			return false, nil
		}
		for h, i := range a.index {
			j, ok := b.index[h]
			if !ok {
				return false, nil
			}
			if same, err := ev.equalAt(a.vals[i], b.vals[j], depth+1); err != nil || !same {
				return false, err
			}
		}
		return true, nil
	case *rangeObj:
		b, ok := b.(*rangeObj)
		return ok && (*a == *b || a.len() == 0 && b.len() == 0), nil
	case bool, int64, float64, *big.Int:
		return false, nil
	}
	return a == b, nil // identity
}

func (ev *evaluator) equalItems(a, b []any, depth int) (bool, error) {
	if len(a) != len(b) {
		return false, nil
	}
	for i := range a {
		if same, err := ev.equalAt(a[i], b[i], depth+1); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// compareNumbers compares two numbers; unordered (NaN) gives 2.
func compareNumbers(a, b any) (int, bool) {
	if x, ok := asInt(a); ok {
		if y, ok := asInt(b); ok {
			switch {
			case x < y:
				return -1, true
			case x > y:
				return 1, true
			}
			return 0, true
		}
	}
	if x, y := toBig(a), toBig(b); x != nil && y != nil {
		return x.Cmp(y), true
	}
	x, ok1 := asFloat(a)
	y, ok2 := asFloat(b)
	if !ok1 || !ok2 {
		return 0, false
	}
	switch {
	case x < y:
		return -1, true
	case x > y:
		return 1, true
	case x == y:
		return 0, true
	}
	return 2, true
}

func toBig(v any) *big.Int {
	if b, ok := v.(*big.Int); ok {
		return b
	}
	if i, ok := asInt(v); ok {
		return big.NewInt(i)
	}
	return nil
}

// ordered is one of Python's <, <=, >, >=.
func (ev *evaluator) ordered(op string, a, b any) (bool, error) {
	for _, v := range []any{a, b} {
		if u, ok := v.(*Undefined); ok {
			return false, u.fail()
		}
	}
	c, err := ev.order(op, a, b, 0)
	if err != nil || c == 2 {
		return false, err
	}
	switch op {
	case "<":
		return c < 0, nil
	case "<=":
		return c <= 0, nil
	case ">":
		return c > 0, nil
	}
	return c >= 0, nil
}

// order gives -1, 0, 1, or 2 for unordered; op is for the message.
func (ev *evaluator) order(op string, a, b any, depth int) (int, error) {
	if depth > ev.limits.Nest {
		return 0, limitErr("nesting")
	}
	if err := ev.charge(1); err != nil {
		return 0, err
	}
	if c, ok := compareNumbers(a, b); ok {
		return c, nil
	}
	if s, ok := asString(a); ok {
		if t, ok := asString(b); ok {
			return strings.Compare(s, t), ev.chargeBytes(min(len(s), len(t)))
		}
	}
	x, y, ok := bothItems(a, b)
	if !ok {
		for _, v := range []any{a, b} {
			if u, isU := v.(*Undefined); isU {
				return 0, u.fail()
			}
		}
		return 0, runtimeErr("'%s' not supported between instances of '%s' and '%s'", op, typeName(a), typeName(b))
	}
	for i := range min(len(x), len(y)) {
		same, err := ev.equalAt(x[i], y[i], depth+1)
		if err != nil {
			return 0, err
		}
		if !same {
			return ev.order(op, x[i], y[i], depth+1)
		}
	}
	c, _ := compareNumbers(int64(len(x)), int64(len(y)))
	return c, nil
}

func bothItems(a, b any) (x, y []any, ok bool) {
	switch a := a.(type) {
	case *List:
		if b, ok := b.(*List); ok {
			return a.Items, b.Items, true
		}
	case *Tuple:
		if b, ok := b.(*Tuple); ok {
			return a.Items, b.Items, true
		}
	}
	return nil, nil, false
}

// contains is Python's "x in c".
func (ev *evaluator) contains(x, c any) (bool, error) {
	if s, ok := asString(c); ok {
		t, ok := asString(x)
		if !ok {
			return false, runtimeErr("'in <string>' requires string as left operand, not %s", typeName(x))
		}
		return strings.Contains(s, t), ev.chargeBytes(len(s))
	}
	switch c := c.(type) {
	case *Dict:
		_, ok, err := c.get(x)
		return ok, err
	case *List, *Tuple, *dictView, *iterator, *rangeObj, *Undefined:
		items, err := ev.iterate(c)
		if err != nil {
			return false, err
		}
		for _, y := range items {
			if same, err := ev.equal(x, y); err != nil || same {
				return same, err
			}
		}
		return false, nil
	}
	return false, runtimeErr("argument of type '%s' is not iterable", typeName(c))
}

// binary is a Python arithmetic operator.
func (ev *evaluator) binary(op string, a, b any) (any, error) {
	if s, ok := asString(a); ok && op == "%" {
		return ev.percent(s, b)
	}
	for _, v := range []any{a, b} {
		if u, ok := v.(*Undefined); ok {
			return nil, u.fail()
		}
	}
	if x, ok := asInt(a); ok {
		if y, ok := asInt(b); ok {
			return ev.intOp(op, x, y)
		}
	}
	if x, y := toBig(a), toBig(b); x != nil && y != nil {
		return ev.bigOp(op, x, y)
	}
	if x, ok := asFloat(a); ok {
		if y, ok := asFloat(b); ok {
			return floatOp(op, x, y)
		}
	}
	switch op {
	case "+":
		if v, ok, err := ev.add(a, b); ok || err != nil {
			return v, err
		}
		if _, ok := asString(a); ok {
			return nil, runtimeErr("can only concatenate str (not \"%s\") to str", typeName(b))
		}
	case "*":
		if n, ok := asInt(b); ok {
			if v, ok, err := ev.repeat(a, n); ok || err != nil {
				return v, err
			}
		}
		if n, ok := asInt(a); ok {
			if v, ok, err := ev.repeat(b, n); ok || err != nil {
				return v, err
			}
		}
	}
	return nil, runtimeErr("unsupported operand type(s) for %s: '%s' and '%s'", op, typeName(a), typeName(b))
}

func (ev *evaluator) add(a, b any) (any, bool, error) {
	s, ok1 := asString(a)
	t, ok2 := asString(b)
	if ok1 && ok2 {
		_, m1 := a.(markup)
		_, m2 := b.(markup)
		if m1 || m2 { // Markup escapes what is added to it
			if !m1 {
				s = escapeHTML(s)
			}
			if !m2 {
				t = escapeHTML(t)
			}
			return markup(s + t), true, ev.chargeBytes(len(s) + len(t))
		}
		if err := ev.chargeBytes(len(s) + len(t)); err != nil {
			return nil, false, err
		}
		return s + t, true, nil
	}
	x, y, ok := bothItems(a, b)
	if !ok {
		return nil, false, nil
	}
	if err := ev.charge(len(x) + len(y)); err != nil {
		return nil, false, err
	}
	items := append(append(make([]any, 0, len(x)+len(y)), x...), y...)
	if _, isList := a.(*List); isList {
		return &List{items}, true, nil
	}
	return &Tuple{Items: items}, true, nil
}

func (ev *evaluator) repeat(v any, n int64) (any, bool, error) {
	n = max(n, 0)
	size := func(l int) (int, error) {
		if l > 0 && n > int64(ev.limits.Work)*16/int64(l) {
			return 0, limitErr("work")
		}
		return l * int(n), nil
	}
	if s, ok := asString(v); ok {
		l, err := size(len(s))
		if err == nil {
			err = ev.chargeBytes(l)
		}
		if err != nil {
			return nil, false, err
		}
		if l == 0 {
			return "", true, nil
		}
		return strings.Repeat(s, int(n)), true, nil
	}
	var items []any
	switch v := v.(type) {
	case *List:
		items = v.Items
	case *Tuple:
		items = v.Items
	default:
		return nil, false, nil
	}
	l, err := size(len(items))
	if err == nil {
		err = ev.charge(l)
	}
	if err != nil {
		return nil, false, err
	}
	out := make([]any, 0, l)
	if l > 0 {
		for range n {
			out = append(out, items...)
		}
	}
	if _, ok := v.(*List); ok {
		return &List{out}, true, nil
	}
	return &Tuple{Items: out}, true, nil
}

func (ev *evaluator) intOp(op string, x, y int64) (any, error) {
	switch op {
	case "+":
		if z := x + y; (z > x) == (y > 0) {
			return z, nil
		}
	case "-":
		if z := x - y; (z < x) == (y > 0) {
			return z, nil
		}
	case "*":
		if x == 0 || y == 0 {
			return int64(0), nil
		}
		if z := x * y; z/y == x && !(x == -1 && y == math.MinInt64) && !(y == -1 && x == math.MinInt64) {
			return z, nil
		}
	case "/":
		if y == 0 {
			return nil, runtimeErr("division by zero")
		}
		return float64(x) / float64(y), nil
	}
	return ev.bigOp(op, big.NewInt(x), big.NewInt(y))
}

func (ev *evaluator) bigOp(op string, x, y *big.Int) (any, error) {
	// 4096 bits are far past any use; they keep the cost of one step constant.
	if x.BitLen() > 4096 || y.BitLen() > 4096 {
		return nil, limitErr("integer size")
	}
	if err := ev.charge(4); err != nil {
		return nil, err
	}
	z := new(big.Int)
	switch op {
	case "+":
		z.Add(x, y)
	case "-":
		z.Sub(x, y)
	case "*":
		z.Mul(x, y)
	case "//", "%":
		if y.Sign() == 0 {
			return nil, runtimeErr("integer division or modulo by zero")
		}
		q, m := new(big.Int).QuoRem(x, y, new(big.Int))
		if m.Sign() != 0 && m.Sign() != y.Sign() { // truncated to floored
			m.Add(m, y)
			q.Sub(q, big.NewInt(1))
		}
		if z = q; op == "%" {
			z = m
		}
	case "/":
		if y.Sign() == 0 {
			return nil, runtimeErr("division by zero")
		}
		f, _ := new(big.Rat).SetFrac(x, y).Float64()
		return f, nil
	case "**":
		if y.Sign() < 0 {
			a, _ := asFloat(x)
			b, _ := asFloat(y)
			return floatOp("**", a, b)
		}
		if x.BitLen() > 1 && (!y.IsInt64() || y.Int64()*int64(x.BitLen()) > 4096) {
			return nil, limitErr("integer size")
		}
		if x.BitLen() <= 1 && y.BitLen() > 1 { // -1, 0 or 1: only whether y is odd matters
			y = big.NewInt(int64(y.Bit(0)) + 2)
		}
		z.Exp(x, y, nil)
	}
	if z.IsInt64() {
		return z.Int64(), nil
	}
	return z, nil
}

func floatOp(op string, x, y float64) (any, error) {
	switch op {
	case "+":
		return x + y, nil
	case "-":
		return x - y, nil
	case "*":
		return x * y, nil
	case "**":
		if x == 0 && y < 0 {
			return nil, runtimeErr("0.0 cannot be raised to a negative power")
		}
		z := math.Pow(x, y)
		if math.IsInf(z, 0) && !math.IsInf(x, 0) && !math.IsInf(y, 0) {
			return nil, runtimeErr("numerical result out of range")
		}
		return z, nil
	}
	if y == 0 {
		return nil, runtimeErr("float division by zero")
	}
	switch op {
	case "/":
		return x / y, nil
	case "//":
		return math.Floor(x / y), nil
	}
	m := math.Mod(x, y)
	if m != 0 && (m < 0) != (y < 0) {
		m += y
	}
	return m, nil
}

func escapeHTML(s string) string {
	return strings.NewReplacer("&", "&amp;", ">", "&gt;", "<", "&lt;", "'", "&#39;", `"`, "&#34;").Replace(s)
}
