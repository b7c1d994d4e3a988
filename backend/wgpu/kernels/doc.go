// Package kernels makes the fast compute shaders of the wgpu backend: WGSL text for given
// shapes, tensor types and abilities of the device, with what is bound to it and how
// many workgroups run. It opens no device and allocates nothing.
//
// Shapes are constants of the text, so that compilers can unroll and no shader needs
// them bound; two matrices of one shape and type share a pipeline. What differs from
// step to step (tokens, positions) lies in buffers.
package kernels

import "github.com/apr-engine/apr/driver/wgpu"

// Kernel is one shader, ready to be compiled.
type Kernel struct {
	// Name tells variants apart: everything that can change a result is part of it.
	Name     string
	WGSL     string
	Bindings []Binding
	// Grid is the number of workgroups along each axis.
	Grid [3]int
	// Unchecked says that all indices are right by construction, whatever the
	// contents of the buffers, as long as those have the sizes that the maker of the
	// kernel asks for.
	Unchecked bool
}

// Binding is a buffer that a shader uses, in the order of the numbers in group 0.
type Binding struct {
	Name   string
	Access wgpu.Access
}

// Desc is what the driver compiles. checked keeps the tests of indices in.
func (k Kernel) Desc(checked bool) wgpu.PipelineDesc {
	d := wgpu.PipelineDesc{Name: k.Name, WGSL: k.WGSL, Unchecked: k.Unchecked && !checked}
	for _, b := range k.Bindings {
		d.Bindings = append(d.Bindings, b.Access)
	}
	return d
}
