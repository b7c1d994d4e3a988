package kernels

import (
	"errors"
	"fmt"
	"strings"

	"github.com/apr-engine/apr/driver/wgpu"
)

// MatMul is products of matrices of equal K with the same many tokens: tiles of
// weights are turned into numbers on the way to the workgroup's memory, and each thread
// keeps a square of sums in registers. y holds for each token the products of all parts
// one after the other.
//
// With F16, activations and weights are half-precision numbers, sums of 16 or 32
// products too, and all else is float32: the error is at most some thousandths of a
// product's magnitude, and activations carry a power of two each row (see Halve), so that neither
// outliers nor small rows leave the range. Without it all is float32.
type MatMul struct {
	K        int
	Parts    []Part
	F16      bool
	Bias     bool
	Residual Residual
	SoftCap  float32 // c·tanh(y/c); 0 for none
	// Wanted takes as many rows as the step wants logits of, not its tokens.
	Wanted bool
	// First and Out place the products in rows of y: Out elements a token. Out 0
	// means that the products are all.
	First, Out int
	// Tile overrides the choice of sizes; zero fields are chosen.
	Tile Tile
}

// Tile is how a product is divided: rows and tokens of a workgroup and of a thread.
type Tile struct {
	Rows, Tokens, ThreadRows, ThreadTokens int
	// Quads makes half-precision sums vectors of four tokens, of 32 products, rather
	// than sums of 16 products each.
	Quads bool
}

// Kernel binds w0, w1 … (packed matrices), step, x, scale (if F16), then bias and
// residual if there are any, then y. x and scale are what Halve makes; without F16, x is
// float32 rows. The number of tokens is what the step says; Grid's second axis is for
// one tile of tokens, TokenTiles says how many are needed.
func (m MatMul) Kernel(d Device) (Kernel, error) {
	v := &matMulText{MatMul: m}
	if err := v.check(d); err != nil {
		return Kernel{}, err
	}
	for i, p := range m.Parts {
		w, err := NewWeight(fmt.Sprintf("w%d", i), p.Type, m.K)
		if err != nil {
			return Kernel{}, err
		}
		v.Weights = append(v.Weights, w)
		v.bind(w.Name, "array<vec4<u32>>", wgpu.ReadOnly)
	}
	v.bind("step", "array<vec4<u32>>", wgpu.ReadOnly)
	v.bind("x", "array<H4>", wgpu.ReadOnly)
	if m.F16 {
		v.bind("scale", "array<f32>", wgpu.ReadOnly)
	}
	if m.Bias {
		v.bind("bias", "array<f32>", wgpu.ReadOnly)
	}
	if m.Residual == FromBuffer {
		v.bind("residual", "array<f32>", wgpu.ReadOnly)
	}
	v.bind("y", "array<f32>", wgpu.ReadWrite)
	if len(v.Bound) > d.StorageBuffers {
		return Kernel{}, fmt.Errorf("%d bindings, the device has %d", len(v.Bound), d.StorageBuffers)
	}
	if err := v.divide(d); err != nil {
		return Kernel{}, err
	}
	if v.Out == 0 {
		v.Out = v.Offset(len(m.Parts))
	}
	groups := v.EndGroup(len(m.Parts) - 1)
	if groups > d.Workgroups {
		return Kernel{}, fmt.Errorf("%d tiles along one axis, the device takes %d", groups, d.Workgroups)
	}
	return Kernel{Name: v.name(), WGSL: expand("gemm.wgsl", v), Bindings: v.list(), Grid: [3]int{groups, 1, 1}, Unchecked: true}, nil
}

// TokenTiles is the length of the grid's second axis for so many tokens.
func (m MatMul) TokenTiles(d Device, tokens int) int {
	v := &matMulText{MatMul: m}
	if v.divide(d) != nil {
		return 0
	}
	return (tokens + v.TileTokens - 1) / v.TileTokens
}

