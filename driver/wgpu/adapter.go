//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"
)

// Errors by kind, for errors.Is.
var (
	// ErrLost marks a device that is gone: reset, unplugged, destroyed.
	ErrLost = errors.New("device lost")
	// ErrMemory marks an allocation that the device refused.
	ErrMemory = errors.New("out of device memory")
	// ErrInvalid marks a call that breaks WebGPU's rules, or a shader that does
	// not compile: a mistake of ours, or of the library's.
	ErrInvalid = errors.New("wgpu validation error")
)

// errorOf makes an error of one line of what the library reports in several. It
// calls a lost device, and memory that the driver had not, a validation error of
// whatever was tried.
func errorOf(kind uint32, text string) error {
	text = strings.Join(strings.Fields(text), " ")
	switch {
	case strings.Contains(text, "device is lost"):
		return lostError(text)
	case kind == errorMemory || strings.Contains(text, "Not enough memory"):
		return fmt.Errorf("%w: %s", ErrMemory, text)
	}
	return fmt.Errorf("%w: %s", ErrInvalid, text)
}

func lostError(text string) error { return fmt.Errorf("%w: %s", ErrLost, text) }

// API is the graphics interface under WebGPU.
type API string

// The interfaces that run compute shaders.
const (
	Vulkan API = "Vulkan"
	Metal  API = "Metal"
	DX12   API = "DX12"
	GL     API = "OpenGL"
)

var apis = map[uint32]API{4: DX12, 5: Metal, 6: Vulkan, 7: GL, 8: GL}

// Type says what an adapter is.
type Type string

// Types of adapter.
const (
	Discrete   Type = "discrete GPU"
	Integrated Type = "integrated GPU"
	CPU        Type = "CPU" // a software renderer
	Unknown    Type = "unknown"
)

var types = map[uint32]Type{1: Discrete, 2: Integrated, 3: CPU}

// Info describes an adapter.
type Info struct {
	Name   string // "llvmpipe (LLVM 15.0.6, 256 bits)"
	API    API
	Type   Type
	Driver string // name and version, as far as the driver tells
	Vendor uint32 // PCI id
	Device uint32 // PCI id
	// SubgroupMin and SubgroupMax bound the size of a subgroup; 0 if unknown.
	SubgroupMin, SubgroupMax int
	Limits                   Limits
	Features                 Features
}

// Limits are what an adapter allows, in bytes where not said otherwise.
type Limits struct {
	Buffer           uint64 // largest buffer
	Binding          uint64 // largest part of a buffer that a shader sees at once
	BindingAlignment uint64 // of a binding's offset in its buffer
	StorageBuffers   int    // bindings a shader
	WorkgroupMemory  int
	Invocations      int // threads a workgroup
	WorkgroupX       int // threads along its first axis
	Workgroups       int // along each axis of a dispatch
}

// Features are the optional abilities of an adapter, or those asked of a device.
type Features struct {
	F16        bool // half-precision arithmetic and storage in shaders
	Subgroups  bool
	Timestamps bool // inside a pass
}

// Numbers of the features (WGPUFeatureName and WGPUNativeFeature).
const (
	featureTimestamps       = 9
	featureF16              = 0xB
	featureSubgroups        = 0x30021
	featureTimestampsInPass = 0x30025
)

// Adapter is a device that the library can open.
type Adapter struct {
	Info
	handle uintptr
}

// enumerate lists the adapters once a process: the instance stays.
var enumerate = sync.OnceValues(func() ([]*Adapter, error) {
	if err := load(); err != nil {
		return nil, err
	}
	// A Vulkan layer of Mesa looks for a desktop to sort adapters by, and where
	// there is none it says so on stderr. The order means nothing here.
	if os.Getenv(mesaLayer) == "" {
		os.Setenv(mesaLayer, "1")
		defer os.Unsetenv(mesaLayer)
	}
	// Vulkan 1, Metal 4, DX12 8; OpenGL's compute shaders lack too much.
	extras := &instanceExtras{chain: chain{sType: sTypeInstanceExtras}, backends: 1 | 4 | 8}
	d := &instanceDescriptor{next: unsafe.Pointer(extras)}
	instance := call(proc.createInstance, uintptr(unsafe.Pointer(d)))
	runtime.KeepAlive(extras)
	if err := given(); err != nil {
		return nil, err
	}
	if instance == 0 {
		return nil, fmt.Errorf("%w: no instance", ErrUnavailable)
	}
	options := &[2]uint64{0, 1 | 4 | 8}
	n := call(proc.enumerateAdapters, instance, uintptr(unsafe.Pointer(options)), 0)
	if n == 0 {
		return nil, nil
	}
	handles := make([]uintptr, n)
	n = call(proc.enumerateAdapters, instance, uintptr(unsafe.Pointer(options)), uintptr(unsafe.Pointer(&handles[0])))
	var list []*Adapter
	for _, h := range handles[:n] {
		list = append(list, &Adapter{describe(h), h})
	}
	return list, nil
})

