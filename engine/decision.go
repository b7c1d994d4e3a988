package engine

import (
	"fmt"
	"strings"

	"github.com/apr-engine/apr/parity"
)

// Decision is what became of one backend of the chain.
type Decision struct {
	Backend string `json:"backend"`
	Device  string `json:"device,omitempty"`
	// Accepted says that the backend serves, or served until a later decision.
	Accepted bool `json:"accepted"`
	// Status is the gate's verdict, Basis what it rests on: a probe, a
	// certificate, being the reference, an override; empty if there was no verdict.
	Status parity.Status `json:"status"`
	Basis  parity.How    `json:"basis,omitempty"`
	// Reason says why a backend was rejected.
	Reason string `json:"reason,omitempty"`
	// Line is what people are told about it on stderr; empty for nothing.
	Line string `json:"line,omitempty"`

	absent bool // there is no device
}

// Unavailable is what people who ask for details are told about a backend that
// found nothing to drive; empty for other decisions.
func (d Decision) Unavailable() string {
	if d.Accepted || d.Line != "" || d.Status != parity.NotMeasured || !d.absent {
		return ""
	}
	return unavailable(d.Backend, d.Reason)
}

func unavailable(name, reason string) string {
	return fmt.Sprintf("%s: not available (%s)", pathName(name), reason)
}

// Selection is how the serving backend was found. Lines on stderr and JSON are
// both made from it.
type Selection struct {
	Requested string `json:"requested"`
	Ran       string `json:"ran"`
	// GPULayers of the model's Layers run on the GPU, the others on the CPU; 0 if
	// the backend is the CPU.
	GPULayers int  `json:"gpu_layers"`
	Layers    int  `json:"layers"`
	FellBack  bool `json:"fell_back"`
	// Verified says that the serving backend was compared with the reference, as far
	// as it was used, or is the reference.
	Verified bool `json:"verified"`
	// VerifiedContext is how many tokens a compared sequence held; 0 for the
	// reference and for what was not compared.
	VerifiedContext int        `json:"verified_context,omitempty"`
	Decisions       []Decision `json:"decisions"`
}

// Part is the part of the model on the GPU where the CPU runs the rest: "14 of 28
// layers"; else empty.
func (s Selection) Part() string {
	if s.GPULayers == 0 || s.GPULayers == s.Layers {
		return ""
	}
	return partText(s.GPULayers, s.Layers)
}

func partText(layers, all int) string { return fmt.Sprintf("%d of %d layers", layers, all) }

// DisplayName is a backend's name for people; api is the graphics interface of
// backends that have several.
func DisplayName(name, api string) string {
	switch name {
	case "cuda":
		name = "CUDA"
	case "cpu":
		name = "CPU"
	case "cpu-exact":
		name = "CPU (exact)"
	}
	if api != "" {
		return fmt.Sprintf("%s (%s)", name, api)
	}
	return name
}

// placeName is the display name with the part of the model that runs there, if it
// is not all: "CUDA (14 of 28 layers)".
func placeName(name, api, part string) string {
	switch {
	case part == "":
		return DisplayName(name, api)
	case api == "":
		return DisplayName(name, part)
	}
	return DisplayName(name, api+", "+part)
}

// pathName is the display name without the graphics interface.
func pathName(name string) string {
	if name == "cpu-exact" {
		return "CPU exact"
	}
	return DisplayName(name, "")
}

// oneLine joins what a driver says in several lines: a reason is one line.
func oneLine(reason string) string { return strings.Join(strings.Fields(reason), " ") }

// rejectedLine and acceptedLine are the contract's words; scripts read them.
func rejectedLine(name, reason string) string {
	return fmt.Sprintf("[%s] %s path rejected, attempting fallback: %s", parity.Tag, pathName(name), oneLine(reason))
}

func acceptedLine(name, api, part string) string { return "Backend: " + placeName(name, api, part) }

// refusedLine is for a backend that was asked for by name: there is no fallback.
func refusedLine(name, reason string) string {
	return fmt.Sprintf("[%s] %s path rejected, no fallback: %s", parity.Tag, pathName(name), oneLine(reason))
}

// unjudgedLine is for a context that takes too long to compare.
func unjudgedLine(name string, context int, reason string) string {
	return fmt.Sprintf("[%s] %s path is not verified beyond %d tokens of context: %s", parity.Tag, pathName(name), context, oneLine(reason))
}

// overrideLine is printed each time the gate is bypassed.
func overrideLine(name, why string) string {
	return fmt.Sprintf("override: the parity gate is off (%s); %s runs unverified", why, pathName(name))
}
