package tensor

import (
	"math"
	"testing"
)

func TestRowBytes(t *testing.T) {
	for _, tt := range []struct {
		name string
		d    DType
		n    int
		want int // -1 for an error
	}{
		{"float32", F32, 5, 20},
		{"empty row", F16, 0, 0},
		{"one block", Q4_K, 256, 144},
		{"three blocks", Q8_0, 96, 102},
		{"part of a block", Q6_K, 128, -1},
		{"negative", F32, -1, -1},
		{"unknown type", DType(99), 32, -1},
		{"overflow", F64, math.MaxInt, -1},
	} {
		got, err := tt.d.RowBytes(tt.n)
		if (err != nil) != (tt.want < 0) || err == nil && got != tt.want {
			t.Errorf("%s: %d, %v; want %d", tt.name, got, err, tt.want)
		}
	}
}

func TestBytes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		shape []int
		want  int
	}{
		{"matrix", []int{3, 32}, 3 * 34},
		{"no dimensions", nil, -1},
		{"negative dimension", []int{-1, 32}, -1},
		{"overflow", []int{math.MaxInt / 8, 32}, -1},
		{"no rows", []int{0, 32}, 0},
	} {
		got, err := Bytes(Q8_0, tt.shape)
		if (err != nil) != (tt.want < 0) || err == nil && got != tt.want {
			t.Errorf("%s: %d, %v; want %d", tt.name, got, err, tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	for d := range geometries {
		if got, err := ParseDType(d.String()); err != nil || got != d {
			t.Errorf("%s parses as %v, %v", d, got, err)
		}
		if !d.Known() || d.BlockLen() == 0 || d.BlockBytes() == 0 {
			t.Errorf("%s has no geometry", d)
		}
	}
	if DType(99).Known() || DType(99).String() != "type 99" {
		t.Errorf("unknown type prints as %q", DType(99))
	}
	if _, err := ParseDType("Q9_Z"); err == nil {
		t.Error("an unknown name is accepted")
	}
}

func TestTensor(t *testing.T) {
	x := Tensor{Name: "w", Type: F16, Shape: []int{2, 3, 4}, Data: make([]byte, 48)}
	if x.Rows() != 6 || x.Cols() != 4 || x.Elements() != 24 || len(x.Row(5)) != 8 || cap(x.Row(0)) != 8 {
		t.Errorf("%d rows of %d, %d elements", x.Rows(), x.Cols(), x.Elements())
	}
	if got := x.String(); got != "w F16 [2, 3, 4]" {
		t.Errorf("prints as %q", got)
	}
	if (Tensor{}).Rows() != 0 || (Tensor{}).Cols() != 0 {
		t.Error("a tensor without dimensions has rows")
	}
}
