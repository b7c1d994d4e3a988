package jinja

import (
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type filterFunc func(ev *evaluator, v any, args []any, kw []kwarg) (any, error)

var filterFuncs map[string]filterFunc

// filter makes a filter with bound arguments; absent optional arguments arrive as absent.
func filter(name string, params []string, required int, fn func(ev *evaluator, v any, a []any) (any, error)) filterFunc {
	return func(ev *evaluator, v any, args []any, kw []kwarg) (any, error) {
		a, err := bind(name, params, required, args, kw)
		if err != nil {
			return nil, err
		}
		return fn(ev, v, a)
	}
}

// textFilter is a filter of str(v) alone.
func textFilter(name string, fn func(string) any) filterFunc {
	return filter(name, nil, 0, func(ev *evaluator, v any, _ []any) (any, error) {
		s, err := ev.str(v)
		if err != nil {
			return nil, err
		}
		return fn(s), ev.chargeBytes(len(s))
	})
}

func init() { // in init because map, select and the parser refer to the tables
	filterFuncs = map[string]filterFunc{
		"tojson":      toJSON,
		"trim":        filter("trim", []string{"chars"}, 0, trim),
		"upper":       textFilter("upper", func(s string) any { return upper(s) }),
		"lower":       textFilter("lower", func(s string) any { return strings.ToLower(s) }),
		"capitalize":  textFilter("capitalize", func(s string) any { return capitalize(s) }),
		"title":       textFilter("title", func(s string) any { return titleFilter(s) }),
		"wordcount":   textFilter("wordcount", func(s string) any { return wordCount(s) }),
		"striptags":   textFilter("striptags", func(s string) any { return stripTags(s) }),
		"urlencode":   filter("urlencode", nil, 0, urlEncode),
		"forceescape": textFilter("forceescape", func(s string) any { return markup(escapeHTML(s)) }),
		"escape":      filter("escape", nil, 0, escapeFilter),
		"e":           filter("e", nil, 0, escapeFilter),
		"safe":        textFilter("safe", func(s string) any { return markup(s) }),
		"string":      filter("string", nil, 0, stringFilter),
		"length":      filter("length", nil, 0, lengthFilter),
		"count":       filter("count", nil, 0, lengthFilter),
		"default":     filter("default", []string{"default_value", "boolean"}, 0, defaultFilter),
		"d":           filter("default", []string{"default_value", "boolean"}, 0, defaultFilter),
		"first":       filter("first", nil, 0, first),
		"last":        filter("last", nil, 0, last),
		"list":        filter("list", nil, 0, listFilter),
		"join":        filter("join", []string{"d", "attribute"}, 0, join),
		"replace":     filter("replace", []string{"old", "new", "count"}, 2, replaceFilter),
		"reverse":     filter("reverse", nil, 0, reverse),
		"items":       filter("items", nil, 0, itemsFilter),
		"dictsort":    filter("dictsort", []string{"case_sensitive", "by", "reverse"}, 0, dictSort),
		"sort":        filter("sort", []string{"reverse", "case_sensitive", "attribute"}, 0, sortFilter),
		"unique":      filter("unique", []string{"case_sensitive", "attribute"}, 0, unique),
		"min":         filter("min", []string{"case_sensitive", "attribute"}, 0, extreme("<")),
		"max":         filter("max", []string{"case_sensitive", "attribute"}, 0, extreme(">")),
		"sum":         filter("sum", []string{"attribute", "start"}, 0, sum),
		"groupby":     filter("groupby", []string{"attribute", "default", "case_sensitive"}, 1, groupBy),
		"batch":       filter("batch", []string{"linecount", "fill_with"}, 1, batch),
		"slice":       filter("slice", []string{"slices", "fill_with"}, 1, sliceFilter),
		"attr":        filter("attr", []string{"name"}, 1, attrFilter),
		"abs":         filter("abs", nil, 0, abs),
		"int":         filter("int", []string{"default", "base"}, 0, intFilter),
		"float":       filter("float", []string{"default"}, 0, floatFilter),
		"round":       filter("round", []string{"precision", "method"}, 0, round),
		"indent":      filter("indent", []string{"width", "first", "blank"}, 0, indentFilter),
		"center":      filter("center", []string{"width"}, 0, center),
		"truncate":    filter("truncate", []string{"length", "killwords", "end", "leeway"}, 0, truncate),
		"format":      formatFilter,
		"map":         mapFilter,
		"select":      selectFilter("select", false, false),
		"reject":      selectFilter("reject", false, true),
		"selectattr":  selectFilter("selectattr", true, false),
		"rejectattr":  selectFilter("rejectattr", true, true),
	}
}

func trim(ev *evaluator, v any, a []any) (any, error) {
	s, err := ev.str(v)
	if err != nil {
		return nil, err
	}
	if err := ev.chargeBytes(len(s)); err != nil {
		return nil, err
	}
	return retAny(stripSet(s, a[0], true, true))
}

// titleFilter is jinja2's do_title: words begin after whitespace or one of -({[<.
func titleFilter(s string) string {
	start := true
	return strings.Map(func(r rune) rune {
		sep := isSpace(r) || strings.ContainsRune("-({[<", r)
		defer func() { start = sep }()
		if start {
			return unicode.ToUpper(r)
		}
		return unicode.ToLower(r)
	}, s)
}

func wordCount(s string) int64 {
	word := func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) }
	return int64(len(strings.FieldsFunc(s, func(r rune) bool { return !word(r) })))
}

