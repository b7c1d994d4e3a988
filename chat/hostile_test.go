package chat

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestHostile: templates made to exhaust time, memory or stack fail with ErrLimit or ErrTemplate. None may allocate more
// than the documented bound. A hang shows as the test's timeout.
func TestHostile(t *testing.T) {
	loop := "{% for a in range(100000) %}"
	end := "{% endfor %}"
	double := func(n int, set, out string) string {
		return "{% set x = '0123456789abcdef' %}{% set l = [1, 2] %}" + strings.Repeat(set, n) + out
	}
	tests := []struct {
		name, source string
		want         error
	}{
		{"nested loops", strings.Repeat(loop, 3) + "x" + strings.Repeat(end, 3), ErrLimit},
		{"empty nested loops", strings.Repeat(loop, 3) + strings.Repeat(end, 3), ErrLimit},
		{"filtered loop", loop + "{% for b in range(100000) if false %}{% endfor %}" + end, ErrLimit},
		{"output", loop + strings.Repeat("0123456789", 1000) + end, ErrLimit},
		{"doubling with +", double(60, "{% set x = x + x %}", "{{ x }}"), ErrLimit},
		{"doubling with ~", double(60, "{% set x = x ~ x %}", "{{ x }}"), ErrLimit},
		{"doubling lists", double(60, "{% set l = l + l %}", "{{ l | length }}"), ErrLimit},
		{"sharing lists, printed", double(60, "{% set l = [l, l] %}", "{{ l }}"), ErrLimit},
		{"sharing lists, compared", double(60, "{% set l = [l, l] %}", "{% set m = [1, 2] %}{{ l == l }}"), ErrLimit},
		{"sharing lists, as json", double(60, "{% set l = [l, l] %}", "{{ l | tojson }}"), ErrLimit},
		{"sharing tuples", "{% set l = (1, 2) %}" + strings.Repeat("{% set l = (l, l) %}", 40) + "{{ {l: 1} }}", ErrLimit},
		{"doubling by filter", double(60, "{% set x = x | replace('a', 'aa') | replace('0', '00') %}", ""), ErrLimit},
		{"doubling by format", double(60, "{% set x = '%s%s' % (x, x) %}", ""), ErrLimit},
		{"doubling by str.format", double(60, "{% set x = '{0}{0}'.format(x) %}", ""), ErrLimit},
		{"doubling by join", double(60, "{% set x = [x, x] | join %}", ""), ErrLimit},
		{"doubling by str.join", double(60, "{% set x = x.join([x, x]) %}", ""), ErrLimit},
		{"doubling by capture", double(60, "{% set x %}{{ x }}{{ x }}{% endset %}", ""), ErrLimit},
		{"doubling by list filter", double(60, "{% set x = [x, x] | map('upper') | list | join %}", ""), ErrLimit},
		{"joiner", "{% set x = '1' * 100000 %}{{ x | join(x) }}", ErrLimit},
		{"replace", "{% set x = '1' * 1000000 %}{{ x | replace('1', x) }}", ErrLimit},
		{"replace nothing", "{% set x = '1' * 1000000 %}{{ x | replace('', x) }}", ErrLimit},
		{"repeat", "{{ 'x' * 9223372036854775807 }}", ErrLimit},
		{"repeat list", "{{ [0] * 9223372036854775807 }}", ErrLimit},
		{"center", "{{ 'x'.center(9223372036854775807) }}", ErrLimit},
		{"center filter", "{{ 'x' | center(9223372036854775807) }}", ErrLimit},
		{"zfill", "{{ 'x'.zfill(9223372036854775807) }}", ErrLimit},
		{"indent", "{% set x = '1\n' * 100000 %}{{ x | indent(1000000) }}", ErrLimit},
		{"json indent", "{{ [[1]] | tojson(indent=9223372036854775807) }}", ErrLimit},
		{"json deep indent", "{% set p = 'x' * 10000000 %}" + loop + "{{ [[[[1]]]] | tojson(indent=p) }}" + end, ErrLimit},
		{"width", "{{ '%999999999d' % 1 }}", ErrLimit},
		{"precision", "{{ '%.999999999f' % 1 }}", ErrLimit},
		{"format width", "{{ '{:999999999}'.format(1) }}", ErrLimit},
		{"slices", "{{ [1] | slice(9223372036854775807) | list }}", ErrLimit},
		{"batch", "{{ [1] | batch(15000000, 1) | list }}{{ [1] | batch(15000000, 1) | list }}", ErrLimit},
		{"power", "{{ 10 ** (10 ** 10) }}", ErrLimit},
		{"power of one", "{{ (-1) ** (10 ** 400) }}", nil},
		{"large product", "{% set x = 2 ** 4000 %}{{ x * x * x }}", ErrLimit},
		{"range", "{{ range(9223372036854775807) | list }}", ErrLimit},
		{"range step", "{{ range(0, 9, -9223372036854775807) | list }}", ErrLimit},
		{"slice step", "{{ [1, 2, 3][::9223372036854775807] }}{{ [1, 2][::-9223372036854775807] }}", nil},
		{"recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ErrLimit},
		{"branching recursion", "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}", ErrLimit},
		{"recursive caller", "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}", ErrLimit},
		{"recursive loop", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", ErrLimit},
		{"namespace in itself", "{% set n = namespace() %}{% set n.n = n %}{{ n }}", ErrLimit},
		{"list in a namespace in itself", "{% set n = namespace() %}{% set n.n = [n] %}{{ n.n == n.n }}{{ n.n | string }}", ErrLimit},
		{"parentheses", "{{ " + strings.Repeat("(", 500_000), ErrLimit},
		{"brackets", "{{ " + strings.Repeat("[", 500_000), ErrLimit},
		{"dicts", "{{ " + strings.Repeat("{1:", 300_000), ErrLimit},
		{"minus", "{{ " + strings.Repeat("-", 1_000_000), ErrLimit},
		{"not", "{{ " + strings.Repeat("not ", 200_000) + "1 }}", ErrLimit},
		{"is", "{{ 1 " + strings.Repeat("is eq ", 100_000) + "1 }}", ErrTemplate},
		{"else", "{{ " + strings.Repeat("1 if 0 else ", 80_000) + "1 }}", ErrLimit},
		{"targets", "{% for " + strings.Repeat("(", 500_000), ErrLimit},
		{"ifs", strings.Repeat("{% if 1 %}", 100_000), ErrLimit},
		{"sum", "{{ 1" + strings.Repeat("+1", 500_000) + " }}", ErrLimit},
		{"attributes", "{{ messages" + strings.Repeat(".a", 500_000) + " }}", ErrLimit},
		{"filters", "{{ 1" + strings.Repeat("|e", 500_000) + " }}", ErrLimit},
		{"calls", "{{ 1" + strings.Repeat("()", 500_000) + " }}", ErrLimit},
		{"many ifs", "{{ 1 " + strings.Repeat("if 1 ", 200_000) + " }}", ErrLimit},
		{"source", strings.Repeat("x", 2<<20), ErrLimit},
		{"digits", "{{ " + strings.Repeat("9", 1_000_000) + " }}", ErrTemplate},
		{"digits to int", "{% set x = '9' * 10000000 %}{{ x | int }}", nil},
		{"string formatting", "{{ '%s' * 1000000 % 1 }}", ErrTemplate},
		{"environment", "{{ ''.__class__.__mro__ }}", ErrTemplate},
		{"globals", "{{ raise_exception.__globals__.x }}", ErrTemplate},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			out := ""
			tmpl, err := Parse("hostile", tt.source)
			if err == nil {
				out, err = tmpl.Render(Request{Messages: []Message{{Role: "user", Content: "x"}}})
			}
			runtime.ReadMemStats(&after)
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v; output %.60q", err, tt.want, out)
			}
			if err != nil && (strings.Contains(err.Error(), "internal error") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("error %.200q", err)
			}
			// All that was ever allocated, most of it garbage by then: 10 million units of work at up to 100 bytes each.
			if got := after.TotalAlloc - before.TotalAlloc; got > 2<<30 {
				t.Errorf("%d MiB allocated", got>>20)
			}
		})
	}
}

