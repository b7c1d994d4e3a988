package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/quant"
)

// attentionCase is a layer's cache for some sequences and the step that reads it.
type attentionCase struct {
	shape     attentionShape
	sequences []sequenceCase
	prefill   bool
	splits    int // 0: what the plan says
	warps     int // of a block of decode; 0: what the plan says
	fill      func(r *rand.Rand, q, k, v []float32)
}

// sequenceCase is a sequence whose last n positions are the step's tokens.
type sequenceCase struct{ length, n, capacity int }

// unwritten is what lies in the cache where nothing was stored: NaN.
const unwritten16, unwritten32 = 0x7fff, 0x7fffffff

// attentionData is a case in numbers.
type attentionData struct {
	q         []float32   // (T, H, D)
	k, v      [][]float32 // per sequence (HK, length, D), as the cache rounds it
	pos, caps []int32
	of        []int // sequence of a token
	tiles     []int32
}

func normal(r *rand.Rand, q, k, v []float32) {
	for _, x := range [][]float32{q, k, v} {
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
	}
}

func (c attentionCase) data(r *rand.Rand) *attentionData {
	d := &attentionData{}
	s := c.shape
	for i, seq := range c.sequences {
		for t := range seq.n {
			if t%queryTile == 0 {
				d.tiles = append(d.tiles, int32(len(d.of)), int32(min(queryTile, seq.n-t)))
			}
			d.pos = append(d.pos, int32(seq.length-seq.n+t))
			d.caps = append(d.caps, int32(seq.capacity))
			d.of = append(d.of, i)
		}
		d.k = append(d.k, make([]float32, s.KVHeads*seq.length*s.HeadDim))
		d.v = append(d.v, make([]float32, s.KVHeads*seq.length*s.HeadDim))
	}
	d.q = make([]float32, len(d.of)*s.Heads*s.HeadDim)
	fill := c.fill
	if fill == nil {
		fill = normal
	}
	for i := range d.k {
		fill(r, d.q, d.k[i], d.v[i])
		if s.KVBytes == 2 {
			for _, x := range [][]float32{d.k[i], d.v[i]} {
				for j := range x {
					x[j] = quant.F16ToF32(quant.F32ToF16(x[j]))
				}
			}
		}
	}
	return d
}

// arena is the memory of a sequence: Unit·cap bytes of other layers, then keys
// and values.
func (c attentionCase) arena(g *gpu, seq sequenceCase, k, v []float32) cuda.Ptr {
	s := c.shape
	skip := int(s.Unit) * seq.capacity
	bits := make([]uint32, s.KVHeads*2*seq.capacity*s.HeadDim)
	for i := range bits {
		bits[i] = unwritten32
		if s.KVBytes == 2 {
			bits[i] = unwritten16
		}
	}
	for part, x := range [][]float32{k, v} {
		for h := range s.KVHeads {
			at := (part*s.KVHeads + h) * seq.capacity * s.HeadDim
			for i, y := range x[h*seq.length*s.HeadDim : (h+1)*seq.length*s.HeadDim] {
				bits[at+i] = math.Float32bits(y)
				if s.KVBytes == 2 {
					bits[at+i] = uint32(quant.F32ToF16(y))
				}
			}
		}
	}
	p := g.alloc(int64(skip + len(bits)*s.KVBytes))
	g.do(func() error {
		if s.KVBytes == 4 {
			return cuda.Upload(g.c, p+cuda.Ptr(skip), bits)
		}
		half := make([]uint16, len(bits))
		for i, b := range bits {
			half[i] = uint16(b)
		}
		return cuda.Upload(g.c, p+cuda.Ptr(skip), half)
	})
	return p
}

// reference is attention in float64.
func (c attentionCase) reference(d *attentionData) []float64 {
	s := c.shape
	out := make([]float64, len(d.q))
	for t, si := range d.of {
		length := c.sequences[si].length
		first := 0
		if s.Window > 0 {
			first = max(0, int(d.pos[t])+1-s.Window)
		}
		for h := range s.Heads {
			q := d.q[(t*s.Heads+h)*s.HeadDim:][:s.HeadDim]
			head := h / (s.Heads / s.KVHeads) * length * s.HeadDim
			scores := make([]float64, int(d.pos[t])+1-first)
			for i := range scores {
				k := d.k[si][head+(first+i)*s.HeadDim:]
				for e, x := range q {
					scores[i] += float64(x) * float64(k[e])
				}
				scores[i] *= float64(s.Scale)
				if s.SoftCap != 0 {
					scores[i] = float64(s.SoftCap) * math.Tanh(scores[i]/float64(s.SoftCap))
				}
			}
			top, sum := slices.Max(scores), 0.0
			o := out[(t*s.Heads+h)*s.HeadDim:][:s.HeadDim]
			for i, x := range scores {
				w := math.Exp(x - top)
				sum += w
				v := d.v[si][head+(first+i)*s.HeadDim:]
				for e := range o {
					o[e] += w * float64(v[e])
				}
			}
			for e := range o {
				o[e] /= sum
			}
		}
	}
	return out
}

