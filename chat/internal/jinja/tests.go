package jinja

import (
	"math/big"
	"strings"
)

type testFunc func(ev *evaluator, v any, args []any, kw []kwarg) (bool, error)

var testFuncs map[string]testFunc

// is makes a test without arguments.
func is(name string, ok func(any) bool) testFunc {
	return func(_ *evaluator, v any, args []any, kw []kwarg) (bool, error) {
		_, err := bind(name, nil, 0, args, kw)
		return ok(v), err
	}
}

func compareTest(op string) testFunc {
	return func(ev *evaluator, v any, args []any, kw []kwarg) (bool, error) {
		a, err := bind(op, []string{"b"}, 1, args, kw)
		if err != nil {
			return false, err
		}
		switch op {
		case "==", "!=":
			same, err := ev.equal(v, a[0])
			return same == (op == "=="), err
		case "in":
			return ev.contains(v, a[0])
		}
		return ev.ordered(op, v, a[0])
	}
}

// remainder is v % n for the tests odd, even and divisibleby.
func remainder(ev *evaluator, v, n any) (bool, error) {
	m, err := ev.binary("%", v, n)
	if err != nil {
		return false, err
	}
	return ev.equal(m, int64(0))
}

func init() {
	testFuncs = map[string]testFunc{
		"defined":   is("defined", func(v any) bool { _, ok := v.(*Undefined); return !ok }),
		"undefined": is("undefined", func(v any) bool { _, ok := v.(*Undefined); return ok }),
		"none":      is("none", func(v any) bool { return v == nil }),
		"boolean":   is("boolean", func(v any) bool { _, ok := v.(bool); return ok }),
		"true":      is("true", func(v any) bool { return v == true }),
		"false":     is("false", func(v any) bool { return v == false }),
		"integer": is("integer", func(v any) bool {
			switch v.(type) {
			case int64, *big.Int:
				return true
			}
			return false
		}),
		"float":  is("float", func(v any) bool { _, ok := v.(float64); return ok }),
		"number": is("number", func(v any) bool { _, ok := asFloat(v); return ok }),
		"string": is("string", func(v any) bool { _, ok := asString(v); return ok }),
		"mapping": is("mapping", func(v any) bool {
			_, ok := v.(*Dict)
			return ok
		}),
		"sequence": is("sequence", func(v any) bool {
			switch v.(type) {
			case string, markup, *List, *Tuple, *Dict, *rangeObj, *Undefined:
				return true
			}
			return false
		}),
		"iterable": is("iterable", func(v any) bool {
			switch v.(type) {
			case string, markup, *List, *Tuple, *Dict, *rangeObj, *Undefined, *dictView, *iterator, *loopObj:
				return true
			}
			return false
		}),
		"callable": is("callable", func(v any) bool {
			switch v.(type) {
			case *Callable, *Undefined, *loopObj:
				return true
			}
			return false
		}),
		"escaped": is("escaped", func(v any) bool { _, ok := v.(markup); return ok }),
		"lower":   caseTest("islower"),
		"upper":   caseTest("isupper"),
		"even": func(ev *evaluator, v any, args []any, kw []kwarg) (bool, error) {
			return remainder(ev, v, int64(2))
		},
		"odd": func(ev *evaluator, v any, args []any, kw []kwarg) (bool, error) {
			even, err := remainder(ev, v, int64(2))
			return !even, err
		},
		"divisibleby": func(ev *evaluator, v any, args []any, kw []kwarg) (bool, error) {
			a, err := bind("divisibleby", []string{"num"}, 1, args, kw)
			if err != nil {
				return false, err
			}
			return remainder(ev, v, a[0])
		},
		"sameas": func(_ *evaluator, v any, args []any, kw []kwarg) (bool, error) {
			a, err := bind("sameas", []string{"other"}, 1, args, kw)
			return err == nil && v == a[0], err
		},
		"filter": func(_ *evaluator, v any, _ []any, _ []kwarg) (bool, error) {
			s, _ := asString(v)
			return filterFuncs[s] != nil, nil
		},
		"test": func(_ *evaluator, v any, _ []any, _ []kwarg) (bool, error) {
			s, _ := asString(v)
			return testFuncs[s] != nil, nil
		},
		"in": compareTest("in"),
	}
	for op, names := range map[string]string{
		"==": "== eq equalto", "!=": "!= ne", "<": "< lt lessthan", "<=": "<= le", ">": "> gt greaterthan", ">=": ">= ge",
	} {
		for _, n := range strings.Fields(names) {
			testFuncs[n] = compareTest(op)
		}
	}
}

func caseTest(name string) testFunc {
	return func(ev *evaluator, v any, _ []any, _ []kwarg) (bool, error) {
		s, err := ev.str(v)
		if err != nil {
			return false, err
		}
		ok, err := strFuncs[name].fn(ev, s, nil)
		return err == nil && ok.(bool), err
	}
}
