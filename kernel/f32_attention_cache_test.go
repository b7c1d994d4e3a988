package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/apr-engine/apr/kernel/kerneltest"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// cacheRows is the rows of a cache with all that keys and values have been seen to
// be: ordinary, all zero, with an outlier of hundreds, tiny, and, in one row, huge.
func cacheRows(rng *rand.Rand, rows, dim int) []float32 {
	x := make([]float32, rows*dim)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	for r := range rows {
		row := x[r*dim:][:dim]
		switch r % 5 {
		case 1:
			clear(row)
		case 2:
			row[rng.IntN(dim)] = 300 * float32(rng.NormFloat64())
		case 3:
			slotScale.generic()(row, row, 1e-6)
		}
	}
	slotScale.generic()(x[:dim], x[:dim], 1e4)
	return x
}

// testCacheKernels compares the kernels of one type of cache with those for float32
// and the cache converted: bit by bit. Rows end at unmapped memory.
func testCacheKernels[E element](t *testing.T, dims []int, scores scoresFunc[E], mix mixFunc[E], width func(dim int) int, store func(dst []E, src []float32), widen func(dst []float32, src []E)) {
	rng := kerneltest.Rand(t)
	for _, dim := range dims {
		for _, rows := range []int{4, 8, 60, attnBlock} {
			w := width(dim)
			cache, wide := kerneltest.Slice[E](t, rows*w, kerneltest.AtEnd), make([]float32, rows*dim)
			store(cache, cacheRows(rng, rows, dim))
			widen(wide, cache)
			for queries := 1; queries <= directQueries; queries++ {
				t.Run(fmt.Sprintf("dim=%d/rows=%d/queries=%d", dim, rows, queries), func(t *testing.T) {
					q := kerneltest.Normal(t, rng, queries*dim, kerneltest.AtEnd)
					got, want := make([]float32, queries*attnBlock), make([]float32, queries*attnBlock)
					scores(got, cache, rows, q, queries, dim, cache[len(cache)/2:])
					slotTile.active(want, attnBlock, wide, dim, rows, q, dim, queries, dim)
					kerneltest.SameBits(t, "scores", got, want)

					weight := kerneltest.Normal(t, rng, queries*attnBlock, kerneltest.AtEnd)
					acc := kerneltest.Normal(t, rng, queries*dim, kerneltest.AtEnd)
					sum := make([]float32, len(acc))
					n := rows - rng.IntN(3)
					slotWeighted.active(sum, weight, wide, n, queries, dim)
					slotAdd.active(sum, acc, sum)
					mix(acc, weight, cache, n, queries, dim, nil)
					kerneltest.SameBits(t, "mix", acc, sum)
				})
			}
		}
	}
}

func TestCacheKernels(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		t.Run("F16", func(t *testing.T) {
			testCacheKernels(t, []int{16, 64, 80, 96, 128, 256}, slotScoresF16.active, slotMixF16.active, func(dim int) int { return dim }, f32ToF16Generic, f16ToF32Generic)
		})
		t.Run("Q8_0", func(t *testing.T) {
			testCacheKernels(t, []int{32, 64, 96, 128, 256}, slotScoresQ8.active, slotMixQ8.active, CacheRowBytes, QuantizeQ8, func(dst []float32, src []byte) {
				if err := quant.Dequantize(tensor.Q8_0, dst, src); err != nil {
					t.Fatal(err)
				}
			})
		})
	})
}

