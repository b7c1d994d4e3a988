package kernels

import (
	"errors"
	"fmt"

	"github.com/apr-engine/apr/driver/wgpu"
)

// Unpack makes half-precision numbers of packed weights, so that HalfMul can multiply
// them with many tokens: rows First … of a matrix (…, K) that may have others as well.
type Unpack struct {
	Part
	K, First int
}

// Kernel binds w (the packed matrix) and y (half-precision rows of K numbers).
func (u Unpack) Kernel(d Device) (Kernel, error) {
	if !d.F16 {
		return Kernel{}, errors.New("the device has no half-precision numbers")
	}
	w, err := NewWeight("w", u.Type, u.K)
	if err != nil {
		return Kernel{}, err
	}
	v := &unpackText{Unpack: u, Weight: w, Threads: min(256, d.Invocations)}
	v.Grid = d.spread((u.Rows*u.K/8 + v.Threads - 1) / v.Threads)
	v.bind("w", "array<vec4<u32>>", wgpu.ReadOnly)
	v.bind("y", "array<H8>", wgpu.ReadWrite)
	name := fmt.Sprintf("unpack/%s×%d/k%d/%d", u.Type, u.Rows, u.K, u.First)
	return Kernel{Name: name, WGSL: expand("unpack.wgsl", v), Bindings: v.list(), Grid: v.Grid, Unchecked: true}, nil
}

// unpackText is what the template asks for.
type unpackText struct {
	Unpack
	Weight Weight
	boundList
	Threads int
	Grid    [3]int
}

// Helpers is the common WGSL.
func (v *unpackText) Helpers() string { return Helpers() }

// HalfMul is the product of a half-precision matrix with many tokens, like MatMul with
// F16 but of weights that Unpack made: threads keep squares of sums whose pairs run
// along the columns. Sums of 16 products are half precision, all else float32.
type HalfMul struct {
	K, Rows  int
	Bias     bool
	Residual Residual
	SoftCap  float32 // c·tanh(y/c); 0 for none
	// Wanted takes as many rows as the step wants logits of, not its tokens.
	Wanted bool
	// First and Out place the product in rows of y: Out elements a token, 0 for Rows.
	First, Out int
	// Split divides the columns among as many workgroups as the grid's third axis is
	// long, for products of too few tiles to keep a device busy. y then takes a sum of each,
	// (split, token, row), and Gather adds them up; bias, residual and the like are left to it.
	Split bool
	// Tile overrides the choice of sizes.
	Tile HalfTile
}

// Splits is the length of the grid's third axis that suits so many tokens: 1 where splitting
// costs more than it saves, by the times of an H200 (docs/performance.md).
func (m HalfMul) Splits(tokens int) int {
	t := m.tile()
	tiles := (m.Rows + t.Rows - 1) / t.Rows * m.TokenTiles(tokens)
	best, least := 1, 0.0
	for n := 1; n <= splitMost && m.K/n >= splitColumns; n++ {
		each := (tiles*n + splitProcessors - 1) / splitProcessors
		// Four at a time, and what is left over; then writing and adding up the sums.
		time := (float64(each/4) + [4]float64{0, 0.5, 0.65, 0.82}[each%4]) / float64(n)
		time += 0.04 * float64(n*tiles) / (4 * splitProcessors) * 1536 / float64(m.K)
		if n == 1 || time < least {
			best, least = n, time
		}
		if each > 12 {
			break // evenly loaded enough
		}
	}
	return best
}

// A processor of the device works on four tiles at a time; one alone takes half as long as
// four. splitMost and splitColumns bound what splitting costs.
const splitProcessors, splitMost, splitColumns = 132, 8, 256

// PartsBytes is the size of the sums of a split product for so many tokens and fewer.
func (m HalfMul) PartsBytes(tokens int) int {
	most := 0
	for n := tokens; n > 0; n -= m.tile().Tokens {
		most = max(most, 4*m.Splits(n)*n*m.Rows)
	}
	return most
}

