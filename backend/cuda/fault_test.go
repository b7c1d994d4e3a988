package cuda

import (
	"slices"
	"testing"
	"time"

	_ "github.com/apr-engine/apr/backend/cpu" // the reference
	"github.com/apr-engine/apr/backend/faulttest"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/synth"
)

func gate(t *testing.T) faulttest.Gate {
	g := faulttest.Gate{Name: Name, Device: probe(t), Deadline: parity.Standard().Probe.Deadline, HangDeadline: 2 * time.Second, Prompt: 96}
	if emutest.Emulated() {
		g.Deadline = time.Hour // the emulation is no slower device, it is none
	}
	if !long() {
		g.Prompt = 40
	}
	return g
}

func TestGateValidates(t *testing.T) {
	g := gate(t)
	names := []string{"tiny-coder-4m-q4_k_m"}
	if long() {
		names = append(names, "tiny-coder-28m-q4_k_m")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) { g.Validates(t, g.Bundled(t, name)) })
	}
}

// Every fault of the catalogue is rejected on this backend.
func TestFaultsAreRejected(t *testing.T) {
	g := gate(t)
	small := g.Synthetic(t, synth.Options{Preset: "tiny-llama-3.1-8b", Quant: "q4_k_m"})
	if long() {
		g.Rejects(t, fault.All(), g.Bundled(t, "tiny-coder-4m-q4_k_m"), small,
			g.Synthetic(t, synth.Options{Preset: "tiny-qwen3-0.6b", Quant: "q8_0", OutlierChannels: 2}),
			g.Synthetic(t, synth.Options{Preset: "tiny-gemma3-1b", Quant: "q4_1"}))
		return
	}
	faults := slices.DeleteFunc(fault.All(), func(f fault.Fault) bool { return !sampled[f.Name] })
	if len(faults) != len(sampled) {
		t.Errorf("%d faults are to be tried, the catalogue has %d of them", len(sampled), len(faults))
	}
	g.Rejects(t, faults, small)
}

// sampled are the faults that the emulation tries.
var sampled = map[string]bool{"rope-decode-late": true, "operation-dropped": true}
