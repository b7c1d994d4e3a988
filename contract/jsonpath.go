package contract

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// pathStep is one step into a JSON value: a key, an index, or every element.
type pathStep struct {
	key   string
	index int
	kind  byte // 'k', 'i', '*'
}

// pathToken is a key, an index, every element, or a key in quotes.
var pathToken = regexp.MustCompile(`^(?:\.?([A-Za-z_][\w-]*)|\[(\d{1,9})\]|\[(\*)\]|\["([^"]*)"\])`)

// parsePath reads a path such as $.positions[*].cosine or a["b c"][0].
func parsePath(path string) ([]pathStep, error) {
	rest := strings.TrimPrefix(path, "$")
	var steps []pathStep
	for rest != "" {
		m := pathToken.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("path %q is not understood at %q, want keys, [0] and [*]", path, rest)
		}
		switch {
		case m[3] != "":
			steps = append(steps, pathStep{kind: '*'})
		case m[2] != "":
			i, _ := strconv.Atoi(m[2])
			steps = append(steps, pathStep{kind: 'i', index: i})
		case m[1] != "":
			steps = append(steps, pathStep{kind: 'k', key: m[1]})
		default:
			steps = append(steps, pathStep{kind: 'k', key: m[4]})
		}
		rest = rest[len(m[0]):]
	}
	return steps, nil
}

// selectPath returns the values at a path. [*] over an array that is empty
// selects nothing, so that a prediction about every element fails on none.
func selectPath(values []any, steps []pathStep) []any {
	for _, s := range steps {
		var next []any
		for _, v := range values {
			switch v := v.(type) {
			case map[string]any:
				if e, ok := v[s.key]; ok && s.kind == 'k' {
					next = append(next, e)
				}
			case []any:
				if s.kind == '*' {
					next = append(next, v...)
				} else if s.kind == 'i' && s.index < len(v) {
					next = append(next, v[s.index])
				}
			}
		}
		values = next
	}
	return values
}
