package jinja

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
)

// floatRepr is Python's repr of a float.
func floatRepr(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	e := strconv.FormatFloat(f, 'e', -1, 64)
	exp, _ := strconv.Atoi(e[strings.IndexByte(e, 'e')+1:])
	if f != 0 && (exp < -4 || exp >= 16) {
		return e
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// strRepr is Python's repr of a str.
func strRepr(s string) string {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	var b strings.Builder
	b.WriteByte(quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteByte(quote)
	return b.String()
}

func shortRepr(v any) string {
	ev := &evaluator{limits: Limits{Work: 1000, Nest: 10}}
	s, err := ev.repr(v)
	if err != nil {
		return typeName(v)
	}
	return s
}

// str is Python's str(v).
func (ev *evaluator) str(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case markup:
		return string(v), nil
	case *Undefined:
		return "", nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	}
	return ev.repr(v)
}

func (ev *evaluator) repr(v any) (string, error) {
	var b strings.Builder
	err := ev.writeRepr(&b, v, 0)
	return b.String(), err
}

func (ev *evaluator) writeRepr(b *strings.Builder, v any, depth int) error {
	if depth > ev.limits.Nest {
		return limitErr("nesting")
	}
	if err := ev.charge(1); err != nil {
		return err
	}
	var s string
	switch v := v.(type) {
	case nil:
		s = "None"
	case bool:
		s = "False"
		if v {
			s = "True"
		}
	case int64:
		s = strconv.FormatInt(v, 10)
	case *big.Int:
		s = v.String()
	case float64:
		s = floatRepr(v)
	case string:
		s = strRepr(v)
	case markup:
		s = "Markup(" + strRepr(string(v)) + ")"
	case *Undefined:
		s = "Undefined"
	case *List:
		return ev.reprItems(b, "[", v.Items, "]", depth)
	case *Tuple:
		if len(v.Items) == 1 {
			return ev.reprItems(b, "(", v.Items, ",)", depth)
		}
		return ev.reprItems(b, "(", v.Items, ")", depth)
	case *Dict:
		return ev.reprDict(b, v, depth)
	case *dictView:
		b.WriteString(v.name + "(")
		if err := ev.reprItems(b, "[", v.items, "]", depth); err != nil {
			return err
		}
		s = ")"
	case *rangeObj:
		s = fmt.Sprintf("range(%d, %d)", v.start, v.stop)
		if v.step != 1 {
			s = fmt.Sprintf("range(%d, %d, %d)", v.start, v.stop, v.step)
		}
	case *namespace:
		b.WriteString("<Namespace ")
		if err := ev.reprDict(b, &v.d, depth); err != nil {
			return err
		}
		s = ">"
	case *loopObj:
		s = fmt.Sprintf("<LoopContext %d/%d>", v.index0+1, len(v.items))
	case *iterator:
		s = "<generator object " + v.name + ">" // Python adds an address, which nothing can depend on
	case *Callable:
		s = "<function " + v.name + ">"
	}
	if err := ev.chargeBytes(len(s)); err != nil {
		return err
	}
	b.WriteString(s)
	return nil
}

func (ev *evaluator) reprItems(b *strings.Builder, open string, items []any, end string, depth int) error {
	b.WriteString(open)
	for i, x := range items {
		if i > 0 {
			b.WriteString(", ")
		}
		if err := ev.writeRepr(b, x, depth+1); err != nil {
			return err
		}
	}
	b.WriteString(end)
	return nil
}

func (ev *evaluator) reprDict(b *strings.Builder, d *Dict, depth int) error {
	b.WriteString("{")
	for i, k := range d.keys {
		if i > 0 {
			b.WriteString(", ")
		}
		if err := ev.writeRepr(b, k, depth+1); err != nil {
			return err
		}
		b.WriteString(": ")
		if err := ev.writeRepr(b, d.vals[i], depth+1); err != nil {
			return err
		}
	}
	b.WriteString("}")
	return nil
}
