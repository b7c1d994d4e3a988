package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Observation is what a step did.
type Observation struct {
	Exit    int
	Seconds float64
	Stdout  []byte
	Stderr  []byte
	Files   map[string]FileFact // files that checks ask for, by their path
}

// FileFact is a file that a step left.
type FileFact struct {
	Exists bool   `json:"exists"`
	Bytes  int64  `json:"bytes,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
}

// Result is a check's outcome: what was seen, in few words, and whether it is
// what was predicted.
type Result struct {
	Observed string
	Match    bool
}

// opsFor lists the comparisons that make sense at a target.
var opsFor = map[string][]string{
	"exit":   {"is", "equals"},
	"time":   {"is"},
	"stdout": {"is", "equals", "contains", "lacks", "matches", "lines", "same_as", "differs_from"},
	"stderr": {"is", "equals", "contains", "lacks", "matches", "lines", "same_as", "differs_from"},
	"json":   {"is", "equals", "contains", "lacks", "matches", "count", "same_as", "differs_from", "exists"},
	"file":   {"is", "equals", "exists"},
}

// validate reports why a check cannot be judged.
func (c Check) validate() error {
	if ops := opsFor[c.On]; ops != nil && !slices.Contains(ops, c.Op) {
		return fmt.Errorf("%s does not go with %s, want one of %s", c.Op, c.On, strings.Join(ops, ", "))
	}
	if len(c.Values) == 0 || !c.Values[0].Set {
		return fmt.Errorf("%s has no value", c.Op)
	}
	multi := slices.Contains([]string{"contains", "lacks", "matches", "lines"}, c.Op)
	if len(c.Values) > 1 && !multi {
		return fmt.Errorf("%s takes one value", c.Op)
	}
	text := c.On == "stdout" || c.On == "stderr"
	switch {
	case (c.On == "json" || c.On == "file") && c.Path == "":
		return fmt.Errorf("on %s needs a path", c.On)
	case c.Path != "" && c.On != "json" && c.On != "file":
		return fmt.Errorf("on %s takes no path", c.On)
	case c.Number != "" && !text:
		return fmt.Errorf("number goes with stdout and stderr only")
	case text && (c.Op == "is") != (c.Number != ""):
		return fmt.Errorf("number and is belong together")
	}
	if c.Number != "" {
		if re, err := regexp.Compile(c.Number); err != nil {
			return fmt.Errorf("number is no pattern: %w", err)
		} else if re.NumSubexp() != 1 {
			return fmt.Errorf("number needs one group in round brackets, has %d", re.NumSubexp())
		}
	}
	if c.On == "json" {
		if _, err := parsePath(c.Path); err != nil {
			return err
		}
	}
	for _, v := range c.Values {
		switch c.Op {
		case "is", "count":
			if _, err := parseComparison(v.Value); err != nil {
				return err
			}
		case "matches":
			if _, err := regexp.Compile(v.Value); err != nil {
				return fmt.Errorf("matches is no pattern: %w", err)
			}
		case "exists":
			if v.Value != "true" && v.Value != "false" {
				return fmt.Errorf("exists is %q, want true or false", v.Value)
			}
		}
	}
	return nil
}

// Eval judges a check on what a step did. earlier holds the observations of
// the steps before it by name. Whatever cannot be judged is no match.
func (c Check) Eval(o Observation, earlier map[string]Observation) Result {
	if err := c.validate(); err != nil {
		return Result{Observed: err.Error()}
	}
	switch c.On {
	case "exit":
		return c.evalNumber(strconv.Itoa(o.Exit))
	case "time":
		return c.evalNumber(strconv.FormatFloat(o.Seconds, 'f', 3, 64) + " s")
	case "file":
		return c.evalFile(o.Files[c.Path])
	case "json":
		return c.evalJSON(o, earlier)
	}
	stream := func(o Observation) string {
		if c.On == "stderr" {
			return string(o.Stderr)
		}
		return string(o.Stdout)
	}
	if c.Number != "" {
		return c.evalMatches(regexp.MustCompile("(?m)"+c.Number).FindAllStringSubmatch(stream(o), -1))
	}
	if c.Op == "same_as" || c.Op == "differs_from" {
		other, ok := earlier[c.Values[0].Value]
		if !ok {
			return Result{Observed: "there is no step " + c.Values[0].Value}
		}
		same := stream(o) == stream(other)
		return Result{excerpt(stream(o)), same == (c.Op == "same_as")}
	}
	return c.evalText(stream(o))
}

// evalText applies a text comparison.
func (c Check) evalText(s string) Result {
	r := Result{Observed: excerpt(s), Match: true}
	rest := s
	for _, v := range c.Values {
		switch c.Op {
		case "equals":
			r.Match = r.Match && s == v.Value
		case "contains":
			r.Match = r.Match && strings.Contains(s, v.Value)
		case "lacks":
			r.Match = r.Match && !strings.Contains(s, v.Value)
		case "matches":
			r.Match = r.Match && regexp.MustCompile("(?m)"+v.Value).MatchString(s)
		case "lines":
			// Each text on a line of its own, in this order, others between.
			_, after, found := strings.Cut(rest, v.Value)
			r.Match = r.Match && found
			if _, rest, found = strings.Cut(after, "\n"); !found {
				rest = ""
			}
		default:
			return Result{Observed: "cannot apply " + c.Op}
		}
	}
	return r
}

// evalNumber compares one number, given with its unit.
func (c Check) evalNumber(observed string) Result {
	want := c.Values[0].Value
	if c.Op == "equals" {
		want = "== " + want
	}
	cmp, err := parseComparison(want)
	if err != nil {
		return Result{Observed: err.Error()}
	}
	q, err := parseQuantity(observed)
	if err != nil {
		return Result{Observed: err.Error()}
	}
	if c.Unit != "" && q.dimension == "" {
		if q, err = parseQuantity(observed + " " + c.Unit); err != nil {
			return Result{Observed: err.Error()}
		}
		observed += " " + c.Unit
	}
	return Result{observed, cmp.holds(q)}
}

// evalMatches compares every number that a pattern found; one at least.
func (c Check) evalMatches(found [][]string) Result {
	if len(found) == 0 {
		return Result{Observed: "the pattern is nowhere"}
	}
	var r Result
	for i, m := range found {
		one := c.evalNumber(strings.TrimSpace(m[1]))
		if i == 0 || !one.Match {
			r = one
		}
		if !one.Match {
			return r
		}
	}
	if len(found) > 1 {
		r.Observed = fmt.Sprintf("%s and %d more", r.Observed, len(found)-1)
	}
	return r
}

// evalFile judges what a step left in its scratch folder. A file that is absent
// has no size and no hash, so nothing but exists: false holds of it.
func (c Check) evalFile(f FileFact) Result {
	switch {
	case c.Op == "exists":
		return Result{fmt.Sprintf("exists %v", f.Exists), strconv.FormatBool(f.Exists) == c.Values[0].Value}
	case !f.Exists:
		return Result{Observed: "no such file"}
	case c.Op == "equals":
		return Result{"sha256 " + f.SHA256, f.SHA256 == strings.TrimPrefix(c.Values[0].Value, "sha256:")}
	}
	return c.evalNumber(strconv.FormatInt(f.Bytes, 10) + " B")
}

// selectJSON decodes a step's standard output and picks the values at a path.
func selectJSON(path string, o Observation) ([]any, error) {
	var doc any
	dec := json.NewDecoder(bytes.NewReader(o.Stdout))
	dec.UseNumber()
	if err := dec.Decode(&doc); err != nil {
		return nil, errors.New("stdout is not JSON")
	}
	steps, err := parsePath(path)
	if err != nil {
		return nil, err
	}
	return selectPath([]any{doc}, steps), nil
}

// evalJSON judges the values at a path of the step's standard output. A path that
// selects nothing satisfies no comparison: a prediction about every element of an
// empty list would otherwise hold of a program that did nothing.
func (c Check) evalJSON(o Observation, earlier map[string]Observation) Result {
	values, err := selectJSON(c.Path, o)
	if err != nil {
		return Result{Observed: err.Error()}
	}
	switch c.Op {
	case "exists":
		return Result{fmt.Sprintf("%d values", len(values)), strconv.FormatBool(len(values) > 0) == c.Values[0].Value}
	case "count":
		cmp, _ := parseComparison(c.Values[0].Value)
		return Result{fmt.Sprintf("%d values", len(values)), cmp.holds(quantity{value: float64(len(values))})}
	case "same_as", "differs_from":
		other, err := selectJSON(c.Path, earlier[c.Values[0].Value])
		if err != nil || len(values) == 0 || len(other) == 0 {
			return Result{Observed: "nothing to compare"}
		}
		a, b := encode(values), encode(other)
		return Result{excerpt(a), (a == b) == (c.Op == "same_as")}
	}
	if len(values) == 0 {
		return Result{Observed: "nothing at " + c.Path}
	}
	// Every selected value must match; the first that does not is shown.
	var r Result
	for i, v := range values {
		one := c.evalValue(v)
		if i == 0 || !one.Match {
			r = one
		}
		if !one.Match {
			return r
		}
	}
	if len(values) > 1 {
		r.Observed = fmt.Sprintf("%s and %d more", r.Observed, len(values)-1)
	}
	return r
}

// evalValue judges one JSON value. Numbers compare by value, so 1e3 equals 1000;
// everything else as its text. A text that looks like a number is none.
func (c Check) evalValue(v any) Result {
	switch c.Op {
	case "is":
		if n, ok := v.(json.Number); ok {
			return c.evalNumber(n.String())
		}
		return Result{Observed: excerpt(encode(v)) + " is not a number"}
	case "equals":
		want := c.Values[0].Value
		if n, ok := v.(json.Number); ok {
			a, errA := n.Float64()
			b, okB := parseNumber(want)
			return Result{n.String(), errA == nil && okB && a == b}
		}
		if s, ok := v.(string); ok {
			return Result{excerpt(s), s == want}
		}
		return Result{encode(v), encode(v) == want}
	}
	if s, ok := v.(string); ok {
		return c.evalText(s)
	}
	return c.evalText(encode(v))
}

// encode writes a JSON value on one line, for comparing and for tables.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// excerpt shortens a text for a table.
func excerpt(s string) string {
	const most = 160
	q := strconv.Quote(s)
	q = strings.ToValidUTF8(q, "?")
	if r := []rune(q); len(r) > most {
		return string(r[:most]) + fmt.Sprintf("… (%d bytes)", len(s))
	}
	return q
}
