package jinja

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxWidth bounds widths and precisions in format strings.
const maxWidth = 1000

// percent is Python's "format % arg".
func (ev *evaluator) percent(f string, arg any) (any, error) {
	args := []any{arg}
	t, isTuple := arg.(*Tuple)
	if isTuple {
		args = t.Items
	}
	d, isDict := arg.(*Dict)
	used := 0
	next := func() (any, error) {
		if used >= len(args) {
			return nil, runtimeErr("not enough arguments for format string")
		}
		used++
		return args[used-1], nil
	}
	var b strings.Builder
	for i := 0; i < len(f); i++ {
		if f[i] != '%' {
			b.WriteByte(f[i])
			continue
		}
		i++
		var key *string
		if i < len(f) && f[i] == '(' {
			j := strings.IndexByte(f[i:], ')')
			if j < 0 {
				return nil, runtimeErr("incomplete format key")
			}
			k := f[i+1 : i+j]
			key = &k
			i += j + 1
		}
		start := i
		for i < len(f) && strings.IndexByte("#0- +.0123456789*", f[i]) >= 0 {
			i++
		}
		if i >= len(f) {
			return nil, runtimeErr("incomplete format")
		}
		spec := f[start:i]
		if f[i] == '%' {
			b.WriteByte('%')
			continue
		}
		var v any
		var err error
		if key != nil {
			if !isDict {
				return nil, runtimeErr("format requires a mapping")
			}
			var ok bool
			if v, ok = d.str(*key); !ok {
				return nil, runtimeErr("%s", strRepr(*key))
			}
			used = len(args)
		} else if v, err = next(); err != nil {
			return nil, err
		}
		s, err := ev.percentOne(spec, f[i], v)
		if err != nil {
			return nil, err
		}
		if err := ev.chargeBytes(len(s)); err != nil {
			return nil, err
		}
		b.WriteString(s)
	}
	if used < len(args) && !isDict {
		return nil, runtimeErr("not all arguments converted during string formatting")
	}
	return b.String(), ev.chargeBytes(b.Len())
}

// goSpec checks flags, width and precision, which Python and Go write alike.
func goSpec(spec string) error {
	for _, n := range strings.FieldsFunc(spec, func(r rune) bool { return r < '0' || r > '9' }) {
		if v, err := strconv.Atoi(n); err != nil || v > maxWidth {
			return limitErr("format width")
		}
	}
	if strings.Contains(spec, "*") {
		return runtimeErr("'*' in a format string is not supported")
	}
	return nil
}

func (ev *evaluator) percentOne(spec string, verb byte, v any) (string, error) {
	if err := goSpec(spec); err != nil {
		return "", err
	}
	if u, ok := v.(*Undefined); ok && verb != 's' && verb != 'r' && verb != 'a' {
		return "", u.fail()
	}
	switch verb {
	case 's', 'r', 'a':
		s, err := ev.str(v)
		if verb != 's' {
			s, err = ev.repr(v)
		}
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%"+strings.NewReplacer("0", "0", "#", "", "+", "").Replace(spec)+"s", s), nil
	case 'd', 'i', 'u', 'x', 'X', 'o':
		n := toBig(v)
		if f, ok := v.(float64); ok && strings.IndexByte("diu", verb) >= 0 {
			n = toBig(floatToInt(f, nil))
		}
		if n == nil {
			return "", runtimeErr("%%%c format: a number is required, not %s", verb, typeName(v))
		}
		if verb == 'i' || verb == 'u' {
			verb = 'd'
		}
		return fmt.Sprintf("%"+spec+string(verb), n), nil
	case 'e', 'E', 'f', 'F', 'g', 'G':
		x, ok := asFloat(v)
		if !ok {
			return "", runtimeErr("must be real number, not %s", typeName(v))
		}
		if (verb == 'g' || verb == 'G') && !strings.Contains(spec, ".") {
			spec += ".6"
		}
		return fmt.Sprintf("%"+spec+string(verb), x), nil
	case 'c':
		if s, ok := asString(v); ok && utf8.RuneCountInString(s) == 1 {
			return fmt.Sprintf("%"+spec+"s", s), nil
		}
		if n, ok := asInt(v); ok && n >= 0 && n <= 0x10ffff {
			return fmt.Sprintf("%"+spec+"s", string(rune(n))), nil
		}
		return "", runtimeErr("%%c requires int or char")
	}
	return "", runtimeErr("unsupported format character '%c'", verb)
}

// format is str.format: fields {}, {0}, {name}, with !r, !s and a format specification. Field paths ("{0.a}") are refused.
func (ev *evaluator) format(f string, args []any, kw []kwarg) (any, error) {
	var b strings.Builder
	auto, manual := 0, false // fields numbered by their order, fields with a number
	for i := 0; i < len(f); i++ {
		c := f[i]
		if c != '{' && c != '}' {
			b.WriteByte(c)
			continue
		}
		if i+1 < len(f) && f[i+1] == c {
			b.WriteByte(c)
			i++
			continue
		}
		end := strings.IndexByte(f[i:], '}')
		if c == '}' || end < 0 {
			return nil, runtimeErr("single '%c' encountered in format string", c)
		}
		field, spec, _ := strings.Cut(f[i+1:i+end], ":")
		i += end
		name, conv, _ := strings.Cut(field, "!")
		manual = manual || name != "" && name[0] >= '0' && name[0] <= '9'
		v, err := formatArg(name, &auto, args, kw)
		if manual && auto > 0 {
			return nil, runtimeErr("cannot mix manual field specification and automatic field numbering")
		}
		if err != nil {
			return nil, err
		}
		switch conv {
		case "r":
			v, err = ev.repr(v)
		case "s":
			v, err = ev.str(v)
		}
		if err != nil {
			return nil, err
		}
		s, err := ev.formatValue(v, spec)
		if err != nil {
			return nil, err
		}
		if err := ev.chargeBytes(len(s)); err != nil {
			return nil, err
		}
		b.WriteString(s)
	}
	return b.String(), ev.chargeBytes(b.Len())
}

