package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/kernel/kerneltest"
)

// q8Cases are attnCases in integers, with what only matters there: groups of all sizes,
// more queries than go into one pass, and rows behind the last pair.
var q8Cases = []attnCase{
	{name: "one position", dim: 64, group: 7, tokens: 1},
	{name: "decode", dim: 128, group: 6, first: 301, tokens: 1},
	{name: "few tokens", dim: 128, group: 6, first: 700, tokens: 4},
	{name: "many tokens", dim: 64, group: 2, first: 60, tokens: 37},
	{name: "chunks", dim: 96, group: 4, first: 1100, tokens: 2},
	{name: "window", dim: 32, group: 5, first: 700, tokens: 3, window: 301},
	{name: "softcap", dim: 256, group: 8, first: 90, tokens: 1, softcap: 30},
	{name: "one head", dim: 128, group: 1, first: 66, tokens: 2},
	{name: "two heads", dim: 64, group: 2, first: 1030, tokens: 1},
	{name: "three heads", dim: 128, group: 3, first: 95, tokens: 1},
	{name: "many heads", dim: 64, group: 71, first: 100, tokens: 2},
	{name: "long", dim: 128, group: 6, first: 5000, tokens: 1},
}

// q8Levels runs a test where there are kernels for integers.
func q8Levels(t *testing.T, run func(t *testing.T)) {
	eachLevel(t, func(t *testing.T) {
		if slotQ8Scores.level == cpufeat.Generic {
			t.Skip("there are no kernels for integers")
		}
		run(t)
	})
}

func eachQ8Case(t *testing.T, run func(t *testing.T, c attnCase, j *AttentionJob, k, v []float32)) {
	q8Levels(t, func(t *testing.T) {
		for _, c := range q8Cases {
			c.q8 = true
			t.Run(c.name, func(t *testing.T) {
				j, k, v := c.job(t, kerneltest.Rand(t))
				j.Integers = true
				run(t, c, j, k, v)
			})
		}
	})
}

// TestAttentionIntegers compares with the definition, within what the rounding of queries
// and weights can do.
func TestAttentionIntegers(t *testing.T) {
	eachQ8Case(t, func(t *testing.T, c attnCase, j *AttentionJob, k, v []float32) {
		Attention(j, new(AttentionWorkspace))
		checkRounded(t, j, k, v)
	})
}

func checkRounded(t *testing.T, j *AttentionJob, k, v []float32) {
	t.Helper()
	want, bound := attention64(j, k, v), roundedBound(j, k, v)
	var diff, size, used float64
	for i, w := range want {
		d := math.Abs(float64(j.Out[i]) - w)
		if !(d <= bound[i]) {
			t.Fatalf("element %d is %v, want %v within %.3g", i, j.Out[i], w, bound[i])
		}
		if bound[i] > 0 {
			used = max(used, d/bound[i])
		}
		diff, size = diff+d*d, size+w*w
	}
	t.Logf("%.3f of the bound, relative error %.3g", used, math.Sqrt(diff/size))
}

