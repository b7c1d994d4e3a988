package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apr-engine/apr/kernel/kerneltest"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

type attnCase struct {
	name       string
	dim, group int
	first      int // position of the first token
	tokens     int
	window     int // positions a token sees back, 0 for all
	softcap    float32
	half, q8   bool
	integers   bool // allowed
}

var attnCases = []attnCase{
	{name: "decode first", dim: 64, group: 7, tokens: 1},
	{name: "decode", dim: 64, group: 7, first: 300, tokens: 1},
	{name: "decode half", dim: 128, group: 6, first: 301, tokens: 1, half: true},
	{name: "prefill", dim: 64, group: 2, tokens: 150},
	{name: "prefill half", dim: 128, group: 6, tokens: 70, half: true},
	{name: "prefill later", dim: 80, group: 3, first: 130, tokens: 33},
	{name: "decode Q8_0", dim: 128, group: 6, first: 301, tokens: 1, q8: true},
	{name: "prefill Q8_0", dim: 64, group: 2, first: 60, tokens: 37, q8: true},
	{name: "window", dim: 64, group: 4, first: 200, tokens: 100, window: 50},
	{name: "softcap", dim: 256, group: 2, first: 60, tokens: 20, softcap: 30},
	{name: "odd head", dim: 72, group: 1, first: 3, tokens: 5},
	{name: "tiny head", dim: 4, group: 1, first: 3, tokens: 70},
	{name: "many heads", dim: 32, group: 71, first: 3, tokens: 3, half: true},
	{name: "long", dim: 64, group: 1, first: 5000, tokens: 2},
	{name: "chunks half", dim: 64, group: 7, first: 1500, tokens: 1, half: true},
	{name: "chunks Q8_0", dim: 96, group: 4, first: 1100, tokens: 2, q8: true},
	{name: "a chunk ends", dim: 80, group: 2, first: 500, tokens: 30, half: true},
	{name: "window over chunks", dim: 32, group: 8, first: 1000, tokens: 60, window: 500, half: true},
	{name: "window Q8_0", dim: 32, group: 5, first: 700, tokens: 1, window: 300, q8: true},
	{name: "softcap half", dim: 256, group: 2, first: 700, tokens: 1, softcap: 30, half: true},
	{name: "softcap Q8_0", dim: 256, group: 8, first: 90, tokens: 1, softcap: 30, q8: true},
	{name: "odd head half", dim: 72, group: 6, first: 77, tokens: 1, half: true},
	{name: "one head", dim: 128, group: 1, first: 66, tokens: 1, half: true},
}

// job fills a job and returns the cache in float32.
func (c attnCase) job(t testing.TB, rng *rand.Rand) (j *AttentionJob, k, v []float32) {
	n, width := c.first+c.tokens, c.group*c.dim
	k, v = kerneltest.Normal(t, rng, n*c.dim, kerneltest.AtEnd), kerneltest.Normal(t, rng, n*c.dim, kerneltest.AtEnd)
	j = &AttentionJob{
		Out: kerneltest.Slice[float32](t, c.tokens*width, kerneltest.AtEnd), OutStride: width,
		Q: kerneltest.Normal(t, rng, c.tokens*width, kerneltest.AtEnd), QStride: width,
		HeadDim: c.dim, Group: c.group, Scale: float32(1 / math.Sqrt(float64(c.dim))), SoftCap: c.softcap,
		Integers: c.integers,
	}
	for i := range c.tokens {
		end := c.first + i + 1
		start := 0
		if c.window > 0 {
			start = max(0, end-c.window)
		}
		j.Starts, j.Ends = append(j.Starts, start), append(j.Ends, end)
	}
	if c.q8 {
		size := CacheRowBytes(len(k))
		j.K8, j.V8 = kerneltest.Slice[byte](t, size, kerneltest.AtEnd), kerneltest.Slice[byte](t, size, kerneltest.AtEnd)
		for _, x := range []struct {
			blocks []byte
			values []float32
		}{{j.K8, k}, {j.V8, v}} {
			QuantizeQ8(x.blocks, x.values)
			if err := quant.Dequantize(tensor.Q8_0, x.values, x.blocks); err != nil {
				t.Fatal(err)
			}
		}
		return j, k, v
	}
	if !c.half {
		j.K32, j.V32 = k, v
		return j, k, v
	}
	j.K16, j.V16 = kerneltest.Slice[uint16](t, len(k), kerneltest.AtEnd), kerneltest.Slice[uint16](t, len(v), kerneltest.AtEnd)
	f32ToF16Generic(j.K16, k)
	f32ToF16Generic(j.V16, v)
	f16ToF32Generic(k, j.K16)
	f16ToF32Generic(v, j.V16)
	return j, k, v
}

