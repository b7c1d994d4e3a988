package backend

import (
	"errors"
	"fmt"
	"slices"
)

// What backends for hardware implement beside Backend, Device and Executor. All
// of it is optional; the CPU needs none of it.
//
// For authors of GPU backends (cuda, wgpu):
//   - Register with Register and the name "cuda" or "wgpu"; nothing may be opened
//     before Probe, Driver or SelfTest is called. `apr --no-gpu` calls none of them.
//   - Probe returns every device it finds, software renderers included, in the
//     driver's order. If there is nothing to drive (no library, no device, a driver
//     too old) it returns an error that wraps ErrNoDevice and says why in a few
//     words: "libcuda.so.1 not found". Any other error counts as a broken driver
//     and is told to the user.
//   - Devices implement Described, so that `apr devices` can list them, --device can
//     choose, and `Backend: wgpu (Vulkan)` can be printed.
//   - If loading the library or using the driver can kill or hang the process, the
//     backend implements Isolated: it is then tried in a child process before the
//     first use.
//   - Step returns an error that wraps ErrLost when the device is gone: illegal
//     address, ECC, out of memory, device lost, a wait that timed out. The engine
//     then takes the step back, closes the executor (Close must not wait for the
//     device for ever) and goes on with the next backend.

// Errors of hardware, for errors.Is.
var (
	// ErrNoDevice marks a backend that finds nothing to drive on this machine. That
	// is no fault: the chain goes on without a word, --verbose tells the reason.
	ErrNoDevice = errors.New("no device")
	// ErrLost marks a device that failed and computes nothing more in this process.
	ErrLost = errors.New("device lost")
)

// MemoryError is the refusal of a program that a device has too little memory for.
// It is an ErrUnsupported.
type MemoryError struct {
	Need, Free int64 // bytes
	// Layers is how many of the program's last layers would fit, with the output
	// matrix and a cache (graph.Program.Cut); 0 if not even one does.
	Layers int
	Text   string // for people, with what is needed for what
}

func (e *MemoryError) Error() string { return fmt.Sprintf("%v: %s", ErrUnsupported, e.Text) }

// Unwrap makes it an ErrUnsupported.
func (e *MemoryError) Unwrap() error { return ErrUnsupported }

// Info describes a device to people. Empty and zero fields are unknown.
type Info struct {
	// API is the interface that the device is driven through where a backend has
	// several: "Vulkan", "Metal", "DX12".
	API string `json:"api,omitempty"`
	// Capability is what decides about kernels: "9.0" for a CUDA device.
	Capability string `json:"capability,omitempty"`
	// Type is the kind of hardware: "discrete GPU", "integrated GPU", "CPU".
	Type string `json:"type,omitempty"`
	// Driver names the driver and its version: "580.95.05", "Mesa 25.0.7 (lavapipe)".
	Driver string `json:"driver,omitempty"`
	// Memory is the device's memory in bytes, Free what is free of it now.
	Memory int64 `json:"memory,omitempty"`
	Free   int64 `json:"free,omitempty"`
	// Software says that a CPU plays the device (lavapipe, SwiftShader). Such a
	// device is used only if the user names it.
	Software bool `json:"software,omitempty"`
	// Limits are what may restrict models, such as the largest binding.
	Limits []Limit `json:"limits,omitempty"`
}

// Limit is a named limit of a device, in the unit its name says or implies.
type Limit struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// Described is a device that can tell what it is. Info must be cheap and must
// not need a loaded model.
type Described interface{ Info() Info }

// Wrapper is a device round another one.
type Wrapper interface{ Unwrap() Device }

// Describe returns what a device tells about itself, or the device it wraps.
func Describe(d Device) Info {
	for d != nil {
		if i, ok := d.(Described); ok {
			return i.Info()
		}
		w, ok := d.(Wrapper)
		if !ok {
			break
		}
		d = w.Unwrap()
	}
	return Info{}
}

// Isolated is a backend whose driver may kill or hang the process. Before its
// first use with a driver and build it is tried in a child process, which calls
// Probe and then SelfTest of the device that would serve; what the child prints
// to stderr before it dies is shown to the user.
type Isolated interface {
	// Driver identifies the driver and its devices as far as that is possible
	// without loading its library: paths, sizes and times of libraries, what the
	// kernel tells about cards. A trial holds for one such text, so where nothing
	// is installed it says that ("none"). Empty means that nothing is known, and
	// then the driver is tried each time.
	Driver() string
}

// SelfTester is a device that can check itself: it runs each of its kernels on a
// small case and compares the result with plain Go. It needs no model and takes
// at most some seconds.
type SelfTester interface{ SelfTest() error }

// SelfTest runs a device's own test; nil if it has none.
func SelfTest(d Device) error {
	for d != nil {
		if t, ok := d.(SelfTester); ok {
			return t.SelfTest()
		}
		w, ok := d.(Wrapper)
		if !ok {
			break
		}
		d = w.Unwrap()
	}
	return nil
}

// Registered returns the registered backends, sorted by name.
func Registered() []Backend {
	all := slices.Clone(registry)
	slices.SortFunc(all, func(a, b Backend) int {
		if a.Name() < b.Name() {
			return -1
		}
		return 1
	})
	return all
}
