package kernels

import (
	"fmt"

	"github.com/apr-engine/apr/driver/wgpu"
)

// Attend is attention of a few tokens over a long context: the keys are split over
// workgroups, each of which reads them once for all query heads that share them, and
// Combine brings the parts together. Softmax is in float32 with a running maximum
// (Milakov & Gimelshein 2018; the split as in flash decoding).
//
// Queries are the first Heads·HeadDim numbers of rows of Width; the cache is as in
// Rotate. Which splits have anything to do follows from the position in the step
// buffer: the grid does not depend on it.
type Attend struct {
	Heads, KVHeads, HeadDim int
	Width                   int // numbers a row of q
	Window                  int // 0 for none
	Scale, SoftCap          float32
	Half                    bool // the cache holds F16 numbers
	// Splits is how many workgroups share the keys of a head at most.
	Splits int
	// Place makes the kernel do Rotate's work as well, for spans of one row whose heads
	// are rotated whole: queries, keys and values are as MatVec made them, and stay so.
	Place *Rotate
	// Merge does Combine's work too: of the workgroups that share a key head the last
	// to finish brings their parts together. Atomic operations carry them from one to
	// the other; Metal's and DX12's guarantees do not suffice for that.
	Merge bool
	// Quantise makes the result quantised rows instead of float32.
	Quantise bool
	// Tuning overrides the choice of sizes; zero fields are chosen.
	Tuning AttendTuning
}

// AttendTuning is how attention is divided.
type AttendTuning struct {
	Threads      int // of a workgroup
	Heads        int // query heads of a workgroup, at most
	Keys, Values int // keys and values that a thread fetches at once
	MinKeys      int // of a workgroup: fewer would make more work for whoever merges than they save
}

// CountsWords is the size of the buffer counts of Merge, zeros at first, for so many
// rows.
func (o Attend) CountsWords(rows int) int { return rows * o.Heads }

// Part is the number of float32 numbers that a split leaves a query head: maximum,
// sum, two unused, and the head's elements.
func (o Attend) Part() int { return o.HeadDim + 4 }

// PartsWords is the size of the buffer between the two kernels, for so many rows.
func (o Attend) PartsWords(rows int) int { return rows * o.Heads * o.Splits * o.Part() }

// defaults are the sizes that are not chosen by the caller.
func (t AttendTuning) defaults(d Device) AttendTuning {
	choose := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	if d.Software { // compiles in a bearable time
		choose(&t.Threads, 128)
		choose(&t.Keys, 1)
		choose(&t.Values, 1)
		choose(&t.MinKeys, 32)
	}
	choose(&t.Threads, 256)
	choose(&t.Heads, 4)
	choose(&t.Keys, 2)
	choose(&t.Values, 4)
	choose(&t.MinKeys, 64)
	t.Threads = min(t.Threads, d.Invocations)
	return t
}

func (o Attend) text(d Device) (*attendText, error) {
	if o.HeadDim != 64 && o.HeadDim != 128 && o.HeadDim != 256 || o.KVHeads < 1 || o.Heads%o.KVHeads != 0 || o.Splits < 1 || o.Width%4 != 0 {
		return nil, fmt.Errorf("split attention with heads of %d, %d of %d", o.HeadDim, o.Heads, o.KVHeads)
	}
	t := o.Tuning.defaults(d)
	v := &attendText{Attend: o, AllHeads: o.Heads, Group: o.Heads / o.KVHeads, Threads: t.Threads, Lanes: o.HeadDim / 16, KeyUnroll: t.Keys, ValueUnroll: t.Values}
	// Few query heads a workgroup leave registers for keys on their way.
	v.Passes = (v.Group + t.Heads - 1) / t.Heads
	v.Heads = (v.Group + v.Passes - 1) / v.Passes
	v.Passes = (v.Group + v.Heads - 1) / v.Heads
	v.Uneven = v.Group%v.Passes != 0 || v.Heads*v.Passes != v.Group
	v.HeadQuads = (v.Heads + 3) / 4
	v.Keys = v.Threads / v.Lanes
	v.Chunk = 8 * v.Keys
	v.Round = v.Keys * v.KeyUnroll
	v.MinTiles = max(1, t.MinKeys/v.Keys)
	v.KeyLoads = 4
	if o.Half {
		v.KeyLoads = 2
	}
	v.Shuffle = d.Subgroups && d.SubgroupMin >= v.Lanes
	v.Subgroup = d.SubgroupMin
	v.Steps = halvings(v.Lanes)
	for v.Share = v.Threads; v.Share*v.Heads > v.Threads; {
		v.Share /= 2
	}
	v.Scratch = v.Heads * v.Threads
	memory := 4 * v.Scratch
	if v.Shuffle {
		v.Share, memory = min(v.Share, d.SubgroupMin), 0
	}
	v.ShareSteps = halvings(v.Share)
	v.Across = min(v.HeadDim/4, 32)
	v.PerThread = v.HeadDim / 4 / v.Across
	v.Rows = v.Threads / v.Across
	memory += 16 * (v.Chunk*v.HeadQuads + v.HeadQuads + v.Threads*v.Heads)
	if v.Merge {
		memory += 4 * (v.Heads*(v.HeadDim+2*v.Splits) + 1)
	}
	v.TopsPerThread = (v.Heads*v.Splits + v.Threads - 1) / v.Threads
	if v.Chunk%v.Round != 0 || v.Round%(v.Rows*v.ValueUnroll) != 0 {
		return nil, fmt.Errorf("split attention that fetches %d keys and %d values", v.KeyUnroll, v.ValueUnroll)
	}
	if memory > d.WorkgroupMemory || v.Threads > d.Invocations {
		return nil, fmt.Errorf("split attention with %d heads of %d needs %d bytes of workgroup memory", v.Heads, o.HeadDim, memory)
	}
	return v, nil
}

