package jinja

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// jsonWriter is Python's json.dumps.
type jsonWriter struct {
	ev             *evaluator
	b              strings.Builder
	ascii          bool
	sortKeys       bool
	indent         string
	multiline      bool
	itemSep, kvSep string
}

// toJSON is the tojson that transformers installs:
// tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False).
func toJSON(ev *evaluator, v any, args []any, kw []kwarg) (any, error) {
	a, err := bind("tojson", []string{"ensure_ascii", "indent", "separators", "sort_keys"}, 0, args, kw)
	if err != nil {
		return nil, err
	}
	given := func(i int) bool { return a[i] != absent && a[i] != nil }
	w := &jsonWriter{ev: ev, itemSep: ", ", kvSep: ": "}
	w.ascii = given(0) && truthy(a[0])
	w.sortKeys = given(3) && truthy(a[3])
	if given(1) {
		w.multiline, w.itemSep = true, ","
		if s, ok := asString(a[1]); ok {
			w.indent = s
		} else if n, ok := asInt(a[1]); ok {
			if w.indent, err = ev.padding(n, " "); err != nil {
				return nil, err
			}
		} else {
			return nil, runtimeErr("tojson: indent must be an integer or a string, not %s", typeName(a[1]))
		}
	}
	if given(2) {
		seps, err := ev.iterate(a[2])
		if err != nil {
			return nil, err
		}
		if len(seps) != 2 {
			return nil, runtimeErr("tojson: separators must be a pair")
		}
		var ok1, ok2 bool
		w.itemSep, ok1 = asString(seps[0])
		w.kvSep, ok2 = asString(seps[1])
		if !ok1 || !ok2 {
			return nil, runtimeErr("tojson: separators must be strings")
		}
	}
	if err := w.value(v, 0); err != nil {
		return nil, err
	}
	return w.b.String(), nil
}

func (w *jsonWriter) write(s string) error {
	w.b.WriteString(s)
	return w.ev.chargeBytes(len(s))
}

func (w *jsonWriter) value(v any, depth int) error {
	if depth > w.ev.limits.Nest {
		return limitErr("nesting")
	}
	if s, ok := jsonScalar(v); ok {
		return w.write(s)
	}
	if s, ok := asString(v); ok {
		if err := w.ev.chargeBytes(len(s)); err != nil {
			return err
		}
		return w.write(jsonString(s, w.ascii))
	}
	switch v := v.(type) {
	case *List:
		return w.items(len(v.Items), "[", "]", depth, func(i int) error { return w.value(v.Items[i], depth+1) })
	case *Tuple:
		return w.items(len(v.Items), "[", "]", depth, func(i int) error { return w.value(v.Items[i], depth+1) })
	case *Dict:
		return w.dict(v, depth)
	}
	return runtimeErr("object of type %s is not JSON serializable", typeName(v))
}

func jsonScalar(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "null", true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case *big.Int:
		return v.String(), true
	case float64:
		switch {
		case math.IsNaN(v):
			return "NaN", true
		case math.IsInf(v, 1):
			return "Infinity", true
		case math.IsInf(v, -1):
			return "-Infinity", true
		}
		return floatRepr(v), true
	}
	return "", false
}

func (w *jsonWriter) dict(d *Dict, depth int) error {
	order := make([]any, d.Len())
	for i := range order {
		order[i] = int64(i)
	}
	if w.sortKeys {
		err := w.ev.sortBy(order, false, func(x any) (any, error) { return d.keys[x.(int64)], nil })
		if err != nil {
			return err
		}
	}
	return w.items(d.Len(), "{", "}", depth, func(i int) error {
		at := order[i].(int64)
		key, ok := asString(d.keys[at])
		if !ok {
			if key, ok = jsonScalar(d.keys[at]); !ok {
				return runtimeErr("keys must be str, int, float, bool or None, not %s", typeName(d.keys[at]))
			}
		}
		if err := w.write(jsonString(key, w.ascii) + w.kvSep); err != nil {
			return err
		}
		return w.value(d.vals[at], depth+1)
	})
}

func (w *jsonWriter) items(n int, open, end string, depth int, item func(i int) error) error {
	if n == 0 {
		return w.write(open + end)
	}
	newline := func(d int) error {
		if !w.multiline {
			return nil
		}
		if err := w.ev.chargeBytes(len(w.indent) * d); err != nil {
			return err
		}
		return w.write("\n" + strings.Repeat(w.indent, d))
	}
	if err := w.write(open); err != nil {
		return err
	}
	for i := range n {
		if i > 0 {
			if err := w.write(w.itemSep); err != nil {
				return err
			}
		}
		if err := newline(depth + 1); err != nil {
			return err
		}
		if err := item(i); err != nil {
			return err
		}
	}
	if err := newline(depth); err != nil {
		return err
	}
	return w.write(end)
}

// jsonString quotes as json.dumps does, with or without ensure_ascii.
func jsonString(s string, ascii bool) string {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	start := 0
	for i := 0; i < len(s); {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(s[i:])
		}
		if r >= 0x20 && r != '"' && r != '\\' && (!ascii || r < 0x7f) {
			i += n
			continue
		}
		b.WriteString(s[start:i])
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteByte(byte(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r >= 0x10000:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
		start = i
	}
	b.WriteString(s[start:])
	b.WriteByte('"')
	return b.String()
}
