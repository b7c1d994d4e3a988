package cuda

import (
	"testing"

	"github.com/apr-engine/apr/backend/backendtest"
)

// conformance is the difference allowed between steps of different sizes: few tokens
// are multiplied as 16-bit integers, many as f16, whose rounding, 2^-12 of each
// activation and weight, remains in the logits as some 7e-4.
const conformance = 2e-3

func TestConformance(t *testing.T) { backendtest.Conformance(t, Name, conformance) }