// Kernel binds step, span, then with Place far, near, and qnorm and knorm if there are
// norms (see Rotate), then q, keys, values, parts, and with Merge counts and y. The grid's third axis is the number
// of rows of the span, 1 here; parts holds PartsWords numbers.
func (o Attend) Kernel(d Device) (Kernel, error) {
	v, err := o.text(d)
	if err != nil {
		return Kernel{}, err
	}
	cell := "array<vec4<u32>>"
	values := cell
	if o.Half {
		values = "array<vec2<u32>>"
	}
	v.bind("step", "array<vec4<u32>>", wgpu.ReadOnly)
	v.bind("span", "vec4<u32>", wgpu.ReadOnly)
	access := wgpu.ReadOnly
	if r := o.Place; r != nil {
		if 2*r.Pairs != o.HeadDim || r.HeadDim != o.HeadDim || r.Heads != o.Heads || r.KVHeads != o.KVHeads || r.Half != o.Half || o.Width != (o.Heads+2*o.KVHeads)*o.HeadDim {
			return Kernel{}, fmt.Errorf("attention that rotates %d pairs in heads of %d", r.Pairs, o.HeadDim)
		}
		access = wgpu.ReadWrite
		v.bind("far", "array<vec4<f32>>", wgpu.ReadOnly)
		v.bind("near", "array<vec4<f32>>", wgpu.ReadOnly)
		if r.HeadNorm {
			v.bind("qnorm", "array<vec4<f32>>", wgpu.ReadOnly)
			v.bind("knorm", "array<vec4<f32>>", wgpu.ReadOnly)
		}
	}
	v.bind("q", "array<vec4<f32>>", wgpu.ReadOnly)
	v.bind("keys", cell, access)
	v.bind("values", values, access)
	if o.Merge {
		v.bind("parts", "array<atomic<u32>>", wgpu.ReadWrite)
		v.bind("counts", "array<atomic<u32>>", wgpu.ReadWrite)
		v.bind("y", v.result(), wgpu.ReadWrite)
	} else {
		v.bind("parts", "array<f32>", wgpu.ReadWrite)
	}
	if len(v.Bound) > d.StorageBuffers {
		return Kernel{}, fmt.Errorf("%d bindings, the device has %d", len(v.Bound), d.StorageBuffers)
	}
	name := fmt.Sprintf("attend/%d/%d×%d/s%d/%d·%d·%d·%d·%d", o.Heads, o.KVHeads, o.HeadDim, o.Splits, v.Threads, v.Heads, v.KeyUnroll, v.ValueUnroll, v.MinTiles*v.Keys)
	if v.Shuffle {
		name += "/shuffle"
	}
	if o.Place != nil {
		name += "/place"
	}
	if o.Merge {
		name += "/merge"
	}
	return Kernel{Name: name, WGSL: expand("attend.wgsl", v), Bindings: v.list(), Grid: [3]int{o.KVHeads * v.Passes, o.Splits, 1}, Unchecked: true}, nil
}

