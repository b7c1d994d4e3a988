package parity

import (
	"github.com/apr-engine/apr/backend"
)

// Source is one side of a comparison. The executor is opened when it is needed
// and stays the caller's: a probe never closes it.
type Source struct {
	Backend string // registry name: cpu, cpu-exact, cuda
	Device  string
	// Identity is Device.Identity, for certificates.
	Identity string
	// Part is the part of the model that is on the device, if it is not all, for
	// people: "14 of 28 layers". What is compared is the whole model all the same.
	Part string
	// Software says that a CPU plays the device, as lavapipe does: it is waited for
	// SoftwarePatience times as long.
	Software bool
	Open     func() (backend.Executor, error)
}

// Case is what a probe runs.
type Case struct {
	// Tokens is the real prompt.
	Tokens []int32
	// MaxBatch is the most tokens in one step, as generation uses it.
	MaxBatch int
	// Vocab is the length of a row of logits.
	Vocab int
	// Context is the most tokens a sequence may hold; 0 for no limit.
	Context int
	// Full goes on after a violation, for a table of all positions; otherwise the
	// first one ends the probe.
	Full bool
	// Unhurried compares however long the reference takes; otherwise the policy
	// bounds that.
	Unhurried bool
	// Roomy leaves out what keeps a probe's memory small and costs time.
	Roomy bool
	// PromptFirst has Certify give its permission, for the prompt alone, as soon as that
	// has been judged; Complete judges the rest. See Certified.Pending.
	PromptFirst bool
	// Hashes are copied into the verdict.
	Hashes Hashes
}

// referenceName is what texts call the reference: people compare a GPU with the
// CPU, but the CPU's fast path with its exact one.
func referenceName(reference, candidate string) string {
	if candidate == "cuda" || candidate == "wgpu" {
		return "CPU"
	}
	return reference
}
