//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// A CPU that plays the device says little about speed; what is tested is that both
// kernels run with and without half precision and that the figures are possible.
func TestMeasureLimits(t *testing.T) {
	needAdapter(t)
	for _, name := range []string{Name, halfName, plainName} {
		t.Run(name, func(t *testing.T) {
			_, exec := backendtest.Load(t, golden.Path(t, "testdata", "architectures", "llama-gqa.gguf"), name, backend.Options{KV: tensor.F16})
			l, err := exec.(backend.Meter).MeasureLimits()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("reads %.1f GB/s, multiplies %.1f Gop/s", l.Bandwidth/1e9, l.Arithmetic/1e9)
			if !(l.Bandwidth > 1e8 && l.Bandwidth < 1e14) {
				t.Errorf("bandwidth %g", l.Bandwidth)
			}
			if !(l.Arithmetic > 1e8 && l.Arithmetic < 1e16) {
				t.Errorf("arithmetic %g", l.Arithmetic)
			}
		})
	}
}