// FuzzTemplate: no template and no text may make the renderer panic, hang or produce output past its limit.
func FuzzTemplate(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "templates", "*.jinja"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no seed templates: %v", err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(src), "Hello <é> \"x\" {{ y }}")
	}
	v := readJSON(f, "expressions.json")
	cases, _ := v.Get("cases")
	for i := range cases.Len() {
		src, _ := cases.Item(i).Get("t")
		f.Add(src.Text(), "text")
	}
	tool := NewObject(Member{"type", NewString("function")}, Member{"function", NewObject(Member{"name", NewString("f")})})
	f.Fuzz(func(t *testing.T, source, text string) {
		tmpl, err := Parse("fuzz", source)
		if err == nil {
			_, err = tmpl.Render(Request{
				Messages:            []Message{{Role: "system", Content: text}, {Role: "user", Content: text}, {Role: "assistant", NoContent: true}},
				Tools:               []Value{tool},
				AddGenerationPrompt: true, BOS: "<s>", EOS: "</s>", Now: goldenNow,
			})
		}
		if err == nil {
			return
		}
		if !errors.Is(err, ErrTemplate) && !errors.Is(err, ErrConversation) && !errors.Is(err, ErrLimit) {
			t.Errorf("error of no kind: %v", err)
		}
		if strings.Contains(err.Error(), "internal error") {
			t.Errorf("the engine panicked: %v", err)
		}
	})
}