// attention64 is the definition, in float64.
func attention64(j *AttentionJob, k, v []float32) []float64 {
	dim := j.HeadDim
	out := make([]float64, len(j.Starts)*j.OutStride)
	for t := range j.Starts {
		for g := range j.Group {
			q := j.Q[t*j.QStride+g*dim:][:dim]
			o := out[t*j.OutStride+g*dim:][:dim]
			scores, m, sum := []float64{}, math.Inf(-1), 0.0
			for p := j.Starts[t]; p < j.Ends[t]; p++ {
				s := 0.0
				for i, x := range q {
					s += float64(x) * float64(k[p*dim+i])
				}
				s *= float64(j.Scale)
				if j.SoftCap != 0 {
					s = float64(j.SoftCap) * math.Tanh(s/float64(j.SoftCap))
				}
				scores = append(scores, s)
				m = max(m, s)
			}
			for i, s := range scores {
				e := math.Exp(s - m)
				sum += e
				for d := range o {
					o[d] += e * float64(v[(j.Starts[t]+i)*dim+d])
				}
			}
			for d := range o {
				o[d] /= sum
			}
		}
	}
	return out
}

func TestAttention(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, c := range attnCases {
			t.Run(c.name, func(t *testing.T) {
				j, k, v := c.job(t, kerneltest.Rand(t))
				var ws AttentionWorkspace
				Attention(j, &ws)
				want := attention64(j, k, v)
				var diff, size float64
				for i, w := range want {
					diff += (float64(j.Out[i]) - w) * (float64(j.Out[i]) - w)
					size += w * w
				}
				// float32 scores of size 5 carry 3e-7, which exp passes on; the sums
				// over positions are short.
				if rel := math.Sqrt(diff / size); !(rel <= 1e-6) {
					t.Errorf("relative error %.3g, allowed 1e-6", rel)
				} else {
					t.Logf("relative error %.3g", rel)
				}
			})
		}
	})
}

// TestAttentionPartition runs each token by itself, and each head by itself,
// and wants the bits of the whole.
func TestAttentionPartition(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, c := range attnCases {
			t.Run(c.name, func(t *testing.T) {
				j, _, _ := c.job(t, kerneltest.Rand(t))
				var ws, fresh AttentionWorkspace
				Attention(j, &ws)
				whole := append([]float32{}, j.Out...)
				for i := range c.tokens {
					one := *j
					one.Q, one.Out = j.Q[i*j.QStride:], j.Out[i*j.OutStride:]
					one.Starts, one.Ends = j.Starts[i:i+1], j.Ends[i:i+1]
					Attention(&one, &fresh)
				}
				kerneltest.SameBits(t, "token by token", j.Out, whole)
				for g := range c.group {
					one := *j
					one.Q, one.Out, one.Group = j.Q[g*c.dim:], j.Out[g*c.dim:], 1
					Attention(&one, &fresh)
				}
				kerneltest.SameBits(t, "head by head", j.Out, whole)
			})
		}
	})
}

