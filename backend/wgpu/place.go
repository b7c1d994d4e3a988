//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"github.com/apr-engine/apr/backend/wgpu/kernels"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// place is what lies between projections and attention: norms and rotation of
// queries and keys, storing keys and values.
type place struct {
	store        *graph.KVStore
	attention    *graph.Attention
	ropeQ, ropeK *graph.Rope
	normQ, normK *graph.RMSNorm // nil for none
	q, k, v      graph.ID       // before all that
	kernel       kernels.Kernel
	single       bool // attention does it all for a single token
}

// findPlaces finds the layers whose operations between projections and attention
// are the usual ones, so that one kernel does them. Rotations and norms are then
// left to it.
func (c *compiler) findPlaces() {
	for _, op := range c.program.Ops {
		a, ok := op.(*graph.Attention)
		if !ok {
			continue
		}
		p := &place{attention: a}
		for _, op := range c.program.Ops {
			if s, ok := op.(*graph.KVStore); ok && s.Layer == a.Layer {
				p.store = s
			}
		}
		if p.store != nil && c.follow(p) {
			c.placed[p.store] = p
			for _, op := range []graph.Op{p.ropeQ, p.ropeK} {
				c.done[op] = true
			}
			if p.normQ != nil {
				c.done[p.normQ], c.done[p.normK] = true, true
			}
		}
	}
}

// follow finds where a layer's queries, keys and values come from and reports
// whether one kernel can take them from there.
func (c *compiler) follow(p *place) bool {
	dim := c.program.Caches[p.store.Layer].HeadDim
	var okQ, okK bool
	p.ropeQ, okQ = c.sole(p.attention.Q).(*graph.Rope)
	p.ropeK, okK = c.sole(p.store.K).(*graph.Rope)
	if !okQ || !okK || !sameRotation(p.ropeQ, p.ropeK) || p.ropeQ.HeadDim != dim || dim%2 != 0 {
		return false
	}
	p.q, p.k, p.v = p.ropeQ.In, p.ropeK.In, p.store.V
	p.normQ, okQ = c.sole(p.q).(*graph.RMSNorm)
	p.normK, okK = c.sole(p.k).(*graph.RMSNorm)
	if okQ != okK {
		return false
	}
	if okQ {
		if p.normQ.Segment != dim || p.normK.Segment != dim || p.normQ.Eps != p.normK.Eps {
			return false
		}
		p.q, p.k = p.normQ.In, p.normK.In
	}
	// The kernel rotates in place, so nobody else may read them; and all three must
	// come out of one product.
	var from [3]graph.ID
	for i, id := range []graph.ID{p.q, p.k, p.v} {
		m, ok := c.sole(id).(*graph.MatMul)
		if !ok {
			return false
		}
		from[i] = m.In
	}
	if from[0] != from[1] || from[1] != from[2] || !c.together(p) {
		return false
	}
	r := c.rotation(p)
	k, err := r.Kernel(c.gpu.caps)
	p.kernel = k
	return err == nil // else the shape or the device needs a kernel for each
}

// rotation describes the kernel.
func (c *compiler) rotation(p *place) kernels.Rotate {
	cache := c.program.Caches[p.store.Layer]
	r := kernels.Rotate{
		Heads: p.attention.Heads, KVHeads: cache.Heads, HeadDim: cache.HeadDim, Pairs: len(p.ropeQ.InvFreq), Pairing: p.ropeQ.Pairing,
		Half: c.opts.KV == tensor.F16, HeadNorm: p.normQ != nil,
	}
	if p.normQ != nil {
		r.Eps = p.normQ.Eps
	}
	return r
}

// sole is the operation that makes a value with a single reader, else nil.
func (c *compiler) sole(id graph.ID) graph.Op {
	if v := &c.values[id]; len(v.users) == 1 {
		return v.producer
	}
	return nil
}

func sameRotation(a, b *graph.Rope) bool {
	if a.Pairing != b.Pairing || a.Magnitude != b.Magnitude || a.HeadDim != b.HeadDim || len(a.InvFreq) != len(b.InvFreq) {
		return false
	}
	for i := range a.InvFreq {
		if a.InvFreq[i] != b.InvFreq[i] {
			return false
		}
	}
	return true
}

func (c *compiler) place(p *place) error {
	q := c.values[p.q].view
	far, near, err := c.angles(p.ropeQ)
	if err != nil {
		return err
	}
	buffers := map[string]*driver.Buffer{"step": c.step, "far": far, "near": near, "qkv": q.buffer}
	if p.normQ != nil {
		if buffers["qnorm"], err = c.vector(p.normQ.Weight); err != nil {
			return err
		}
		if buffers["knorm"], err = c.vector(p.normK.Weight); err != nil {
			return err
		}
	}
	run, err := c.spanMade(p.kernel, p.store.Layer, buffers)
	if err != nil {
		return err
	}
	c.use(p.k, p.v)
	// Rotated queries are where the plain ones were.
	c.holds[q.buffer]++
	c.use(p.q)
	if _, err := c.put(p.attention.Q, q); err != nil {
		return err
	}
	n := always(func(r *recording, _ int) {
		for _, at := range r.spans {
			run(r, at, p.kernel.Grid[0], at.to-at.from, 1)
		}
	})
	if p.single = c.singleKernel(p.attention, p) != nil; p.single {
		n.run[one] = nil // attention does it
	}
	c.emit(n)
	return nil
}

// spanMade compiles a kernel of package kernels that each sequence binds to its
// cache of a layer, and returns what runs it.
func (c *compiler) spanMade(k kernels.Kernel, layer int, buffers map[string]*driver.Buffer) (func(r *recording, at run, x, y, z int), error) {
	p, err := c.gpu.compiled(k.Desc(c.gpu.Checked))
	if err != nil {
		return nil, err
	}
	index := len(c.spans)
	c.spans = append(c.spans, spanKernel{p, func(s *sequence) []driver.Binding {
		var list []driver.Binding
		for _, b := range k.Bindings {
			switch b.Name {
			case "span":
				list = append(list, driver.Whole(s.info))
			case "keys":
				list = append(list, driver.Whole(s.keys(layer)))
			case "values":
				list = append(list, driver.Whole(s.values(layer)))
			default:
				list = append(list, driver.Whole(buffers[b.Name]))
			}
		}
		return list
	}})
	return func(r *recording, at run, x, y, z int) {
		r.Dispatch(p, r.sequence(at).groups[index], x, y, z)
	}, nil
}
