package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// strFunc implements a str method; s is the receiver. Arguments are bound, absent ones are absent.
type strFunc struct {
	params   []string
	required int
	fn       func(ev *evaluator, s string, a []any) (any, error)
}

func strMethod(s, name string) (any, bool) {
	if name == "format" {
		return &Callable{name: name, fn: func(ev *evaluator, args []any, kw []kwarg) (any, error) {
			return ev.format(s, args, kw)
		}}, true
	}
	f, ok := strFuncs[name]
	if !ok {
		return nil, false
	}
	return method(name, f.params, f.required, func(ev *evaluator, a []any) (any, error) {
		if err := ev.chargeBytes(len(s)); err != nil {
			return nil, err
		}
		return f.fn(ev, s, a)
	}), true
}

// markupMethod is strMethod for escaped text: what is text again stays escaped.
func markupMethod(m markup, name string) (any, bool) {
	v, ok := strMethod(string(m), name)
	f, isFunc := v.(*Callable)
	if !ok || !isFunc {
		return v, ok
	}
	return &Callable{name: name, fn: func(ev *evaluator, args []any, kw []kwarg) (any, error) {
		v, err := f.fn(ev, args, kw)
		if s, ok := v.(string); ok {
			return markup(s), err
		}
		return v, err
	}}, true
}

// plain wraps a function of the text alone.
func plain[T any](f func(string) T) strFunc {
	return strFunc{fn: func(_ *evaluator, s string, _ []any) (any, error) { return any(f(s)), nil }}
}

// all is a method such as isdigit: not empty, and every character passes.
func all(ok func(rune) bool) strFunc {
	return plain(func(s string) bool {
		for _, r := range s {
			if !ok(r) {
				return false
			}
		}
		return s != ""
	})
}

// cased is isupper or islower: at least one cased character and none of the other case.
func cased(want, other func(rune) bool) strFunc {
	return plain(func(s string) bool {
		seen := false
		for _, r := range s {
			if other(r) || unicode.IsTitle(r) {
				return false
			}
			seen = seen || want(r)
		}
		return seen
	})
}

var strFuncs map[string]strFunc

func init() { // in init because some refer to the table's users
	strFuncs = map[string]strFunc{
		"upper":        plain(upper),
		"lower":        plain(strings.ToLower),
		"casefold":     plain(func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "ß", "ss") }),
		"title":        plain(pyTitle),
		"capitalize":   plain(capitalize),
		"swapcase":     plain(swapCase),
		"isdigit":      all(unicode.IsDigit),
		"isdecimal":    all(unicode.IsDigit),
		"isnumeric":    all(unicode.IsNumber),
		"isalpha":      all(unicode.IsLetter),
		"isalnum":      all(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }),
		"isspace":      all(isSpace),
		"isupper":      cased(unicode.IsUpper, unicode.IsLower),
		"islower":      cased(unicode.IsLower, unicode.IsUpper),
		"isascii":      plain(func(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r > 127 }) < 0 }),
		"isidentifier": plain(func(s string) bool { return s != "" && nameLen(s) == len(s) }),
		"istitle":      plain(func(s string) bool { return s == pyTitle(s) && strings.ToLower(s) != upper(s) }),
		"strip":        strip(true, true),
		"lstrip":       strip(true, false),
		"rstrip":       strip(false, true),
		"startswith":   affix(strings.HasPrefix),
		"endswith":     affix(strings.HasSuffix),
		"removeprefix": cut(strings.TrimPrefix),
		"removesuffix": cut(strings.TrimSuffix),
		"split":        {[]string{"sep", "maxsplit"}, 0, split},
		"rsplit":       {[]string{"sep", "maxsplit"}, 0, rsplit},
		"splitlines":   {[]string{"keepends"}, 0, strSplitLines},
		"partition":    partition(strings.Index, false),
		"rpartition":   partition(strings.LastIndex, true),
		"replace":      {[]string{"old", "new", "count"}, 2, strReplace},
		"join":         {[]string{"iterable"}, 1, strJoin},
		"find":         find(strings.Index, false),
		"index":        find(strings.Index, true),
		"rfind":        find(strings.LastIndex, false),
		"rindex":       find(strings.LastIndex, true),
		"count":        {[]string{"sub", "start", "end"}, 1, strCount},
		"center":       pad(func(n int) (int, int) { return n / 2, n - n/2 }),
		"ljust":        pad(func(n int) (int, int) { return 0, n }),
		"rjust":        pad(func(n int) (int, int) { return n, 0 }),
		"zfill":        {[]string{"width"}, 1, zfill},
	}
}

