package jinja

import (
	"strings"
	"unicode/utf8"
)

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