// stripTags removes comments and tags and collapses whitespace.
func stripTags(s string) string {
	var b strings.Builder
	for s != "" {
		i := strings.IndexByte(s, '<')
		if i < 0 {
			break
		}
		end, n := strings.IndexByte(s[i:], '>'), 1
		if strings.HasPrefix(s[i:], "<!--") {
			end, n = strings.Index(s[i:], "-->"), 3
		}
		if end < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i+end+n:]
	}
	b.WriteString(s)
	r := strings.NewReplacer("&lt;", "<", "&gt;", ">", "&#39;", "'", "&#34;", `"`, "&quot;", `"`, "&amp;", "&")
	return r.Replace(strings.Join(strings.FieldsFunc(b.String(), isSpace), " "))
}

func urlQuote(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + strings.ToUpper(strconv.FormatInt(int64(c)+256, 16)[1:]))
		}
	}
	return b.String()
}

func urlEncode(ev *evaluator, v any, _ []any) (any, error) {
	var pairs [][2]any
	switch d := v.(type) {
	case *Dict:
		for i, k := range d.keys {
			pairs = append(pairs, [2]any{k, d.vals[i]})
		}
	default:
		s, err := ev.str(v)
		if err != nil {
			return nil, err
		}
		return urlQuote(s), ev.chargeBytes(3 * len(s))
	}
	var parts []string
	for _, p := range pairs {
		k, err := ev.str(p[0])
		if err != nil {
			return nil, err
		}
		s, err := ev.str(p[1])
		if err != nil {
			return nil, err
		}
		if err := ev.chargeBytes(3 * (len(k) + len(s))); err != nil {
			return nil, err
		}
		plus := func(s string) string {
			return strings.NewReplacer("%20", "+", "/", "%2F").Replace(urlQuote(s))
		}
		parts = append(parts, plus(k)+"="+plus(s))
	}
	return strings.Join(parts, "&"), nil
}

func escapeFilter(ev *evaluator, v any, _ []any) (any, error) {
	if m, ok := v.(markup); ok {
		return m, nil
	}
	s, err := ev.str(v)
	if err != nil {
		return nil, err
	}
	return markup(escapeHTML(s)), ev.chargeBytes(len(s))
}

func stringFilter(ev *evaluator, v any, _ []any) (any, error) {
	if m, ok := v.(markup); ok {
		return m, nil
	}
	return retAny(ev.str(v))
}

func lengthFilter(_ *evaluator, v any, _ []any) (any, error) {
	n, err := length(v)
	return int64(n), err
}

func defaultFilter(_ *evaluator, v any, a []any) (any, error) {
	d := a[0]
	if d == absent {
		d = ""
	}
	if _, ok := v.(*Undefined); ok || a[1] != absent && truthy(a[1]) && !truthy(v) {
		return d, nil
	}
	return v, nil
}

func first(ev *evaluator, v any, _ []any) (any, error) {
	items, err := ev.iterate(v)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return &Undefined{hint: "no first item, sequence was empty"}, nil
	}
	return items[0], nil
}

func last(ev *evaluator, v any, _ []any) (any, error) {
	if _, ok := v.(*iterator); ok {
		return nil, runtimeErr("'generator' object is not reversible")
	}
	items, err := ev.iterate(v)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return &Undefined{hint: "no last item, sequence was empty"}, nil
	}
	return items[len(items)-1], nil
}

func listFilter(ev *evaluator, v any, _ []any) (any, error) {
	items, err := ev.iterate(v)
	if err != nil {
		return nil, err
	}
	return &List{append([]any{}, items...)}, ev.charge(len(items))
}

