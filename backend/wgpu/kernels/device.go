package kernels

import "github.com/apr-engine/apr/driver/wgpu"

// Device is what kernels may use. Leaving out abilities that a device has gives
// slower kernels with the same results.
type Device struct {
	F16, Subgroups bool
	// Software says that a CPU plays the device: small kernels are chosen.
	Software bool
	// SubgroupMin is the size of the smallest subgroup.
	SubgroupMin int
	// Invocations, WorkgroupMemory (bytes), StorageBuffers and Workgroups are limits.
	Invocations, WorkgroupMemory, StorageBuffers, Workgroups int
}

// DeviceOf is all that an open device offers, as far as the driver tells; the size of
// subgroups is better found with SubgroupProbe.
func DeviceOf(i wgpu.Info) Device {
	return Device{
		Software: i.Type == wgpu.CPU,
		F16:      i.Features.F16, Subgroups: i.Features.Subgroups && i.SubgroupMin > 1, SubgroupMin: i.SubgroupMin,
		Invocations: min(i.Limits.Invocations, i.Limits.WorkgroupX), WorkgroupMemory: i.Limits.WorkgroupMemory,
		StorageBuffers: i.Limits.StorageBuffers, Workgroups: i.Limits.Workgroups,
	}
}

// spread divides n workgroups into a plane, whose axes are limited.
func (d Device) spread(n int) [3]int {
	if n <= d.Workgroups {
		return [3]int{n, 1, 1}
	}
	rows := (n + d.Workgroups - 1) / d.Workgroups
	return [3]int{(n + rows - 1) / rows, rows, 1}
}
