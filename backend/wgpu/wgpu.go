//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/wgpu/kernels"
	driver "github.com/apr-engine/apr/driver/wgpu"
)

// Name is the backend's name in the registry.
const Name = "wgpu"

func init() { backend.Register(wgpu{name: Name}) }

// wgpu is the backend. restrict takes abilities away, for tests.
type wgpu struct {
	name     string
	restrict func(*settings)
}

func (w wgpu) Name() string { return w.name }

// AdapterEnv names the environment variable that keeps all adapters but those
// whose name contains its text from being seen.
const AdapterEnv = "APR_WGPU_ADAPTER"

// Probe lists the adapters, software renderers included.
func (w wgpu) Probe() ([]backend.Device, error) {
	adapters, err := driver.Adapters()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backend.ErrNoDevice, err)
	}
	var list []backend.Device
	only := os.Getenv(AdapterEnv)
	for _, a := range adapters {
		if strings.Contains(a.Name, only) {
			list = append(list, &device{adapter: a, restrict: w.restrict})
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: no Vulkan, Metal or DX12 adapter%s", backend.ErrNoDevice, withName(only))
	}
	return list, nil
}

func withName(only string) string {
	if only == "" {
		return ""
	}
	return fmt.Sprintf(" whose name contains %s=%q", AdapterEnv, only)
}

// device is an adapter.
type device struct {
	adapter  *driver.Adapter
	restrict func(*settings)
}

func (d *device) Name() string { return d.adapter.Name }

// Info describes the adapter. WebGPU does not tell how much memory it has.
func (d *device) Info() backend.Info {
	a := d.adapter
	return backend.Info{
		API: string(a.API), Type: string(a.Type), Driver: a.Driver, Software: a.Type == driver.CPU,
		Limits: []backend.Limit{
			{Name: "largest buffer", Value: int64(min(a.Limits.Buffer, 1<<62))},
			{Name: "largest binding", Value: int64(min(a.Limits.Binding, 1<<62))},
			{Name: "workgroup memory", Value: int64(a.Limits.WorkgroupMemory)},
			{Name: "threads a workgroup", Value: int64(a.Limits.Invocations)},
		},
	}
}

// settings are what the adapter allows.
func (d *device) settings() settings {
	a := d.adapter
	s := settings{
		// A CPU that plays the device converts every half-precision number one by one.
		F16: a.Features.F16 && a.Type != driver.CPU, Subgroups: a.Features.Subgroups,
		Binding: a.Limits.Binding, Buffer: a.Limits.Buffer,
	}
	if d.restrict != nil {
		d.restrict(&s)
	}
	return s
}

// Identity names the adapter, its driver, the library, the shaders and which
// variants of them are used.
func (d *device) Identity() string {
	a := d.adapter
	return fmt.Sprintf("%s, %s %04x:%04x %s, wgpu-native %s, shaders %016x %+v", a.Name, a.API, a.Vendor, a.Device, a.Driver, driver.Version(), shaderHash(), d.settings())
}

// Close leaves the adapter to others that use it.
func (d *device) Close() error { return nil }

// opened are the devices of this process. They stay open with their kernels,
// which cost far more to compile than to keep.
var opened = struct {
	sync.Mutex
	gpus map[openKey]*gpu
}{gpus: map[openKey]*gpu{}}

type openKey struct {
	adapter *driver.Adapter
	settings
}

// open returns the adapter's device, a new one if it was lost.
func (d *device) open() (*gpu, error) {
	if d.adapter.Limits.Invocations < 64 || d.adapter.Limits.StorageBuffers < 6 {
		return nil, fmt.Errorf("%w: %s allows %d threads a workgroup and %d bindings, need 64 and 8", backend.ErrUnsupported,
			d.adapter.Name, d.adapter.Limits.Invocations, d.adapter.Limits.StorageBuffers)
	}
	opened.Lock()
	defer opened.Unlock()
	key := openKey{d.adapter, d.settings()}
	if g := opened.gpus[key]; g != nil && g.Err() == nil {
		return g, nil
	}
	dev, err := d.adapter.Open(driver.Features{F16: key.F16, Subgroups: key.Subgroups, Timestamps: true})
	if err != nil {
		return nil, err
	}
	dev.Spin = dev.Type != driver.CPU
	g := newGPU(dev, key.settings)
	if err := g.probeSubgroups(); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	opened.gpus[key] = g
	return g, nil
}

// probeSubgroups finds out how large subgroups are. Where sizes differ or threads
// are not in order, no shader uses them.
func (g *gpu) probeSubgroups() error {
	g.caps.F16 = g.F16
	if !g.Subgroups {
		g.caps.Subgroups = false
		return nil
	}
	k := kernels.SubgroupProbe()
	p, err := g.compiled(k.Desc(true))
	if err != nil {
		return err
	}
	b, err := g.NewBuffer(kernels.ProbeBytes, driver.Storage|driver.CopySrc)
	if err != nil {
		return err
	}
	defer b.Release()
	staging, err := g.NewBuffer(kernels.ProbeBytes, driver.MapRead|driver.CopyDst)
	if err != nil {
		return err
	}
	defer staging.Release()
	group, err := g.NewGroup(p, driver.Whole(b))
	if err != nil {
		return err
	}
	defer group.Release()
	if err := g.settle(); err != nil {
		return err
	}
	c := g.Begin()
	c.Dispatch(p, group, k.Grid[0], k.Grid[1], k.Grid[2])
	c.Copy(staging, 0, b, 0, kernels.ProbeBytes)
	if err := c.Submit(); err != nil {
		return err
	}
	result := make([]byte, kernels.ProbeBytes)
	if err := g.Read(staging, 0, result); err != nil {
		return err
	}
	size := kernels.SubgroupSize(result)
	g.Subgroups = size >= 4 && size <= 64
	g.caps.Subgroups, g.caps.SubgroupMin = g.Subgroups, size
	return nil
}

// lost marks errors of a device that computes nothing more.
func lost(err error) error {
	switch {
	case err == nil || errors.Is(err, backend.ErrLost):
		return err
	case errors.Is(err, driver.ErrLost):
		return gone{err}
	}
	return fmt.Errorf("%w: %w", backend.ErrLost, err)
}

// gone is an error of the driver that says already that the device is lost.
type gone struct{ error }

func (e gone) Unwrap() []error { return []error{backend.ErrLost, e.error} }
