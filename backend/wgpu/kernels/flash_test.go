package kernels

import (
	"fmt"
	"math"
	"testing"

	"github.com/apr-engine/apr/driver/wgpu"
)

// TestFlash: attention of many tokens behind some that are in the cache already, with
// numbers of tokens that no tile divides.
func TestFlash(t *testing.T) {
	r := newRig(t, wgpu.Features{})
	for _, o := range []Flash{
		{Heads: 6, KVHeads: 1, HeadDim: 128, Half: true},
		{Heads: 4, KVHeads: 4, HeadDim: 64, Half: true, Window: 19, SoftCap: 15},
		{Heads: 3, KVHeads: 1, HeadDim: 64},
		{Heads: 2, KVHeads: 1, HeadDim: 256, Half: true},
	} {
		t.Run(fmt.Sprintf("%d·%d×%d half %v window %d", o.Heads, o.KVHeads, o.HeadDim, o.Half, o.Window), func(t *testing.T) {
			o.test(&rig{t, r.d}, r.device())
		})
	}
}

func (o Flash) test(r *rig, dev Device) {
	t := r.t
	t.Helper()
	o.Scale, o.Width = float32(1/math.Sqrt(float64(o.HeadDim))), (o.Heads+2*o.KVHeads)*o.HeadDim
	const capacity, first, tokens = 90, 45, 37
	keys, values := normals(o.KVHeads*o.HeadDim*capacity, 1), activations(o.KVHeads*o.HeadDim, capacity, 2)
	var k, v *wgpu.Buffer
	if o.Half {
		var kp, vp []uint16
		kp, keys = halves(keys)
		vp, values = halves(values)
		k, v = buffer(r, kp), buffer(r, vp)
	} else {
		k, v = buffer(r, keys), buffer(r, values)
	}
	kernel, err := o.Kernel(dev)
	if o.HeadDim == 256 && dev.WorkgroupMemory < 48<<10 {
		if err == nil {
			t.Error("heads of 256 seem to fit")
		}
		t.Skip("heads of 256 need 48 KiB of workgroup memory, and are refused here: scripts/gpu/check runs them on a GPU")
	}
	if err != nil {
		t.Fatal(err)
	}
	kernel.Grid[1] = o.Tiles(dev, tokens)
	positions := []int{3, 4} // of another span
	for i := range tokens {
		positions = append(positions, first+i)
	}
	q := normals(o.Width*len(positions), 3)
	width := o.Heads * o.HeadDim
	y := r.empty(4 * width * len(positions))
	r.run(r.bind(kernel, true, buffer(r, step(positions...)), buffer(r, []uint32{2, tokens, capacity, 0}), buffer(r, q), k, v, y))
	a := Attend{Heads: o.Heads, KVHeads: o.KVHeads, HeadDim: o.HeadDim, Width: o.Width, Window: o.Window, Scale: o.Scale, SoftCap: o.SoftCap}
	want, mag := a.plain(q[2*o.Width:], keys, values, positions[2:])
	got := read[float32](r, y, width*len(positions))
	compare(t, got[2*width:], want, mag, 4e-6)
	for i, v := range got[:2*width] {
		if v != 0 {
			t.Fatalf("element %d of another span's rows is %g", i, v)
		}
	}
}
