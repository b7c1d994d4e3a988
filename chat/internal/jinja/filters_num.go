package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

func abs(ev *evaluator, v any, _ []any) (any, error) {
	if f, ok := v.(float64); ok {
		return math.Abs(f), nil
	}
	if b := toBig(v); b != nil {
		if b.Sign() < 0 {
			return ev.bigOp("-", new(big.Int), b)
		}
		return ev.bigOp("+", new(big.Int), b)
	}
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	return nil, runtimeErr("bad operand type for abs(): '%s'", typeName(v))
}

// parseInt is Python's int(s, base).
func parseInt(s string, base int) (any, bool) {
	s = strings.TrimFunc(s, isSpace)
	neg := strings.HasPrefix(s, "-")
	digits := strings.TrimPrefix(strings.TrimPrefix(s, "-"), "+")
	if len(s)-len(digits) > 1 || len(digits) > 4300 { // Python refuses longer ones too
		return nil, false
	}
	if len(digits) > 2 && digits[0] == '0' {
		if b := map[byte]int{'x': 16, 'o': 8, 'b': 2}[digits[1]|0x20]; b != 0 && (base == b || base == 0) {
			base, digits = b, strings.TrimPrefix(digits[2:], "_")
		}
	}
	if base == 0 {
		base = 10
	}
	if digits == "" || strings.HasPrefix(digits, "_") || strings.HasSuffix(digits, "_") ||
		strings.Contains(digits, "__") || strings.ContainsAny(digits, "+-") {
		return nil, false
	}
	z, ok := new(big.Int).SetString(strings.ReplaceAll(digits, "_", ""), base)
	if !ok {
		return nil, false
	}
	if neg {
		z.Neg(z)
	}
	return smallInt(z), true
}

func smallInt(z *big.Int) any {
	if z.IsInt64() {
		return z.Int64()
	}
	return z
}

// parseFloat is Python's float(s).
func parseFloat(s string) (float64, bool) {
	s = strings.TrimFunc(s, isSpace)
	if strings.ContainsAny(s, "xXpP") || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	return f, err == nil || math.IsInf(f, 0)
}

func intFilter(ev *evaluator, v any, a []any) (any, error) {
	d := a[0]
	if d == absent {
		d = int64(0)
	}
	base := int64(10)
	if a[1] != absent {
		var ok bool
		if base, ok = asInt(a[1]); !ok || base < 0 || base > 36 || base == 1 {
			return d, nil
		}
	}
	switch v := v.(type) {
	case *Undefined:
		return nil, v.fail()
	case int64, *big.Int:
		return v, nil
	case bool:
		i, _ := asInt(v)
		return i, nil
	case float64:
		return floatToInt(v, d), nil
	}
	if s, ok := asString(v); ok {
		if i, ok := parseInt(s, int(base)); ok {
			return i, nil
		}
		if f, ok := parseFloat(s); ok {
			return floatToInt(f, d), nil
		}
	}
	return d, nil
}

func floatToInt(f float64, d any) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return d
	}
	z, _ := big.NewFloat(f).Int(nil)
	return smallInt(z)
}

func floatFilter(_ *evaluator, v any, a []any) (any, error) {
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	if f, ok := asFloat(v); ok {
		return f, nil
	}
	if s, ok := asString(v); ok {
		if f, ok := parseFloat(s); ok {
			return f, nil
		}
	}
	if a[0] == absent {
		return 0.0, nil
	}
	return a[0], nil
}

func round(_ *evaluator, v any, a []any) (any, error) {
	prec := int64(0)
	if a[0] != absent {
		var ok bool
		if prec, ok = asInt(a[0]); !ok {
			return nil, runtimeErr("round: precision must be an integer")
		}
	}
	how := "common"
	if a[1] != absent {
		how, _ = asString(a[1])
	}
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	f, ok := asFloat(v)
	if !ok {
		return nil, runtimeErr("type %s doesn't define __round__ method", typeName(v))
	}
	if prec < -400 || prec > 400 {
		return nil, limitErr("precision")
	}
	scale := math.Pow(10, float64(prec))
	switch how {
	case "ceil":
		return math.Ceil(f*scale) / scale, nil
	case "floor":
		return math.Floor(f*scale) / scale, nil
	case "common":
		if toBig(v) != nil && prec >= 0 {
			return v, nil
		}
		if prec < 0 {
			r := math.RoundToEven(f*scale) / scale
			if toBig(v) != nil {
				return floatToInt(r, v), nil
			}
			return r, nil
		}
		r, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', int(prec), 64), 64)
		return r, nil
	}
	return nil, runtimeErr("method must be common, ceil or floor")
}