// HalfTile is how a product is divided: rows and tokens of a workgroup and of a thread.
type HalfTile struct{ Rows, Tokens, ThreadRows, ThreadTokens int }

// Kernel binds w (Rows, K), step, x, scale (both made by Halve), then bias and residual
// if there are any, then y. Grid's first axis is for one tile of tokens; TokenTiles says how many are
// needed.
func (m HalfMul) Kernel(d Device) (Kernel, error) {
	if !d.F16 {
		return Kernel{}, errors.New("the device has no half-precision numbers")
	}
	if m.Rows < 1 || m.K < 32 || m.K%32 != 0 {
		return Kernel{}, fmt.Errorf("a half-precision matrix of %d rows of %d", m.Rows, m.K)
	}
	if m.Split {
		if m.Rows%4 != 0 || m.Bias || m.Residual != NoResidual || m.SoftCap != 0 || m.First != 0 || m.Out != 0 {
			return Kernel{}, fmt.Errorf("a split product of %d rows that does more than multiply", m.Rows)
		}
	}
	v := &halfMulText{HalfMul: m}
	t := m.tile()
	v.TileRows, v.TileTokens, v.ThreadRows, v.ThreadTokens = t.Rows, t.Tokens, t.ThreadRows, t.ThreadTokens
	v.Across, v.Down = t.Rows/t.ThreadRows, t.Tokens/t.ThreadTokens
	v.Threads = v.Across * v.Down
	v.WeightLoads, v.TokenLoads = (t.Rows+v.Threads-1)/v.Threads, (t.Tokens+v.Threads-1)/v.Threads
	if v.Across%8 != 0 || v.Down%4 != 0 || t.ThreadRows%4 != 0 || t.ThreadTokens%4 != 0 || v.Threads > d.Invocations {
		return Kernel{}, fmt.Errorf("tiles of %d × %d for %d threads", t.Rows, t.Tokens, v.Threads)
	}
	if memory := 16 * 16 * (t.Rows/4 + t.Tokens/4 + 2); memory > d.WorkgroupMemory {
		return Kernel{}, fmt.Errorf("tiles of %d × %d need %d bytes of workgroup memory", t.Rows, t.Tokens, memory)
	}
	if v.Out == 0 {
		v.Out = m.Rows
	}
	number := "array<f32>"
	if v.Fours = m.Rows%4 == 0 && m.First%4 == 0 && v.Out%4 == 0; v.Fours {
		number = "array<vec4<f32>>"
	}
	v.bind("w", "array<H8>", wgpu.ReadOnly)
	v.bind("step", "array<vec4<u32>>", wgpu.ReadOnly)
	v.bind("x", "array<H8>", wgpu.ReadOnly)
	v.bind("scale", "array<f32>", wgpu.ReadOnly)
	if m.Bias {
		v.bind("bias", number, wgpu.ReadOnly)
	}
	if m.Residual == FromBuffer {
		v.bind("residual", number, wgpu.ReadOnly)
	}
	v.bind("y", number, wgpu.ReadWrite)
	if len(v.Bound) > d.StorageBuffers {
		return Kernel{}, fmt.Errorf("%d bindings, the device has %d", len(v.Bound), d.StorageBuffers)
	}
	groups := (m.Rows + t.Rows - 1) / t.Rows
	if groups > d.Workgroups {
		return Kernel{}, fmt.Errorf("%d tiles along one axis, the device takes %d", groups, d.Workgroups)
	}
	name := fmt.Sprintf("halfmul/%d/k%d/%d×%d·%d×%d", m.Rows, m.K, t.Rows, t.Tokens, t.ThreadRows, t.ThreadTokens)
	if m.Split {
		name += "/split"
	}
	return Kernel{Name: name, WGSL: expand("halfmul.wgsl", v), Bindings: v.list(), Grid: [3]int{1, groups, 1}, Unchecked: true}, nil
}

