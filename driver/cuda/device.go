package cuda

import (
	"fmt"
	"unsafe"
)

// Device describes one GPU.
type Device struct {
	Index int
	Name  string
	// UUID identifies the card: "GPU-…" as nvidia-smi prints it.
	UUID string
	// Major and Minor are the compute capability: 9.0 is Hopper.
	Major, Minor int
	// Memory is the card's memory in bytes.
	Memory int64
	// SMs is the number of multiprocessors.
	SMs int
	// SharedMemory is the most shared memory that one block can ask for, bytes.
	SharedMemory int
	// L2 is the size of the second-level cache, bytes.
	L2 int

	handle int32
}

// Capability is the compute capability as one number: 90 for 9.0.
func (d Device) Capability() int { return 10*d.Major + d.Minor }

// Device attributes (CUdevice_attribute).
const (
	attrSMs          = 16
	attrL2           = 38
	attrMajor        = 75
	attrMinor        = 76
	attrSharedOptin  = 97
	maxDeviceNameLen = 256
)

// Devices lists the GPUs in the driver's order, which CUDA_VISIBLE_DEVICES
// changes. No GPU is an empty list.
func (d *Driver) Devices() ([]Device, error) {
	n := new(int32)
	if err := d.call("cuDeviceGetCount", d.deviceGetCount, uintptr(unsafe.Pointer(n))); err != nil {
		if IsCode(err, NoDevice) {
			return nil, nil
		}
		return nil, err
	}
	var list []Device
	for i := range int(*n) {
		dev, err := d.device(i)
		if err != nil {
			return nil, fmt.Errorf("device %d: %w", i, err)
		}
		list = append(list, dev)
	}
	return list, nil
}

func (d *Driver) device(i int) (Device, error) {
	out := Device{Index: i}
	handle, memory := new(int32), new(uint64)
	name, uuid := make([]byte, maxDeviceNameLen), make([]byte, 16)
	if err := d.call("cuDeviceGet", d.deviceGet, uintptr(unsafe.Pointer(handle)), uintptr(i)); err != nil {
		return out, err
	}
	out.handle = *handle
	if err := d.call("cuDeviceGetName", d.deviceGetName, uintptr(unsafe.Pointer(&name[0])), maxDeviceNameLen-1, uintptr(*handle)); err != nil {
		return out, err
	}
	if err := d.call("cuDeviceTotalMem", d.deviceTotalMem, uintptr(unsafe.Pointer(memory)), uintptr(*handle)); err != nil {
		return out, err
	}
	if err := d.call("cuDeviceGetUuid", d.deviceGetUUID, uintptr(unsafe.Pointer(&uuid[0])), uintptr(*handle)); err != nil {
		return out, err
	}
	out.Name, out.Memory = cString(&name[0]), int64(*memory)
	out.UUID = fmt.Sprintf("GPU-%x-%x-%x-%x-%x", uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:])
	for attr, to := range map[int]*int{attrSMs: &out.SMs, attrL2: &out.L2, attrMajor: &out.Major, attrMinor: &out.Minor, attrSharedOptin: &out.SharedMemory} {
		v := new(int32)
		if err := d.call("cuDeviceGetAttribute", d.deviceGetAttribute, uintptr(unsafe.Pointer(v)), uintptr(attr), uintptr(*handle)); err != nil {
			return out, err
		}
		*to = int(*v)
	}
	return out, nil
}
