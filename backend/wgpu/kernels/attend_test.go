package kernels

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
)

// halves rounds numbers to F16 and packs them.
func halves(x []float32) (packed []uint16, rounded []float32) {
	for _, v := range x {
		h := quant.F32ToF16(v)
		packed, rounded = append(packed, h), append(rounded, quant.F16ToF32(h))
	}
	return packed, rounded
}

// normals are numbers of unit variance, one in 300 an outlier.
func normals(n int, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 11))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
		if rng.IntN(300) == 0 {
			x[i] *= 8
		}
	}
	return x
}

// numbers reads n numbers, F16 or float32.
func numbers(r *rig, b *wgpu.Buffer, n int, half bool) []float32 {
	r.t.Helper()
	if !half {
		return read[float32](r, b, n)
	}
	var x []float32
	for _, h := range read[uint16](r, b, n) {
		x = append(x, quant.F16ToF32(h))
	}
	return x
}

// step is the executor's step buffer for rows at the given positions.
func step(positions ...int) [][4]uint32 {
	s := [][4]uint32{{uint32(len(positions)), uint32(len(positions)), uint32(len(positions)), 0}}
	for i, p := range positions {
		s = append(s, [4]uint32{0, uint32(p), uint32(i), uint32(i)})
	}
	return s
}

// attention is the definition, in float64, for rows of queries at positions.
func (o Attend) plain(q, keys, values []float32, positions []int) (y, mag []float64) {
	kvw := o.KVHeads * o.HeadDim
	for t, p := range positions {
		first := 0
		if o.Window > 0 {
			first = max(0, p+1-o.Window)
		}
		for h := range o.Heads {
			at := h / (o.Heads / o.KVHeads) * o.HeadDim
			var scores []float64
			top := math.Inf(-1)
			for j := first; j <= p; j++ {
				s := 0.0
				for d := range o.HeadDim {
					s += float64(q[t*o.Width+h*o.HeadDim+d]) * float64(keys[j*kvw+at+d])
				}
				s *= float64(o.Scale)
				if o.SoftCap > 0 {
					s = float64(o.SoftCap) * math.Tanh(s/float64(o.SoftCap))
				}
				scores, top = append(scores, s), max(top, s)
			}
			sum := 0.0
			for i := range scores {
				scores[i] = math.Exp(scores[i] - top)
				sum += scores[i]
			}
			for d := range o.HeadDim {
				v, m := 0.0, 0.0
				for i, s := range scores {
					x := float64(values[(first+i)*kvw+at+d])
					v += s / sum * x
					m += s / sum * math.Abs(x)
				}
				y, mag = append(y, v), append(mag, m)
			}
		}
	}
	return y, mag
}

// hardware is how attention is divided where no CPU plays the device.
var hardware = AttendTuning{}.defaults(Device{Invocations: 1024})

// TestAttend: split attention, over one key and over many, with windows and caps,
// groups of all sizes, F16 and F32 caches, with and without subgroups.
func TestAttend(t *testing.T) {
	r := newRig(t, wgpu.Features{Subgroups: true})
	for _, a := range abilities {
		for i, o := range []Attend{
			{Heads: 6, KVHeads: 1, HeadDim: 128, Half: true, Splits: 8},
			{Heads: 14, KVHeads: 2, HeadDim: 128, Half: true, Splits: 3, SoftCap: 20},
			{Heads: 4, KVHeads: 4, HeadDim: 64, Half: true, Splits: 4, Window: 37},
			{Heads: 12, KVHeads: 1, HeadDim: 64, Splits: 16},
			{Heads: 2, KVHeads: 1, HeadDim: 256, Half: true, Splits: 2},
			{Heads: 8, KVHeads: 2, HeadDim: 128, Splits: 5, Window: 100, SoftCap: 30},
			{Heads: 14, KVHeads: 2, HeadDim: 128, Half: true, Splits: 11, Tuning: hardware},
			{Heads: 5, KVHeads: 1, HeadDim: 256, Splits: 4, Tuning: hardware},
		} {
			for mode := range 4 {
				o.Quantise, o.Merge = mode&1 != 0, mode&2 != 0
				if mode > 0 && i > 1 && (mode != 3 || o.Tuning != hardware) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d·%d×%d half %v quantise %v merge %v", a.name, o.Heads, o.KVHeads, o.HeadDim, o.Half, o.Quantise, o.Merge), func(t *testing.T) {
					dev := r.device()
					a.take(&dev)
					o.test(&rig{t, r.d}, dev)
				})
			}
		}
	}
}

