package chat

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestValueRoundTrip(t *testing.T) {
	tests := []struct{ name, in, out string }{
		{"order", `{"z":1,"a":{"y":[],"b":{}},"m":null}`, ""},
		{"space", " { \"a\" : [ 1 , true ] } ", `{"a":[1,true]}`},
		{"digits", `[1.0,1e5,1E+5,-0.0,0.1000,12345678901234567890123,1e400,-0]`, ""},
		{"repeated key", `{"a":1,"b":2,"a":3}`, `{"a":3,"b":2}`},
		{"text", `"é <&> \" \\ \n \u0001 \u2028 😀"`, "\"é <&> \\\" \\\\ \\n \\u0001 \\u2028 😀\""},
		{"empty key", `{"":""}`, ""},
		{"scalars", `[null,true,false,"",0]`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := ParseJSON([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			want := tt.out
			if want == "" {
				want = tt.in
			}
			if got := v.String(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			var s struct{ V Value }
			if err := json.Unmarshal([]byte(`{"V":`+tt.in+`}`), &s); err != nil {
				t.Fatal(err)
			}
			if got, err := json.Marshal(s); err != nil || !json.Valid(got) || s.V.String() != want {
				t.Errorf("inside a struct: %s (%v), want %s", got, err, want)
			}
		})
	}
}

func TestParseJSONErrors(t *testing.T) {
	for _, in := range []string{
		"", " ", "{", "[1,", "[1,]", `{"a"}`, `{"a":}`, `{1:2}`, "nul", "01", "1 2", "{}x", `"\x"`, "\"\n\"", "]", "+1", "NaN",
		strings.Repeat("[", 10000), strings.Repeat("[", 100) + strings.Repeat("]", 100), strings.Repeat(`{"a":`, 1000),
	} {
		if v, err := ParseJSON([]byte(in)); !errors.Is(err, ErrJSON) {
			t.Errorf("%.20q: %.40s, %v; want ErrJSON", in, v, err)
		}
	}
}

func TestValueAccess(t *testing.T) {
	v, err := ParseJSON([]byte(`{"s":"x","n":1.50,"b":true,"a":[1,2],"z":null}`))
	if err != nil {
		t.Fatal(err)
	}
	if v.Kind() != Object || v.Len() != 5 || v.Key(3) != "a" {
		t.Errorf("object: kind %d, %d members, fourth %q", v.Kind(), v.Len(), v.Key(3))
	}
	s, _ := v.Get("s")
	n, _ := v.Get("n")
	b, _ := v.Get("b")
	a, _ := v.Get("a")
	z, ok := v.Get("z")
	if s.Text() != "x" || n.Text() != "1.50" || !b.Bool() || a.Item(1).Text() != "2" || !ok || !z.IsNull() {
		t.Errorf("members: %v %v %v %v %v", s, n, b, a, z)
	}
	if _, ok := v.Get("nope"); ok {
		t.Error("Get found a key that is not there")
	}
	if got := NewObject(Member{"b", NewInt(2)}, Member{"a", NewArray(NewBool(false))}, Member{"b", NewInt(3)}).String(); got != `{"b":3,"a":[false]}` {
		t.Errorf("NewObject: %s", got)
	}
}
