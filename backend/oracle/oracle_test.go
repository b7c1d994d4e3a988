package oracle_test

import (
	"testing"

	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/oracle"
)

// limits: the references are float64 (quantised files) or PyTorch's float32,
// whose own noise is up to 6e-6 here; the oracle rounds between operations only.
var limits = backendtest.Limits{Logits: 1e-5, Hidden: 1e-5}

func TestBundledModels(t *testing.T) {
	for _, ref := range backendtest.Bundled(t) {
		backendtest.RunReference(t, ref, oracle.Name, limits)
	}
}

func TestSharedModels(t *testing.T) {
	for _, ref := range backendtest.Shared(t) {
		backendtest.RunReference(t, ref, oracle.Name, limits)
	}
}

func TestArchitectures(t *testing.T) { backendtest.RunArchitectures(t, oracle.Name) }

// The oracle adds in one order, whatever the step.
func TestConformance(t *testing.T) { backendtest.Conformance(t, oracle.Name, 0) }
