package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

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

// splitArgs reads sep ("" for whitespace) and maxsplit (-1 for no bound).
func splitArgs(a []any) (sep string, n int, err error) {
	if a[0] != absent && a[0] != nil {
		s, ok := asString(a[0])
		if !ok {
			return "", 0, runtimeErr("must be str or None, not %s", typeName(a[0]))
		}
		if sep = s; sep == "" {
			return "", 0, runtimeErr("empty separator")
		}
	}
	n = -1
	if a[1] != absent {
		i, ok := asInt(a[1])
		if !ok {
			return "", 0, runtimeErr("'%s' object cannot be interpreted as an integer", typeName(a[1]))
		}
		if i >= 0 {
			n = int(min(i, 1<<30))
		}
	}
	return sep, n, nil
}

func split(ev *evaluator, s string, a []any) (any, error) {
	sep, n, err := splitArgs(a)
	if err != nil {
		return nil, err
	}
	var parts []string
	if sep != "" {
		if n >= 0 {
			n++
		}
		parts = strings.SplitN(s, sep, n)
	} else {
		for s = strings.TrimLeftFunc(s, isSpace); s != ""; n-- {
			i := strings.IndexFunc(s, isSpace)
			if n == 0 || i < 0 {
				parts = append(parts, s)
				break
			}
			parts = append(parts, s[:i])
			s = strings.TrimLeftFunc(s[i:], isSpace)
		}
	}
	return stringList(ev, parts)
}

