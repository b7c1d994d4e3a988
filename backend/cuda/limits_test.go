package cuda

import (
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// The emulation says nothing about speed; what is tested there is that the kernels
// run and that the figures are numbers.
func TestLimits(t *testing.T) {
	_, exec := backendtest.Load(t, golden.Path(t, "testdata", "architectures", "llama-gqa.gguf"), Name, backend.Options{KV: tensor.F16})
	size, iterations := int64(limitBytes), limitIterations
	if emutest.Emulated() {
		size, iterations = 1<<20, 1
	}
	l, err := exec.(*executor).measureLimits(size, iterations)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("reads %.0f GB/s, multiplies %.0f Gop/s", l.Bandwidth/1e9, l.Arithmetic/1e9)
	for name, v := range map[string]float64{"bandwidth": l.Bandwidth, "arithmetic": l.Arithmetic} {
		if !(v > 0 && v < 1e17) {
			t.Errorf("%s is %v", name, v)
		}
	}
}
