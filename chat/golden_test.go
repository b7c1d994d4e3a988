package chat

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// goldenNow is what golden.py's strftime_now formats.
var goldenNow = time.Date(2026, 3, 7, 9, 5, 2, 0, time.UTC)

func readJSON(t testing.TB, name string) Value {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	v, err := ParseJSON(data)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// conversation makes the request that golden.py makes of one entry of conversations.json.
func conversation(v Value) Request {
	r := Request{Now: goldenNow}
	for i := range v.Len() {
		x := v.Item(i)
		switch v.Key(i) {
		case "messages":
			for j := range x.Len() {
				r.Messages = append(r.Messages, Message{Raw: x.Item(j)})
			}
		case "tools":
			r.Tools = x.items
		case "documents":
			r.Documents = x.items
		case "add_generation_prompt":
			r.AddGenerationPrompt = x.Bool()
		case "bos_token":
			r.BOS = x.Text()
		case "eos_token":
			r.EOS = x.Text()
		case "extra":
			for j := range x.Len() {
				r.Extra = append(r.Extra, Member{x.Key(j), x.Item(j)})
			}
		}
	}
	return r
}

// TestGolden compares every template and conversation with Python's jinja2; see testdata/README.md.
func TestGolden(t *testing.T) {
	golden, convs := readJSON(t, "golden.json"), readJSON(t, "conversations.json")
	cases := 0
	for i := range golden.Len() {
		name, want := golden.Key(i), golden.Item(i)
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(filepath.Join("testdata", "templates", name+".jinja"))
			if err != nil {
				t.Fatal(err)
			}
			tmpl, parseErr := Parse(name, string(src))
			for j := range want.Len() {
				c, ok := convs.Get(want.Key(j))
				if !ok {
					t.Fatalf("no conversation %s", want.Key(j))
				}
				got, err := "", parseErr
				if err == nil {
					got, err = tmpl.Render(conversation(c))
				}
				checkGolden(t, want.Key(j), want.Item(j), got, err)
				cases++
			}
		})
	}
	if cases < 1000 {
		t.Errorf("only %d cases ran", cases)
	}
}

func checkGolden(t *testing.T, conv string, want Value, got string, err error) {
	t.Helper()
	if out, ok := want.Get("out"); ok {
		switch {
		case err != nil:
			t.Errorf("%s: %v; Python renders it", conv, err)
		case got != out.Text():
			t.Errorf("%s:\n got %q\nwant %q", conv, got, out.Text())
		}
		return
	}
	msg, _ := want.Get("raises")
	if err == nil {
		t.Errorf("%s: rendered %q; Python raises %s", conv, got, msg.Text())
		return
	}
	if _, raised := want.Get("raised"); raised {
		if !errors.Is(err, ErrConversation) || !strings.HasSuffix(err.Error(), ": "+msg.Text()) {
			t.Errorf("%s: error %q, want the template's own %q", conv, err, msg.Text())
		}
	} else if strings.HasPrefix(msg.Text(), "RecursionError") || strings.HasPrefix(msg.Text(), "OverflowError") {
		if !errors.Is(err, ErrLimit) {
			t.Errorf("%s: error %q is not ErrLimit; Python raises %s", conv, err, msg.Text())
		}
	} else if !errors.Is(err, ErrTemplate) {
		t.Errorf("%s: error %q is not ErrTemplate; Python raises %s", conv, err, msg.Text())
	}
}

// TestExpressions compares small templates, most of one expression, with Python's jinja2.
func TestExpressions(t *testing.T) {
	v := readJSON(t, "expressions.json")
	vars, _ := v.Get("vars")
	var extra []Member
	for i := range vars.Len() {
		extra = append(extra, Member{vars.Key(i), vars.Item(i)})
	}
	cases, _ := v.Get("cases")
	if cases.Len() < 500 {
		t.Errorf("only %d cases", cases.Len())
	}
	for i := range cases.Len() {
		c := cases.Item(i)
		src, _ := c.Get("t")
		got := ""
		tmpl, err := Parse("expression", src.Text())
		if err == nil {
			got, err = tmpl.Render(Request{Now: goldenNow, Extra: extra})
		}
		checkGolden(t, src.Text(), c, got, err)
	}
}
