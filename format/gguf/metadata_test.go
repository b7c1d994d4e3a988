package gguf

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestMetadataAccessors(t *testing.T) {
	_, data := writeSample(t, sampleMetadata(t), nil)
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	md := f.Metadata
	type result struct {
		v  any
		ok bool
	}
	get := func(v any, ok bool) result { return result{v, ok} }
	for _, c := range []struct {
		name      string
		got, want result
	}{
		{"string", get(md.String("general.architecture")), result{"test", true}},
		{"empty string", get(md.String("empty")), result{"", true}},
		{"string absent", get(md.String("none")), result{"", false}},
		{"string of int", get(md.String("u8")), result{"", false}},
		{"uint of u8", get(md.Uint("u8")), result{uint64(200), true}},
		{"uint of u16", get(md.Uint("u16")), result{uint64(60000), true}},
		{"uint of u32", get(md.Uint("u32")), result{uint64(4e9), true}},
		{"uint of u64", get(md.Uint("u64")), result{uint64(1 << 63), true}},
		{"uint of negative", get(md.Uint("i8")), result{uint64(0), false}},
		{"uint of float", get(md.Uint("f32")), result{uint64(0), false}},
		{"uint of bool", get(md.Uint("yes")), result{uint64(0), false}},
		{"uint of array", get(md.Uint("a.u8")), result{uint64(0), false}},
		{"int of i8", get(md.Int("i8")), result{int64(-100), true}},
		{"int of i16", get(md.Int("i16")), result{int64(-30000), true}},
		{"int of i32", get(md.Int("i32")), result{int64(-2e9), true}},
		{"int of i64", get(md.Int("i64")), result{int64(-1 << 62), true}},
		{"int of u32", get(md.Int("u32")), result{int64(4e9), true}},
		{"int of too large", get(md.Int("u64")), result{int64(0), false}},
		{"float of f32", get(md.Float("f32")), result{float64(float32(0.1)), true}},
		{"float of f64", get(md.Float("f64")), result{0.1, true}},
		{"float of i8", get(md.Float("i8")), result{-100.0, true}},
		{"float of u64", get(md.Float("u64")), result{math.Exp2(63), true}},
		{"float of string", get(md.Float("empty")), result{0.0, false}},
		{"bool true", get(md.Bool("yes")), result{true, true}},
		{"bool false", get(md.Bool("no")), result{false, true}},
		{"bool of int", get(md.Bool("u8")), result{false, false}},
		{"strings", get(md.Strings("a.str")), result{[]string{"", "a", "日本", strings.Repeat("x", 70)}, true}},
		{"strings none", get(md.Strings("a.none")), result{[]string{}, true}},
		{"strings of ints", get(md.Strings("a.i32")), result{[]string(nil), false}},
		{"strings of string", get(md.Strings("empty")), result{[]string(nil), false}},
		{"ints of u8", get(md.Ints("a.u8")), result{[]int64{1, 255}, true}},
		{"ints of i8", get(md.Ints("a.i8")), result{[]int64{-1, 2}, true}},
		{"ints of i32", get(md.Ints("a.i32")), result{[]int64{1, -2, 3}, true}},
		{"ints of u64", get(md.Ints("a.u64")), result{[]int64{1 << 40}, true}},
		{"ints of floats", get(md.Ints("a.f32")), result{[]int64(nil), false}},
		{"ints of bools", get(md.Ints("a.bool")), result{[]int64(nil), false}},
		{"ints of strings", get(md.Ints("a.str")), result{[]int64(nil), false}},
		{"ints of scalar", get(md.Ints("u8")), result{[]int64(nil), false}},
		{"floats of f32", get(md.Floats("a.f32")), result{[]float64{0.5, -1}, true}},
		{"floats of f64", get(md.Floats("a.f64")), result{[]float64{1e300}, true}},
		{"floats of i16", get(md.Floats("a.i16")), result{[]float64{-1}, true}},
		{"floats absent", get(md.Floats("none")), result{[]float64(nil), false}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestValueAnyAndString(t *testing.T) {
	md := sampleMetadata(t)
	for _, c := range []struct {
		key  string
		any  any
		text string
	}{
		{"u8", uint8(200), "200"},
		{"i64", int64(-1 << 62), "-4611686018427387904"},
		{"f32", float32(0.1), "0.1"},
		{"yes", true, "true"},
		{"general.architecture", "test", `"test"`},
		{"a.u8", []uint8{1, 255}, "[1, 255]"},
		{"a.u16", []uint16{1, 65535}, "[1, 65535]"},
		{"a.i16", []int16{-1}, "[-1]"},
		{"a.i8", []int8{-1, 2}, "[-1, 2]"},
		{"a.u32", []uint32{7}, "[7]"},
		{"a.u64", []uint64{1 << 40}, "[1099511627776]"},
		{"a.i64", []int64{-1}, "[-1]"},
		{"a.f32", []float32{0.5, -1}, "[0.5, -1]"},
		{"a.f64", []float64{1e300}, "[1e+300]"},
		{"a.bool", []bool{true, false}, "[true, false]"},
		{"a.str", []string{"", "a", "日本", strings.Repeat("x", 70)}, `["", "a", "日本", "` + strings.Repeat("x", 60) + `"…]`},
		{"a.none", []string{}, "[]"},
		{"a.nested", []any{[]int8{1, 2}, []string{"in"}}, `[[1, 2], ["in"]]`},
	} {
		v, ok := md.Value(c.key)
		if !ok {
			t.Fatalf("%s is missing", c.key)
		}
		if got := v.Any(); !reflect.DeepEqual(got, c.any) {
			t.Errorf("%s: Any() = %#v, want %#v", c.key, got, c.any)
		}
		if got := v.String(); got != c.text {
			t.Errorf("%s: String() = %s, want %s", c.key, got, c.text)
		}
	}
	v, _ := md.Value("a.long")
	if got, want := v.String(), "[4, 4, 4, 4, 4, 4, … 50 in all]"; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
	if v.Len() != 50 || v.Elem() != TypeInt32 || v.Kind() != "array of 50 int32" {
		t.Errorf("Len %d, Elem %s, Kind %q", v.Len(), v.Elem(), v.Kind())
	}
}

func TestMetadataEdit(t *testing.T) {
	md := NewMetadata()
	for _, k := range []string{"a", "b", "c"} {
		if err := md.Set(k, k); err != nil {
			t.Fatal(err)
		}
	}
	old := md.Clone()
	if err := md.Set("b", uint32(5)); err != nil {
		t.Fatal(err)
	}
	md.Delete("a")
	md.Delete("none")
	if got := md.Keys(); !reflect.DeepEqual(got, []string{"b", "c"}) {
		t.Errorf("keys %v after replacing b and deleting a", got)
	}
	if n, ok := md.Uint("b"); n != 5 || !ok {
		t.Errorf("b = %d, %v", n, ok)
	}
	if s, ok := old.String("b"); s != "b" || !ok || old.Len() != 3 {
		t.Error("changing the original changed its clone")
	}
	for name, bad := range map[string]any{"int": 3, "nil": nil, "map": map[string]int{}, "slice of int": []int{1}, "zero Value": Value{}} {
		if err := md.Set("key", bad); err == nil {
			t.Errorf("Set accepted %s", name)
		}
	}
	if err := md.Set("", "x"); err == nil {
		t.Error("Set accepted an empty key")
	}
}

func TestMetadataProblem(t *testing.T) {
	md := sampleMetadata(t)
	md.path = "m.gguf"
	for key, want := range map[string]string{
		"none":  `m.gguf: bad GGUF file: metadata key "none" is missing, want a string`,
		"i8":    `m.gguf: bad GGUF file: metadata key "i8" is int8 -100, want a string`,
		"a.i32": `m.gguf: bad GGUF file: metadata key "a.i32" is an array of 3 int32, want a string`,
	} {
		if got := md.Problem(key, "a string").Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
