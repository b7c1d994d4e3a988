package engine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/split"
	"github.com/apr-engine/apr/parity"
)

// splits reports whether a backend gets the last layers of the model only, as
// Options.GPULayers says; the CPU runs the others.
func (g *gate) splits(name string) bool {
	n := g.options.GPULayers
	return n > 0 && n < g.m.Program.Layers() && slices.Contains(gpuChain, name)
}

// place makes the device that a backend's model is loaded on: the one that was
// found, with injected faults, or that one with a CPU for the first layers. The
// gate judges what comes out of both.
func (g *gate) place(name string, found backend.Device) (backend.Device, error) {
	device := g.wrap(name, name, found)
	if !g.splits(name) {
		return device, nil
	}
	host, err := firstDevice(hostBackend)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the first layers: %w", err), device.Close())
	}
	return split.New(g.wrap(name, hostBackend, host), device, g.options.GPULayers), nil
}

// hostBackend runs the layers that are not on the GPU.
const hostBackend = "cpu"

// layersOn is how many of the model's layers a backend's device runs.
func (g *gate) layersOn(name string) int {
	switch {
	case !slices.Contains(gpuChain, name):
		return 0
	case g.splits(name):
		return g.options.GPULayers
	}
	return g.m.Program.Layers()
}

// part says which part of the model is on a GPU that has not all of it: "14 of 28
// layers".
func (g *gate) part(name string) string {
	if !g.splits(name) {
		return ""
	}
	return partText(g.options.GPULayers, g.m.Program.Layers())
}

// adviseLayers adds to a refusal for lack of memory how many layers would fit.
func (m *Model) adviseLayers(err error) error {
	var short *backend.MemoryError
	if !errors.As(err, &short) || short.Layers == 0 {
		return err
	}
	return fmt.Errorf("%w; %d of %d layers would fit: try --gpu-layers %d", err, short.Layers, m.Program.Layers(), short.Layers)
}

// patience is how many times longer a device may take than one whose work is all on
// a GPU: a CPU plays it, or does a part.
func (c loaded) patience() int {
	if backend.Describe(c.device).Software || c.part != "" {
		return parity.SoftwarePatience
	}
	return 1
}