func (c attentionCase) plan(g *gpu, d *attentionData) attentionPlan {
	g.t.Helper()
	longest := 0
	for _, s := range c.sequences {
		longest = max(longest, s.length)
	}
	plan, err := planDecode(g.c.Device, c.shape, len(d.of), longest)
	if c.prefill {
		plan, err = planPrefill(g.c.Device, c.shape, len(d.of), len(d.tiles)/2, longest)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	if c.splits > 0 {
		plan.Splits = c.splits
	}
	if c.warps > 0 {
		plan.useWarps(c.warps)
	}
	return plan
}

// run returns the output of the case's kernels and the variant's name. They run
// twice: the bits must be the same.
func (c attentionCase) run(g *gpu, d *attentionData) ([]float32, string) {
	g.t.Helper()
	plan := c.plan(g, d)
	arenas := make([]uint64, len(c.sequences))
	for i, s := range c.sequences {
		arenas[i] = uint64(c.arena(g, s, d.k[i], d.v[i]))
	}
	kv := make([]uint64, len(d.of))
	for t, i := range d.of {
		kv[t] = arenas[i]
	}
	args := attentionArgs{Q: upload(g, d.q), Out: g.alloc(int64(len(d.q) * 4)), Pos: upload(g, d.pos), KV: upload(g, kv), Cap: upload(g, d.caps), Tiles: upload(g, d.tiles)}
	if n := plan.Workspace(); n > 0 {
		args.Work = g.alloc(n)
	}
	counters := make([]uint32, plan.Counters()/4+1)
	args.Counters = upload(g, counters)
	var launches []*cuda.Launch
	g.do(func() (err error) {
		launches, err = plan.launches(g.c, g.find, args)
		return err
	})
	g.run(launches...)
	out := download[float32](g, args.Out, len(d.q))
	g.run(launches...)
	if again := download[float32](g, args.Out, len(d.q)); !slices.EqualFunc(out, again, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
		g.t.Error("a second run gives other bits")
	}
	if !slices.Equal(counters, download[uint32](g, args.Counters, len(counters))) {
		g.t.Error("the counters are not zero afterwards")
	}
	g.release()
	return out, plan.Variant
}

func (c attentionCase) check(t *testing.T, g *gpu, variant string, tolerance float64) {
	t.Helper()
	d := c.data(rand.New(rand.NewPCG(1, 2)))
	got, name := c.run(g, d)
	if name != variant {
		t.Errorf("variant %s, want %s", name, variant)
	}
	e := rowError(got, c.reference(d), c.shape.HeadDim)
	t.Logf("error %.2g (%.0f %% of the tolerance)", e, 100*e/tolerance)
	if !(e <= tolerance) {
		t.Errorf("error %g, tolerance %g", e, tolerance)
	}
}

// shape makes a usual shape.
func shape(heads, kvHeads, dim, kvBytes int) attentionShape {
	return attentionShape{Heads: heads, KVHeads: kvHeads, HeadDim: dim, KVBytes: kvBytes, Unit: uint64(2 * 16 * kvBytes), Scale: float32(1 / math.Sqrt(float64(dim)))}
}

// The decode kernels keep q and the softmax weights to 22 bits: what is left is
// float32 rounding of sums, and ex2.approx.
const decodeTolerance = 2e-6

// Prefill rounds softmax weights to f16: 2^-12 each at most, which mostly cancels.
const prefillTolerance = 5e-4

// An F32 cache is rounded to f16 for prefill: keys and values by 2^-12 each.
const prefillTolerance32 = 1e-3

func TestDecodeAttention(t *testing.T) {
	one := func(length int) []sequenceCase { return []sequenceCase{{length, 1, length + 5}} }
	window := func(s attentionShape, w int) attentionShape { s.Window = w; return s }
	capped := func(s attentionShape, c float32) attentionShape { s.SoftCap = c; return s }
	cases := []struct {
		name    string
		c       attentionCase
		variant string
	}{
		{"one position", attentionCase{shape: shape(6, 1, 128, 2), sequences: one(1)}, "split"},
		{"an odd tile", attentionCase{shape: shape(12, 2, 128, 2), sequences: one(77), splits: 1}, "split"},
		{"splits", attentionCase{shape: shape(12, 2, 128, 2), sequences: one(500), splits: 4}, "split"},
		{"more splits than positions", attentionCase{shape: shape(4, 1, 128, 2), sequences: one(70), splits: 9}, "split"},
		{"large blocks", attentionCase{shape: shape(12, 2, 128, 2), sequences: one(400), splits: 3, warps: 8}, "split"},
		{"large blocks, one head", attentionCase{shape: shape(1, 1, 64, 2), sequences: one(700), splits: 5, warps: 8}, "split"},
		{"eight heads of 256", attentionCase{shape: shape(8, 1, 256, 2), sequences: one(300), splits: 2, warps: 4}, "split"},
		{"many splits", attentionCase{shape: shape(3, 1, 64, 2), sequences: one(2300), splits: 40}, "split"},
		{"a full cache", attentionCase{shape: shape(4, 1, 64, 2), sequences: []sequenceCase{{130, 1, 130}}, splits: 2}, "split"},
		{"head 64, one query head each", attentionCase{shape: shape(3, 3, 64, 2), sequences: one(200), splits: 2}, "split"},
		{"head 96", attentionCase{shape: shape(4, 2, 96, 2), sequences: one(150), splits: 2}, "split"},
		{"head 256", attentionCase{shape: shape(4, 2, 256, 2), sequences: one(150), splits: 2}, "split"},
		{"a group of 16", attentionCase{shape: shape(16, 1, 64, 2), sequences: one(90), splits: 2}, "split"},
		{"a group of 11", attentionCase{shape: shape(22, 2, 128, 2), sequences: one(90), splits: 2}, "split"},
		{"a window", attentionCase{shape: window(shape(4, 2, 128, 2), 100), sequences: one(333), splits: 3}, "split"},
		{"a window of one", attentionCase{shape: window(shape(4, 2, 64, 2), 1), sequences: one(40), splits: 3}, "split"},
		{"a window longer than the context", attentionCase{shape: window(shape(4, 2, 64, 2), 64), sequences: one(40), splits: 1}, "split"},
		{"a soft-cap", attentionCase{shape: capped(shape(4, 2, 128, 2), 3), sequences: one(200), splits: 3}, "split"},
		{"several sequences", attentionCase{shape: shape(4, 2, 64, 2), sequences: []sequenceCase{{5, 1, 9}, {300, 1, 301}, {64, 3, 90}, {1, 1, 1}}, splits: 4}, "split"},
		{"vector, head 80", attentionCase{shape: shape(6, 2, 80, 2), sequences: one(130), splits: 2}, "vector"},
		{"vector, head 8", attentionCase{shape: shape(5, 1, 8, 2), sequences: one(33), splits: 1}, "vector"},
		{"vector, head 248", attentionCase{shape: shape(2, 1, 248, 4), sequences: one(33), splits: 1}, "vector"},
		{"vector, F32", attentionCase{shape: shape(9, 1, 128, 4), sequences: one(150), splits: 3}, "vector"},
		{"32k", attentionCase{shape: shape(2, 1, 64, 2), sequences: one(33000)}, "split"},
		{"32k, a window of 4096", attentionCase{shape: window(shape(2, 1, 64, 2), 4096), sequences: one(33000)}, "split"},
		{"32k, F32", attentionCase{shape: shape(2, 1, 64, 4), sequences: one(33000)}, "vector"},
		{"vector, window and soft-cap", attentionCase{shape: capped(window(shape(6, 2, 64, 4), 50), 2), sequences: []sequenceCase{{150, 2, 160}, {20, 1, 20}}, splits: 3}, "vector"},
	}
	g := openGPU(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.c.check(t, g, "attention/decode/"+c.variant, decodeTolerance) })
	}
}

