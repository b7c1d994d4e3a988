//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/ebitengine/purego"
)

// ErrUnavailable marks a library that cannot be loaded.
var ErrUnavailable = errors.New("wgpu-native is not available")

// version is the major version whose structures native.go describes.
const version = 29

// proc holds the addresses of the library's functions.
var proc struct {
	getVersion, createInstance, enumerateAdapters                                    uintptr
	adapterInfo, adapterLimits, adapterFeatures, freeFeatures                        uintptr
	deviceQueue, createBuffer, createShader, createShaderTrusted, createGroupLayout  uintptr
	createPipelineLayout, createPipeline, createGroup, createEncoder, createQuerySet uintptr
	poll, pushScope, submit, writeBuffer, mappedRange, writableRange, unmap          uintptr
	beginPass, copyBuffer, finish, resolveQueries                                    uintptr
	setPipeline, setGroup, dispatch, endPass, writeTimestamp, destroyDevice          uintptr
	releaseBuffer, releaseShader, releaseGroupLayout, releasePipelineLayout          uintptr
	releasePipeline, releaseGroup, releaseEncoder, releasePass, releaseCommands      uintptr
	releaseQuerySet, releaseDevice, releaseQueue, releaseAdapter                     uintptr
}

// Functions that take a structure by value, or return a float.
var (
	requestDevice   func(adapter uintptr, d *deviceDescriptor, cb callbackInfo) uint64
	mapAsync        func(buffer uintptr, mode, offset, size uint64, cb callbackInfo) uint64
	popScope        func(device uintptr, cb callbackInfo) uint64
	timestampPeriod func(queue uintptr) float32
)

// symbols names the functions of proc.
var symbols = map[string]*uintptr{
	"wgpuGetVersion":                           &proc.getVersion,
	"wgpuCreateInstance":                       &proc.createInstance,
	"wgpuInstanceEnumerateAdapters":            &proc.enumerateAdapters,
	"wgpuAdapterGetInfo":                       &proc.adapterInfo,
	"wgpuAdapterGetLimits":                     &proc.adapterLimits,
	"wgpuAdapterGetFeatures":                   &proc.adapterFeatures,
	"wgpuSupportedFeaturesFreeMembers":         &proc.freeFeatures,
	"wgpuAdapterRelease":                       &proc.releaseAdapter,
	"wgpuDeviceGetQueue":                       &proc.deviceQueue,
	"wgpuDeviceCreateBuffer":                   &proc.createBuffer,
	"wgpuDeviceCreateShaderModule":             &proc.createShader,
	"wgpuDeviceCreateShaderModuleTrusted":      &proc.createShaderTrusted,
	"wgpuDeviceCreateBindGroupLayout":          &proc.createGroupLayout,
	"wgpuDeviceCreatePipelineLayout":           &proc.createPipelineLayout,
	"wgpuDeviceCreateComputePipeline":          &proc.createPipeline,
	"wgpuDeviceCreateBindGroup":                &proc.createGroup,
	"wgpuDeviceCreateCommandEncoder":           &proc.createEncoder,
	"wgpuDeviceCreateQuerySet":                 &proc.createQuerySet,
	"wgpuDevicePoll":                           &proc.poll,
	"wgpuDevicePushErrorScope":                 &proc.pushScope,
	"wgpuDeviceDestroy":                        &proc.destroyDevice,
	"wgpuQueueSubmit":                          &proc.submit,
	"wgpuQueueWriteBuffer":                     &proc.writeBuffer,
	"wgpuBufferGetConstMappedRange":            &proc.mappedRange,
	"wgpuBufferGetMappedRange":                 &proc.writableRange,
	"wgpuBufferUnmap":                          &proc.unmap,
	"wgpuCommandEncoderBeginComputePass":       &proc.beginPass,
	"wgpuCommandEncoderCopyBufferToBuffer":     &proc.copyBuffer,
	"wgpuCommandEncoderFinish":                 &proc.finish,
	"wgpuCommandEncoderResolveQuerySet":        &proc.resolveQueries,
	"wgpuComputePassEncoderSetPipeline":        &proc.setPipeline,
	"wgpuComputePassEncoderSetBindGroup":       &proc.setGroup,
	"wgpuComputePassEncoderDispatchWorkgroups": &proc.dispatch,
	"wgpuComputePassEncoderEnd":                &proc.endPass,
	"wgpuComputePassEncoderWriteTimestamp":     &proc.writeTimestamp,
	"wgpuBufferRelease":                        &proc.releaseBuffer,
	"wgpuShaderModuleRelease":                  &proc.releaseShader,
	"wgpuBindGroupLayoutRelease":               &proc.releaseGroupLayout,
	"wgpuPipelineLayoutRelease":                &proc.releasePipelineLayout,
	"wgpuComputePipelineRelease":               &proc.releasePipeline,
	"wgpuBindGroupRelease":                     &proc.releaseGroup,
	"wgpuCommandEncoderRelease":                &proc.releaseEncoder,
	"wgpuComputePassEncoderRelease":            &proc.releasePass,
	"wgpuCommandBufferRelease":                 &proc.releaseCommands,
	"wgpuQuerySetRelease":                      &proc.releaseQuerySet,
	"wgpuDeviceRelease":                        &proc.releaseDevice,
	"wgpuQueueRelease":                         &proc.releaseQueue,
}

// load opens the library once a process and binds its functions.
var load = sync.OnceValue(func() error {
	var h uintptr
	var err error
	if path := os.Getenv("WGPU_NATIVE_PATH"); path != "" {
		h, err = purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	} else {
		h, err = openEmbedded()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	address := func(name string) (uintptr, error) {
		a, err := purego.Dlsym(h, name)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return a, nil
	}
	for name, to := range symbols {
		if *to, err = address(name); err != nil {
			return err
		}
	}
	if err := install(); err != nil {
		return err
	}
	if v := uint32(call(proc.getVersion)) >> 24; v != version {
		return fmt.Errorf("%w: the library is version %d, this build needs %d", ErrUnavailable, v, version)
	}
	if err := bindStructs(address); err != nil {
		return err
	}
	registerCallbacks()
	return nil
})

// Version is the library's version as "29.0.1.1"; empty if it is not available.
func Version() string {
	if load() != nil {
		return ""
	}
	v := uint32(call(proc.getVersion))
	return fmt.Sprintf("%d.%d.%d.%d", v>>24, v>>16&255, v>>8&255, v&255)
}
