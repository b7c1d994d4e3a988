package kernels

import "github.com/apr-engine/apr/driver/wgpu"

// bound is a variable that a buffer is bound to.
type bound struct {
	Binding
	N    int    // number
	Type string // WGSL
}

// Mode is the access mode of the variable.
func (b bound) Mode() string {
	if b.Access == wgpu.ReadWrite {
		return "read_write"
	}
	return "read"
}

// boundList collects the bindings of a kernel for its template.
type boundList struct{ Bound []bound }

func (l *boundList) bind(name, wgsl string, a wgpu.Access) {
	l.Bound = append(l.Bound, bound{Binding{name, a}, len(l.Bound), wgsl})
}

// list is the bindings for Kernel.
func (l *boundList) list() []Binding {
	var s []Binding
	for _, b := range l.Bound {
		s = append(s, b.Binding)
	}
	return s
}
