//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"os"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
)

// The backend with other abilities than the adapter's.
const (
	plainName = "wgpu-plain"  // no subgroups, no half precision, indices checked
	halfName  = "wgpu-half"   // half precision although a CPU is slow at it
	tightName = "wgpu-tight"  // small bindings, so that weights and steps are cut
	singly    = "wgpu-singly" // every operation by itself
)

func TestMain(m *testing.M) {
	backend.Register(wgpu{plainName, func(s *settings) { s.Subgroups, s.F16, s.Checked = false, false, true }})
	backend.Register(wgpu{halfName, func(s *settings) { s.F16 = true }})
	backend.Register(wgpu{tightName, func(s *settings) { s.Binding, s.F16 = 150_000, false }})
	backend.Register(wgpu{singly, func(s *settings) { s.Unfused, s.F16 = true, false }})
	os.Exit(m.Run())
}

// needAdapter skips a test on machines without any adapter; CI has lavapipe.
func needAdapter(t testing.TB) *device {
	t.Helper()
	list, err := wgpu{name: Name}.Probe()
	switch {
	case err == nil:
		return list[0].(*device)
	case os.Getenv("CI") != "":
		t.Fatal(err)
	}
	t.Skipf("no adapter here; CI has lavapipe and fails without: %v", err)
	return nil
}

// batch is the relative RMS difference allowed between ways to compute the same
// logits: one and few tokens multiply quantised weights with 16-bit activations,
// many with float32 ones.
const batch = 5e-4

// halfBatch is the same where many tokens are multiplied in half precision.
const halfBatch = 0.02

func TestConformance(t *testing.T) {
	needAdapter(t)
	if testing.Short() {
		backendtest.ConformanceOf(t, plainName, batch, "qwen3")
		return
	}
	backendtest.Conformance(t, plainName, batch)
}

// Other abilities take other kernels, or cut what they work on.
func TestConformanceVariants(t *testing.T) {
	d := needAdapter(t)
	if testing.Short() {
		t.Skip("TestConformance takes the same paths in Go: this runs without -short, in CI and in scripts/gpu/check")
	}
	models := []string{"qwen2", "gemma3"}
	if f := d.adapter.Features; !f.Subgroups {
		t.Log("the adapter has no subgroups")
	} else {
		t.Run("subgroups", func(t *testing.T) { backendtest.ConformanceOf(t, Name, halfBatch, append(models, "quantised")...) })
	}
	if d.adapter.Features.F16 {
		t.Run("half precision", func(t *testing.T) { backendtest.ConformanceOf(t, halfName, halfBatch, models...) })
	}
	t.Run("tight limits", func(t *testing.T) { backendtest.ConformanceOf(t, tightName, batch, append(models, "quantised")...) })
	t.Run("singly", func(t *testing.T) { backendtest.ConformanceOf(t, singly, batch, models...) })
}

// limits: float32 arithmetic with other orders of summing than the reference's,
// and 16-bit activations where weights are quantised.
var (
	floatLimits     = backendtest.Limits{Logits: 1e-5, Hidden: 1e-5}
	quantisedLimits = backendtest.Limits{Logits: 2e-3, Hidden: 2e-3}
)

func TestBundledModels(t *testing.T) {
	needAdapter(t)
	for _, ref := range backendtest.Bundled(t) {
		if ref.Name == "tiny-coder-28m-q4_k_m" {
			ref.Longest = 32 // a CPU that plays the device takes a minute for more
		}
		backendtest.RunReference(t, ref, plainName, quantisedLimits)
	}
}

func TestSharedModels(t *testing.T) {
	needAdapter(t)
	if testing.Short() {
		t.Skip("the bundled models take the same paths in Go")
	}
	for _, ref := range backendtest.Shared(t) {
		limits := quantisedLimits
		if ref.Name == "student-f16" {
			limits = floatLimits
		}
		ref.Longest = 32
		backendtest.RunReference(t, ref, plainName, limits)
	}
}

func TestArchitectures(t *testing.T) {
	needAdapter(t)
	backendtest.RunArchitectures(t, plainName)
}