func (o Attend) test(r *rig, dev Device) {
	t := r.t
	t.Helper()
	o.Scale, o.Width = float32(1/math.Sqrt(float64(o.HeadDim))), (o.Heads+2*o.KVHeads)*o.HeadDim
	const capacity = 330
	keys := normals(o.KVHeads*o.HeadDim*capacity, 1)
	values := activations(o.KVHeads*o.HeadDim, capacity, 2)
	var k, v *wgpu.Buffer
	if o.Half {
		var kp, vp []uint16
		kp, keys = halves(keys)
		vp, values = halves(values)
		k, v = buffer(r, kp), buffer(r, vp)
	} else {
		k, v = buffer(r, keys), buffer(r, values)
	}
	attend, err := o.Kernel(dev)
	if err != nil {
		t.Fatal(err)
	}
	combine, err := o.Combine(dev)
	if err != nil {
		t.Fatal(err)
	}
	// A row of another sequence comes first; the span has the others.
	positions := []int{7, 0, 17, 63, 329}
	rows := len(positions)
	q := normals(o.Width*rows, 3) // so that many keys have a say
	attend.Grid[2], combine.Grid[2] = rows-1, rows-1
	steps, span := buffer(r, step(positions...)), buffer(r, []uint32{1, uint32(rows - 1), capacity, 0})
	parts := r.empty(4 * o.PartsWords(rows-1))
	width := o.Heads * o.HeadDim
	y := r.empty(4 * max(width, QuantWords(width)) * rows)
	if o.Merge {
		// Several times: each run must leave the counts as it found them.
		k := r.bind(attend, true, steps, span, buffer(r, q), k, v, parts, r.empty(4*o.CountsWords(rows)), y)
		r.run(k, k, k)
	} else {
		r.run(r.bind(attend, true, steps, span, buffer(r, q), k, v, parts), r.bind(combine, true, steps, span, parts, y))
	}
	want, mag := o.plain(q[o.Width:], keys, values, positions[1:])
	if o.Quantise {
		got, _ := unquantize(read[uint32](r, y, QuantWords(width)*rows), width, rows)
		got = got[width:]
		for i := range got {
			top := 0.0
			for _, w := range want[i&^31 : i&^31+32] {
				top = max(top, math.Abs(w))
			}
			if d := math.Abs(float64(got[i]) - want[i]); !(d <= 4e-6*mag[i]+top/60000) {
				t.Fatalf("element %d: %g, want %g", i, got[i], want[i])
			}
		}
		return
	}
	compare(t, read[float32](r, y, width*rows)[width:], want, mag, 4e-6)
}

// TestAttendPlace: attention that rotates and stores first gives what the two kernels
// give one after the other, and leaves the same cache.
func TestAttendPlace(t *testing.T) {
	r := newRig(t, wgpu.Features{Subgroups: true})
	for _, a := range abilities {
		for _, o := range []Rotate{
			{Heads: 6, KVHeads: 2, HeadDim: 128, Pairs: 64, Half: true},
			{Heads: 12, KVHeads: 1, HeadDim: 64, Pairs: 32, Half: true, HeadNorm: true, Eps: 1e-6, Pairing: graph.Interleaved},
			{Heads: 2, KVHeads: 1, HeadDim: 64, Pairs: 32, HeadNorm: true, Eps: 1e-6},
			{Heads: 2, KVHeads: 2, HeadDim: 128, Pairs: 64, Pairing: graph.Interleaved},
		} {
			for _, p := range []int{0, 100} {
				t.Run(fmt.Sprintf("%s/%d·%d×%d half %v pairing %d at %d", a.name, o.Heads, o.KVHeads, o.HeadDim, o.Half, o.Pairing, p), func(t *testing.T) {
					dev := r.device()
					a.take(&dev)
					o.testPlaced(&rig{t, r.d}, dev, p)
				})
			}
		}
	}
}

