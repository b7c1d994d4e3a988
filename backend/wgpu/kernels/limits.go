package kernels

import "github.com/apr-engine/apr/driver/wgpu"

// probeText is what the templates of the kernels that measure limits ask for.
type probeText struct {
	F16                            bool
	Groups, Threads, Unroll, Count int
}

// Stream reads a buffer of so many bytes, a multiple of 16, once: what bounds
// decoding. It binds x, the buffer, and y, 1 KiB; x must hold zeros.
func Stream(d Device, bytes int) Kernel {
	v := probeText{Groups: 2048, Threads: min(256, d.Invocations), Unroll: 4, Count: bytes / 16}
	if d.Software {
		v.Groups = 64
	}
	return Kernel{Name: "stream", WGSL: expand("stream.wgsl", v), Bindings: []Binding{{"x", wgpu.ReadOnly}, {"y", wgpu.ReadWrite}}, Grid: [3]int{v.Groups, 1, 1}, Unchecked: true}
}

// Peak multiplies and adds as MatMul does, in half precision if the device has it, but
// only in registers: what bounds prompts. It binds y, 2 KiB of zeros, and does as many operations
// as the second result says; a multiply-add is two.
func Peak(d Device, iterations int) (Kernel, float64) {
	v := probeText{F16: d.F16, Groups: 2048, Threads: min(256, d.Invocations), Unroll: 8, Count: iterations}
	if d.Software {
		v.Groups = 64
	}
	operations := 2 * 4 * float64(v.Unroll) * float64(iterations) * float64(v.Groups*v.Threads)
	return Kernel{Name: "peak", WGSL: expand("peak.wgsl", v), Bindings: []Binding{{"y", wgpu.ReadWrite}}, Grid: [3]int{v.Groups, 1, 1}, Unchecked: true}, operations
}
