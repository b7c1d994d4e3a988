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

// Every fault of the catalogue is rejected on this backend. The emulation tries all but
// those that show at position 500 alone, which take it minutes each, on smaller models
// with short probes.
func TestFaultsAreRejected(t *testing.T) {
	g := gate(t)
	if long() {
		g.Rejects(t, fault.All(), g.Bundled(t, "tiny-coder-4m-q4_k_m"),
			g.Synthetic(t, synth.Options{Preset: "tiny-llama-3.1-8b", Quant: "q4_k_m"}),
			g.Synthetic(t, synth.Options{Preset: "tiny-qwen3-0.6b", Quant: "q8_0", OutlierChannels: 2}),
			g.Synthetic(t, synth.Options{Preset: "tiny-gemma3-1b", Quant: "q4_1"}))
		return
	}
	g.Prompt, g.Decode = 12, 4
	const vocab = 512
	faults := slices.DeleteFunc(fault.All(), func(f fault.Fault) bool { return slowFaults[f.Name] })
	if n := len(fault.All()) - len(faults); n != len(slowFaults) {
		t.Errorf("%d of %d faults left out are in the catalogue", n, len(slowFaults))
	}
	g.Rejects(t, faults,
		g.Synthetic(t, synth.Options{Preset: "tiny-qwen2.5-0.5b", Quant: "q8_0", VocabSize: vocab}),
		g.Synthetic(t, synth.Options{Preset: "tiny-llama-3.2-1b", Quant: "q4_k_m", VocabSize: vocab}),
		g.Synthetic(t, synth.Options{Preset: "tiny-qwen3-0.6b", Quant: "q8_0", OutlierChannels: 2, VocabSize: vocab}),
		g.Synthetic(t, synth.Options{Preset: "tiny-gemma3-1b", Quant: "q4_1", VocabSize: vocab}))
}

// slowFaults are not tried on the emulation: they begin late, or, rope-scaling-ignored,
// show in longer prompts. A real GPU tries them.
var slowFaults = map[string]bool{"after-500": true, "late-token": true, "racing-tile": true, "rope-scaling-ignored": true}