// roundedBound is how far each result may be from the definition. A number of a query's
// block is rounded by at most half its scale, max|q|/32639, so with the softmax scale S the
// score of position p is wrong by at most
//
//	e_p = S·Σ_i |k_pi|·(max|q_block|/65278) + 2^-24·(3·blocks+1)·S·Σ_i |q_i·k_pi|,
//
// the second for float32, three roundings for each block. With e the largest of them,
// probabilities are right to a factor of exp(±2e). Weights times the scale of a block of
// values are then rounded by at most half of their largest in a block of positions, divided
// by 32767, and multiply bytes. In float32 there are two more roundings for each block of
// positions, two for each chunk, and some 16 for exponential, sum and quotient, of terms no
// larger than Σ_p probability·|v_p|.
func roundedBound(j *AttentionJob, k, v []float32) []float64 {
	dim, blocks := j.HeadDim, j.HeadDim/q8Len
	bound := make([]float64, len(j.Starts)*j.OutStride)
	for t := range j.Starts {
		for g := range j.Group {
			q, start, end := j.Q[t*j.QStride+g*dim:][:dim], j.Starts[t], j.Ends[t]
			half := make([]float64, blocks)
			for i, x := range q {
				half[i/q8Len] = max(half[i/q8Len], math.Abs(float64(x))/(2*q8MostQuery))
			}
			p, top, sum, e := make([]float64, end-start), math.Inf(-1), 0.0, 0.0
			for at := range p {
				row, score, wrong, size := k[(start+at)*dim:], 0.0, 0.0, 0.0
				for i, x := range q {
					product := float64(x) * float64(row[i])
					score, size = score+product, size+math.Abs(product)
					wrong += math.Abs(float64(row[i])) * half[i/q8Len]
				}
				e = max(e, float64(j.Scale)*(wrong+0x1p-24*float64(3*blocks+1)*size))
				p[at] = score * float64(j.Scale)
				if j.SoftCap != 0 {
					p[at] = float64(j.SoftCap) * math.Tanh(p[at]/float64(j.SoftCap))
				}
				top = max(top, p[at])
			}
			for at := range p {
				p[at] = math.Exp(p[at] - top)
				sum += p[at]
			}
			factor := math.Exp(2 * e)
			floats := 0x1p-24 * float64(2*(len(p)/attnBlock+2)+2*(len(p)/AttentionChunk+2)+16)
			out := bound[t*j.OutStride+g*dim:][:dim]
			for from := start; from < end; {
				to := min((from/attnBlock+1)*attnBlock, end)
				for b := range blocks {
					largest := 0.0
					for at := from; at < to; at++ {
						largest = max(largest, p[at-start]/sum*factor*float64(q8Scale(j.V8[(at*blocks+b)*q8Bytes:])))
					}
					for at := from; at < to; at++ {
						block := j.V8[(at*blocks+b)*q8Bytes:][:q8Bytes]
						for i, n := range block[2:] {
							x := math.Abs(float64(v[at*dim+b*q8Len+i]))
							out[b*q8Len+i] += largest/(2*q8MostWeight)*math.Abs(float64(int8(n))) + (factor-1+floats*factor)*p[at-start]/sum*x
						}
					}
				}
				from = to
			}
		}
	}
	return bound
}

// plainQ8 has the kernels for integers run in plain Go until the test ends.
func plainQ8(t *testing.T) {
	q, s, w, m := slotQ8RoundQueries.active, slotQ8Scores.active, slotQ8RoundWeights.active, slotQ8Mix.active
	t.Cleanup(func() {
		slotQ8RoundQueries.active, slotQ8Scores.active, slotQ8RoundWeights.active, slotQ8Mix.active = q, s, w, m
	})
	slotQ8RoundQueries.active, slotQ8Scores.active = q8RoundQueriesGeneric, q8ScoresGeneric
	slotQ8RoundWeights.active, slotQ8Mix.active = q8RoundWeightsGeneric, q8MixGeneric
}

