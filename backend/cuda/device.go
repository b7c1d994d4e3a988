package cuda

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
)

// Name is the backend's name in the registry.
const Name = "cuda"

func init() { backend.Register(nvidia{}) }

// What the kernels and the host code need at least.
const (
	minCapability = 80    // Ampere: cp.async, tensor cores with float32 sums
	minDriver     = 11040 // CUDA 11.4: the version of the PTX
)

type nvidia struct{}

// driverGrace is how long a machine without a driver takes to say so.
const driverGrace = 5 * time.Millisecond

func (nvidia) Name() string { return Name }

// Probe opens the driver and lists the GPUs that can be used, in the driver's
// order. Where there is none, the error wraps backend.ErrNoDevice.
func (nvidia) Probe() ([]backend.Device, error) {
	// A driver takes 100 ms to start, enough to look through the kernels; where there is
	// none that is known at once.
	defer time.AfterFunc(driverGrace, func() {
		ptxHash()
		_, _ = images() // once; whoever needs them gets the error
	}).Stop()
	d, err := cuda.Open()
	if err != nil {
		if errors.Is(err, cuda.ErrNoDriver) {
			return nil, fmt.Errorf("%w: %w", backend.ErrNoDevice, err)
		}
		return nil, err
	}
	if d.Version < minDriver {
		return nil, fmt.Errorf("%w: the driver supports CUDA %s, %s is needed", backend.ErrNoDevice, cudaVersion(d.Version), cudaVersion(minDriver))
	}
	list, err := d.Devices()
	if err != nil {
		return nil, err
	}
	var out []backend.Device
	why := "the driver finds no GPU"
	for _, dev := range list {
		if dev.Capability() < minCapability {
			why = fmt.Sprintf("%s has compute capability %d.%d, %d.%d is needed", dev.Name, dev.Major, dev.Minor, minCapability/10, minCapability%10)
			continue
		}
		out = append(out, &device{driver: d, Device: dev})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: %s", backend.ErrNoDevice, why)
	}
	return out, nil
}

// cudaVersion writes the driver's number for people: 13000 is 13.0.
func cudaVersion(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// device is one GPU. It holds nothing open: each executor has a context of its own.
type device struct {
	driver *cuda.Driver
	cuda.Device
}

func (d *device) Name() string { return d.Device.Name }

// Identity also has the number of multiprocessors, which decides how attention is
// split, and the text of all kernels.
func (d *device) Identity() string {
	return fmt.Sprintf("%s sm_%d, %d multiprocessors, driver %s, kernels %016x",
		d.Device.Name, d.Capability(), d.SMs, cudaVersion(d.driver.Version), ptxHash())
}

// Info describes the GPU. What is free of its memory is not known without a
// context, which takes a while to make and memory of its own.
func (d *device) Info() backend.Info {
	return backend.Info{
		Capability: fmt.Sprintf("%d.%d", d.Major, d.Minor),
		Type:       "discrete GPU",
		Driver:     "CUDA " + cudaVersion(d.driver.Version),
		Memory:     d.Memory,
	}
}

func (d *device) Close() error { return nil }

// Load checks that the device can run the program, plans its memory and puts the
// weights there.
func (d *device) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	if o.MaxBatch <= 0 {
		o.MaxBatch = backend.DefaultMaxBatch
	}
	if err := supported(p, w, o); err != nil {
		return nil, err
	}
	watch := &watch{}
	e, err := watch.loaded(func() (*executor, error) { return d.load(p, w, o, watch) })
	if err != nil {
		return nil, err // not an executor that is nil
	}
	return e, nil
}

func (d *device) load(p *graph.Program, w graph.Weights, o backend.Options, watch *watch) (*executor, error) {
	start := time.Now()
	c, err := d.driver.NewContext(d.Device)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backend.ErrLost, err)
	}
	slog.Debug("cuda: context", "took", time.Since(start))
	e, err := newExecutor(c, p, o)
	if err == nil {
		e.watch = watch
		err = c.Do(func() error { return e.load(w) })
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return e, nil
}
