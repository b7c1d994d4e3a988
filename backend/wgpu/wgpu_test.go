//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"os"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
)

// restricted are the backend without abilities that adapters may lack.
const (
	plainName = "wgpu-plain" // no subgroups, no half precision
	tightName = "wgpu-tight" // small bindings, so that weights are cut
)

func TestMain(m *testing.M) {
	backend.Register(wgpu{plainName, func(s *settings) { s.Subgroups, s.F16 = false, false }})
	backend.Register(wgpu{tightName, func(s *settings) { s.Binding = 150_000 }})
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
	t.Skip(err)
	return nil
}

// batch is the relative RMS difference allowed between ways to compute the same
// logits: sums of float32 in the same order, but by differently compiled code.
const batch = 2e-6

func TestConformance(t *testing.T) {
	needAdapter(t)
	backendtest.Conformance(t, Name, batch)
}

// limits: float32 arithmetic with other orders of summing than the reference's.
var limits = backendtest.Limits{Logits: 1e-5, Hidden: 1e-5}

func TestBundledModels(t *testing.T) {
	needAdapter(t)
	for _, ref := range backendtest.Bundled(t) {
		backendtest.RunReference(t, ref, Name, limits)
	}
}

func TestSharedModels(t *testing.T) {
	needAdapter(t)
	for _, ref := range backendtest.Shared(t) {
		backendtest.RunReference(t, ref, Name, limits)
	}
}

func TestArchitectures(t *testing.T) {
	needAdapter(t)
	backendtest.RunArchitectures(t, Name)
}