// mesaLayer keeps the layer out if it is set.
const mesaLayer = "NODEVICE_SELECT"

// Adapters lists the adapters of this machine; none if it has no driver. It
// loads the library.
func Adapters() ([]*Adapter, error) { return enumerate() }

func describe(h uintptr) Info {
	in := new(adapterInfo)
	call(proc.adapterInfo, h, uintptr(unsafe.Pointer(in)))
	info := Info{
		Name: in.device.text(), API: apis[in.backendType], Type: types[in.adapterType], Driver: in.description.text(),
		Vendor: in.vendorID, Device: in.deviceID, SubgroupMin: int(in.subgroupMin), SubgroupMax: int(in.subgroupMax),
		Limits: limitsOf(h), Features: featuresOf(h),
	}
	// The texts stay: the function that frees them takes the structure by value, on the
	// stack, and they are some hundred bytes, once a process.
	if info.Type == "" {
		info.Type = Unknown
	}
	return info
}

func rawLimits(h uintptr) *limits {
	l := new(limits)
	call(proc.adapterLimits, h, uintptr(unsafe.Pointer(l)))
	l.next = nil
	return l
}

func limitsOf(h uintptr) Limits {
	l := rawLimits(h)
	return Limits{
		Buffer: l.bufferSize, Binding: l.storageBinding, BindingAlignment: uint64(l.storageAlignment),
		StorageBuffers: int(l.storageBuffers), WorkgroupMemory: int(l.workgroupStorage),
		Invocations: int(l.invocations), WorkgroupX: int(l.sizeX), Workgroups: int(l.perDim),
	}
}

func featuresOf(h uintptr) Features {
	list := new(struct {
		count uint64
		first *uint32
	})
	call(proc.adapterFeatures, h, uintptr(unsafe.Pointer(list)))
	var f Features
	var timestamps, inPass bool
	for _, id := range unsafe.Slice(list.first, list.count) {
		switch id {
		case featureF16:
			f.F16 = true
		case featureSubgroups:
			f.Subgroups = true
		case featureTimestamps:
			timestamps = true
		case featureTimestampsInPass:
			inPass = true
		}
	}
	f.Timestamps = timestamps && inPass
	// The structure goes by value: two words.
	call(proc.freeFeatures, uintptr(list.count), uintptr(unsafe.Pointer(list.first)))
	return f
}

// Open opens the adapter with its own limits and those of the wanted features
// that it has. Each call gives a device of its own.
func (a *Adapter) Open(want Features) (*Device, error) {
	d := &Device{Info: a.Info}
	d.Features = Features{F16: want.F16 && a.Features.F16, Subgroups: want.Subgroups && a.Features.Subgroups, Timestamps: want.Timestamps && a.Features.Timestamps}
	var ids []uint32
	if d.Features.F16 {
		ids = append(ids, featureF16)
	}
	if d.Features.Subgroups {
		ids = append(ids, featureSubgroups)
	}
	if d.Features.Timestamps {
		ids = append(ids, featureTimestamps, featureTimestampsInPass)
	}
	d.id = enter(d)
	// Without limits of its own a device would get WebGPU's small defaults.
	desc := &deviceDescriptor{
		limits:     rawLimits(a.handle),
		lost:       callbackInfo{mode: allowSpontaneous, callback: callbacks.lost, userdata1: d.id},
		uncaptured: callbacks.uncaptured, userdata: d.id,
	}
	if len(ids) > 0 {
		desc.features, desc.featureCount = &ids[0], uint64(len(ids))
	}
	id, done := expect()
	requestDevice(a.handle, desc, callbackInfo{mode: allowSpontaneous, callback: callbacks.device, userdata1: id})
	runtime.KeepAlive(desc)
	select {
	case r := <-done:
		if r.status != statusSuccess {
			leave(d.id)
			return nil, fmt.Errorf("open %s: %s", a.Name, r.text)
		}
		d.handle = r.handle
	default: // the library answers within the call
		forget(id)
		leave(d.id)
		if err := given(); err != nil {
			return nil, fmt.Errorf("open %s: %w", a.Name, err)
		}
		return nil, fmt.Errorf("open %s: no answer", a.Name)
	}
	d.queue = call(proc.deviceQueue, d.handle)
	return d, nil
}
