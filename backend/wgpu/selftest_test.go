//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"testing"

	"github.com/apr-engine/apr/tensor"
)

func TestSelfTest(t *testing.T) {
	if err := needAdapter(t).SelfTest(); err != nil {
		t.Error(err)
	}
}

// The self-test notices a weight that is off, in any kind of step.
func TestSelfTestNotices(t *testing.T) {
	d := needAdapter(t)
	for _, name := range []string{"q", "v", "o", "down", "out"} {
		m, err := newTestModel()
		if err != nil {
			t.Fatal(err)
		}
		want := m.logits(testTokens)
		bad := m.tensors[name]
		for i := range bad.Data {
			bad.Data[i] ^= byte(i % 2) // low bits of some numbers
		}
		if err := d.selfTest(m, tensor.F32, want); err == nil {
			t.Errorf("spoiled %s is not noticed", name)
		}
	}
}

func TestRelativeError(t *testing.T) {
	if e := relativeError([]float32{1, 2, 3}, []float64{1, 2, 3}); e != 0 {
		t.Errorf("error %v of equal numbers", e)
	}
	if e := relativeError([]float32{0, 0, 0}, []float64{1, 2, 3}); e != 1 {
		t.Errorf("error %v of nothing", e)
	}
}