// testPlaced compares the cache and the result of both ways at a position.
func (o Rotate) testPlaced(r *rig, dev Device, position int) {
	t := r.t
	t.Helper()
	const capacity = 128
	width, kvw := (o.Heads+2*o.KVHeads)*o.HeadDim, o.KVHeads*o.HeadDim
	keys, values := normals(kvw*capacity, 1), normals(kvw*capacity, 2)
	bytes := func(x []float32) []byte {
		if !o.Half {
			return bytesOf(x)
		}
		h, _ := halves(x)
		return bytesOf(h)
	}
	angles := func(n int, seed uint64) (table []float32) {
		for _, v := range normals(n*o.Pairs, seed) {
			s, c := math.Sincos(float64(v))
			table = append(table, float32(c), float32(s))
		}
		return table
	}
	far, near := buffer(r, angles(3, 6)), buffer(r, angles(256, 7))
	qn, kn := buffer(r, activations(o.HeadDim, 1, 5)), buffer(r, activations(o.HeadDim, 1, 6))
	steps, span := buffer(r, step(5, position)), buffer(r, []uint32{1, 1, capacity, 0})
	x := normals(2*width, 3)
	a := Attend{Heads: o.Heads, KVHeads: o.KVHeads, HeadDim: o.HeadDim, Width: width, Half: o.Half, Splits: 3, Scale: 0.1}
	combine, err := a.Combine(dev)
	if err != nil {
		t.Fatal(err)
	}
	var results [2][]float32
	var caches [2][]float32
	for i := range results {
		qkv, k, v := buffer(r, x), buffer(r, bytes(keys)), buffer(r, bytes(values))
		parts, y := r.empty(4*a.PartsWords(1)), r.empty(8*o.Heads*o.HeadDim)
		var list []ready
		tables := []*wgpu.Buffer{far, near}
		if i == 0 {
			rotate, err := o.Kernel(dev)
			if err != nil {
				t.Fatal(err)
			}
			bufs := []*wgpu.Buffer{steps, span, far, near, qkv, k, v}
			if o.HeadNorm {
				bufs = append(bufs, qn, kn)
			}
			list, tables = append(list, r.bind(rotate, true, bufs...)), nil
		} else {
			a.Place = &o
			if o.HeadNorm {
				tables = append(tables, qn, kn)
			}
		}
		attend, err := a.Kernel(dev)
		if err != nil {
			t.Fatal(err)
		}
		bufs := append(append([]*wgpu.Buffer{steps, span}, tables...), qkv, k, v, parts)
		r.run(append(list, r.bind(attend, true, bufs...), r.bind(combine, true, steps, span, parts, y))...)
		results[i] = read[float32](r, y, 2*o.Heads*o.HeadDim)
		for _, b := range []*wgpu.Buffer{k, v} {
			caches[i] = append(caches[i], numbers(r, b, kvw*capacity, o.Half)...)
		}
	}
	// The last bits may differ: devices fuse products and sums as they like.
	limit := 4e-6
	if o.Half {
		limit = 1e-3
	}
	for i, want := range caches[0] {
		if d := math.Abs(float64(caches[1][i] - want)); !(d <= limit*(math.Abs(float64(want))+0.1)) {
			t.Fatalf("element %d of the caches: %g, want %g", i, caches[1][i], want)
		}
	}
	for i, want := range results[0] {
		if d := math.Abs(float64(results[1][i] - want)); !(d <= 1e-3*math.Abs(float64(want))+1e-3) {
			t.Fatalf("element %d: %g, want %g", i, results[1][i], want)
		}
	}
}

// TestRotate: rotary embedding of both pairings, whole heads and parts of them, with
// and without norms of heads, and where keys and values end up.
func TestRotate(t *testing.T) {
	r := newRig(t, wgpu.Features{})
	for _, o := range []Rotate{
		{Heads: 3, KVHeads: 1, HeadDim: 128, Pairs: 64, Half: true},
		{Heads: 2, KVHeads: 2, HeadDim: 64, Pairs: 32, Pairing: graph.Interleaved},
		{Heads: 2, KVHeads: 1, HeadDim: 80, Pairs: 16, Half: true, HeadNorm: true, Eps: 1e-6},
		{Heads: 2, KVHeads: 1, HeadDim: 96, Pairs: 24, Pairing: graph.Interleaved, HeadNorm: true, Eps: 1e-5, Half: true},
	} {
		t.Run(fmt.Sprintf("%d·%d×%d/%d pairing %d", o.Heads, o.KVHeads, o.HeadDim, o.Pairs, o.Pairing), func(t *testing.T) {
			o.test(&rig{t, r.d}, r.device())
		})
	}
}