// adversaries are inputs that break careless softmax and f16 arithmetic.
var adversaries = []struct {
	name string
	fill func(r *rand.Rand, q, k, v []float32)
	// slack multiplies the tolerance of decode; the reason is at the case.
	slack float64
}{
	// Scores up to ±2000.
	{"large scores", func(r *rand.Rand, q, k, v []float32) {
		normal(r, q, k, v)
		for i := range q {
			q[i] *= 200
		}
	}, 1},
	// The bias of Qwen2's keys: a few elements of every key are in the hundreds, and cancel
	// in the softmax. Sums of 10^4 in float32 leave 1e-3 of a score.
	{"key outliers", func(r *rand.Rand, q, k, v []float32) {
		normal(r, q, k, v)
		for i := range k {
			if i%64 == 5 || i%64 == 40 {
				k[i] += 400
			}
		}
	}, 100},
	{"tiny queries", func(r *rand.Rand, q, k, v []float32) {
		normal(r, q, k, v)
		for i := range q {
			q[i] *= 1e-9
		}
	}, 1},
	// q beyond f16, scores of 10^3: a float32 sum of that size is off by 1e-4.
	{"huge queries", func(r *rand.Rand, q, k, v []float32) {
		normal(r, q, k, v)
		for i := range q {
			q[i] *= 1e7
		}
		for i := range k {
			k[i] *= 1e-3
		}
	}, 500},
	{"values at the edge of f16", func(r *rand.Rand, q, k, v []float32) {
		normal(r, q, k, v)
		for i := range v {
			v[i] = float32(math.Copysign(60000+5000*r.Float64(), float64(v[i])))
		}
	}, 1},
	{"the first position takes all", func(r *rand.Rand, q, k, v []float32) {
		normal(r, q, k, v)
		for i := range q {
			q[i] = 1
		}
		for i := range k[:64] {
			k[i] = 30
		}
	}, 1},
	{"all keys the same", func(r *rand.Rand, q, k, v []float32) {
		normal(r, q, k, v)
		for i := range k {
			k[i] = k[i%64]
		}
	}, 1},
}

