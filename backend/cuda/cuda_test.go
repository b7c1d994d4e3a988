package cuda

import (
	"testing"

	"github.com/apr-engine/apr/backend/backendtest"
)

func TestConformance(t *testing.T) { backendtest.Conformance(t, Name, 5e-4) }