// TestAttentionNaN puts a NaN into one position's key or value: only tokens
// that see the position may be affected, and all of them must be.
func TestAttentionNaN(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		c := attnCase{dim: 16, group: 3, first: 60, tokens: 30, window: 40}
		for _, inKey := range []bool{true, false} {
			for _, pos := range []int{0, 25, 63, 64, 70, 89} {
				t.Run(fmt.Sprint(inKey, pos), func(t *testing.T) {
					j, k, v := c.job(t, kerneltest.Rand(t))
					if inKey {
						k[pos*c.dim+3] = float32(math.NaN())
					} else {
						v[pos*c.dim+3] = float32(math.NaN())
					}
					var ws AttentionWorkspace
					Attention(j, &ws)
					for i, x := range j.Out {
						tok := i / j.OutStride
						sees := pos >= j.Starts[tok] && pos < j.Ends[tok] && (inKey || i%c.dim == 3)
						if isNaN := x != x; isNaN != sees {
							t.Fatalf("token %d, element %d is %v; sees the NaN: %v", tok, i%j.OutStride, x, sees)
						}
					}
				})
			}
		}
	})
}

func TestAttentionNothingVisible(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		j, k, _ := attnCase{dim: 8, group: 2, first: 3, tokens: 4}.job(t, kerneltest.Rand(t))
		j.Starts, j.Ends = []int{0, 2, 2, 7}, []int{0, 2, 5, 7}
		for i := 2 * 8; i < 5*8; i++ {
			k[i] = float32(math.Inf(-1)) // scores -Inf or NaN; made -Inf by positive queries
		}
		for i := range j.Q {
			j.Q[i] = 1
		}
		for i := range j.Out {
			j.Out[i] = 7
		}
		Attention(j, new(AttentionWorkspace))
		kerneltest.SameBits(t, "nothing visible", j.Out, make([]float32, len(j.Out)))
	})
}

func BenchmarkAttention(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []attnCase{
		{name: "decode 4096", dim: 128, group: 6, first: 4095, tokens: 1, half: true},
		{name: "decode 4096 Q8_0", dim: 128, group: 6, first: 4095, tokens: 1, q8: true},
		{name: "decode 4096 Q8_0 in integers", dim: 128, group: 6, first: 4095, tokens: 1, q8: true, integers: true},
		{name: "prefill 512", dim: 128, group: 6, tokens: 512, half: true},
		{name: "prefill 512 f32", dim: 128, group: 6, tokens: 512},
	} {
		b.Run(c.name, func(b *testing.B) {
			j, k, _ := c.job(b, rng)
			var ws AttentionWorkspace
			for b.Loop() {
				Attention(j, &ws)
			}
			seen := 0
			for i := range j.Ends {
				seen += j.Ends[i] - j.Starts[i]
			}
			ns := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
			b.ReportMetric(4*float64(seen*c.group*c.dim)/ns, "GFLOP/s")
			b.ReportMetric(float64(2*2*len(k))/ns, "GB/s")
		})
	}
}

// BenchmarkAttentionFromMemory attends as one decoded token does: each head of each
// layer has its own keys and values, together more than any cache holds.
// BenchmarkReadStream is the limit.
func BenchmarkAttentionFromMemory(b *testing.B) {
	const heads = 32
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []attnCase{
		{name: "F16", dim: 128, group: 6, first: 8191, tokens: 1, half: true},
		{name: "Q8_0", dim: 128, group: 6, first: 8191, tokens: 1, q8: true},
		{name: "Q8_0 in integers", dim: 128, group: 6, first: 8191, tokens: 1, q8: true, integers: true},
	} {
		b.Run(c.name, func(b *testing.B) {
			first, _, _ := c.job(b, rng)
			jobs := make([]AttentionJob, heads)
			for i := range jobs {
				jobs[i] = *first
				jobs[i].K16, jobs[i].V16 = slices.Clone(first.K16), slices.Clone(first.V16)
				jobs[i].K8, jobs[i].V8 = slices.Clone(first.K8), slices.Clone(first.V8)
			}
			var ws AttentionWorkspace
			reportRates(b, 4*len(first.K16)+2*len(first.K8), "GB/s", func(i int) { Attention(&jobs[i%heads], &ws) })
		})
	}
}
