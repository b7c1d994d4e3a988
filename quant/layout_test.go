package quant

import (
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// The parts fill the block, and the F16 parts lie where the tests of Validate
// have them.
func TestDescribedLayouts(t *testing.T) {
	for _, f := range Formats() {
		if _, ok := LayoutOf(f.Type); !ok {
			t.Errorf("%s has no layout", f.Type)
		}
	}
	for _, l := range Layouts() {
		t.Run(l.Type.String(), func(t *testing.T) {
			var halves []int
			at := 0
			for _, p := range l.Parts {
				if p.Scale {
					halves = append(halves, at)
				}
				at += p.Size
			}
			if at != l.Type.BlockBytes() {
				t.Errorf("the parts have %d bytes, a block has %d", at, l.Type.BlockBytes())
			}
			want := halfOffsets[l.Type]
			if l.Type == tensor.BF16 {
				want = nil // tested like F16, but no F16
			}
			if len(halves) != len(want) {
				t.Fatalf("scales at %v, want %v", halves, want)
			}
			for i := range want {
				if halves[i] != want[i] {
					t.Errorf("scales at %v, want %v", halves, want)
				}
			}
			if l.Formula == "" || l.Source == "" {
				t.Error("formula or source is missing")
			}
		})
	}
	if _, ok := LayoutOf(99); ok {
		t.Error("an unknown type has a layout")
	}
}