// Combine binds step, span, parts, y. y is rows of Heads·HeadDim float32 numbers, or
// quantised rows. The grid's third axis is the number of rows of the span, 1 here.
func (o Attend) Combine(d Device) (Kernel, error) {
	v, err := o.text(d)
	if err != nil {
		return Kernel{}, err
	}
	v.bind("step", "array<vec4<u32>>", wgpu.ReadOnly)
	v.bind("span", "vec4<u32>", wgpu.ReadOnly)
	v.bind("parts", "array<f32>", wgpu.ReadOnly)
	v.bind("y", v.result(), wgpu.ReadWrite)
	return Kernel{Name: fmt.Sprintf("combine/%d×%d/s%d", o.Heads, o.HeadDim, o.Splits), WGSL: expand("combine.wgsl", v), Bindings: v.list(), Grid: [3]int{o.Heads, 1, 1}, Unchecked: true}, nil
}

// attendText is what the templates ask for.
type attendText struct {
	Attend
	boundList
	AllHeads, Group, Passes, Heads int
	Uneven                         bool // the last pass has fewer heads
	HeadQuads                      int  // Heads in fours
	Threads, Lanes, Keys, Chunk    int
	KeyUnroll, KeyLoads, Round     int
	Share                          int // threads a head in the softmax
	Across, PerThread, Rows        int // how threads share the values
	ValueUnroll                    int
	MinTiles                       int
	Scratch                        int
	Shuffle                        bool
	Subgroup                       int
	Steps, ShareSteps              []int
	TopsPerThread                  int
}

// halvings are n/2, n/4 … 1: the steps of a sum over n threads.
func halvings(n int) []int {
	var s []int
	for n /= 2; n > 0; n /= 2 {
		s = append(s, n)
	}
	return s
}

// Here is head h of a pass, as WGSL; the last again where there are fewer.
func (v *attendText) Here(h int) string {
	if v.Uneven && h > 0 {
		return fmt.Sprintf("min(%du, here - 1u)", h)
	}
	return fmt.Sprintf("%du", h)
}

// Score is the score of head h as WGSL, zero for one that fills up four.
func (v *attendText) Score(h int) string {
	switch {
	case h >= v.Heads:
		return "0.0"
	case v.SoftCap > 0:
		return fmt.Sprintf("soft(s%d)", h)
	}
	return fmt.Sprintf("s%d", h)
}

// ShuffleEight says that eight neighbouring threads may shuffle; Bit is 1 << n.
func (v *attendText) ShuffleEight() bool { return v.Shuffle && v.Subgroup >= 8 }
func (v *attendText) Bit(n int) int      { return 1 << n }

// Component is where head h is among four.
func (v *attendText) Component(h int) int { return h % 4 }

// CapText and ScaleText are numbers as WGSL, SoftText the function soft.
func (v *attendText) CapText() string   { return capText(v.SoftCap) }
func (v *attendText) SoftText() string  { return softText(v.SoftCap) }
func (v *attendText) ScaleText() string { return float(v.Scale) }

// Groups and QuantWords are about quantised rows of the result.
func (v *attendText) Groups() int     { return v.AllHeads * v.HeadDim / 32 }
func (v *attendText) QuantWords() int { return QuantWords(v.AllHeads * v.HeadDim) }

// HeadNorm, EpsText and Interleaved are about Place.
func (v *attendText) HeadNorm() bool    { return v.Place.HeadNorm }
func (v *attendText) EpsText() string   { return v.Place.EpsText() }
func (v *attendText) Interleaved() bool { return v.Place.Interleaved() }

// Quad is which quad of a head is a thread's c-th, as WGSL: as they lie in the cache.
func (v *attendText) Quad(c int) string {
	switch {
	case !v.Half:
		return fmt.Sprintf("%du * LANES + sub", c)
	case c < 2:
		return fmt.Sprintf("2u * sub + %du", c)
	}
	return fmt.Sprintf("DIM / 8u + 2u * sub + %du", c-2)
}

// PartStore is a statement that leaves a number for whoever merges.
func (v *attendText) PartStore(at, number string) string {
	if v.Merge {
		return fmt.Sprintf("atomicStore(&parts[%s], bitcast<u32>(%s));", at, number)
	}
	return fmt.Sprintf("parts[%s] = %s;", at, number)
}

// result is the type of y.
func (v *attendText) result() string {
	if v.Quantise {
		return "array<u32>"
	}
	return "array<f32>"
}
