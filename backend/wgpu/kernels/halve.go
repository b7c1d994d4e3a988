package kernels

import (
	"errors"
	"fmt"

	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
)

// Halve makes the activations of MatMul: rows of float32 numbers, after an RMSNorm or a
// gated activation if so wanted, as half-precision numbers that are to be multiplied by
// the row's scale, a power of two. Without F16 the numbers stay float32 and there is no
// scale. A workgroup makes a row; Grid's first axis is their number, 1 here.
type Halve struct {
	K   int // a multiple of 4
	F16 bool
	// Norm applies x/sqrt(mean(x²)+Eps)·w.
	Norm bool
	Eps  float32
	// Act takes rows of a gate's K numbers and as many others: act(gate)·other.
	Act *graph.Activation
	// Wanted takes the rows whose logits are wanted, as the step lists them.
	Wanted bool
}

// Kernel binds step (if Wanted), x, w (if Norm), y, scale (if F16).
func (o Halve) Kernel(d Device) (Kernel, error) {
	if o.K <= 0 || o.K%4 != 0 {
		return Kernel{}, fmt.Errorf("rows of %d numbers: not a multiple of 4", o.K)
	}
	if o.F16 && !d.F16 {
		return Kernel{}, errors.New("the device has no half-precision numbers")
	}
	v := &halveText{Halve: o, Quads: o.K / 4, Threads: 32, XWidth: o.K}
	for v.Threads < v.Quads && 2*v.Threads <= min(d.Invocations, 256) {
		v.Threads *= 2
	}
	name := fmt.Sprintf("halve/%d", o.K)
	if o.Wanted {
		name += "/wanted"
		v.bind("step", "array<vec4<u32>>", wgpu.ReadOnly)
	}
	v.bind("x", "array<vec4<f32>>", wgpu.ReadOnly)
	if o.Norm {
		name += "/norm" + v.EpsText()
		v.bind("w", "array<vec4<f32>>", wgpu.ReadOnly)
	}
	if o.Act != nil {
		name += fmt.Sprintf("/act%d", *o.Act)
		v.XWidth = 2 * o.K
	}
	if o.F16 {
		name += "/f16"
		v.bind("y", "array<vec4<f16>>", wgpu.ReadWrite)
		v.bind("scale", "array<f32>", wgpu.ReadWrite)
	} else {
		v.bind("y", "array<vec4<f32>>", wgpu.ReadWrite)
	}
	return Kernel{Name: name, WGSL: expand("halve.wgsl", v), Bindings: v.list(), Grid: [3]int{1, 1, 1}, Unchecked: true}, nil
}

// halveText is what the template asks for.
type halveText struct {
	Halve
	boundList
	Quads, Threads, XWidth int
}

// EpsText is Eps as WGSL, ActText the function act.
func (v *halveText) EpsText() string { return float(v.Eps) }
func (v *halveText) ActText() string { return actText(*v.Act) }