// upper is str.upper, which unlike Go's writes ß as SS.
func upper(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "ß", "ss")) }

func capitalize(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return ""
	}
	return string(unicode.ToTitle(r)) + strings.ToLower(s[n:])
}

// pyTitle is str.title: a letter after a non-letter is upper case, others lower.
func pyTitle(s string) string {
	prev := false
	return strings.Map(func(r rune) rune {
		c := unicode.IsUpper(r) || unicode.IsLower(r) || unicode.IsTitle(r)
		defer func() { prev = c }()
		if prev {
			return unicode.ToLower(r)
		}
		return unicode.ToTitle(r)
	}, s)
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsUpper(r) {
			return unicode.ToLower(r)
		}
		return unicode.ToUpper(r)
	}, s)
}

// stripSet removes whitespace, or the characters of a string.
func stripSet(s string, chars any, left, right bool) (string, error) {
	in := isSpace
	if chars != absent && chars != nil {
		cs, ok := asString(chars)
		if !ok {
			return "", runtimeErr("strip arg must be None or str")
		}
		in = func(r rune) bool { return strings.ContainsRune(cs, r) }
	}
	if left {
		s = strings.TrimLeftFunc(s, in)
	}
	if right {
		s = strings.TrimRightFunc(s, in)
	}
	return s, nil
}

func strip(left, right bool) strFunc {
	return strFunc{[]string{"chars"}, 0, func(_ *evaluator, s string, a []any) (any, error) {
		return retAny(stripSet(s, a[0], left, right))
	}}
}

func retAny[T any](v T, err error) (any, error) { return v, err }

func affix(has func(s, t string) bool) strFunc {
	return strFunc{[]string{"prefix", "start", "end"}, 1, func(_ *evaluator, s string, a []any) (any, error) {
		s, _, err := window(s, a[1], a[2])
		if err != nil {
			return nil, err
		}
		alts := []any{a[0]}
		if t, ok := a[0].(*Tuple); ok {
			alts = t.Items
		}
		for _, x := range alts {
			t, ok := asString(x)
			if !ok {
				return nil, runtimeErr("startswith or endswith: argument must be str or a tuple of str, not %s", typeName(x))
			}
			if has(s, t) {
				return true, nil
			}
		}
		return false, nil
	}}
}

// window is s[start:end] by characters, and the byte offset it starts at.
func window(s string, start, end any) (string, int, error) {
	if start == absent && end == absent {
		return s, 0, nil
	}
	n := utf8.RuneCountInString(s)
	at := func(v any, d int) (int, error) {
		if v == absent || v == nil {
			return d, nil
		}
		i, ok := asInt(v)
		if !ok {
			return 0, runtimeErr("slice indices must be integers or None")
		}
		if i < 0 {
			i += int64(n)
		}
		return int(max(0, min(i, int64(n)))), nil
	}
	i, err := at(start, 0)
	if err != nil {
		return "", 0, err
	}
	j, err := at(end, n)
	if err != nil {
		return "", 0, err
	}
	from := byteOffset(s, i)
	return s[from:max(from, byteOffset(s, j))], from, nil
}

// byteOffset is where character i starts.
func byteOffset(s string, i int) int {
	for at := range s {
		if i == 0 {
			return at
		}
		i--
	}
	return len(s)
}

func cut(f func(s, t string) string) strFunc {
	return strFunc{[]string{"affix"}, 1, func(_ *evaluator, s string, a []any) (any, error) {
		t, ok := asString(a[0])
		if !ok {
			return nil, runtimeErr("argument must be str, not %s", typeName(a[0]))
		}
		return f(s, t), nil
	}}
}
