package cuda

import (
	"os"
	"testing"

	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/driver/cuda/emutest"
)

func TestMain(m *testing.M) { os.Exit(emutest.Main(m)) }

func TestConformance(t *testing.T) { backendtest.Conformance(t, Name, 5e-4) }
