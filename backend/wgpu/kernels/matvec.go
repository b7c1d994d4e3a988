package kernels

import (
	"errors"
	"fmt"
	"strings"

	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// MaxTokens is the largest number of tokens of a matrix-vector product; from there on
// a matrix product is faster.
const MaxTokens = 8

// Residual says what a product is added to.
type Residual int

const (
	// NoResidual stores the product.
	NoResidual Residual = iota
	// InPlace adds it to what y holds.
	InPlace
	// FromBuffer adds the buffer named residual, as long as y.
	FromBuffer
)

// Part is one of the matrices of a product, (Rows, K).
type Part struct {
	Type tensor.DType
	Rows int
}

// ErrMixed refuses to multiply plain and quantised weights in one kernel: they take
// their activations in different forms.
var ErrMixed = errors.New("plain and quantised weights in one product")

// MatVec is products of matrices of equal K with the same few tokens. Threads of a
// workgroup read neighbouring groups of 32 weights of a row; with quantised weights
// all products inside a group are exact integers.
//
// Without Act, y holds for each token the products of all parts one after the other,
// from element First on. With Act there are two parts of equal size, and y holds
// act(part 0)·part 1.
type MatVec struct {
	K      int
	Parts  []Part
	Tokens int // 1 … MaxTokens
	// Bias is added from a buffer as long as a row of y.
	Bias     bool
	Residual Residual
	Act      *graph.Activation
	SoftCap  float32 // c·tanh(y/c); 0 for none
	// Norm takes float32 rows x and quantises x/sqrt(mean(x²)+Eps)·norm in every
	// workgroup, which are large then. Only for quantised weights.
	Norm bool
	Eps  float32
	// QuantOut makes the results of Act quantised rows; their number is a multiple of
	// 32.
	QuantOut bool
	// First and Out place the products in rows of y: Out elements a token. Out 0
	// means that the products are all.
	First, Out int
	// Tuning overrides the choice of sizes; zero fields are chosen.
	Tuning Tuning
}

// Tuning is how a product is divided.
type Tuning struct {
	Threads int // of a workgroup, a power of two
	Lanes   int // threads that share a row, a power of two
	Rows    int // rows of a thread
	Unroll  int // groups of 32 quantised weights of a row that a thread fetches at once
}

// Quantised reports whether x must be quantised rows (see Quantize), not float32.
func (m MatVec) Quantised() bool { return !floats(m.Parts[0].Type) && !m.Norm }

func floats(t tensor.DType) bool { return t == tensor.F32 || t == tensor.F16 || t == tensor.BF16 }

// Kernel binds w0, w1 … (packed matrices), x, then norm, bias and residual if there are
// any, then y.
func (m MatVec) Kernel(d Device) (Kernel, error) {
	v := &matVecText{MatVec: m}
	if err := v.check(); err != nil {
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
	x := "array<vec4<f32>>"
	if m.Quantised() { // else float32, normalised here or for plain weights
		x = "array<vec4<u32>>"
	}
	v.bind("x", x, wgpu.ReadOnly)
	if m.Norm {
		v.bind("norm", "array<vec4<f32>>", wgpu.ReadOnly)
	}
	if m.Bias {
		v.bind("bias", "array<f32>", wgpu.ReadOnly)
	}
	if m.Residual == FromBuffer {
		v.bind("residual", "array<f32>", wgpu.ReadOnly)
	}
	y := "array<f32>"
	if m.QuantOut {
		y = "array<u32>"
	}
	v.bind("y", y, wgpu.ReadWrite)
	if len(v.Bound) > d.StorageBuffers {
		return Kernel{}, fmt.Errorf("%d bindings, the device has %d", len(v.Bound), d.StorageBuffers)
	}
	if err := v.divide(d); err != nil {
		return Kernel{}, err
	}
	if v.Out == 0 {
		v.Out = v.Offset(len(m.Parts))
		if m.Act != nil {
			v.Out = m.Parts[0].Rows
		}
	}
	k := Kernel{Name: v.name(), Grid: v.Grid, Bindings: v.list(), Unchecked: true}
	k.WGSL = expand("matvec.wgsl", v)
	return k, nil
}

// matVecText is what the template asks for.
type matVecText struct {
	MatVec
	Weights []Weight
	boundList
	Threads, Lanes, Slots, Rows int
	Unroll                      int
	Sums                        int // of a thread: Rows × Tokens
	Tree                        bool
	Teams                       int  // subgroups that share a row, if more than one
	Shuffle                     bool // the prologue may
	Subgroup                    int
	Steps                       []int // of the tree over lanes
	Grid                        [3]int
}

func (v *matVecText) check() error {
	if v.Tokens < 1 || v.Tokens > MaxTokens {
		return fmt.Errorf("%d tokens, want 1 to %d", v.Tokens, MaxTokens)
	}
	if len(v.Parts) == 0 {
		return errors.New("a product of nothing")
	}
	for _, p := range v.Parts {
		if floats(p.Type) != floats(v.Parts[0].Type) {
			return ErrMixed
		}
		if p.Rows < 1 {
			return fmt.Errorf("a matrix of %d rows", p.Rows)
		}
	}
	if v.Act != nil && (len(v.Parts) != 2 || v.Parts[0].Rows != v.Parts[1].Rows) {
		return errors.New("a gated activation takes two matrices of equal size")
	}
	if v.QuantOut && (v.Act == nil || v.Parts[0].Rows%32 != 0 || v.Out != 0 || v.First != 0 || v.Bias || v.Residual != NoResidual || v.SoftCap != 0) {
		return errors.New("only whole rows of a gated activation, of a multiple of 32 numbers, are quantised")
	}
	if v.Norm && floats(v.Parts[0].Type) {
		return errors.New("a norm in front of plain weights")
	}
	return nil
}

// divide chooses how many threads share a row and how many rows a thread has.
func (v *matVecText) divide(d Device) error {
	v.Threads, v.Lanes, v.Rows = v.Tuning.Threads, v.Tuning.Lanes, v.Tuning.Rows
	if v.Threads == 0 {
		v.Threads = 32
		if v.Norm || v.QuantOut {
			v.Threads = min(256, d.Invocations)
		}
	}
	if v.Lanes == 0 {
		v.Lanes = v.chooseLanes(d)
		// Few rows, whose norm every workgroup makes: more threads of less work each.
		const small = 1 << 16
		if v.Norm && v.Act == nil && !d.Software && v.offset(len(v.Parts))*v.Lanes < small && d.Subgroups && d.SubgroupMin >= 32 {
			v.Lanes = 32
		}
	}
	if v.Tuning == (Tuning{}) && v.long(d) {
		v.Threads, v.Lanes, v.Rows, v.Tuning.Unroll = longLanes, longLanes, 1, 1
	}
	v.Lanes = min(v.Lanes, v.Threads)
	if v.Rows == 0 {
		// Small matrices want all the threads they can keep busy, large ones fewer
		// readings of the activations.
		const many = 32 * 16384
		v.Rows = 1
		if v.offset(len(v.Parts))*v.Lanes >= many && v.Tokens <= 2 {
			v.Rows = 2
		}
		if v.QuantOut {
			v.Rows = max(1, 32*v.Lanes/v.Threads)
		}
	}
	v.Unroll = v.Tuning.Unroll
	if v.Unroll == 0 {
		v.Unroll = 1
		rounds := (v.Units(v.Weights[0]) + v.Lanes - 1) / v.Lanes
		switch {
		case v.Rows*v.Tokens == 1 && rounds <= 3:
			v.Unroll = rounds // a short row at once
		case v.Rows*v.Tokens <= 2 && rounds > 4:
			v.Unroll = 2
		}
	}
	v.Slots = v.Threads / v.Lanes
	v.Sums = v.Rows * v.Tokens
	v.Tree, v.Teams = !d.Subgroups, 1
	if d.Subgroups && d.SubgroupMin < v.Lanes { // subgroups add up, then a thread their sums
		v.Teams = v.Lanes / d.SubgroupMin
		v.Tree = v.Teams*d.SubgroupMin != v.Lanes
	}
	v.Steps = halvings(v.Lanes / v.Teams)
	v.Grid = d.spread(v.EndGroup(len(v.Parts) - 1))
	if v.Act != nil {
		v.Grid = d.spread(v.EndGroup(0))
	}
	v.Subgroup = d.SubgroupMin
	v.Shuffle = d.Subgroups && d.SubgroupMin >= 8 && v.Threads%d.SubgroupMin == 0
	if v.QuantOut && (v.GroupRows()%32 != 0 || v.GroupRows()*v.Tokens/4 > v.Threads) {
		return fmt.Errorf("%d rows a workgroup, want whole groups of 32", v.GroupRows())
	}
	if v.Norm && 4*(v.Tokens*QuantWords(v.K)+3*v.Threads+v.Threads*v.Sums+v.GroupRows()*v.Tokens) > d.WorkgroupMemory {
		return fmt.Errorf("%d rows of %d do not fit the workgroup's memory", v.Tokens, v.K)
	}
	return nil
}

// longLanes threads share a row that is long, where rows are so few that a large device has
// room for all their threads at once: each then waits for memory once or twice, not four times.
const longLanes, longThreads = 128, 1 << 18

func (v *matVecText) long(d Device) bool {
	rows := v.offset(len(v.Parts)) - v.First
	return v.Tokens == 1 && !v.Norm && v.Act == nil && !floats(v.Parts[0].Type) && d.Subgroups && d.SubgroupMin >= 32 && !d.Software &&
		d.Invocations >= longLanes && v.K/32 >= 2*longLanes && rows*longLanes <= longThreads
}

// NormQuads is how many quads of a row a thread normalises.
func (v *matVecText) NormQuads() int { return (v.K/4 + v.Threads - 1) / v.Threads }

// Ahead says that a thread keeps what it normalises in registers. Two matrices at once
// leave none for long rows.
func (v *matVecText) Ahead() bool { return v.NormQuads() <= 2 || v.Act == nil && v.NormQuads() <= 4 }

// GroupRows is how many rows a workgroup makes.
func (v *matVecText) GroupRows() int { return v.Slots * v.Rows }

// OutWords is a quantised row of results.
func (v *matVecText) OutWords() int { return QuantWords(v.Out) }

// X is the variable that holds quantised activations.
func (v *matVecText) X() string {
	if v.Norm {
		return "xs"
	}
	return "x"
}

// EpsText is Eps as WGSL.
func (v *matVecText) EpsText() string { return float(v.Eps) }

// chooseLanes takes the largest number of threads a row that leaves few of them idle
// in the last round.
func (v *matVecText) chooseLanes(d Device) int {
	n := v.Units(v.Weights[0])
	best, bestUse := 4, 0.0
	for lanes := 4; lanes <= 32; lanes *= 2 {
		if d.Subgroups && d.SubgroupMin >= 4 && lanes > d.SubgroupMin {
			break
		}
		rounds := (n + lanes - 1) / lanes
		if use := float64(n) / float64(rounds*lanes); use >= bestUse-0.07 {
			best, bestUse = lanes, max(use, bestUse)
		}
	}
	return best
}

// Units is how many pieces of a row the lanes share: 16 bytes of plain weights,
// groups of quantised ones.
func (v *matVecText) Units(w Weight) int {
	switch w.Type {
	case tensor.F32:
		return v.K / 4
	case tensor.F16, tensor.BF16:
		return v.K / 8
	}
	return v.K / 32
}

// QuantVec4s is a quantised row in units of 16 bytes.
func (v *matVecText) QuantVec4s() int { return QuantWords(v.K) / 4 }

// Offset is where part p begins in a row of y.
func (v *matVecText) Offset(p int) int { return v.offset(p) }

func (m MatVec) offset(p int) int {
	n := m.First
	for _, q := range m.Parts[:p] {
		n += q.Rows
	}
	return n
}

// EndGroup is the workgroup after the last of part p, StartGroup the first of it.
func (v *matVecText) EndGroup(p int) int {
	n, each := 0, v.Slots*v.Rows
	for _, q := range v.Parts[:p+1] {
		n += (q.Rows + each - 1) / each
	}
	return n
}
func (v *matVecText) StartGroup(p int) int { return v.EndGroup(p - 1) }

// Last says that part p is the last.
func (v *matVecText) Last(p int) bool { return p == len(v.Parts)-1 }

// Helpers is the common WGSL.
func (v *matVecText) Helpers() string { return Helpers() }

// Fours says whether results are four at a time.
func (v *matVecText) Fours() bool { return false }

// CapText is SoftCap as WGSL, SoftText the functions soft and soft4.
func (v *matVecText) CapText() string  { return capText(v.SoftCap) }
func (v *matVecText) SoftText() string { return softText(v.SoftCap) }

// ActText is the function act.
func (v *matVecText) ActText() string { return actText(*v.Act) }

func (v *matVecText) name() string {
	var b strings.Builder
	b.WriteString("matvec")
	for i, p := range v.Parts {
		fmt.Fprintf(&b, "%c%s×%d", "/+"[min(i, 1)], p.Type, p.Rows)
	}
	fmt.Fprintf(&b, "/k%d/t%d/%d·%d·%d·%d", v.K, v.Tokens, v.Threads, v.Lanes, v.Rows, v.Unroll)
	if v.Tree {
		b.WriteString("/tree")
	}
	if v.Norm {
		fmt.Fprintf(&b, "/norm%s", v.EpsText())
	}
	if v.Act != nil {
		fmt.Fprintf(&b, "/act%d", *v.Act)
	}
	if v.QuantOut {
		b.WriteString("/quantised")
	}
	return b.String()
}