func formatArg(name string, auto *int, args []any, kw []kwarg) (any, error) {
	i, err := strconv.Atoi(name)
	if name == "" {
		i, err = *auto, nil
		*auto++
	}
	if err == nil {
		if i < 0 || i >= len(args) {
			return nil, runtimeErr("replacement index %d out of range for positional args tuple", i)
		}
		return args[i], nil
	}
	for _, k := range kw {
		if k.name == name {
			return k.v, nil
		}
	}
	return nil, runtimeErr("format: no argument %s", strRepr(name))
}

// formatValue is Python's format(v, spec): [[fill]align][sign][#][0][width][,][.precision][type].
func (ev *evaluator) formatValue(v any, spec string) (string, error) {
	if spec == "" {
		return ev.str(v)
	}
	if u, ok := v.(*Undefined); ok {
		return "", u.fail()
	}
	rs := []rune(spec)
	fill, align := ' ', rune(0)
	if len(rs) > 1 && strings.ContainsRune("<>^=", rs[1]) {
		fill, align, rs = rs[0], rs[1], rs[2:]
	} else if strings.ContainsRune("<>^=", rs[0]) {
		align, rs = rs[0], rs[1:]
	}
	take := func(set string) string {
		if len(rs) > 0 && strings.ContainsRune(set, rs[0]) {
			s := string(rs[0])
			rs = rs[1:]
			return s
		}
		return ""
	}
	digits := func() string {
		s := ""
		for len(rs) > 0 && rs[0] >= '0' && rs[0] <= '9' {
			s += take("0123456789")
		}
		return s
	}
	sign, alt := take("+- "), take("#")
	if len(rs) > 0 && rs[0] == '0' && align == 0 {
		fill, align = '0', '='
	}
	width, group, prec := digits(), take(",_"), ""
	if take(".") != "" {
		if prec = "." + digits(); prec == "." {
			return "", runtimeErr("format specifier missing precision")
		}
	}
	verb := take("bcdeEfFgGnosxX%")
	if len(rs) > 0 {
		return "", runtimeErr("invalid format specifier")
	}
	if err := goSpec(width + prec); err != nil {
		return "", err
	}
	s, number, err := ev.formatBody(v, sign, alt, prec, verb)
	if err != nil {
		return "", err
	}
	if group != "" {
		s = groupDigits(s, group)
	}
	w, _ := strconv.Atoi(width)
	n := max(0, w-utf8.RuneCountInString(s))
	pad := strings.Repeat(string(fill), n)
	switch {
	case align == '=' && number:
		i := len(s) - len(strings.TrimLeft(s, "+- "))
		return s[:i] + pad + s[i:], nil
	case align == '>' || align == 0 && number:
		return pad + s, nil
	case align == '^':
		return strings.Repeat(string(fill), n/2) + s + strings.Repeat(string(fill), n-n/2), nil
	}
	return s + pad, nil
}

// formatBody formats without width; number says how to align by default.
func (ev *evaluator) formatBody(v any, sign, alt, prec, verb string) (s string, number bool, err error) {
	if sign == "-" {
		sign = ""
	}
	if t, ok := asString(v); ok || toFloatOrInt(v) == nil {
		if !ok {
			if t, err = ev.str(v); err != nil {
				return "", false, err
			}
		}
		if verb != "" && verb != "s" {
			return "", false, runtimeErr("unknown format code '%s' for object of type '%s'", verb, typeName(v))
		}
		return fmt.Sprintf("%"+prec+"s", t), false, nil
	}
	n := toBig(v)
	if n != nil && (verb == "" || strings.Contains("bdnoxX", verb)) {
		if verb == "" || verb == "n" {
			verb = "d"
		}
		return fmt.Sprintf("%"+sign+alt+verb, n), true, nil
	}
	f, _ := asFloat(v)
	switch verb {
	case "%":
		if prec == "" {
			prec = ".6"
		}
		return fmt.Sprintf("%"+sign+prec+"f%%", f*100), true, nil
	case "":
		if prec == "" {
			return sign + floatRepr(f), true, nil
		}
		verb = "g"
	case "g", "G":
		if prec == "" {
			prec = ".6"
		}
	case "e", "E", "f", "F":
	default:
		return "", false, runtimeErr("unknown format code '%s' for object of type '%s'", verb, typeName(v))
	}
	return fmt.Sprintf("%"+sign+alt+prec+verb, f), true, nil
}

func toFloatOrInt(v any) any {
	switch v.(type) {
	case bool, int64, *big.Int, float64:
		return v
	}
	return nil
}

// groupDigits puts sep between thousands of the integer part.
func groupDigits(s, sep string) string {
	start := len(s) - len(strings.TrimLeft(s, "+- "))
	end := start
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	digits := s[start:end]
	var parts []string
	for len(digits) > 3 {
		parts = append([]string{digits[len(digits)-3:]}, parts...)
		digits = digits[:len(digits)-3]
	}
	parts = append([]string{digits}, parts...)
	return s[:start] + strings.Join(parts, sep) + s[end:]
}