func (o Rotate) test(r *rig, dev Device) {
	t := r.t
	t.Helper()
	k, err := o.Kernel(dev)
	if err != nil {
		t.Fatal(err)
	}
	const capacity, reach = 700, 4
	positions := []int{3, 0, 255, 256, 699}
	rows := len(positions)
	k.Grid[1] = rows - 1
	width := (o.Heads + 2*o.KVHeads) * o.HeadDim
	x := activations(width, rows, 4)
	inv := make([]float64, o.Pairs)
	for i := range inv {
		inv[i] = math.Pow(10000, -float64(i)/float64(o.Pairs))
	}
	const magnitude = 1.1
	var far, near []float32
	for a := -1; a < reach; a++ {
		for _, f := range inv {
			far = append(far, float32(math.Cos(float64(256*a)*f)), float32(math.Sin(float64(256*a)*f)))
		}
	}
	for b := range 256 {
		for _, f := range inv {
			near = append(near, float32(magnitude*math.Cos(float64(b)*f)), float32(magnitude*math.Sin(float64(b)*f)))
		}
	}
	qn, kn := activations(o.HeadDim, 1, 5), activations(o.HeadDim, 1, 6)
	kvw := o.KVHeads * o.HeadDim
	size := 4
	if o.Half {
		size = 2
	}
	qkv, keys, values := buffer(r, x), r.empty(size*kvw*capacity), r.empty(size*kvw*capacity)
	bufs := []*wgpu.Buffer{buffer(r, step(positions...)), buffer(r, []uint32{1, uint32(rows - 1), capacity, 0}), buffer(r, far), buffer(r, near), qkv, keys, values}
	if o.HeadNorm {
		bufs = append(bufs, buffer(r, qn), buffer(r, kn))
	}
	r.run(r.bind(k, true, bufs...))
	got := read[float32](r, qkv, width*rows)
	ck, cv := numbers(r, keys, kvw*capacity, o.Half), numbers(r, values, kvw*capacity, o.Half)
	check := func(what string, got, want, scale, rel float64) {
		t.Helper()
		if d := math.Abs(got - want); !(d <= rel*scale) {
			t.Fatalf("%s: %g, want %g", what, got, want)
		}
	}
	rounding := 4e-6
	if o.Half {
		rounding = 1.0 / 2000
	}
	for row, p := range positions {
		for h := range o.Heads + 2*o.KVHeads {
			at := row*width + h*o.HeadDim
			head := x[at : at+o.HeadDim]
			if o.HeadNorm && h < o.Heads {
				head = normed(head, qn, o.Eps)
			} else if o.HeadNorm && h < o.Heads+o.KVHeads {
				head = normed(head, kn, o.Eps)
			}
			want := make([]float64, o.HeadDim)
			scale := make([]float64, o.HeadDim)
			for i, v := range head {
				want[i], scale[i] = float64(v), math.Abs(float64(v))
			}
			if h < o.Heads+o.KVHeads {
				for j, f := range inv {
					a, b := j, j+o.Pairs
					if o.Interleaved() {
						a, b = 2*j, 2*j+1
					}
					s, c := math.Sincos(float64(p) * f)
					u, v := float64(head[a]), float64(head[b])
					want[a], want[b] = magnitude*(u*c-v*s), magnitude*(u*s+v*c)
					scale[a] = magnitude * (math.Abs(u) + math.Abs(v))
					scale[b] = scale[a]
				}
			}
			for i := range want {
				what := fmt.Sprintf("row %d head %d element %d", row, h, i)
				if row == 0 || h >= o.Heads { // another span's row; keys and values stay in the rows
					check(what, float64(got[at+i]), float64(x[at+i]), 0, 0)
				} else {
					check(what, float64(got[at+i]), want[i], scale[i], 4e-6)
				}
				if row == 0 || h < o.Heads {
					continue
				}
				c, kv := ck, h-o.Heads
				if kv >= o.KVHeads {
					c, kv = cv, kv-o.KVHeads
				}
				check(what+" in the cache", float64(c[p*kvw+kv*o.HeadDim+i]), want[i], scale[i]+1e-4, rounding)
			}
		}
	}
	for i, v := range ck[3*kvw : 4*kvw] {
		if v != 0 {
			t.Fatalf("element %d of position 3 is %g, which is another span's", i, v)
		}
	}
}
