//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"
)

// Access is how a shader uses a binding.
type Access uint32

// Accesses (WGPUBufferBindingType).
const (
	UniformData Access = 2 // var<uniform>
	ReadWrite   Access = 3 // var<storage, read_write>
	ReadOnly    Access = 4 // var<storage, read>
)

// PipelineDesc describes a compute pipeline.
type PipelineDesc struct {
	Name  string // in error messages
	WGSL  string
	Entry string // function; "main" if empty
	// Bindings are those of group 0, numbered from 0.
	Bindings []Access
	// Unchecked leaves out the tests of indices and loop bounds that the library
	// adds. A wrong index then reaches any memory: only for shaders whose indices
	// are right by construction and that are tested with the checks.
	Unchecked bool
}

// Pipeline is a shader with its layout, compiled or to be compiled.
type Pipeline struct {
	Name           string // as its description says
	handle, layout uintptr
	d              *Device
	desc           PipelineDesc
}

// NewPipeline compiles a shader. The error quotes the compiler with the line.
func (d *Device) NewPipeline(desc PipelineDesc) (*Pipeline, error) {
	p, err := d.Layout(desc)
	if err != nil {
		return nil, err
	}
	if err := p.Compile(); err != nil {
		p.Release()
		return nil, err
	}
	return p, nil
}

// Layout makes a pipeline that is not compiled: groups can be made for it, and Compile
// must have returned before it is dispatched.
func (d *Device) Layout(desc PipelineDesc) (*Pipeline, error) {
	if desc.Entry == "" {
		desc.Entry = "main"
	}
	entries := make([]layoutEntry, max(1, len(desc.Bindings)))
	for i, a := range desc.Bindings {
		entries[i] = layoutEntry{binding: uint32(i), visibility: stageCompute, bufferType: uint32(a)}
	}
	group := &listDescriptor{count: uint64(len(desc.Bindings)), items: unsafe.Pointer(&entries[0])}
	layout, err := d.scoped(func() uintptr { return call(proc.createGroupLayout, d.handle, uintptr(unsafe.Pointer(group))) })
	if err != nil {
		return nil, fmt.Errorf("layout of %s: %w", desc.Name, err)
	}
	return &Pipeline{Name: desc.Name, layout: layout, d: d, desc: desc}, nil
}

// Compile compiles a pipeline's shader, which takes most of the time.
func (p *Pipeline) Compile() error { return p.compile(p.d.scoped) }

// CompileAll compiles pipelines on as many processors as workers says and returns an error
// for each. Nothing else that can fail is done with the device meanwhile: the library
// has one stack of error scopes a device, whoever opens them, so one scope is around all, and
// if it catches anything they are compiled again one by one to find out which it was.
func (d *Device) CompileAll(list []*Pipeline, workers int) []error {
	errs := make([]error, len(list))
	_, err := d.scoped(func() uintptr {
		var group sync.WaitGroup
		slots := make(chan struct{}, max(1, workers))
		for _, p := range list {
			slots <- struct{}{}
			group.Go(func() {
				_ = p.compile(func(f func() uintptr) (uintptr, error) { return f(), nil }) // the scope around all catches errors
				<-slots
			})
		}
		group.Wait()
		return 0
	})
	if err == nil {
		return errs
	}
	for i, p := range list {
		if p.handle != 0 {
			call(proc.releasePipeline, p.handle)
			p.handle = 0
		}
		errs[i] = p.Compile()
	}
	return errs
}

// compile compiles with whatever catches the errors of a call.
func (p *Pipeline) compile(scoped func(func() uintptr) (uintptr, error)) error {
	d, name := p.d, p.desc.Name
	module, err := d.shader(p.desc, scoped)
	if err != nil {
		return fmt.Errorf("shader %s: %w", name, err)
	}
	defer call(proc.releaseShader, module)
	list := &p.layout
	all := &pipelineLayoutDescriptor{listDescriptor: listDescriptor{count: 1, items: unsafe.Pointer(list)}}
	whole, err := scoped(func() uintptr { return call(proc.createPipelineLayout, d.handle, uintptr(unsafe.Pointer(all))) })
	if err != nil {
		return fmt.Errorf("layout of %s: %w", name, err)
	}
	defer call(proc.releasePipelineLayout, whole)
	desc := &pipelineDescriptor{label: view(name), layout: whole, module: module, entryPoint: view(p.desc.Entry)}
	h, err := scoped(func() uintptr { return call(proc.createPipeline, d.handle, uintptr(unsafe.Pointer(desc))) })
	runtime.KeepAlive(p)
	if err != nil {
		return fmt.Errorf("pipeline %s: %w", name, err)
	}
	p.handle = h
	return nil
}

func (d *Device) shader(p PipelineDesc, scoped func(func() uintptr) (uintptr, error)) (uintptr, error) {
	source := &wgslSource{chain: chain{sType: sTypeWGSL}, code: view(p.WGSL)}
	desc := &shaderDescriptor{next: unsafe.Pointer(source), label: view(p.Name)}
	h, err := scoped(func() uintptr {
		if p.Unchecked {
			const noChecks = 0 // WGPUShaderRuntimeChecks by value: two false
			return call(proc.createShaderTrusted, d.handle, uintptr(unsafe.Pointer(desc)), noChecks)
		}
		return call(proc.createShader, d.handle, uintptr(unsafe.Pointer(desc)))
	})
	runtime.KeepAlive(source)
	runtime.KeepAlive(p)
	return h, err
}

// Release frees the pipeline.
func (p *Pipeline) Release() {
	if p.handle != 0 {
		call(proc.releasePipeline, p.handle)
	}
	call(proc.releaseGroupLayout, p.layout)
}

// Binding is a part of a buffer that a shader sees; Size 0 means to its end.
type Binding struct {
	Buffer       *Buffer
	Offset, Size uint64
}

// Whole binds all of a buffer.
func Whole(b *Buffer) Binding { return Binding{Buffer: b} }

// Group is a pipeline's set of bindings. It keeps the buffers alive.
type Group struct{ handle uintptr }

// NewGroup binds buffers in the order of the pipeline's bindings.
func (d *Device) NewGroup(p *Pipeline, bindings ...Binding) (*Group, error) {
	entries := make([]groupEntry, max(1, len(bindings)))
	for i, b := range bindings {
		size := b.Size
		if size == 0 {
			size = b.Buffer.Size - b.Offset
		}
		entries[i] = groupEntry{binding: uint32(i), buffer: b.Buffer.handle, offset: b.Buffer.base + b.Offset, size: size}
	}
	desc := &groupDescriptor{layout: p.layout, count: uint64(len(bindings)), items: unsafe.Pointer(&entries[0])}
	h, err := d.scoped(func() uintptr { return call(proc.createGroup, d.handle, uintptr(unsafe.Pointer(desc))) })
	if err != nil {
		return nil, err
	}
	return &Group{h}, nil
}

// Release frees the group.
func (g *Group) Release() { call(proc.releaseGroup, g.handle) }
