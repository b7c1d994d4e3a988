package kernels

import (
	"fmt"

	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
)

// Rotate takes rows of queries, keys and values, one after the other, as MatVec with
// three parts makes them: it normalises the heads if so wanted, rotates queries and
// keys to their positions and stores keys and values in the cache. The queries are
// changed in place; keys and values in the rows are left as they are.
//
// The cache is (position, head, element), float32 or two F16 a word. A dispatch is
// for the rows of one span; Grid's second axis is their number, 1 here.
type Rotate struct {
	Heads, KVHeads, HeadDim int
	Pairs                   int // that are rotated in each head
	Pairing                 graph.Pairing
	// Half says that the cache holds F16 numbers.
	Half bool
	// HeadNorm applies RMSNorm to each head of the queries and of the keys first.
	HeadNorm bool
	Eps      float32
}

// Kernel binds step, span, far, near, qkv, keys, values, and qnorm and knorm if there
// are norms. step and span are those of the executor; far holds the cosines and sines
// of positions 256·(a−1), near those of 0 … 255 times the magnitude, both
// (position, pair).
func (o Rotate) Kernel(d Device) (Kernel, error) {
	if o.HeadDim%4 != 0 || o.Pairs%2 != 0 || o.Pairs < 1 || 2*o.Pairs > o.HeadDim || (o.HeadDim-2*o.Pairs)%4 != 0 {
		return Kernel{}, fmt.Errorf("rotary embedding of %d pairs in heads of %d", o.Pairs, o.HeadDim)
	}
	v := &rotateText{Rotate: o, Threads: o.HeadDim / 4, Tree: 1, Width: (o.Heads + 2*o.KVHeads) * o.HeadDim}
	for v.Tree < v.Threads {
		v.Tree *= 2
	}
	if v.Tree > d.Invocations {
		return Kernel{}, fmt.Errorf("heads of %d elements", o.HeadDim)
	}
	cell := "array<f32>"
	if o.Half {
		cell = "array<u32>"
	}
	v.bind("step", "array<vec4<u32>>", wgpu.ReadOnly)
	v.bind("span", "vec4<u32>", wgpu.ReadOnly)
	v.bind("far", "array<vec2<f32>>", wgpu.ReadOnly)
	v.bind("near", "array<vec2<f32>>", wgpu.ReadOnly)
	v.bind("qkv", "array<f32>", wgpu.ReadWrite)
	v.bind("keys", cell, wgpu.ReadWrite)
	v.bind("values", cell, wgpu.ReadWrite)
	if o.HeadNorm {
		v.bind("qnorm", "array<f32>", wgpu.ReadOnly)
		v.bind("knorm", "array<f32>", wgpu.ReadOnly)
	}
	if len(v.Bound) > d.StorageBuffers {
		return Kernel{}, fmt.Errorf("%d bindings, the device has %d", len(v.Bound), d.StorageBuffers)
	}
	return Kernel{
		Name: fmt.Sprintf("rotate/%d+%d×%d/%d/%d", o.Heads, o.KVHeads, o.HeadDim, o.Pairs, o.Pairing),
		WGSL: expand("rotate.wgsl", v), Bindings: v.list(), Grid: [3]int{o.Heads + 2*o.KVHeads, 1, 1}, Unchecked: true,
	}, nil
}

// rotateText is what the template asks for.
type rotateText struct {
	Rotate
	boundList
	Threads, Tree, Width int
}

// Interleaved says that neighbours are rotated together.
func (o Rotate) Interleaved() bool { return o.Pairing == graph.Interleaved }

// EpsText is Eps as WGSL.
func (o Rotate) EpsText() string { return float(o.Eps) }