func join(ev *evaluator, v any, a []any) (any, error) {
	items, err := ev.iterate(v)
	if err != nil {
		return nil, err
	}
	sep := ""
	if a[0] != absent {
		if sep, err = ev.str(a[0]); err != nil {
			return nil, err
		}
	}
	get, err := ev.getter(a[1], nil)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for i, x := range items {
		if x, err = get(x); err != nil {
			return nil, err
		}
		s, err := ev.str(x)
		if err != nil {
			return nil, err
		}
		if err := ev.chargeBytes(len(s) + len(sep)); err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func replaceFilter(ev *evaluator, v any, a []any) (any, error) {
	var t [3]string
	for i, x := range []any{v, a[0], a[1]} {
		var err error
		if t[i], err = ev.str(x); err != nil {
			return nil, err
		}
	}
	n := int64(-1)
	if a[2] != absent && a[2] != nil {
		var ok bool
		if n, ok = asInt(a[2]); !ok {
			return nil, runtimeErr("replace: count must be an integer")
		}
	}
	return ev.replace(t[0], t[1], t[2], n)
}

func reverse(ev *evaluator, v any, _ []any) (any, error) {
	items, err := ev.iterate(v)
	if err != nil {
		return nil, err
	}
	if err := ev.charge(len(items)); err != nil {
		return nil, err
	}
	out := make([]any, len(items))
	for i, x := range items {
		out[len(items)-1-i] = x
	}
	if _, ok := asString(v); ok {
		return strJoin(ev, "", []any{&List{out}})
	}
	return &iterator{out, "reversed"}, nil
}

func itemsFilter(ev *evaluator, v any, _ []any) (any, error) {
	switch d := v.(type) {
	case *Undefined:
		return &iterator{nil, "do_items"}, nil
	case *Dict:
		items, err := dictItems(ev, d)
		return &iterator{items, "do_items"}, err
	}
	return nil, runtimeErr("can only get item pairs from a mapping")
}

func attrFilter(ev *evaluator, v any, a []any) (any, error) {
	name, err := ev.str(a[0])
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	if x, ok := ev.attribute(v, name); ok {
		return x, nil
	}
	return &Undefined{obj: v, name: name}, nil
}

func indentFilter(ev *evaluator, v any, a []any) (any, error) {
	s, err := ev.str(v)
	if err != nil {
		return nil, err
	}
	by := "    "
	if a[0] != absent {
		if t, ok := asString(a[0]); ok {
			by = t
		} else if n, ok := asInt(a[0]); ok {
			if by, err = ev.padding(n, " "); err != nil {
				return nil, err
			}
		} else {
			return nil, runtimeErr("can't multiply sequence by non-int of type '%s'", typeName(a[0]))
		}
	}
	blank := a[2] != absent && truthy(a[2])
	lines := splitLines(s+"\n", false) // the newline keeps a last empty line
	size := len(s)
	for range lines {
		if size += len(by) + 1; size > ev.limits.Work*16 {
			return nil, limitErr("work")
		}
	}
	if err := ev.chargeBytes(size); err != nil {
		return nil, err
	}
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == 0 && a[1] != absent && truthy(a[1]) || i > 0 && (blank || l != "") {
			b.WriteString(by)
		}
		b.WriteString(l)
	}
	return b.String(), nil
}

func center(ev *evaluator, v any, a []any) (any, error) {
	s, err := ev.str(v)
	if err != nil {
		return nil, err
	}
	w := a[0]
	if w == absent {
		w = int64(80)
	}
	return strFuncs["center"].fn(ev, s, []any{w, absent})
}

func truncate(ev *evaluator, v any, a []any) (any, error) {
	s, err := ev.str(v)
	if err != nil {
		return nil, err
	}
	if err := ev.chargeBytes(len(s)); err != nil {
		return nil, err
	}
	n, leeway, end := int64(255), int64(5), "..."
	if a[0] != absent {
		n, _ = asInt(a[0])
	}
	if a[2] != absent {
		end, _ = asString(a[2])
	}
	if a[3] != absent && a[3] != nil {
		leeway, _ = asInt(a[3])
	}
	keep := n - int64(utf8.RuneCountInString(end))
	if keep < 0 || leeway < 0 {
		return nil, runtimeErr("truncate: expected length >= %d, got %d", utf8.RuneCountInString(end), n)
	}
	if int64(utf8.RuneCountInString(s)) <= n+leeway {
		return s, nil
	}
	s = s[:byteOffset(s, int(keep))]
	if a[1] == absent || !truthy(a[1]) {
		if i := strings.LastIndexByte(s, ' '); i >= 0 {
			s = s[:i]
		}
	}
	return s + end, nil
}

func formatFilter(ev *evaluator, v any, args []any, kw []kwarg) (any, error) {
	s, err := ev.str(v)
	if err != nil {
		return nil, err
	}
	if len(kw) == 0 {
		return ev.percent(s, &Tuple{Items: args})
	}
	if len(args) > 0 {
		return nil, runtimeErr("can't handle positional and keyword arguments at the same time")
	}
	d := &Dict{}
	for _, k := range kw {
		d.SetString(k.name, k.v)
	}
	return ev.percent(s, d)
}

// sortBy sorts stably by key, in Python's order of values.
func (ev *evaluator) sortBy(items []any, reverse bool, key func(any) (any, error)) error {
	type pair struct{ k, v any }
	ps := make([]pair, len(items))
	for i, x := range items {
		k, err := key(x)
		if err != nil {
			return err
		}
		ps[i] = pair{k, x}
	}
	var failed error
	sort.SliceStable(ps, func(i, j int) bool {
		if failed != nil {
			return false
		}
		if reverse {
			i, j = j, i
		}
		less, err := ev.ordered("<", ps[i].k, ps[j].k)
		if err != nil {
			failed = err
		}
		return less
	})
	for i, p := range ps {
		items[i] = p.v
	}
	return failed
}
