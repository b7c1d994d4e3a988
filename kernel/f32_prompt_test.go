package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/kernel/kerneltest"
)

// promptCases are the cases of Attention that attention of prompts can do, and some
// with more queries than are worked on together.
func promptCases() []attnCase {
	cases := []attnCase{
		{name: "unit", dim: 64, group: 7, first: 352, tokens: 32, half: true},
		{name: "unit window", dim: 96, group: 3, first: 352, tokens: 32, window: 100, half: true},
		{name: "one token of the next block", dim: 128, group: 6, first: 120, tokens: 9, half: true},
	}
	for _, c := range attnCases {
		if c.dim%16 == 0 {
			cases = append(cases, c)
		}
	}
	return cases
}

func TestAttentionPrompt(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, c := range promptCases() {
			t.Run(c.name, func(t *testing.T) {
				j, k, v := c.job(t, kerneltest.Rand(t))
				attentionPrompt(j, new(AttentionWorkspace))
				want := attention64(j, k, v)
				var diff, size float64
				for i, w := range want {
					diff += (float64(j.Out[i]) - w) * (float64(j.Out[i]) - w)
					size += w * w
				}
				// As for Attention.
				if rel := math.Sqrt(diff / size); !(rel <= 1e-6) {
					t.Errorf("relative error %.3g, allowed 1e-6", rel)
				} else {
					t.Logf("relative error %.3g", rel)
				}
			})
		}
	})
}

// Each token by itself and each head by itself must give the bits of the whole, also
// in a workspace that is full of other numbers.
func TestAttentionPromptPartition(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, c := range promptCases() {
			t.Run(c.name, func(t *testing.T) {
				j, _, _ := c.job(t, kerneltest.Rand(t))
				var ws, stale AttentionWorkspace
				attentionPrompt(j, &ws)
				whole := append([]float32{}, j.Out...)
				attentionPrompt(j, &stale)
				for _, s := range [][]float32{stale.k, stale.v, stale.prompt.q, stale.prompt.out, stale.prompt.scores, stale.prompt.keys} {
					for i := range s {
						s[i] = float32(math.NaN())
					}
				}
				for i := range c.tokens {
					one := *j
					one.Q, one.Out = j.Q[i*j.QStride:], j.Out[i*j.OutStride:]
					one.Starts, one.Ends = j.Starts[i:i+1], j.Ends[i:i+1]
					attentionPrompt(&one, &stale)
				}
				kerneltest.SameBits(t, "token by token", j.Out, whole)
				for g := range c.group {
					one := *j
					one.Q, one.Out, one.Group = j.Q[g*c.dim:], j.Out[g*c.dim:], 1
					attentionPrompt(&one, &stale)
				}
				kerneltest.SameBits(t, "head by head", j.Out, whole)
			})
		}
	})
}

// A NaN or an infinity in a key or a value must reach the tokens that see it, and only those.
func TestAttentionPromptNaN(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		c := attnCase{dim: 16, group: 3, first: 60, tokens: 30, window: 40}
		for _, bad := range []float64{math.NaN(), math.Inf(1)} {
			for _, inKey := range []bool{true, false} {
				for _, pos := range []int{0, 25, 63, 64, 70, 89} {
					t.Run(fmt.Sprint(bad, inKey, pos), func(t *testing.T) {
						j, k, v := c.job(t, kerneltest.Rand(t))
						for i := range j.Q {
							j.Q[i] = float32(math.Abs(float64(j.Q[i])) + 0.1) // so that +Inf gives a score of +Inf
						}
						if inKey {
							k[pos*c.dim+3] = float32(bad)
						} else {
							v[pos*c.dim+3] = float32(bad)
						}
						attentionPrompt(j, new(AttentionWorkspace))
						for i, x := range j.Out {
							tok := i / j.OutStride
							sees := pos >= j.Starts[tok] && pos < j.Ends[tok] && (inKey || i%c.dim == 3)
							if notFinite := x-x != 0; notFinite != sees {
								t.Fatalf("token %d, element %d is %v; sees it: %v", tok, i%j.OutStride, x, sees)
							}
						}
					})
				}
			}
		}
	})
}

func TestAttentionPromptNothingVisible(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		j, k, _ := attnCase{dim: 16, group: 2, first: 3, tokens: 4}.job(t, kerneltest.Rand(t))
		j.Starts, j.Ends = []int{0, 2, 2, 7}, []int{0, 2, 5, 7}
		for i := 2 * 16; i < 5*16; i++ {
			k[i] = float32(math.Inf(-1)) // scores of -Inf with positive queries
		}
		for i := range j.Q {
			j.Q[i] = 1
		}
		for i := range j.Out {
			j.Out[i] = 7
		}
		attentionPrompt(j, new(AttentionWorkspace))
		kerneltest.SameBits(t, "nothing visible", j.Out, make([]float32, len(j.Out)))
	})
}

// Scores far apart, rising and falling: sums shrink to nothing or new ones add nothing.
func TestAttentionPromptOutliers(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, step := range []float32{0.5, -0.5, 40} {
			j, k, v := attnCase{dim: 32, group: 2, first: 200, tokens: 20}.job(t, kerneltest.Rand(t))
			for p := range j.Ends[len(j.Ends)-1] {
				for i := range 32 {
					k[p*32+i] += step * float32(p%97)
				}
			}
			attentionPrompt(j, new(AttentionWorkspace))
			var diff, size float64
			for i, w := range attention64(j, k, v) {
				diff += (float64(j.Out[i]) - w) * (float64(j.Out[i]) - w)
				size += w * w
			}
			// Scores of up to 5000 are rounded to 2^-24 of that.
			if rel := math.Sqrt(diff / size); !(rel <= 1e-3) {
				t.Errorf("step %v: relative error %.3g", step, rel)
			}
		}
	})
}

// BenchmarkAttentionPrompt works on units of 32 tokens, as backend cpu does.
func BenchmarkAttentionPrompt(b *testing.B) {
	for _, c := range []attnCase{
		{name: "64", dim: 64, group: 7, tokens: 512, half: true},
		{name: "128", dim: 128, group: 6, tokens: 512, half: true},
	} {
		for _, run := range []struct {
			name string
			f    func(*AttentionJob, *AttentionWorkspace)
		}{{"few", Attention}, {"prompt", AttentionPrompt}} {
			b.Run(c.name+"/"+run.name, func(b *testing.B) {
				j, _, _ := c.job(b, rand.New(rand.NewPCG(1, 2)))
				var ws AttentionWorkspace
				ops := 0
				for _, end := range j.Ends {
					ops += 4 * end * c.group * c.dim
				}
				for b.Loop() {
					for t := 0; t < c.tokens; t += 32 {
						unit := *j
						unit.Q, unit.Out = j.Q[t*j.QStride:], j.Out[t*j.OutStride:]
						unit.Starts, unit.Ends = j.Starts[t:t+32], j.Ends[t:t+32]
						run.f(&unit, &ws)
					}
				}
				b.ReportMetric(float64(ops)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
			})
		}
	}
}
