package kernel

import "math"

// The self-tests of the kernels in integers cover every number of queries, with heads of
// two blocks; one length of the usual ones is enough.
func init() {
	const blocks = 2
	registerQ8Check(slotQ8RoundQueries, exact, func(f func(dst []int32, q []float32, queries, blocks int), r *selfTestRNG) []float32 {
		return q8Integers(selfTestQ8Queries(f, r, directQueries, blocks))
	})
	registerQ8Check(slotQ8Scores, fewULP, func(f q8ScoresFunc, r *selfTestRNG) []float32 {
		k := selfTestQ8(r.floats(q8RowsTogether * blocks * q8Len))
		return selfTestGroups(func(queries int) []float32 {
			scores := make([]float32, queries*attnBlock)
			f(scores, k, q8RowsTogether, selfTestQ8Queries(q8RoundQueriesGeneric, r, queries, blocks), queries, blocks, nil)
			return scores
		})
	})
	registerQ8Check(slotQ8Tops, exact, func(f func(top, scores []float32, blocks, queries int, scale float32), r *selfTestRNG) []float32 {
		return selfTestGroups(func(queries int) []float32 {
			top := r.floats(queries)
			f(top, r.floats(blocks*queries*attnBlock), blocks, queries, 0.75)
			return top
		})
	})
	registerQ8Check(slotQ8Exps, fewULP, func(f func(x, sum, base []float32, factor float32, queries int), r *selfTestRNG) []float32 {
		return selfTestGroups(func(queries int) []float32 {
			x, sum, base := r.floats(queries*attnBlock), make([]float32, queries), r.floats(queries)
			for q := range base {
				base[q] += 8 // as the largest exponents do not reach 1
			}
			f(x, sum, base, 0.75, queries)
			return append(x, sum...)
		})
	})
	registerQ8Check(slotQ8RoundWeights, exact, func(f q8RoundWeightsFunc, r *selfTestRNG) []float32 {
		v := selfTestQ8(r.floats(attnBlock * blocks * q8Len))
		return selfTestGroups(func(queries int) []float32 {
			w, step := selfTestQ8Weights(f, r, v, queries, blocks)
			return append(q8Integers(w), step...)
		})
	})
	registerQ8Check(slotQ8Mix, fewULP, func(f q8MixFunc, r *selfTestRNG) []float32 {
		v := selfTestQ8(r.floats(attnBlock * blocks * q8Len))
		return selfTestGroups(func(queries int) []float32 {
			w, step := selfTestQ8Weights(q8RoundWeightsGeneric, r, v, queries, blocks)
			acc := r.floats(queries * blocks * q8Len)
			f(acc, w, step, v, 6, queries, blocks, nil)
			return acc
		})
	})
}

// registerQ8Check is registerCheck for one length.
func registerQ8Check[F any](s *slot[F], tol float64, run func(f F, r *selfTestRNG) []float32) {
	registerSelfTest(s.name, func() error {
		a, b := selfTestRNG(1), selfTestRNG(1)
		return compareResults(run(s.active, &a), run(s.generic(), &b), tol)
	})
}

// selfTestGroups joins what run returns for every number of queries.
func selfTestGroups(run func(queries int) []float32) (out []float32) {
	for queries := 1; queries <= directQueries; queries++ {
		out = append(out, run(queries)...)
	}
	return out
}

func selfTestQ8Queries(f func(dst []int32, q []float32, queries, blocks int), r *selfTestRNG, queries, blocks int) []int32 {
	dst := make([]int32, queries*blocks*q8QueryWords)
	f(dst, r.floats(queries*blocks*q8Len), queries, blocks)
	return dst
}

func selfTestQ8Weights(f q8RoundWeightsFunc, r *selfTestRNG, v []byte, queries, blocks int) (w []int16, step []float32) {
	weight := r.floats(queries * attnBlock)
	for i, x := range weight {
		weight[i] = float32(math.Abs(float64(x)))
	}
	w, step = make([]int16, queries*blocks*attnBlock), make([]float32, queries*blocks)
	f(w, step, weight, v, newQ8Room(blocks), queries, blocks)
	return w, step
}

// q8Integers has the two halves of integers as numbers that can be compared.
func q8Integers[T int16 | int32](x []T) []float32 {
	out := make([]float32, 0, 2*len(x))
	for _, v := range x {
		out = append(out, float32(int32(v)>>16), float32(uint16(v)))
	}
	return out
}