func rsplit(ev *evaluator, s string, a []any) (any, error) {
	sep, n, err := splitArgs(a)
	if err != nil {
		return nil, err
	}
	var parts []string // from the right
	if sep == "" {
		s = strings.TrimRightFunc(s, isSpace)
	}
	for ; n != 0; n-- {
		i, w := strings.LastIndex(s, sep), len(sep)
		if sep == "" {
			if i = strings.LastIndexFunc(s, isSpace); i >= 0 {
				_, w = utf8.DecodeRuneInString(s[i:])
			}
		}
		if i < 0 {
			break
		}
		parts = append(parts, s[i+w:])
		if s = s[:i]; sep == "" {
			s = strings.TrimRightFunc(s, isSpace)
		}
	}
	if strings.TrimLeftFunc(s, isSpace) != "" || sep != "" {
		parts = append(parts, s)
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return stringList(ev, parts)
}

func stringList(ev *evaluator, parts []string) (any, error) {
	items := make([]any, len(parts))
	for i, p := range parts {
		items[i] = p
	}
	return &List{items}, ev.charge(len(items))
}

// splitLines is str.splitlines.
func splitLines(s string, keep bool) []string {
	var out []string
	for s != "" {
		i := strings.IndexFunc(s, func(r rune) bool {
			return r >= '\n' && r <= '\r' || r >= 0x1c && r <= 0x1e || r == 0x85 || r == 0x2028 || r == 0x2029
		})
		if i < 0 {
			return append(out, s)
		}
		_, w := utf8.DecodeRuneInString(s[i:])
		if strings.HasPrefix(s[i:], "\r\n") {
			w = 2
		}
		if keep {
			out = append(out, s[:i+w])
		} else {
			out = append(out, s[:i])
		}
		s = s[i+w:]
	}
	return out
}

func strSplitLines(ev *evaluator, s string, a []any) (any, error) {
	return stringList(ev, splitLines(s, a[0] != absent && truthy(a[0])))
}

func partition(find func(s, t string) int, right bool) strFunc {
	return strFunc{[]string{"sep"}, 1, func(_ *evaluator, s string, a []any) (any, error) {
		sep, ok := asString(a[0])
		if !ok {
			return nil, runtimeErr("must be str, not %s", typeName(a[0]))
		}
		if sep == "" {
			return nil, runtimeErr("empty separator")
		}
		i := find(s, sep)
		switch {
		case i >= 0:
			return &Tuple{Items: []any{s[:i], sep, s[i+len(sep):]}}, nil
		case right:
			return &Tuple{Items: []any{"", "", s}}, nil
		}
		return &Tuple{Items: []any{s, "", ""}}, nil
	}}
}

func strReplace(ev *evaluator, s string, a []any) (any, error) {
	old, ok1 := asString(a[0])
	repl, ok2 := asString(a[1])
	if !ok1 || !ok2 {
		return nil, runtimeErr("replace() arguments must be str")
	}
	n := int64(-1)
	if a[2] != absent {
		var ok bool
		if n, ok = asInt(a[2]); !ok {
			return nil, runtimeErr("'%s' object cannot be interpreted as an integer", typeName(a[2]))
		}
	}
	return ev.replace(s, old, repl, n)
}

// replace pays for the result before it is made.
func (ev *evaluator) replace(s, old, repl string, n int64) (any, error) {
	hits := int64(strings.Count(s, old))
	if n >= 0 {
		hits = min(hits, n)
	}
	if len(repl) > 0 && hits > int64(ev.limits.Work)*16/int64(len(repl)) {
		return nil, limitErr("work")
	}
	if err := ev.chargeBytes(len(s) + int(hits)*len(repl)); err != nil {
		return nil, err
	}
	return strings.Replace(s, old, repl, int(hits)), nil
}

func strJoin(ev *evaluator, s string, a []any) (any, error) {
	items, err := ev.iterate(a[0])
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for i, x := range items {
		t, ok := asString(x)
		if !ok {
			return nil, runtimeErr("sequence item %d: expected str instance, %s found", i, typeName(x))
		}
		if i > 0 {
			b.WriteString(s)
		}
		if err := ev.chargeBytes(len(s) + len(t)); err != nil {
			return nil, err
		}
		b.WriteString(t)
	}
	return b.String(), nil
}

func find(search func(s, t string) int, must bool) strFunc {
	return strFunc{[]string{"sub", "start", "end"}, 1, func(_ *evaluator, s string, a []any) (any, error) {
		sub, ok := asString(a[0])
		if !ok {
			return nil, runtimeErr("must be str, not %s", typeName(a[0]))
		}
		w, from, err := window(s, a[1], a[2])
		if err != nil {
			return nil, err
		}
		i := search(w, sub)
		if i < 0 {
			if must {
				return nil, runtimeErr("substring not found")
			}
			return int64(-1), nil
		}
		return int64(utf8.RuneCountInString(s[:from+i])), nil
	}}
}

func strCount(_ *evaluator, s string, a []any) (any, error) {
	sub, ok := asString(a[0])
	if !ok {
		return nil, runtimeErr("must be str, not %s", typeName(a[0]))
	}
	w, _, err := window(s, a[1], a[2])
	return int64(strings.Count(w, sub)), err
}

// padding pays for and makes n characters.
func (ev *evaluator) padding(n int64, fill string) (string, error) {
	v, _, err := ev.repeat(fill, n)
	if err != nil {
		return "", err
	}
	return v.(string), nil
}

func pad(share func(n int) (left, right int)) strFunc {
	return strFunc{[]string{"width", "fillchar"}, 1, func(ev *evaluator, s string, a []any) (any, error) {
		w, ok := asInt(a[0])
		if !ok {
			return nil, runtimeErr("'%s' object cannot be interpreted as an integer", typeName(a[0]))
		}
		fill := " "
		if a[1] != absent {
			if fill, ok = asString(a[1]); !ok || utf8.RuneCountInString(fill) != 1 {
				return nil, runtimeErr("the fill character must be exactly one character long")
			}
		}
		n := w - int64(utf8.RuneCountInString(s))
		if n <= 0 {
			return s, nil
		}
		if _, err := ev.padding(n, fill); err != nil {
			return nil, err
		}
		l, r := share(int(n))
		return strings.Repeat(fill, l) + s + strings.Repeat(fill, r), nil
	}}
}

func zfill(ev *evaluator, s string, a []any) (any, error) {
	w, ok := asInt(a[0])
	if !ok {
		return nil, runtimeErr("'%s' object cannot be interpreted as an integer", typeName(a[0]))
	}
	zeros, err := ev.padding(w-int64(utf8.RuneCountInString(s)), "0")
	if err != nil {
		return nil, err
	}
	if s != "" && (s[0] == '-' || s[0] == '+') {
		return s[:1] + zeros + s[1:], nil
	}
	return zeros + s, nil
}
