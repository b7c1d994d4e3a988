package kernels

import (
	"fmt"

	"github.com/apr-engine/apr/driver/wgpu"
)

// Flash is attention of many tokens of a span: a workgroup takes a tile of queries, of
// all heads that share keys, and walks over the keys in tiles with a running maximum
// (Dao et al. 2022). All sums are float32. Queries and cache are as in Attend; the
// span's keys must be in the cache.
type Flash struct {
	Heads, KVHeads, HeadDim int
	Width                   int // numbers a row of q
	Window                  int // 0 for none
	Scale, SoftCap          float32
	Half                    bool // the cache holds F16 numbers
}

// flashTiles are rows of queries and keys of a tile, best first.
var flashTiles = [][2]int{{32, 64}, {32, 32}, {16, 32}}

// Kernel binds step, span, q, keys, values, y (rows of Heads·HeadDim float32 numbers).
// Grid's second axis is for one tile of queries; Tiles says how many are needed.
func (o Flash) Kernel(d Device) (Kernel, error) {
	v, err := o.text(d)
	if err != nil {
		return Kernel{}, err
	}
	cell := "array<" + v.Cell() + ">"
	v.bind("step", "array<vec4<u32>>", wgpu.ReadOnly)
	v.bind("span", "vec4<u32>", wgpu.ReadOnly)
	v.bind("q", "array<vec4<f32>>", wgpu.ReadOnly)
	v.bind("keys", cell, wgpu.ReadOnly)
	v.bind("values", cell, wgpu.ReadOnly)
	v.bind("y", "array<vec4<f32>>", wgpu.ReadWrite)
	name := fmt.Sprintf("flash/%d/%d×%d/%d×%d", o.Heads, o.KVHeads, o.HeadDim, v.TileRows, v.TileKeys)
	return Kernel{Name: name, WGSL: expand("flash.wgsl", v), Bindings: v.list(), Grid: [3]int{o.KVHeads, 1, 1}, Unchecked: true}, nil
}

// Tiles is the length of the grid's second axis for a span of so many tokens.
func (o Flash) Tiles(d Device, tokens int) int {
	v, err := o.text(d)
	if err != nil {
		return 0
	}
	return (tokens*v.Group + v.TileRows - 1) / v.TileRows
}

func (o Flash) text(d Device) (*flashText, error) {
	if o.HeadDim != 64 && o.HeadDim != 128 && o.HeadDim != 256 || o.KVHeads < 1 || o.Heads%o.KVHeads != 0 || o.Width%4 != 0 {
		return nil, fmt.Errorf("attention with heads of %d, %d of %d", o.HeadDim, o.Heads, o.KVHeads)
	}
	v := &flashText{Flash: o, Quads: o.HeadDim / 4, Group: o.Heads / o.KVHeads}
	if d.Invocations < 128 {
		return nil, fmt.Errorf("workgroups of %d threads at most", d.Invocations)
	}
	cell := 16
	if o.Half {
		cell = 8
	}
	for _, t := range flashTiles {
		v.TileRows, v.TileKeys = t[0], t[1]
		v.Across = 128 / (v.TileRows / 4)
		v.ThreadKeys = v.TileKeys / v.Across
		v.Parts = 128 / v.TileRows
		v.OutRows = v.TileRows * v.Quads / 128
		v.KeyLoads = v.TileKeys * v.Quads / 128
		memory := (v.Quads+1)*(16*v.TileRows+cell*v.TileKeys) + 4*v.TileKeys*(v.TileRows+4) + 4*(128+5*v.TileRows)
		if memory <= d.WorkgroupMemory && v.ThreadKeys >= 1 && v.OutRows%4 == 0 {
			return v, nil
		}
	}
	return nil, fmt.Errorf("tiles of attention with heads of %d do not fit %d bytes", o.HeadDim, d.WorkgroupMemory)
}

// flashText is what the template asks for.
type flashText struct {
	Flash
	boundList
	Quads, Group       int
	TileRows, TileKeys int
	Across, ThreadKeys int
	Parts              int // threads a row in the softmax
	OutRows            int // rows of a thread in the output
	KeyLoads           int // quads of keys that a thread fetches
}

// Cell is the type of four elements of the cache.
func (v *flashText) Cell() string {
	if v.Half {
		return "vec2<u32>"
	}
	return "vec4<u32>"
}

// CapText and ScaleText are numbers as WGSL, SoftText the function soft.
func (v *flashText) CapText() string   { return capText(v.SoftCap) }
func (v *flashText) SoftText() string  { return softText(v.SoftCap) }
func (v *flashText) ScaleText() string { return float(v.Scale) }