func TestAttentionAdversaries(t *testing.T) {
	g := openGPU(t)
	for _, a := range adversaries {
		for _, c := range []struct {
			variant   string
			c         attentionCase
			tolerance float64
		}{
			{"attention/decode/split", attentionCase{shape: shape(4, 1, 64, 2), sequences: []sequenceCase{{200, 1, 222}}, splits: 2}, decodeTolerance},
			{"attention/decode/vector", attentionCase{shape: shape(4, 1, 64, 4), sequences: []sequenceCase{{200, 1, 222}}, splits: 2}, decodeTolerance},
			{"attention/prefill/mma", attentionCase{shape: shape(4, 1, 64, 2), prefill: true, sequences: []sequenceCase{{200, 40, 222}}, splits: 1}, prefillTolerance},
		} {
			t.Run(fmt.Sprintf("%s/%s", a.name, c.variant), func(t *testing.T) {
				c.c.fill = a.fill
				if !c.c.prefill {
					c.tolerance *= a.slack
				}
				c.c.check(t, g, c.variant, c.tolerance)
			})
		}
	}
}

func TestPrefillAttention(t *testing.T) {
	window := func(s attentionShape, w int) attentionShape { s.Window = w; return s }
	capped := func(s attentionShape, c float32) attentionShape { s.SoftCap = c; return s }
	cases := []struct {
		name    string
		c       attentionCase
		variant string
	}{
		{"one token", attentionCase{shape: shape(2, 1, 128, 2), sequences: []sequenceCase{{1, 1, 4}}}, "prefill/mma"},
		{"a tile", attentionCase{shape: shape(2, 1, 128, 2), sequences: []sequenceCase{{64, 64, 64}}}, "prefill/mma"},
		{"more than a tile", attentionCase{shape: shape(2, 1, 128, 2), sequences: []sequenceCase{{150, 150, 151}}, splits: 1}, "prefill/mma"},
		{"a later chunk", attentionCase{shape: shape(3, 1, 64, 2), sequences: []sequenceCase{{301, 70, 400}}, splits: 1}, "prefill/mma"},
		{"split positions", attentionCase{shape: shape(3, 1, 64, 2), sequences: []sequenceCase{{301, 10, 400}}, splits: 3}, "prefill/mma"},
		{"head 96", attentionCase{shape: shape(2, 2, 96, 2), sequences: []sequenceCase{{100, 70, 101}}, splits: 1}, "prefill/mma"},
		{"head 256", attentionCase{shape: shape(2, 1, 256, 2), sequences: []sequenceCase{{100, 70, 101}}, splits: 1}, "prefill/mma"},
		{"head 256, split", attentionCase{shape: shape(2, 1, 256, 2), sequences: []sequenceCase{{100, 20, 101}}, splits: 3}, "prefill/mma"},
		{"F32", attentionCase{shape: shape(2, 1, 128, 4), sequences: []sequenceCase{{100, 70, 101}}, splits: 1}, "prefill/mma"},
		{"F32, head 256", attentionCase{shape: shape(2, 2, 256, 4), sequences: []sequenceCase{{70, 70, 70}}, splits: 1}, "prefill/mma"},
		{"a window", attentionCase{shape: window(shape(2, 1, 64, 2), 90), sequences: []sequenceCase{{300, 130, 300}}, splits: 1}, "prefill/mma"},
		{"a window inside a tile", attentionCase{shape: window(shape(2, 1, 64, 2), 7), sequences: []sequenceCase{{150, 150, 300}}, splits: 1}, "prefill/mma"},
		{"a window of one", attentionCase{shape: window(shape(2, 1, 64, 2), 1), sequences: []sequenceCase{{70, 70, 70}}, splits: 1}, "prefill/mma"},
		{"a window, split", attentionCase{shape: window(shape(2, 1, 64, 2), 90), sequences: []sequenceCase{{300, 20, 300}}, splits: 4}, "prefill/mma"},
		{"a soft-cap", attentionCase{shape: capped(shape(2, 1, 128, 2), 3), sequences: []sequenceCase{{100, 33, 120}}, splits: 1}, "prefill/mma"},
		{"several sequences", attentionCase{shape: shape(4, 2, 64, 2), sequences: []sequenceCase{{5, 5, 9}, {200, 100, 201}, {64, 1, 90}}, splits: 1}, "prefill/mma"},
		{"a chunk at 32k", attentionCase{shape: shape(1, 1, 64, 2), sequences: []sequenceCase{{33000, 9, 33010}}}, "prefill/mma"},
		{"a chunk at 32k, F32", attentionCase{shape: shape(1, 1, 64, 4), sequences: []sequenceCase{{33000, 9, 33010}}}, "prefill/mma"},
		{"head 80", attentionCase{shape: shape(2, 1, 80, 2), sequences: []sequenceCase{{60, 20, 70}}}, "decode/vector"},
	}
	g := openGPU(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if !long() && strings.Contains(c.name, "32k") {
				t.Skip("takes the emulation a minute: scripts/gpu/check runs it on a GPU, APR_LONG_TESTS=1 anywhere")
			}
			c.c.prefill = true
			tolerance := prefillTolerance
			if c.c.shape.KVBytes == 4 {
				tolerance = prefillTolerance32
			}
			c.c.check(t, g, "attention/"+c.variant, tolerance)
		})
	}
}