// TestAttentionIntegersPlain compares with plain Go that rounds in the same way, whose
// float32 sums may round twice where a fused multiply-add rounds once.
func TestAttentionIntegersPlain(t *testing.T) {
	eachQ8Case(t, func(t *testing.T, c attnCase, j *AttentionJob, k, v []float32) {
		Attention(j, new(AttentionWorkspace))
		got := append([]float32{}, j.Out...)
		plainQ8(t)
		Attention(j, new(AttentionWorkspace))
		if err := compareResults(got, j.Out, 1e-6); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAttentionIntegersPartition wants the bits of the whole for each token and each head
// by itself, and chunk by chunk.
func TestAttentionIntegersPartition(t *testing.T) {
	eachQ8Case(t, func(t *testing.T, c attnCase, j *AttentionJob, k, v []float32) {
		var ws AttentionWorkspace
		Attention(j, &ws)
		whole := append([]float32{}, j.Out...)
		for i := range c.tokens {
			one := *j
			one.Q, one.Out = j.Q[i*j.QStride:], j.Out[i*j.OutStride:]
			one.Starts, one.Ends = j.Starts[i:i+1], j.Ends[i:i+1]
			Attention(&one, &ws)
		}
		kerneltest.SameBits(t, "token by token", j.Out, whole)
		for g := range c.group {
			one := *j
			one.Q, one.Out, one.Group = j.Q[g*c.dim:], j.Out[g*c.dim:], 1
			Attention(&one, &ws)
		}
		kerneltest.SameBits(t, "head by head", j.Out, whole)
		if j.Chunks() == 1 {
			return
		}
		clear(j.Out)
		var parts AttentionParts
		parts.Prepare(j)
		for chunk := range j.Chunks() {
			AttentionChunks(j, chunk, chunk+1, &parts, &ws)
		}
		MergeAttention(j, &parts, &ws)
		kerneltest.SameBits(t, "chunk by chunk", j.Out, whole)
	})
}

// TestAttentionIntegersExtremes has outliers, zeros, tiny and huge rows among keys and
// values, and outliers in queries.
func TestAttentionIntegersExtremes(t *testing.T) {
	q8Levels(t, func(t *testing.T) {
		for _, dim := range []int{64, 128} {
			rng := kerneltest.Rand(t)
			j, k, v := attnCase{dim: dim, group: 7, first: 700, tokens: 1, q8: true}.job(t, rng)
			j.Integers = true
			for _, x := range []struct {
				blocks []byte
				values []float32
			}{{j.K8, k}, {j.V8, v}} {
				copy(x.values, cacheRows(rng, len(x.values)/dim, dim))
				for i := range x.values[:dim] { // a huge row would take all
					x.values[i] /= 1e3
				}
				QuantizeQ8(x.blocks, x.values)
				rows := q8Rows(x.blocks, len(x.values))
				copy(x.values, rows.x)
				rows.free()
			}
			for i := range j.Q {
				switch {
				case i%dim == 5:
					j.Q[i] *= 50
				case i < q8Len:
					j.Q[i] = 0
				case i >= dim && i < dim+q8Len:
					j.Q[i] *= 1e-3
				}
			}
			Attention(j, new(AttentionWorkspace))
			checkRounded(t, j, k, v)
		}
	})
}

// TestAttentionIntegersNaN has blocks that are no number: keys spoil the tokens that see
// them, values their columns.
func TestAttentionIntegersNaN(t *testing.T) {
	q8Levels(t, func(t *testing.T) {
		for _, inKey := range []bool{true, false} {
			for _, pos := range []int{0, 33, 63, 64, 90} {
				c := attnCase{dim: 64, group: 3, first: 60, tokens: 32, window: 41, q8: true}
				j, _, _ := c.job(t, kerneltest.Rand(t))
				j.Integers = true
				cache := j.V8
				if inKey {
					cache = j.K8
				}
				nan := make([]float32, q8Len)
				nan[7] = float32(math.NaN())
				QuantizeQ8(cache[(pos*2+1)*q8Bytes:], nan)
				Attention(j, new(AttentionWorkspace))
				for i, x := range j.Out {
					tok := i / j.OutStride
					sees := pos >= j.Starts[tok] && pos < j.Ends[tok] && (inKey || i%c.dim >= q8Len)
					if isNaN := x != x; isNaN != sees {
						t.Fatalf("key %v, position %d: token %d, element %d is %v; sees the NaN: %v", inKey, pos, tok, i%j.OutStride, x, sees)
					}
				}
			}
		}
	})
}

// TestQ8Kernels compares each kernel with plain Go. Rows, queries and results end at
// unmapped memory.
func TestQ8Kernels(t *testing.T) {
	q8Levels(t, func(t *testing.T) {
		rng := kerneltest.Rand(t)
		for _, blocks := range []int{1, 2, 3, 4, 8} {
			for queries := 1; queries <= directQueries; queries++ {
				t.Run(fmt.Sprintf("blocks=%d/queries=%d", blocks, queries), func(t *testing.T) { testQ8Kernels(t, rng, queries, blocks) })
			}
		}
	})
}

func testQ8Kernels(t *testing.T, rng *rand.Rand, queries, blocks int) {
	dim, size := blocks*q8Len, blocks*queries*q8QueryWords
	q := kerneltest.Normal(t, rng, queries*dim, kerneltest.AtEnd)
	q[0], q[dim-1] = 300, 1e-30 // an outlier, and what is rounded to nothing
	if blocks > 1 {
		clear(q[q8Len : 2*q8Len])
	}
	rounded, want := kerneltest.Slice[int32](t, size, kerneltest.AtEnd), make([]int32, size)
	slotQ8RoundQueries.active(rounded, q, queries, blocks)
	q8RoundQueriesGeneric(want, q, queries, blocks)
	for i := range want {
		if rounded[i] != want[i] {
			t.Fatalf("word %d of queries is %x, want %x", i, rounded[i], want[i])
		}
	}
	testQ8Softmax(t, rng, queries, blocks)
	for _, rows := range []int{q8RowsTogether, attnBlock} {
		cache := kerneltest.Slice[byte](t, rows*blocks*q8Bytes, kerneltest.AtEnd)
		QuantizeQ8(cache, cacheRows(rng, rows, dim))
		got, plain := kerneltest.Slice[float32](t, (queries-1)*attnBlock+rows, kerneltest.AtEnd), make([]float32, queries*attnBlock)
		slotQ8Scores.active(got, cache, rows, rounded, queries, blocks, cache[len(cache)/2:])
		q8ScoresGeneric(plain, cache, rows, rounded, queries, blocks, nil)
		if err := compareResults(got, plain[:len(got)], fewULP); err != nil {
			t.Fatalf("scores: %v", err)
		}
		if rows == attnBlock {
			testQ8Values(t, rng, cache, queries, blocks)
		}
	}
}

// testQ8Softmax has scores that are masked, that are no number, and a row of only masked ones.
func testQ8Softmax(t *testing.T, rng *rand.Rand, queries, blocks int) {
	const scale = 0.3
	x := kerneltest.Normal(t, rng, blocks*queries*attnBlock, kerneltest.AtEnd)
	for i := range x {
		x[i] *= 20
	}
	x[3], x[5] = negInf, float32(math.NaN())
	if queries > 1 {
		for b := range blocks {
			for p := range attnBlock {
				x[(b*queries+1)*attnBlock+p] = negInf
			}
		}
	}
	top, want := kerneltest.Slice[float32](t, queries, kerneltest.AtEnd), make([]float32, queries)
	for q := range top {
		top[q], want[q] = negInf, negInf
	}
	slotQ8Tops.active(top, x, blocks, queries, scale)
	q8TopsGeneric(want, x, blocks, queries, scale)
	kerneltest.SameBits(t, "tops", top, want)
	base, sum, wantSum := kerneltest.Slice[float32](t, queries, kerneltest.AtEnd), kerneltest.Slice[float32](t, queries, kerneltest.AtEnd), make([]float32, queries)
	for q := range base {
		base[q], sum[q], wantSum[q] = finiteMax(top[q])*math.Log2E, 1, 1
	}
	weights := append([]float32{}, x[:queries*attnBlock]...)
	slotQ8Exps.active(x, sum, base, scale*math.Log2E, queries)
	q8ExpsGeneric(weights, wantSum, base, scale*math.Log2E, queries)
	for q := range queries { // each by itself, as results are compared with the largest
		row := x[q*attnBlock:][:attnBlock]
		if err := compareResults(row, weights[q*attnBlock:][:attnBlock], 2*fewULP); err != nil { // scores of up to 80
			t.Fatalf("weights of query %d: %v", q, err)
		}
		if err := compareResults(sum[q:q+1], wantSum[q:q+1], 2*fewULP); err != nil {
			t.Fatalf("sum of query %d: %v", q, err)
		}
	}
}

func testQ8Values(t *testing.T, rng *rand.Rand, rows []byte, queries, blocks int) {
	weight := kerneltest.Slice[float32](t, queries*attnBlock, kerneltest.AtEnd)
	for i := range weight {
		weight[i] = float32(math.Exp(-10 * rng.Float64()))
	}
	if queries > 1 {
		clear(weight[:attnBlock])
		clear(weight[attnBlock : 2*attnBlock])
		weight[attnBlock] = 1e-38
	}
	at := blocks * queries
	w, step := kerneltest.Slice[int16](t, at*attnBlock, kerneltest.AtEnd), kerneltest.Slice[float32](t, at, kerneltest.AtEnd)
	want, wantStep := make([]int16, at*attnBlock), make([]float32, at)
	slotQ8RoundWeights.active(w, step, weight, rows, newQ8Room(blocks), queries, blocks)
	q8RoundWeightsGeneric(want, wantStep, weight, rows, nil, queries, blocks)
	kerneltest.SameBits(t, "steps", step, wantStep)
	for i := range want {
		if w[i] != want[i] {
			t.Fatalf("weight %d is %d, want %d", i, w[i], want[i])
		}
	}
	for _, n := range []int{2, 38, attnBlock} {
		end := rows[len(rows)-n*blocks*q8Bytes:] // at unmapped memory
		acc := kerneltest.Normal(t, rng, queries*blocks*q8Len, kerneltest.AtEnd)
		sum := append([]float32{}, acc...)
		slotQ8Mix.active(acc, w, step, end, n, queries, blocks, nil)
		q8MixGeneric(sum, w, step, end, n, queries, blocks, nil)
		if err := compareResults(acc, sum, fewULP); err != nil {
			t.Fatalf("mix of %d: %v", n, err)
		}
	}
}