// matMulText is what the template asks for.
type matMulText struct {
	MatMul
	Weights []Weight
	boundList
	TileRows, TileTokens, ThreadRows, ThreadTokens int
	Threads, Across, Down                          int
	Quads                                          bool
	TokenQuads                                     int
	WeightLoads, TokenLoads                        int // of a thread
}

func (v *matMulText) check(d Device) error {
	if len(v.Parts) == 0 {
		return errors.New("a product of nothing")
	}
	for _, p := range v.Parts {
		if p.Rows < 1 {
			return fmt.Errorf("a matrix of %d rows", p.Rows)
		}
	}
	if v.F16 && !d.F16 {
		return errors.New("the device has no half-precision numbers")
	}
	return nil
}

// divide chooses the tile.
func (v *matMulText) divide(d Device) error {
	t := v.Tile
	if t == (Tile{}) {
		t = Tile{64, 64, 8, 4, false}
		if v.F16 {
			t = Tile{64, 128, 8, 8, true} // fewer registers, half the conversions
		}
		if d.Software {
			t = Tile{32, 16, 4, 4, false} // compiles in a bearable time
		}
		size := 16
		if v.F16 {
			size = 8
		}
		for t.Rows > 32 && 9*size*(t.Rows+t.Tokens) > d.WorkgroupMemory {
			t.Rows, t.Tokens = t.Rows/2, t.Tokens/2
		}
	}
	v.TileRows, v.TileTokens, v.ThreadRows, v.ThreadTokens = t.Rows, t.Tokens, t.ThreadRows, t.ThreadTokens
	v.Quads, v.TokenQuads = t.Quads && v.F16, t.ThreadTokens/4
	v.Across, v.Down = t.Rows/t.ThreadRows, t.Tokens/t.ThreadTokens
	v.Threads = v.Across * v.Down
	v.WeightLoads, v.TokenLoads = 2*t.Rows/v.Threads, 8*t.Tokens/v.Threads
	if v.Threads > d.Invocations || v.WeightLoads < 1 || v.TokenLoads < 1 || v.Quads && (v.TokenLoads%4 != 0 || t.ThreadTokens%4 != 0) {
		return fmt.Errorf("tiles of %d × %d for %d threads", t.Rows, t.Tokens, v.Threads)
	}
	return nil
}

// Offset is where part p begins in a row of y.
func (v *matMulText) Offset(p int) int { return MatVec{Parts: v.Parts, First: v.First}.offset(p) }

// EndGroup is the row of tiles after the last of part p, StartGroup the first of it.
func (v *matMulText) EndGroup(p int) int {
	n := 0
	for _, q := range v.Parts[:p+1] {
		n += (q.Rows + v.TileRows - 1) / v.TileRows
	}
	return n
}
func (v *matMulText) StartGroup(p int) int { return v.EndGroup(p - 1) }

// Last says that part p is the last.
func (v *matMulText) Last(p int) bool { return p == len(v.Parts)-1 }

// Fours says whether results are four at a time.
func (v *matMulText) Fours() bool { return false }

// CapText is SoftCap as WGSL, SoftText the functions soft and soft4.
func (v *matMulText) CapText() string  { return capText(v.SoftCap) }
func (v *matMulText) SoftText() string { return softText(v.SoftCap) }

// Helpers is the common WGSL.
func (v *matMulText) Helpers() string { return Helpers() }

func (v *matMulText) name() string {
	var b strings.Builder
	b.WriteString("matmul")
	for i, p := range v.Parts {
		fmt.Fprintf(&b, "%c%s×%d", "/+"[min(i, 1)], p.Type, p.Rows)
	}
	fmt.Fprintf(&b, "/k%d/%d×%d·%d×%d", v.K, v.TileRows, v.TileTokens, v.ThreadRows, v.ThreadTokens)
	if v.F16 {
		b.WriteString("/f16")
	}
	if v.Quads {
		b.WriteString("/quads")
	}
	return b.String()
}
