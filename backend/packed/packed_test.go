package packed

import (
	"errors"
	"testing"

	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// TestSize: packing pads, and little; every format of package quant has a layout.
func TestSize(t *testing.T) {
	for _, f := range quant.Formats() {
		k := 1536
		raw, err := f.Type.RowBytes(k)
		if err != nil {
			t.Fatal(err)
		}
		n, err := RowBytes(f.Type, k)
		if err != nil {
			t.Error(err)
			continue
		}
		if n < raw || n%32 != 0 || float64(n) > 1.04*float64(raw) {
			t.Errorf("%s: %d bytes packed, %d in the file", f.Type, n, raw)
		}
	}
}

func TestRefuses(t *testing.T) {
	if _, err := RowBytes(tensor.I32, 32); !errors.Is(err, quant.ErrType) {
		t.Errorf("a type that is no weight: %v", err)
	}
	if _, err := RowBytes(tensor.F16, 33); !errors.Is(err, quant.ErrLength) {
		t.Errorf("a row of 33: %v", err)
	}
	if _, err := RowBytes(tensor.Q4_K, 128); err == nil {
		t.Error("half a block is accepted")
	}
	dst := make([]byte, 2*288)
	for _, n := range []int{0, 287, 2*288 - 1} {
		if err := Rows(dst, make([]byte, n), tensor.Q4_K, 512, 2); !errors.Is(err, quant.ErrLength) {
			t.Errorf("%d bytes for two rows: %v", n, err)
		}
	}
	if err := Rows(dst[1:], make([]byte, 2*288), tensor.Q4_K, 512, 2); !errors.Is(err, quant.ErrLength) {
		t.Errorf("a short destination: %v", err)
	}
}