// tile is the choice of sizes.
func (m HalfMul) tile() HalfTile {
	if m.Tile == (HalfTile{}) {
		return HalfTile{Rows: 64, Tokens: 64, ThreadRows: 8, ThreadTokens: 8}
	}
	return m.Tile
}

// TokenTiles is the length of the grid's first axis for so many tokens.
func (m HalfMul) TokenTiles(tokens int) int {
	t := m.tile().Tokens
	return (tokens + t - 1) / t
}

// halfMulText is what the template asks for.
type halfMulText struct {
	HalfMul
	boundList
	TileRows, TileTokens, ThreadRows, ThreadTokens int
	Threads, Across, Down                          int
	WeightLoads, TokenLoads                        int  // of a thread, four rows each
	Fours                                          bool // results are stored four at a time
}

// CapText is SoftCap as WGSL, SoftText the function soft.
func (v *halfMulText) CapText() string  { return capText(v.SoftCap) }
func (v *halfMulText) SoftText() string { return softText(v.SoftCap) }

// Unit is which eight columns of four rows a thread fetches; where there are fewer than
// threads, several fetch the last.
func (v *halfMulText) Unit(load, rows int) string {
	unit := fmt.Sprintf("i + %du", load*v.Threads)
	if (load+1)*v.Threads > rows {
		unit = fmt.Sprintf("min(%s, %du)", unit, rows-1)
	}
	return unit
}

// Pair is pair n%4 of eight numbers.
func (v *halfMulText) Pair(n int) string { return [4]string{"a.xy", "a.zw", "b.xy", "b.zw"}[n%4] }

// Times is n/4 times m, Rest what n/4 leaves.
func (v *halfMulText) Times(n, m int) int { return n / 4 * m }
func (v *halfMulText) Rest(n int) int     { return n % 4 }

// Gather adds up what a split HalfMul left, (split, token, row), and does what follows the
// product. The grid's second axis must be as long as there are splits; together with the first
// it divides the elements.
type Gather struct {
	Rows       int // a multiple of 4, as First and Out
	Bias       bool
	Residual   Residual
	SoftCap    float32
	Wanted     bool // as in HalfMul
	First, Out int
}

// Kernel binds step, parts, then bias and residual if there are any, then y.
func (g Gather) Kernel(d Device) (Kernel, error) {
	v := &gatherText{Gather: g, Threads: min(256, d.Invocations)}
	if v.Out == 0 {
		v.Out = g.Rows
	}
	if g.Rows < 1 || g.Rows%4 != 0 || g.First%4 != 0 || v.Out%4 != 0 {
		return Kernel{}, fmt.Errorf("sums of %d rows from %d on in rows of %d", g.Rows, g.First, v.Out)
	}
	const fours = "array<vec4<f32>>"
	v.bind("step", "array<vec4<u32>>", wgpu.ReadOnly)
	v.bind("parts", fours, wgpu.ReadOnly)
	if g.Bias {
		v.bind("bias", fours, wgpu.ReadOnly)
	}
	if g.Residual == FromBuffer {
		v.bind("residual", fours, wgpu.ReadOnly)
	}
	v.bind("y", fours, wgpu.ReadWrite)
	return Kernel{Name: fmt.Sprintf("gather/%d", g.Rows), WGSL: expand("gather.wgsl", v), Bindings: v.list(), Grid: [3]int{1, 1, 1}, Unchecked: true}, nil
}

// Groups is the length of the grid's first axis for so many tokens and splits.
func (g Gather) Groups(d Device, tokens, splits int) int {
	each := 4 * min(256, d.Invocations) * splits
	return min((tokens*g.Rows+each-1)/each, d.Workgroups)
}

// gatherText is what the template asks for.
type gatherText struct {
	Gather
	boundList
	Threads int
}

// Fours says that results are four at a time.
func (v *gatherText) Fours() bool { return true }

// CapText is SoftCap as WGSL, SoftText the functions soft and soft4.
func (v *gatherText) CapText() string  { return capText(v.SoftCap) }
func (v *gatherText) SoftText() string { return softText(v.SoftCap) }
