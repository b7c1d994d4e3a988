package contract

import (
	"fmt"
	"math"
	"regexp"
	"strings"
)

// quantity is a number in the base unit of its dimension.
type quantity struct {
	value     float64
	dimension string
}

// units maps a unit to its dimension and its size in the base unit.
var units = map[string]struct {
	dimension string
	size      float64
}{
	"ns": {"time", 1e-9}, "us": {"time", 1e-6}, "µs": {"time", 1e-6}, "ms": {"time", 1e-3},
	"s": {"time", 1}, "min": {"time", 60}, "h": {"time", 3600},
	"B": {"bytes", 1}, "kB": {"bytes", 1e3}, "MB": {"bytes", 1e6}, "GB": {"bytes", 1e9},
	"KiB": {"bytes", 1 << 10}, "MiB": {"bytes", 1 << 20}, "GiB": {"bytes", 1 << 30},
	"%": {"share", 0.01}, "tok/s": {"tokens a second", 1},
}

// quantityForm is a number and a unit, with or without a space between.
var quantityForm = regexp.MustCompile(`^(\S+?)\s*([A-Za-zµ%/]*)$`)

// parseQuantity reads a number with an optional unit. An unknown unit is an error
// and not a plain number: 5 parsecs are not five of anything else.
func parseQuantity(s string) (quantity, error) {
	s = strings.TrimSpace(s)
	if v, ok := parseNumber(s); ok {
		return quantity{value: v}, nil
	}
	m := quantityForm.FindStringSubmatch(s)
	if m != nil {
		v, ok := parseNumber(m[1])
		u, known := units[m[2]]
		if ok && known {
			return quantity{v * u.size, u.dimension}, nil
		}
	}
	return quantity{}, fmt.Errorf("%q is no number with a known unit", excerptPlain(s))
}

func excerptPlain(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

// comparison is an operator and a bound: ">= 0.99", "< 512 MiB".
type comparison struct {
	op    string
	bound quantity
}

// comparisonForm lists the longer operators first, or >= would be read as >.
var comparisonForm = regexp.MustCompile(`^\s*(>=|<=|==|!=|>|<)\s*(.+?)\s*$`)

// parseComparison reads an operator and a bound.
func parseComparison(s string) (comparison, error) {
	m := comparisonForm.FindStringSubmatch(s)
	if m == nil {
		return comparison{}, fmt.Errorf("%q is no comparison such as >= 0.99 or < 60 s", excerptPlain(s))
	}
	q, err := parseQuantity(m[2])
	if err == nil && math.IsNaN(q.value) {
		err = fmt.Errorf("a bound of NaN holds for nothing")
	}
	return comparison{m[1], q}, err
}

// holds is false for NaN and for quantities of another dimension.
func (c comparison) holds(q quantity) bool {
	if q.dimension != c.bound.dimension || math.IsNaN(q.value) {
		return false
	}
	switch a, b := q.value, c.bound.value; c.op {
	case ">=":
		return a >= b
	case "<=":
		return a <= b
	case ">":
		return a > b
	case "<":
		return a < b
	case "==":
		return a == b
	default:
		return a != b
	}
}
