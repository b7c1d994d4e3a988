package cpu_test

import (
	"testing"

	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/cpu"
)

// exactLimits: float32 arithmetic throughout, as PyTorch's; llama.cpp in
// float32 is at 7e-6 on the same files.
var exactLimits = backendtest.Limits{Logits: 1e-5, Hidden: 1e-5}

// fastLimits: 16-bit activations leave a rounding of 1.5e-5 of a block's
// largest element; llama.cpp's 8-bit activations are at 5.9e-2.
var fastLimits = backendtest.Limits{Logits: 2e-3, Hidden: 2e-3}

func TestExactBundled(t *testing.T) {
	for _, ref := range backendtest.Bundled(t) {
		backendtest.RunReference(t, ref, cpu.ExactName, exactLimits)
	}
}

func TestExactShared(t *testing.T) {
	for _, ref := range backendtest.Shared(t) {
		backendtest.RunReference(t, ref, cpu.ExactName, exactLimits)
	}
}

func TestFastBundled(t *testing.T) {
	for _, ref := range backendtest.Bundled(t) {
		backendtest.RunReference(t, ref, cpu.Name, fastLimits)
	}
}

func TestFastShared(t *testing.T) {
	for _, ref := range backendtest.Shared(t) {
		backendtest.RunReference(t, ref, cpu.Name, fastLimits)
	}
}

func TestArchitectures(t *testing.T) { backendtest.RunArchitectures(t, cpu.ExactName) }

// The float32 kernels add in one order, whatever the step.
func TestExactConformance(t *testing.T) { backendtest.Conformance(t, cpu.ExactName, 0) }

// One token and many run different kernels, which add float32 partial sums in
// different orders; a last-bit difference can move an activation to the next
// 16-bit step, so the two agree to the rounding of the activations.
func TestFastConformance(t *testing.T) { backendtest.Conformance(t, cpu.Name, 5e-4) }