func TestAttentionRefuses(t *testing.T) {
	g := openGPU(t)
	for _, s := range []attentionShape{shape(4, 2, 100, 2), shape(4, 2, 264, 2), shape(4, 3, 64, 2), shape(4, 2, 64, 1), shape(4, 0, 64, 2)} {
		if _, err := planDecode(g.c.Device, s, 1, 100); err == nil {
			t.Errorf("decode of %+v is accepted", s)
		}
		if _, err := planPrefill(g.c.Device, s, 64, 1, 100); err == nil {
			t.Errorf("prefill of %+v is accepted", s)
		}
	}
}

// TestPlanDecode: blocks of eight warps where the device is large, but not for the
// kernel without tensor cores, whose blocks have a fixed size.
func TestPlanDecode(t *testing.T) {
	h200 := cuda.Device{Major: 9, SMs: 132, SharedMemory: 227 << 10}
	for _, c := range []struct {
		shape           attentionShape
		tokens, longest int
		threads, splits int
	}{
		{shape(12, 2, 128, 2), 1, 32768, 256, 66},
		{shape(28, 4, 128, 2), 1, 32768, 256, 33},
		{shape(12, 2, 128, 2), 1, 100, 256, 1},
		{shape(12, 2, 128, 2), 32, 32768, 128, 4},
		{shape(12, 2, 128, 4), 1, 32768, 128, 66}, // F32
		{shape(12, 2, 80, 2), 1, 32768, 128, 66},
	} {
		p, err := planDecode(h200, c.shape, c.tokens, c.longest)
		if err != nil || p.threads != c.threads || p.Splits != c.splits || p.shared > h200.SharedMemory {
			t.Errorf("%+v, %d tokens: %d threads, %d splits, %d bytes of shared memory, %v", c.shape, c.tokens, p.threads, p.Splits, p.shared, err)
		}
	}
}