// TestSoftmaxRows wants the bits of scaling, finding the maximum and exponentiating
// one after the other.
func TestSoftmaxRows(t *testing.T) {
	inf := float32(math.Inf(1))
	eachLevel(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		for n := 1; n <= attnBlock; n++ {
			const rows = 6
			x := kerneltest.Normal(t, rng, (rows-1)*attnBlock+n, kerneltest.AtEnd)
			for i := range n {
				x[i] = -inf
				x[attnBlock+i] *= 1000
			}
			x[2*attnBlock+rng.IntN(n)] = float32(math.NaN())
			x[3*attnBlock+rng.IntN(n)] = inf
			top := []float32{-inf, -inf, 0.5, 1, -100, 3}
			want, wantTop, sum, wantSum := append([]float32{}, x...), append([]float32{}, top...), make([]float32, rows), make([]float32, rows)
			for r := range rows {
				row := want[r*attnBlock:][:n]
				slotScale.active(row, row, 0.125)
				wantTop[r] = max(top[r], slotMax.active(row))
				wantSum[r] = slotExpSub.active(row, finiteMax(wantTop[r]))
			}
			slotSoftmaxRows.active(x, rows, n, 0.125, top, sum)
			kerneltest.SameBits(t, fmt.Sprintf("weights of %d", n), x, want)
			kerneltest.SameBits(t, fmt.Sprintf("maxima of %d", n), top, wantTop)
			kerneltest.SameBits(t, fmt.Sprintf("sums of %d", n), sum, wantSum)
		}
	})
}

// TestAttentionChunks has the chunks of a job computed in any order and by several
// workers and wants the bits of the whole.
func TestAttentionChunks(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, c := range attnCases {
			t.Run(c.name, func(t *testing.T) {
				rng := kerneltest.Rand(t)
				j, _, _ := c.job(t, rng)
				shared := j.Chunks()
				if tooMany := c.tokens*c.group > attnQueries; tooMany != (shared == 1) && c.first >= AttentionChunk && c.window == 0 {
					t.Fatalf("%d chunks", shared)
				}
				if shared == 1 {
					return
				}
				var ws AttentionWorkspace
				Attention(j, &ws)
				whole := append([]float32{}, j.Out...)
				clear(j.Out)
				var parts AttentionParts
				parts.Prepare(j)
				var workers sync.WaitGroup
				for _, chunk := range rng.Perm(shared) {
					workers.Go(func() { AttentionChunks(j, chunk, chunk+1, &parts, new(AttentionWorkspace)) })
				}
				workers.Wait()
				MergeAttention(j, &parts, new(AttentionWorkspace))
				kerneltest.SameBits(t, "chunk by chunk", j.Out, whole)
			})
		}
	})
}

// TestAttentionExtremes has keys and values with outliers, zeros and huge rows, so that
// the maximum rises late, one position takes all, or most weigh nothing.
func TestAttentionExtremes(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, q8 := range []bool{false, true} {
			t.Run(fmt.Sprint("q8=", q8), func(t *testing.T) {
				rng := kerneltest.Rand(t)
				c := attnCase{dim: 64, group: 7, first: 700, tokens: 1, half: !q8, q8: q8}
				j, k, v := c.job(t, rng)
				copy(k, cacheRows(rng, c.first+1, c.dim))
				copy(v, cacheRows(rng, c.first+1, c.dim))
				for i := range k[:c.dim] { // the huge row is the last
					k[i], k[c.first*c.dim+i] = k[c.first*c.dim+i], k[i]/1e3
				}
				for _, x := range []struct {
					halves []uint16
					blocks []byte
					values []float32
				}{{j.K16, j.K8, k}, {j.V16, j.V8, v}} {
					if q8 {
						QuantizeQ8(x.blocks, x.values)
						if err := quant.Dequantize(tensor.Q8_0, x.values, x.blocks); err != nil {
							t.Fatal(err)
						}
						continue
					}
					f32ToF16Generic(x.halves, x.values)
					f16ToF32Generic(x.values, x.halves)
				}
				Attention(j, new(AttentionWorkspace))
				want := attention64(j, k, v)
				var diff, size float64
				for i, w := range want {
					diff += (float64(j.Out[i]) - w) * (float64(j.Out[i]) - w)
					size += w * w
				}
				// Scores of some tens to hundreds carry a few millionths, which exp passes on.
				if rel := math.Sqrt(diff / size); !(rel <= 1e-5) {
					t.Errorf("relative error %.3g, allowed 1e-5", rel)
				} else {
					t.Logf("relative error %.3g", rel)
				}
			})
		}
	})
}
