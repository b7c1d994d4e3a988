//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import "unsafe"

// The structures of webgpu.h and wgpu.h, version 29, field by field; those that
// are never set are left out only at the end of a structure. Names follow the
// headers as far as Go allows.

// stringView is a WGPUStringView of a Go string.
type stringView struct {
	data   *byte
	length uint64
}

// nulTerminated is WGPU_STRLEN: the text ends at a zero byte.
const nulTerminated = ^uint64(0)

func view(s string) stringView {
	if s == "" {
		return stringView{}
	}
	return stringView{unsafe.StringData(s), uint64(len(s))}
}

// libraryText is a WGPUStringView that the library made. An empty one has an
// address of 1 or the like, which must never lie in a Go pointer: the runtime
// takes it for a sign of corruption when it moves a stack.
type libraryText struct {
	address uintptr
	length  uint64
}

// text copies the string, which belongs to the library.
func (v libraryText) text() string {
	if v.address == 0 || v.length == 0 {
		return ""
	}
	data := *(**byte)(unsafe.Pointer(&v.address))
	n := v.length
	if n == nulTerminated {
		for n = 0; *(*byte)(unsafe.Add(unsafe.Pointer(data), n)) != 0; n++ {
		}
	}
	return string(unsafe.Slice(data, n))
}

// chain is WGPUChainedStruct, the head of an extension.
type chain struct {
	next  unsafe.Pointer
	sType uint32
	_     uint32
}

// Kinds of extension (WGPUSType and WGPUNativeSType).
const (
	sTypeWGSL           = 2
	sTypeInstanceExtras = 0x30004
)

// callbackInfo is any of the WGPU…CallbackInfo of the same layout.
type callbackInfo struct {
	_            unsafe.Pointer
	mode         uint32
	_            uint32
	callback     uintptr
	userdata1, _ uintptr
}

// allowSpontaneous lets the library call back whenever it knows the result.
const allowSpontaneous = 3

type instanceDescriptor struct {
	next            unsafe.Pointer
	requiredFeature uint64
	features        unsafe.Pointer
	limits          unsafe.Pointer
}

type instanceExtras struct {
	chain
	backends, flags                           uint64
	dx12Compiler, glesMinor, glFence          uint32
	_                                         uint32
	dxcPath                                   stringView
	dxcMaxShaderModel, dx12PresentationSystem uint32
	budgetForCreation, budgetForLoss          unsafe.Pointer
	displayKind                               uint64
	display                                   [3]uint64
}

type adapterInfo struct {
	next                                      unsafe.Pointer
	vendor, architecture, device, description libraryText
	backendType, adapterType                  uint32
	vendorID, deviceID                        uint32
	subgroupMin, subgroupMax                  uint32
}

type limits struct {
	next                                                           unsafe.Pointer
	texture1D, texture2D, texture3D, textureLayers                 uint32
	bindGroups, bindGroupsPlusVertexBuffers, bindingsPerGroup      uint32
	dynamicUniform, dynamicStorage, sampledTextures, samplers      uint32
	storageBuffers, storageTextures, uniformBuffers                uint32
	uniformBinding, storageBinding                                 uint64
	uniformAlignment, storageAlignment, vertexBuffers              uint32
	_                                                              uint32
	bufferSize                                                     uint64
	vertexAttributes, vertexStride, interStage, colors, colorBytes uint32
	workgroupStorage, invocations, sizeX, sizeY, sizeZ, perDim     uint32
	immediates                                                     uint32
}

type deviceDescriptor struct {
	_            unsafe.Pointer
	_            stringView
	featureCount uint64
	features     *uint32
	limits       *limits
	_            unsafe.Pointer
	_            stringView
	lost         callbackInfo
	_            unsafe.Pointer
	uncaptured   uintptr
	userdata, _  uintptr
}

type bufferDescriptor struct {
	next             unsafe.Pointer
	label            stringView
	usage, size      uint64
	mappedAtCreation uint32
	_                uint32
}

type shaderDescriptor struct {
	next  unsafe.Pointer
	label stringView
}

type wgslSource struct {
	chain
	code stringView
}

// layoutEntry is WGPUBindGroupLayoutEntry; only its buffer part is used.
type layoutEntry struct {
	next              unsafe.Pointer
	binding           uint32
	_                 uint32
	visibility        uint64
	arraySize         uint32
	_                 uint32
	bufferNext        unsafe.Pointer
	bufferType        uint32
	hasDynamicOffset  uint32
	minBindingSize    uint64
	samplerNext       unsafe.Pointer
	samplerType       uint32
	_                 uint32
	textureNext       unsafe.Pointer
	texture           [3]uint32
	_                 uint32
	storageTextureNxt unsafe.Pointer
	storageTexture    [3]uint32
	_                 uint32
}

// stageCompute is WGPUShaderStage_Compute.
const stageCompute = 4

// listDescriptor is the layout of a bind group layout's descriptor and the head
// of a pipeline layout's.
type listDescriptor struct {
	next  unsafe.Pointer
	label stringView
	count uint64
	items unsafe.Pointer
}

type pipelineLayoutDescriptor struct {
	listDescriptor
	immediateSize uint32
	_             uint32
}

type pipelineDescriptor struct {
	next          unsafe.Pointer
	label         stringView
	layout        uintptr
	computeNext   unsafe.Pointer
	module        uintptr
	entryPoint    stringView
	constantCount uint64
	constants     unsafe.Pointer
}

type groupEntry struct {
	next                 unsafe.Pointer
	binding              uint32
	_                    uint32
	buffer               uintptr
	offset, size         uint64
	sampler, textureView uintptr
}

type groupDescriptor struct {
	next   unsafe.Pointer
	label  stringView
	layout uintptr
	count  uint64
	items  unsafe.Pointer
}

type querySetDescriptor struct {
	next  unsafe.Pointer
	label stringView
	kind  uint32
	count uint32
}

// queryTimestamp is WGPUQueryType_Timestamp.
const queryTimestamp = 2
