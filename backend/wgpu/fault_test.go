//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"testing"
	"time"

	_ "github.com/apr-engine/apr/backend/cpu" // the reference
	"github.com/apr-engine/apr/backend/faulttest"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/synth"
)

// gate is patient: a CPU may play the device, compiles each kernel when it first runs,
// and may have other work.
func gate(d *device) faulttest.Gate {
	return faulttest.Gate{Name: Name, Device: d, Deadline: 10 * time.Minute, HangDeadline: 300 * time.Millisecond, Prompt: 96}
}

// The gate validates the sound backend on the bundled models.
func TestGateValidates(t *testing.T) {
	g := gate(needAdapter(t))
	for _, name := range []string{"tiny-coder-4m-q4_k_m", "tiny-coder-28m-q4_k_m"} {
		if testing.Short() && name == "tiny-coder-28m-q4_k_m" {
			continue
		}
		t.Run(name, func(t *testing.T) { g.Validates(t, g.Bundled(t, name)) })
	}
}

// Every fault of the catalogue is rejected on this backend.
func TestFaultsAreRejected(t *testing.T) {
	g := gate(needAdapter(t))
	if testing.Short() {
		t.Skip("takes a minute: runs without -short, in CI and in scripts/gpu/check")
	}
	g.Rejects(t, fault.All(),
		g.Bundled(t, "tiny-coder-4m-q4_k_m"),
		g.Synthetic(t, synth.Options{Preset: "tiny-llama-3.1-8b", Quant: "q4_k_m"}),
		g.Synthetic(t, synth.Options{Preset: "tiny-qwen3-0.6b", Quant: "q8_0", OutlierChannels: 2}),
		g.Synthetic(t, synth.Options{Preset: "tiny-gemma3-1b", Quant: "q4_1"}))
}
